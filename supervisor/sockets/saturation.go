// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
)

// That connections wait for a moment is how sockets work; that they wait for longer means
// that all workers are busy, or gone, and STATUS= says so within a second. To look costs a
// turn of the loop, and nobody looks while no connection comes:
//
//	asleep ── a connection comes (the doorbell) ──> awake: looks each period
//	   ^                                              │ connections wait: looks again soon,
//	   └── nothing waits, a few times in a row ───────┘ and says it if they still do
//
// A busy fleet is looked at little more than once a second, however many connections come.
const (
	period   = 800 * time.Millisecond // between two looks
	again    = 50 * time.Millisecond  // if something waits
	enough   = 4                      // looks in a row that find connections
	maxPause = 4 * period             // while the same connections wait
	maxRests = 7
)

// vigil decides when to look, and what is to be said.
type vigil struct {
	lookAt  policy.Instant // Never: asleep
	slept   policy.Instant // when it fell asleep
	rests   int            // looks that find nothing before it falls asleep, less one
	rested  int
	pause   time.Duration
	found   map[string]int // by socket: looks in a row that have found connections
	saidNow []fleet.Saturation
}

// woken takes that a connection has come. Where one comes at once each time, to fall
// asleep is more work than to stay awake.
func (v *vigil) woken(now policy.Instant) {
	if now.Sub(v.slept) < period {
		v.rests = min(2*v.rests+1, maxRests)
	} else {
		v.rests = 0
	}
	v.rested, v.lookAt = 0, now.Add(period)
}

// look takes the sockets at which connections wait, and reports whether something else is
// to be said than before.
func (v *vigil) look(now policy.Instant, waits []fleet.Saturation) (changed bool) {
	found, sure := map[string]int{}, true
	var say []fleet.Saturation
	for _, w := range waits {
		found[w.Socket] = v.found[w.Socket] + 1
		if found[w.Socket] >= enough {
			say = append(say, w)
		} else {
			sure = false
		}
	}
	changed = !slices.Equal(say, v.saidNow)
	v.found, v.saidNow = found, say
	v.next(now, len(waits) == 0, sure, changed)
	return changed
}

func (v *vigil) next(now policy.Instant, nothing, sure, changed bool) {
	switch {
	case nothing && v.rested >= v.rests:
		v.lookAt, v.slept = policy.Never, now
		return
	case nothing:
		v.rested++
		v.pause = period
	case !sure:
		v.pause = again
	case changed:
		v.pause = period
	default:
		v.pause = min(2*v.pause, maxPause)
	}
	if !nothing {
		v.rested = 0
	}
	v.lookAt = now.Add(v.pause)
}

// doorbell tells of the first connection to any socket. It is an epoll(7) of its own: in
// the loop's a socket may be waited for already. While the loop does not wait for it, it
// wakes nobody.
type doorbell struct {
	epfd   int
	source poll.Source
	fds    []int
}

func newDoorbell(source poll.Source) (*doorbell, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &doorbell{epfd: fd, source: source}, err
}

// at makes it the doorbell of other sockets. Of those that it had none is closed yet.
func (d *doorbell) at(fds []int) (err error) {
	for _, fd := range d.fds {
		_ = unix.EpollCtl(d.epfd, unix.EPOLL_CTL_DEL, fd, nil) // it may not have been added
	}
	d.fds = fds
	for _, fd := range fds {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if e := unix.EpollCtl(d.epfd, unix.EPOLL_CTL_ADD, fd, &ev); e != nil {
			err = e
		}
	}
	return err
}

// rings has the loop told of the next connection, at once if one waits.
func (d *doorbell) rings(on bool) error {
	if on {
		return d.source.Add(d.epfd, 0)
	}
	return d.source.Remove(d.epfd)
}

func (d *doorbell) close() { linux.CloseFD(&d.epfd) }

// attend makes the sockets in use those that are looked at.
func (s *Sockets) attend() {
	s.openDiag()
	var fds []int
	for i := range s.current.configs {
		if c := &s.current.configs[i]; c.Type != fleetfile.Datagram {
			for _, socket := range s.current.byName[c.Name] {
				fds = append(fds, socket.FD)
			}
		}
	}
	if err := s.door.at(fds); err != nil {
		s.log.Warn(fmt.Sprintf("sockets: epoll_ctl: %v: STATUS= does not tell of connections that wait at all of them", err))
	}
}

// Arrived says that the doorbell has rung.
func (s *Sockets) Arrived(now policy.Instant) {
	_ = s.door.rings(false) // it did
	s.vigil.woken(now)
}

// StopLooking is for a fleet that stops: who connects then waits for the next one.
func (s *Sockets) StopLooking() {
	_ = s.door.at(nil) // only what is added can fail
	s.vigil.lookAt = policy.Never
}

// LookAt is when [Sockets.Look] is to be called.
func (s *Sockets) LookAt() policy.Instant { return s.vigil.lookAt }

// Look looks at the queues, if it is time to. It tells when there is something else to say
// of them than before.
func (s *Sockets) Look(now policy.Instant) (events []fleet.Event) {
	if now < s.vigil.lookAt {
		return nil
	}
	if s.vigil.look(now, s.waits()) {
		events = append(events, fleet.Saturated{At: slices.Clone(s.vigil.saidNow)})
	}
	if s.vigil.lookAt == policy.Never && s.door.rings(true) != nil {
		s.vigil.lookAt = now.Add(maxPause) // there is no memory for it now
	}
	return events
}

// waits are the sockets at which connections wait, each name once.
func (s *Sockets) waits() (all []fleet.Saturation) {
	for _, q := range s.Queues() {
		if q.Type == fleetfile.Datagram || q.Length == 0 {
			continue
		}
		if q.Length == Unknown && !Poll(s.current.Of([]string{q.Name})) {
			continue
		}
		w := fleet.Saturation{Socket: q.Name, Waiting: int(q.Length), Full: q.full()}
		if i := len(all) - 1; i >= 0 && all[i].Socket == w.Socket {
			all[i].Add(w)
		} else {
			all = append(all, w)
		}
	}
	return all
}
