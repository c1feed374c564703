// SPDX-License-Identifier: AGPL-3.0-or-later

// Package sdnotify is the master's side of its contract with systemd: what it
// was given at start, and what it reports while it runs.
//
//	systemd                                    this process
//	   |   environment, sockets at fd 3...        |
//	   | ---------------------------------------> |  TakeEnvironment, Listeners
//	   |   READY=1, STATUS=..., WATCHDOG=1        |
//	   | <--------------------------------------- |  Client.Send
//	   |   BARRIER=1 and the end of a pipe        |
//	   | <--------------------------------------- |  Client.Barrier
//	   |   closes that end                        |
//	   | ---------------------------------------> |
//
// [TakeEnvironment] comes first, before anything is started: it removes from
// the process what no child may inherit. The rest works on the value that it
// returns.
//
// Only [Client.Barrier] blocks. A full queue, which is what a stopped or very
// busy manager looks like, is [ErrFull] from [Client.Send]: a supervisor that
// waits for systemd cannot supervise.
//
// Sockets are plain descriptor numbers and stay so. O_NONBLOCK belongs to the
// open file description that systemd and all workers share, and package net
// sets it, as os.File clears it, for all of them at once.
//
// The rules are those of sd_notify(3), sd_listen_fds(3) and
// sd_watchdog_enabled(3); where a comment says "systemd does", the manager
// enforces more than these pages tell.
package sdnotify
