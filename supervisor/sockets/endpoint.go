// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// endpoint is an address that is bound here, for each set that has it.
type endpoint struct {
	fd    int
	as    binding
	path  string // of the file that was made for it, "" if there is none
	users int    // sets
}

// binding is what makes two sockets the same for who connects.
type binding struct {
	kind      fleetfile.SocketType
	address   string
	v6only    bool
	reusePort bool
}

// bind gives a set the sockets of one [socket.*] table.
func (s *Sockets) bind(set *Set, config *fleetfile.Socket) error {
	if _, _, err := socketOwner(config); err != nil {
		return fmt.Errorf("socket.%s.listen: %w; name one that there is", config.Name, err)
	}
	for _, a := range config.Listen {
		as := binding{config.Type, canonical(a), a.V6Only, config.ReusePort}
		// One set may have an address twice, as SO_REUSEPORT permits.
		i := slices.IndexFunc(s.bound, func(e *endpoint) bool { return e.as == as && !slices.Contains(set.uses, e) })
		if i < 0 {
			e, err := s.bindNew(config, a, as)
			if err != nil {
				return err
			}
			i, s.bound = len(s.bound), append(s.bound, e)
		}
		e := s.bound[i]
		e.users++
		set.uses = append(set.uses, e)
		set.byName[config.Name] = append(set.byName[config.Name], Socket{FD: e.fd, Name: config.Name, address: addressOf(e.fd)})
	}
	return nil
}

func (s *Sockets) bindNew(config *fleetfile.Socket, a fleetfile.Address, as binding) (*endpoint, error) {
	fd, err := bindOne(config, a)
	if err != nil {
		what := remedy(err, a, config.Type)
		if errors.Is(err, unix.EADDRINUSE) && s.listensAt(a) {
			what = "this fleet listens there already, in another way, and cannot change that while it runs: stop and start it"
		}
		return nil, fmt.Errorf("socket.%s.listen: %s: %w; %s", config.Name, a.Text, err, what)
	}
	e := &endpoint{fd: fd, as: as}
	if strings.HasPrefix(a.Unix, "/") {
		e.path = a.Unix
	}
	return e, nil
}

// listensAt reports whether a socket that is bound here is in the way of an address.
func (s *Sockets) listensAt(a fleetfile.Address) bool {
	return slices.ContainsFunc(s.current.configs, func(c fleetfile.Socket) bool {
		return slices.ContainsFunc(c.Listen, func(old fleetfile.Address) bool {
			return s.passed[c.Name] == nil && (a.Unix != "" && old.Unix == a.Unix || a.Unix == "" && old.Unix == "" && old.IP.Port() == a.IP.Port())
		})
	})
}

func (e *endpoint) close() {
	_ = unix.Close(e.fd) // nothing was written
	if e.path != "" {
		_ = unix.Unlink(e.path) // another fleet may have replaced it already
	}
}

// adapt gives what the current set has in common with the one before it what may change of
// a socket that is bound. It is tried, and the log tells of what could not be.
func (s *Sockets) adapt(before *Set) {
	for i := range s.current.configs {
		c := &s.current.configs[i]
		was := slices.IndexFunc(before.configs, func(o fleetfile.Socket) bool { return o.Name == c.Name })
		if was < 0 || s.passed[c.Name] != nil {
			continue
		}
		for _, socket := range s.current.byName[c.Name] {
			e := s.bound[slices.IndexFunc(s.bound, func(e *endpoint) bool { return e.fd == socket.FD })]
			if slices.Contains(before.uses, e) {
				if err := e.adapt(&before.configs[was], c); err != nil {
					s.log.Warn(fmt.Sprintf("socket %s: %s: %v", c.Name, e.as.address, err))
				}
			}
		}
	}
}

func (e *endpoint) adapt(old, c *fleetfile.Socket) (err error) {
	if old.Backlog != c.Backlog && c.Type != fleetfile.Datagram {
		err = unix.Listen(e.fd, c.Backlog) // of one that listens it changes the backlog alone
	}
	if e.path != "" && (old.Mode != c.Mode || old.User != c.User || old.Group != c.Group) {
		err = errors.Join(err, giveFile(e.path, c))
	}
	return err
}
