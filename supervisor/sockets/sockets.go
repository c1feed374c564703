// SPDX-License-Identifier: AGPL-3.0-or-later

// Package sockets has the listening sockets of a fleet: those that systemd passed, and
// those that are bound here because it did not. Workers get copies of the descriptors;
// the master accepts from none, and looks only whether a connection waits for a worker
// that is started on demand.
//
// They are plain descriptors: nothing about an open file description is changed after it
// was taken or bound, since systemd and all workers share it. A net.Listener would
// change O_NONBLOCK for them all.
package sockets

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/output"
)

// Socket is one socket that is handed down to workers.
type Socket struct {
	FD   int // stays of the room
	Name string
}

// Sockets are those of a fleet. Only the loop calls its methods.
type Sockets struct {
	byName map[string][]Socket // each in the order of its addresses
	paths  []string            // socket files that were made here and go with the fleet

	source   poll.Source
	watchers map[int][]fleet.WorkerID // by descriptor: the workers that wait for it
}

// Open takes what systemd passed (sd_listen_fds(3)), which is its own from then on: it
// closes what the file does not know, and binds what is missing. The source reports
// watched sockets by their descriptors. Who opened the sockets closes them. An error
// names the key of the file and the remedy; nothing is left open or bound then.
func Open(file *fleetfile.File, passed []sdnotify.Activated, managed bool, log *output.Log, source poll.Source) (*Sockets, error) {
	s := &Sockets{byName: map[string][]Socket{}, source: source, watchers: map[int][]fleet.WorkerID{}}
	s.take(file, passed, log)
	for i := range file.Sockets {
		if err := s.open(file, &file.Sockets[i], managed, log); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// take sorts what systemd passed by name.
func (s *Sockets) take(file *fleetfile.File, passed []sdnotify.Activated, log *output.Log) {
	for _, a := range passed {
		if !slices.ContainsFunc(file.Sockets, func(c fleetfile.Socket) bool { return c.Name == a.Name }) {
			log.Warn(fmt.Sprintf("systemd passed a socket named %q, which %s does not declare; closed: "+
				"add [socket.%s] or correct FileDescriptorName=", a.Name, file.Path, a.Name))
			_ = unix.Close(a.FD) // not wanted
			continue
		}
		s.byName[a.Name] = append(s.byName[a.Name], Socket{FD: a.FD, Name: a.Name})
	}
}

// open checks what was passed for one [socket.*] table, or binds it.
func (s *Sockets) open(file *fleetfile.File, config *fleetfile.Socket, managed bool, log *output.Log) error {
	if passed := s.byName[config.Name]; passed != nil {
		return checkPassed(log, config, passed)
	}
	if managed {
		log.Warn(fmt.Sprintf("socket %s: systemd did not pass it, so it is bound here and connections are refused while this service restarts; "+
			"a socket unit with FileDescriptorName=%s and Service=prefork@%s.service keeps them (systemctl start prefork-%s:%s.socket)",
			config.Name, config.Name, file.Name, file.Name, config.Name))
	}
	if err := s.bind(config); err != nil {
		return fmt.Errorf("%s: %w", file.Path, err)
	}
	return nil
}

// bind makes the sockets of one [socket.*] table.
func (s *Sockets) bind(config *fleetfile.Socket) error {
	for _, a := range config.Listen {
		fd, err := bindOne(config, a)
		if err != nil {
			return fmt.Errorf("socket.%s.listen: %s: %w; %s", config.Name, a.Text, err, remedy(err))
		}
		s.byName[config.Name] = append(s.byName[config.Name], Socket{FD: fd, Name: config.Name})
		if strings.HasPrefix(a.Unix, "/") {
			s.paths = append(s.paths, a.Unix)
		}
	}
	return nil
}

// Of returns the sockets of a worker in the order in which it names them.
func (s *Sockets) Of(names []string) (all []Socket) {
	for _, name := range names {
		all = append(all, s.byName[name]...)
	}
	return all
}

// Close closes all and removes the socket files that were made here.
func (s *Sockets) Close() {
	for _, of := range s.byName {
		for _, socket := range of {
			_ = unix.Close(socket.FD) // nothing was written
		}
	}
	for _, path := range s.paths {
		_ = unix.Unlink(path) // another fleet may have replaced it already
	}
	*s = Sockets{}
}
