// SPDX-License-Identifier: AGPL-3.0-or-later

// Package fleet decides. It is the state machine of one fleet: slots, floor,
// spares, deadlines, restarts, readiness and the end of it all.
//
// [Fleet.Decide] takes the time and one [Event] and answers with [Action]s. It
// makes no system call, reads no clock, starts no goroutine and logs nothing:
// the same fleet and the same event give the same actions. Package supervisor
// turns the world into events and carries the actions out. What a fleet is told
// to be, and what is decided without one, is package policy.
//
// A process has one identity from the request that makes it until it has been
// reaped: its [Proc]. A slot, a spare and a floor hold at most one each.
//
//	waiting --due--> starting --running--> ready
//	   ^               |   |                 |
//	   |            timeout, stop          stop
//	   |               v   v                 v
//	   +--- exit --- stopping --deadline--> killing
//	   |
//	   +--- exited (finished, will not restart), failed (gave up; says why)
//
// A fleet becomes another by a change ([Propose]): what differs is a [policy.Plan], and
// slots are moved from one revision to the other, each by a successor that is proven
// first. A slot that is recycled is a change of its own, of one slot, which gives way to
// all others.
//
// A fleet starts, serves and stops. In between it may drain: it serves on, and is known to
// stop. It also ends with a slot that is vital, and when nothing is left to run.
//
// A deadline is a field of what it belongs to. Decide moves every deadline that
// has passed, so that [Fleet.Deadline] lies ahead after each call.
package fleet
