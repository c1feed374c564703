// SPDX-License-Identifier: AGPL-3.0-or-later

// Package cgroup keeps the processes of a fleet in control groups of their own,
// in the part of the cgroup v2 tree that systemd has delegated to the unit
// (Delegate=, systemd.resource-control(5)):
//
//	prefork@fleet.service    the unit's: systemd's, but for its children
//	├── supervisor           the master
//	├── floor-1              a floor: the interpreter and what it has started
//	├── p-7                  one process that is, or will be, a slot, and all
//	│   └── …                that it starts; it may make groups below
//	└── p-8
//
// Processes are born in their group, so that nothing is charged to another's. The
// attributes of the unit's own group are systemd's and are never written, but for
// cgroup.subtree_control.
//
// Workers may have the uid of the master and so may change what is in their
// group: everything below one is reached by descriptors, without following
// links, and in bounded time.
//
// Nothing here blocks for longer than the kernel needs for a small file. A Tree
// and its Groups belong to one goroutine.
package cgroup
