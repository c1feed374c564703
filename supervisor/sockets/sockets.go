// SPDX-License-Identifier: AGPL-3.0-or-later

// Package sockets has the listening sockets of a fleet: those that systemd passed, and
// those that are bound here because it did not. Workers get copies of the descriptors;
// the master accepts from none. It looks whether a connection waits for a worker that is
// started on demand, and how many wait at all.
//
// They are plain descriptors: nothing about an open file description is changed after it
// was taken or bound, since systemd and all workers share it. A net.Listener would
// change O_NONBLOCK for them all.
package sockets

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/output"
)

// Socket is one socket that is handed down to workers.
type Socket struct {
	FD      int // stays of the room
	Name    string
	address string // its own, printable
}

// Sockets are those of a fleet. Only the loop calls its methods.
type Sockets struct {
	log     *output.Log
	managed bool
	passed  map[string][]Socket // by systemd, which listens there as long as it likes
	others  []string            // of those, which the file that was read last wants otherwise
	bound   []*endpoint         // here
	current *Set

	source   poll.Source
	watchers map[int][]fleet.WorkerID // by descriptor: the workers that wait for it

	diag  *linux.UnixDiag // nil: the kernel does not tell of Unix sockets
	asked bool            // whether it does
	door  *doorbell
	vigil vigil
}

// Set has the sockets of one fleet file, each name's in the order of its addresses. What
// two files have in common is one socket.
type Set struct {
	byName  map[string][]Socket
	uses    []*endpoint
	configs []fleetfile.Socket
}

// Open takes what systemd passed (sd_listen_fds(3)), which is its own from then on: it
// closes what the file does not know, and binds what is missing. The source reports
// watched sockets by their descriptors, and arrivals that [Sockets.Arrived] is to be
// called. Who opened the sockets closes them. An error names the key of the file and the
// remedy; nothing is left open or bound then.
func Open(file *fleetfile.File, passed []sdnotify.Activated, managed bool, log *output.Log, source, arrivals poll.Source) (_ *Sockets, err error) {
	s := &Sockets{
		log: log, managed: managed, passed: map[string][]Socket{}, current: &Set{},
		source: source, watchers: map[int][]fleet.WorkerID{},
	}
	s.take(file, passed)
	if s.door, err = newDoorbell(arrivals); err == nil {
		s.current, err = s.Prepare(file)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.attend() // its first look is at once
	return s, nil
}

// take sorts what systemd passed by name.
func (s *Sockets) take(file *fleetfile.File, passed []sdnotify.Activated) {
	for _, a := range passed {
		if !slices.ContainsFunc(file.Sockets, func(c fleetfile.Socket) bool { return c.Name == a.Name }) {
			s.log.Warn(fmt.Sprintf("systemd passed a socket named %q, which %s does not declare; closed: "+
				"add [socket.%s] or correct FileDescriptorName=", a.Name, file.Path, a.Name))
			_ = unix.Close(a.FD) // not wanted
			continue
		}
		s.passed[a.Name] = append(s.passed[a.Name], Socket{FD: a.FD, Name: a.Name, address: addressOf(a.FD)})
	}
}

// Passed are the names of the sockets that systemd passed: they are not bound here.
func (s *Sockets) Passed() (names []string) { return slices.Sorted(maps.Keys(s.passed)) }

// Outdated are the names of sockets for which systemd listens elsewhere than the file says
// that was read last.
func (s *Sockets) Outdated() []string { return s.others }

// Current is the set that is in use.
func (s *Sockets) Current() *Set { return s.current }

// Prepare makes the set of a file: it binds what no other set has. The caller gives it
// back, by [Sockets.Use] or [Sockets.Release]. An error names the key of the file and the
// remedy; nothing more is bound then.
func (s *Sockets) Prepare(file *fleetfile.File) (*Set, error) {
	set := &Set{byName: map[string][]Socket{}, configs: file.Sockets}
	s.others = nil
	for i := range file.Sockets {
		if err := s.open(set, file, &file.Sockets[i]); err != nil {
			s.Release(set)
			return nil, err
		}
	}
	return set, nil
}

// open checks what was passed for one [socket.*] table, or binds it.
func (s *Sockets) open(set *Set, file *fleetfile.File, config *fleetfile.Socket) error {
	if passed := s.passed[config.Name]; passed != nil {
		set.byName[config.Name] = passed
		same, err := checkPassed(s.log, file, config, passed)
		if !same {
			s.others = append(s.others, config.Name)
		}
		return err
	}
	if s.managed && s.current.byName[config.Name] == nil {
		s.log.Warn(fmt.Sprintf("socket %s: systemd did not pass it, so it is bound here and connections are refused while this service restarts; "+
			"a socket unit with FileDescriptorName=%s and Service=prefork@%s.service keeps them (systemctl start prefork-%s:%s.socket)",
			config.Name, config.Name, file.Name, file.Name, config.Name))
	}
	if err := s.bind(set, config); err != nil {
		return fmt.Errorf("%s: %w", fleetfile.PlaceOf(file.Path, "socket."+config.Name+".listen"), err)
	}
	return nil
}

// Use puts a set in the place of the current one, of which it closes what the new one does
// not have. Nothing of it may be watched.
func (s *Sockets) Use(set *Set) {
	if set == s.current {
		return
	}
	old := s.current
	s.current = set
	s.adapt(old)
	s.attend()
	s.Release(old)
}

// Release gives back a set that is not in use.
func (s *Sockets) Release(set *Set) {
	for _, e := range set.uses {
		e.users--
	}
	s.bound = slices.DeleteFunc(s.bound, func(e *endpoint) bool {
		if e.users == 0 {
			e.close()
		}
		return e.users == 0
	})
	set.uses, set.byName = nil, nil // a slot that ends may have it still: the numbers may be others' soon
}

// Of returns the sockets of a worker in the order in which it names them. They are open as
// long as the set is used, or prepared; one that was given back has none.
func (s *Set) Of(names []string) (all []Socket) {
	for _, name := range names {
		all = append(all, s.byName[name]...)
	}
	return all
}

// Close closes all and removes the socket files that were made here.
func (s *Sockets) Close() {
	for _, of := range s.passed {
		for _, socket := range of {
			_ = unix.Close(socket.FD) // nothing was written
		}
	}
	for _, e := range s.bound {
		e.close()
	}
	if s.diag != nil {
		s.diag.Close()
	}
	if s.door != nil {
		s.door.close()
	}
	*s = Sockets{}
}
