// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"golang.org/x/sys/unix"
)

// The sets of capabilities belong to a thread, and execve(2) takes those of its
// caller: what follows must run on the thread that executes.

// keepCapabilities lets the permitted set outlive the change of user, so that
// there is something to raise after it; execve(2) ends it
// (PR_SET_KEEPCAPS(2const)).
func (o *Orders) keepCapabilities() error {
	if len(o.Ambient) == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return refuse(ExitCapabilities, "prctl PR_SET_KEEPCAPS: %v", err)
	}
	return nil
}

// setAmbient makes the inheritable and the ambient set exactly what is ordered.
// Those of the master, which its unit may have given it, are not the program's.
func (o *Orders) setAmbient() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return refuse(ExitCapabilities, "prctl PR_CAP_AMBIENT_CLEAR_ALL: %v", err)
	}
	if err := o.setInheritable(); err != nil {
		return err
	}
	for _, number := range o.Ambient {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(number), 0, 0); err != nil {
			return refuse(ExitCapabilities, "ambient capability %d: prctl PR_CAP_AMBIENT_RAISE: %v", number, err)
		}
	}
	return nil
}

// setInheritable comes before the ambient set: the kernel raises nothing that is
// not both permitted and inheritable.
func (o *Orders) setInheritable() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // the lower and the upper 32 capabilities
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return refuse(ExitCapabilities, "capget: %v", err)
	}
	wanted := sets
	wanted[0].Inheritable, wanted[1].Inheritable = 0, 0
	for _, number := range o.Ambient {
		set, bit := &wanted[number/32], uint32(1)<<(number%32)
		if set.Permitted&bit == 0 {
			return refuse(ExitCapabilities, "ambient capability %d: the master does not have it", number)
		}
		set.Inheritable |= bit
	}
	if wanted == sets {
		return nil
	}
	if err := unix.Capset(&header, &wanted[0]); err != nil {
		return refuse(ExitCapabilities, "inheritable capabilities %v: capset: %v", o.Ambient, err)
	}
	return nil
}
