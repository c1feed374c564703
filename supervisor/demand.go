// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll"
)

// demands watches listening sockets for workers that are started on demand. It
// never accepts. A socket that several workers have is polled once.
type demands struct {
	source   poll.Source
	watchers map[int][]int // by descriptor: the workers that wait for it
}

func newDemands(source poll.Source) *demands {
	return &demands{source: source, watchers: map[int][]int{}}
}

func (d *demands) watch(worker int, fds []int) error {
	for _, fd := range fds {
		if len(d.watchers[fd]) == 0 {
			if err := d.source.Add(fd, uint64(fd)); err != nil {
				return err
			}
		}
		d.watchers[fd] = append(d.watchers[fd], worker)
	}
	return nil
}

func (d *demands) unwatch(worker int) {
	for fd, workers := range d.watchers {
		workers = slices.DeleteFunc(workers, func(w int) bool { return w == worker })
		if len(workers) > 0 {
			d.watchers[fd] = workers
			continue
		}
		// Systemd and workers hold the same open file, so that it would stay
		// polled even if it were closed here.
		_ = d.source.Remove(fd) // it is in there
		delete(d.watchers, fd)
	}
}

// waits tells each worker that waits for a socket that a connection does, once.
func (d *demands) waits(fd int) (events []fleet.Event) {
	for _, worker := range slices.Clone(d.watchers[fd]) {
		d.unwatch(worker)
		events = append(events, fleet.Demand{Worker: worker})
	}
	return events
}

// look tells whether a connection waits at one of these sockets now.
func look(fds []int) bool {
	polled := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		polled[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		n, err := unix.Poll(polled, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
