// SPDX-License-Identifier: AGPL-3.0-or-later

package peer

import (
	"fmt"
	"net"
	"os"
	"time"
)

// Birth is what a worker says in the first line of its entry.
type Birth struct {
	Slot string // of prefork
	PID  int
	At   int64 // CLOCK_MONOTONIC, in nanoseconds
}

// Births hears them.
type Births struct{ conn *net.UnixConn }

// ListenBirths makes the socket that workers tell it.
func ListenBirths(path string) (*Births, error) {
	_ = os.Remove(path) // of an earlier run
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	// Workers of the unit are the user prefork.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, err
	}
	return &Births{conn}, nil
}

// Close ends it. It may be called twice.
func (b *Births) Close() { _ = b.conn.Close() } // nothing is written to it

// Next blocks until a worker starts, or until the deadline.
func (b *Births) Next(deadline time.Time) (w Birth, err error) {
	var buf [200]byte
	_ = b.conn.SetReadDeadline(deadline) // else the read would say so
	n, err := b.conn.Read(buf[:])
	if err != nil {
		return w, err
	}
	_, err = fmt.Sscan(string(buf[:n]), &w.Slot, &w.PID, &w.At)
	return w, err
}

// Await blocks until so many workers have started.
func (b *Births) Await(n int) (all []Birth, err error) {
	for len(all) < n {
		w, err := b.Next(time.Now().Add(Patience))
		if err != nil {
			return nil, fmt.Errorf("%d of %d workers have started: %w", len(all), n, err)
		}
		all = append(all, w)
	}
	return all, nil
}

// Drain drops what has been said up to now.
func (b *Births) Drain() {
	for {
		if _, err := b.Next(time.Now().Add(time.Millisecond)); err != nil {
			return
		}
	}
}
