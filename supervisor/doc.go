// SPDX-License-Identifier: AGPL-3.0-or-later

// Package supervisor is the master: it turns the world into events for package
// fleet and carries the decisions out.
//
//	master (this process: child subreaper, one loop, no user code)
//	 ├─ floor        python3, one thread, holds what was loaded once (package zygote)
//	 ├─ web.0        forked from the floor, adopted by the master
//	 ├─ web.1
//	 ├─ sniffer.0    a program, started through the shim (package gate)
//	 ├─ spare        forked, waits at its gate for a name
//	 ├─ probe        forked, lists its floor's objects for somebody, and ends
//	 ├─ prefork-shim waits at its gate to become a program
//	 └─ orphans      what workers left behind, adopted and reaped
//
// One goroutine, the one that called [Run], owns all state and makes every
// fork, wait and signal. It must run on the main thread: a parent-death signal
// belongs to the thread that was the parent. It blocks in one place,
// epoll_wait(2), with the earliest deadline as its timeout. Other goroutines only
// pass things on: signals in, terminal lines out, and to each client of the
// control socket (package control) and of the metrics socket (package metrics)
// what the loop shows of the fleet (package bridge). What could block for long, to close
// a stranger's descriptor or to read an environment file, is done by threads for it
// (package errands).
//
// Who owns which descriptor:
//
//	Process.pidfd    package procs, from the introduction until the process is reaped
//	Birth.Gate       package launch, until the process leaves the gate; the other end
//	                 belongs to the process alone, so that its end is seen
//	Birth.Command    package launch, until the floor is stopped or has ended
//	Birth.Tasks      package launch, until the process has ended: the master only sends
//	pipes            package output, until end of file; one may outlive its process
//	Process.Group    package procs, until nothing is left in it; the process is born
//	                 there, or enters it before any user code runs
//	notify sockets   package slots, until nothing is left of the slot, of which there
//	                 are two while its process is replaced; read at a bounded rate
//	stored           package slots, until the other end hangs up, the slot takes it
//	                 back, or its name is nobody's; each process of the slot gets copies
//	streams          package output, until the end; workers get copies and write,
//	                 the master does not
//	sockets          package sockets, as long as a revision has them (package revisions);
//	                 those of systemd until the end. Workers get copies. They are polled
//	                 for workers on demand, looked at for what waits, never
//	                 accepted from. They are plain descriptors and never a
//	                 net.Listener, which would change O_NONBLOCK for everybody
//	                 who holds the socket
//	control          its own goroutines: one that accepts, one for each client
//	metrics          the same; the only socket that accepts from the network
//
// There is no recover: if the master panics, systemd restarts it, and the
// sockets stay with systemd.
package supervisor
