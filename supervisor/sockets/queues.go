// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// Queue is what waits at a socket of the fleet for a worker to take it: connections that
// nobody has accepted or, at a datagram socket, bytes that nobody has read. The kernel
// tells it; no worker takes part.
type Queue struct {
	Name    string // of the socket in the fleet file
	Address string // its own, printable
	Type    fleetfile.SocketType

	// Each is [Unknown] if the kernel does not tell. Several sockets of one name and
	// address (SO_REUSEPORT) are one Queue, with their sums.
	Length int64
	Limit  int64 // of connections one more is let in
	Drops  int64 // what was turned away since the socket is there; it starts over at 2^32
}

// Unknown is a number that the kernel does not tell.
const Unknown = -1

// Queues are those of the sockets in use, in the order of the file and of its addresses.
// It does not block.
func (s *Sockets) Queues() (all []Queue) {
	for i := range s.current.configs {
		c := &s.current.configs[i]
		for _, socket := range s.current.byName[c.Name] {
			q := s.queueOf(socket.FD, c.Type)
			q.Name, q.Address = c.Name, socket.address
			same := slices.IndexFunc(all, func(o Queue) bool { return o.Name == q.Name && o.Address == q.Address })
			if same < 0 {
				all = append(all, q)
				continue
			}
			all[same].add(q)
		}
	}
	return all
}

// add makes the sums of two. What is not known of one is not known of both.
func (q *Queue) add(o Queue) {
	sum := func(a, b int64) int64 {
		if a == Unknown || b == Unknown {
			return Unknown
		}
		return a + b
	}
	q.Length, q.Limit, q.Drops = sum(q.Length, o.Length), sum(q.Limit, o.Limit), sum(q.Drops, o.Drops)
}

// full reports whether no further connection is let in.
func (q *Queue) full() bool { return q.Limit != Unknown && q.Length > q.Limit }

func (s *Sockets) queueOf(fd int, kind fleetfile.SocketType) Queue {
	q := Queue{Type: kind, Length: Unknown, Limit: Unknown, Drops: Unknown}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	ip := err == nil && (domain == unix.AF_INET || domain == unix.AF_INET6)
	memory, err := linux.MemoryOf(fd)
	if ip && err == nil { // who sends to a Unix socket waits: it turns nothing away
		q.Drops = int64(memory.Drops)
	}
	switch {
	case kind == fleetfile.Datagram && ip && err == nil:
		q.Length, q.Limit = int64(memory.Received), int64(memory.Limit)
	case kind == fleetfile.Datagram: // what waits at a Unix socket is the account of who has sent it
	case ip:
		q.accept(linux.AcceptQueue(fd))
	case domain == unix.AF_UNIX && s.diag != nil:
		q.accept(s.diag.AcceptQueue(fd))
	}
	return q
}

// accept takes what the kernel says. A limit of 0 is none: a kernel that answers with
// zeros (gVisor's) does not tell.
func (q *Queue) accept(length, limit uint32, err error) {
	if err == nil && limit > 0 {
		q.Length, q.Limit = int64(length), int64(limit)
	}
}

// openDiag is for the queues of Unix sockets, once there are some. To ask the first time
// may load a module of the kernel, which is waited for before the fleet starts. Where that
// does not help nobody asks again: the kernel would look for the module each time.
func (s *Sockets) openDiag() {
	socket, ok := s.aUnixSocket()
	if !ok || s.asked {
		return
	}
	s.asked = true
	diag, err := linux.OpenUnixDiag()
	if err == nil {
		if _, _, err = diag.AcceptQueue(socket.FD); err == nil {
			s.diag = diag
			return
		}
		diag.Close()
	}
	s.log.Debug(fmt.Sprintf("socket %s: how many connections wait cannot be told: %v", socket.Name, err))
}

// aUnixSocket is the first to which Unix connections come.
func (s *Sockets) aUnixSocket() (socket Socket, ok bool) {
	for i := range s.current.configs {
		c := &s.current.configs[i]
		for _, socket := range s.current.byName[c.Name] {
			if domain, err := unix.GetsockoptInt(socket.FD, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_UNIX && c.Type != fleetfile.Datagram {
				return socket, true
			}
		}
	}
	return Socket{}, false
}

// addressOf is that of a socket, as it is shown.
func addressOf(fd int) string {
	info, err := sdnotify.Describe(fd)
	if err != nil {
		return ""
	}
	return text.Printable(info.Address)
}
