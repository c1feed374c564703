// SPDX-License-Identifier: AGPL-3.0-or-later

// Package policy is what a fleet is told to be, and the tables that decide without a fleet.
//
//	config.go  a fleet, its workers, how they are rolled and recycled
//	policy.go  how a worker is started, restarted and stopped: systemd's table
//	exit.go    how a process has ended, and the result of that
//	plan.go    what is to be done to make of one fleet another
//	time.go    points in time, and spans as an operator reads them
//
// It is as pure as package fleet, which keeps the slots that this is decided of: no clock,
// no system call, no goroutine, and no state. The words are systemd's where systemd has one.
package policy
