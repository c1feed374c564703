// SPDX-License-Identifier: AGPL-3.0-or-later

// Package systemdtest boots real systemds for tests: each [Machine] is a
// container with a systemd of its own as PID 1, made from a Debian release.
//
//	test process
//	 ├─ guard.sh                  waits for the test process to be done with it
//	 └─ systemd-nspawn            in a mount namespace and a cgroup of its own
//	     └─ systemd (PID 1)       on an overlay of the cached root filesystem
//	         ├─ systemd-journald
//	         └─ prefork@….service
//
// The root filesystems are made by rootfs.sh when they are missing and stay in
// $PREFORK_TESTBED or /var/cache/prefork-testbed. A machine writes only to its
// own upper directory and has a network of its own with nothing but loopback,
// so ports never collide.
//
// Nothing outlives the test process. The guard reads a pipe whose other end the
// test process holds: when that is closed, by the test's cleanup or by the
// kernel after a crash or a SIGKILL, the guard kills what is left in the
// machine's cgroup and removes the cgroup and the directory. The mount needs no
// care, since it exists only in the namespace of systemd-nspawn.
//
// Tests are skipped with TESTBED=0, and where this cannot work: not root, not
// Debian. With CI=true a missing piece fails the test instead.
package systemdtest
