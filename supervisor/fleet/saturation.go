// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
)

// telling is what is said of the fleet as a whole.
type telling struct {
	status   string       // as it was said last
	waits    []Saturation // what is known of the sockets
	unserved []string     // sockets that no slot is left to serve
}

// Saturation is a socket at which connections wait that nobody accepts.
type Saturation struct {
	Socket  string // its name
	Waiting int    // below 0: nobody knows how many
	Full    bool   // no more are let in
}

// Add makes one of two that have the name.
func (s *Saturation) Add(o Saturation) {
	s.Full = s.Full || o.Full
	if s.Waiting >= 0 && o.Waiting >= 0 {
		s.Waiting += o.Waiting
	} else {
		s.Waiting = -1
	}
}

// saturated are the sockets at which connections wait, some of them by name.
func (f *Fleet) saturated() (parts []string) {
	const most = 3
	for i := range f.waits {
		if i == most {
			return append(parts, "connections wait at "+times(len(f.waits)-most, "more socket"))
		}
		parts = append(parts, f.waits[i].inStatus())
	}
	return parts
}

// inStatus: "http: 37 connections wait".
func (s *Saturation) inStatus() string {
	text := s.Socket + ": "
	switch s.Waiting {
	case -1:
		text += "connections wait"
	case 1:
		text += "1 connection waits"
	default:
		text += fmt.Sprintf("%d connections wait", s.Waiting)
	}
	if s.Full {
		text += ", no more are let in"
	}
	return text
}

// watchSockets tells, once each, of the sockets whose last slot has finished or failed: they
// listen, and clients wait in them. What an operator has stopped is known to be.
func (f *Fleet) watchSockets(n tally) {
	if n.finished() == n.held && f.unserved == nil || f.change != nil || f.phase != starting && f.phase != serving {
		return
	}
	var over []string // of slots that are over
	for _, s := range f.slots {
		if s.role == current && !s.held && (s.state == StateExited || s.state == StateFailed) {
			over = append(over, s.config.Sockets...)
		}
	}
	if over == nil {
		f.unserved = nil
		return
	}
	for _, s := range f.slots {
		if s.role == current && s.state != StateExited && s.state != StateFailed {
			over = slices.DeleteFunc(over, func(name string) bool { return slices.Contains(s.config.Sockets, name) })
		}
	}
	slices.Sort(over)
	over = slices.Compact(over)
	for _, name := range over {
		if !slices.Contains(f.unserved, name) {
			f.reportKind(KindSocketUnserved, Warning, fmt.Sprintf("socket %s: no slot is left that serves it; clients wait", name))
		}
	}
	f.unserved = over
}
