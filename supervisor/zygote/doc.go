// SPDX-License-Identifier: AGPL-3.0-or-later

// Package zygote holds the program that loads a floor and forks workers from
// it (the Python package prefork_zygote, of which the zygote gets all modules as one),
// the one that runs the tasks of a worker (prefork_tasks, packed in the same way), the
// module that workers import (prefork.py), and the messages between master and zygote. Any
// other program that keeps to prefork-zygote(7) can be the zygote of a floor
// (floor.zygote); it is told by two variables what ours is by its arguments
// ([Environment]), and package conformance tells whether it does keep to it.
//
// The zygote is started by the shim with its end of a SOCK_SEQPACKET socket
// pair and a memfd with the program, above the numbers that workers' sockets will
// have: those are held from execve(2) on, so that nothing that the interpreter loads
// before its first line gets one. The master must have made the pair itself: who made it,
// by SO_PEERCRED, is the parent that a worker waits for before it says hello. The zygote has one thread and is
// blocked in recvmsg(2) whenever it is not loading or forking. A message is its
// name and its fields, separated by NUL:
//
//	master                                     zygote
//	   |   floor NUL key=value NUL ...            |
//	   | ---------------------------------------> |  imports, one after the other
//	   |   progress NUL text                      |
//	   | <--------------------------------------- |  "importing numpy (1 of 3)"
//	   |   loaded NUL protocol NUL most NUL signal|
//	   | <--------------------------------------- |  or: broken NUL text, and exit 1
//	   |                                          |
//	   |   fork NUL id ...  + 1 or 2 descriptors  |  the workers' ends of their gates, and
//	   | ---------------------------------------> |  cgroup.procs of their cgroups.
//	   |                         for each         |  It forks a middle process, which
//	   |                                          |  enters each cgroup and forks, and
//	   |                                          |  ends; each worker, now a child of
//	   |                                          |  the master, says hello at its gate
//	   |                                          |  (package gate)
//	   |   refused NUL id NUL errno NUL text      |
//	   | <--------------------------------------- |  only if there will be no worker
//
// One fork request is outstanding at a time: for as many workers as slots wait, and no
// more than most. The next comes when all of it is answered. A worker acknowledges it,
// never the zygote, so a lost reply cannot leave a process that nobody knows. The
// zygote exits when its end of the socket reads end of file: the exit handlers of
// the floor run then, and in no worker.
//
// A worker is born in its cgroup and never moved (cgroups(7)): what it writes is
// charged there, and moving a process takes milliseconds. The right to write to
// cgroup.procs is that of who opened it, so the floor may be another user's.
// Until the zygote has reaped the middle process, which it does before the
// worker says hello, the cgroup has two.
//
// Each hook of a fork runs once for each worker, as by one os.fork of a program
// without a supervisor; for workers that are forked together those that Python runs
// before a fork, and in the parent, once for all:
//
//	zygote  PyOS_BeforeFork         Python's hooks before
//	        _Fork                   none of C's: only a copy of this process is made
//	middle  write to cgroup.procs, fork
//	                                C's hooks: prepare and parent in the middle,
//	                                child in the worker
//	worker  waits for the middle's end, dup3, setsid, send hello
//	        PyOS_AfterFork_Child    Python's hooks in the child
//	zygote  PyOS_AfterFork_Parent   Python's hooks in the parent
//
// A probe (probe.py) is a worker that gets a program in place of an entry: it lists the
// objects of its floor for who looks for the cause of what workers have written, and ends.
// It calls nothing of the user's.
//
// Between the first line and the hooks of the child nothing gives the interpreter
// lock away, whose state the child has not repaired: all of it is C's functions,
// called by ctypes with the lock held. The worker says hello before the hooks of
// the child run, so that the master knows its pid: one that hangs costs the slot
// that gets this worker its start, by its own timeout, and not the floor its life.
// With threads (threads=allow) the first fork is fork too: a hook of C may wait for
// a thread that the middle does not have. Without ctypes or _Fork (glibc 2.34) it is
// os.fork twice, and hooks run twice.
//
// What strace shows of it is that and nothing else; without hooks, and with a socket
// for the slot, from the request to the entry:
//
//	zygote  recvmsg, stat /proc/self/task, pipe2, stat /proc/self/task, clone, wait4, close
//	middle  set_robust_list, getpid, (write to cgroup.procs, close,) clone, close, exit_group
//	worker  set_robust_list, close, read, close, getppid, getppid, dup3, close, setsid,
//	        sendto hello, gettid, getrandom         CPython's own repairs
//	        socketpair ... close, close             orders rehearsed, see rehearse_orders
//	        open /proc/self/mem, /proc/self/comm    its title as a spare
//	        recvmsg                                 at the gate
//	        dup2, close                             its socket
//	        open /proc/self/mem, /proc/self/comm    its title as a slot
//	        prctl, getppid                          the death signal, in a terminal
//	        close                                   the gate
//
// A worker with tasks calls prefork_tasks in place of an entry:
//
//	policy  when a task is started again: what package fleet decides of slots
//	words   what is said of a task: to the master, and on standard error
//	task    one task: asyncio task, timer, state
//	group   all of them: lifespan, signals, orders, readiness, exit status, watchdog
//
// It decides of its tasks by itself and tells the master, by its notify socket (package
// slots); what an operator wants of a task comes by a socket on which only the master can
// send: verb NUL task NUL why.
//
// The fields of floor are those of [LoadRequest]; what only a zygote in Python needs, our
// module too, is told to ours alone.
//
// What examines a floor (package examine) has a program with more parts,
// [ScratchSource]: no fleet's zygote has them. All else is the same.
package zygote
