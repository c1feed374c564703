// SPDX-License-Identifier: AGPL-3.0-or-later

// Package gate holds what a process does between its birth and the user's
// code: it waits at the gate until the master names it and says go.
//
// Every process of a fleet passes the same gate, whether it was forked from a
// floor (the other end is prefork_zygote) or is the shim that becomes a program (the
// other end is [RunShim]). The gate is one SOCK_SEQPACKET socket pair per
// process. A message is its name and its fields, separated by NUL:
//
//	process                                master
//	   |   hello NUL id                       |   the kernel attaches the sender's
//	   | -----------------------------------> |   credentials (unix(7), SO_PASSCRED);
//	   |                                      |   the id is that of the request
//	   |                                      |   the master opens a pidfd and checks
//	   |                                      |   that this is a child of its own
//	   |   go NUL key=value NUL key=value ... |
//	   | <----------------------------------- |   with descriptors (SCM_RIGHTS)
//	   |                                      |
//	   |   failed NUL status NUL text         |   it cannot become what was asked
//	   | -----------------------------------> |   and exits with that status
//	   |                                      |
//	   x   closes its end                     |   just before the entry is called,
//	                                          |   or by execve(2) (close on exec)
//
// The shim is the master's own child from birth and sends no hello. If the
// master ends, the process reads end of file at its gate and exits: no user
// code has run.
//
// The fields of go are those of [Orders]; see there. Its descriptors come in
// this order: the memfd that holds the fields if they are too many for one
// message (then the message is only "go" NUL "memfd"), one for each of the fields
// stdout and stderr (a pipe, or a journal stream, which may be the same), then one
// for each field listen, then one for each field stored, then, with a field tasks, the
// socket on which the worker is told what to do with them. The orders of a floor
// have no such field and bring two: its command socket and its program (package
// zygote).
//
// A process that is told to be a probe becomes no slot: it runs the program that its
// orders hold, closes its gate when it can be asked, and ends.
//
// A process that has been told to go is not trusted: what it writes to the gate
// is shown to the operator and decides nothing but its own slot.
package gate
