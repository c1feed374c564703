// SPDX-License-Identifier: AGPL-3.0-or-later

// Package control is how an operator sees a fleet that runs, and steers it: a D-Bus
// object that the master offers on a Unix socket of its own and, under systemd, on
// the system bus; and the client of it.
//
//	/                                      org.freedesktop.DBus.ObjectManager
//	/io/github/decnet/Prefork1             the fleet: io.github.decnet.Prefork1
//	/io/github/decnet/Prefork1/slot/web_2e0
//	                                       web.0: io.github.decnet.Prefork1.Slot
//
// No bus is needed, and any D-Bus client will do:
//
//	busctl --address=unix:path=/run/prefork/demo/control tree
//
// The socket is a bus of one: it answers Hello, and every name stands for the
// fleet. On the system bus each fleet has a name of its own ([BusName]), as far as
// the bus's policy lets it:
//
//	busctl tree io.github.decnet.Prefork1.f_demo
//
// What can be called is one closed list (methods in object.go), the same on both; of
// those that change something, the [Backend] says who may. Signals tell what has
// changed (signals.go).
//
// Who connects is known from the kernel (SO_PEERCRED): root, and the uid of the
// master. On the system bus everybody may look, and the bus says who calls. Clients
// are not trusted to read, to write or to be few. Each is served by a goroutine of
// its own, one call at a time, within bounds of size and time; when all places are
// taken, the one that has been silent longest makes room. The loop of the master
// answers, and waits for no client.
package control
