// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
)

// Watch waits for a connection to a worker on demand, at these sockets. One that several
// workers have is polled once. If one cannot be watched, none is.
func (s *Sockets) Watch(worker fleet.WorkerID, at []Socket) error {
	for _, socket := range at {
		if len(s.watchers[socket.FD]) == 0 {
			if err := s.source.Add(socket.FD, uint64(socket.FD)); err != nil {
				s.Unwatch(worker)
				return err
			}
		}
		s.watchers[socket.FD] = append(s.watchers[socket.FD], worker)
	}
	return nil
}

// Unwatch waits for no connection to that worker any more.
func (s *Sockets) Unwatch(worker fleet.WorkerID) {
	for fd, workers := range s.watchers {
		workers = slices.DeleteFunc(workers, func(w fleet.WorkerID) bool { return w == worker })
		if len(workers) > 0 {
			s.watchers[fd] = workers
			continue
		}
		// Systemd and workers hold the same open file, so that it would stay
		// polled even if it were closed here.
		_ = s.source.Remove(fd) // the poller has it: this cannot fail
		delete(s.watchers, fd)
	}
}

// Waits tells each worker that watches a socket that a connection waits there, once.
func (s *Sockets) Waits(fd int) (events []fleet.Event) {
	for _, worker := range slices.Clone(s.watchers[fd]) {
		s.Unwatch(worker)
		events = append(events, fleet.Demand{Worker: worker})
	}
	return events
}

// Watching are the workers that wait for a connection.
func (s *Sockets) Watching() []fleet.WorkerID {
	var all []fleet.WorkerID
	for _, workers := range s.watchers {
		all = append(all, workers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Poll reports whether a connection waits at one of these sockets now.
func Poll(at []Socket) bool {
	var polled []unix.PollFd
	for _, socket := range at {
		polled = append(polled, unix.PollFd{Fd: int32(socket.FD), Events: unix.POLLIN})
	}
	for {
		n, err := unix.Poll(polled, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
