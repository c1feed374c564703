// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"reflect"
	"time"

	"github.com/godbus/dbus/v5"
)

// Signals tell what has changed since the last ones, however long ago that is:
// each who watches has its own memory of the fleet. Who reads slowly is told less
// often, and nothing is kept for it.
//
//	loop            publisher         a goroutine for each who watches
//	Changed() ───▶  Look() ────────▶  what is new to this one: PropertiesChanged
//
// Where nobody watches, Changed is all that happens.

// tellPause is the least time between two looks for the sake of signals.
const tellPause = 100 * time.Millisecond

// Changed says that something of the fleet has changed. It does not block.
func (s *Server) Changed() {
	if s.watching.Load() == 0 {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // it is known already
	}
}

// publish looks at the fleet after it has changed and hands it to all who watch.
func (s *Server) publish() {
	defer s.done.Done()
	for {
		select {
		case <-s.closing:
			return
		case <-s.changed:
		}
		if f, err := s.backend.Look(); err == nil {
			s.tell(f)
		}
		select {
		case <-s.closing:
			return
		case <-time.After(tellPause):
		}
	}
}

func (s *Server) tell(f *Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		select {
		case <-w.news: // which it has not taken
		default:
		}
		w.news <- f
	}
}

// watcher is someone who is told of changes.
type watcher struct {
	news chan *Status // has room for one: the newest
	seen *Status
	send func([]change) error
}

// watch tells of what changes after seen, until gone or the server is closed, or
// send fails.
func (s *Server) watch(seen *Status, gone <-chan struct{}, send func([]change) error) {
	w := &watcher{news: make(chan *Status, 1), seen: seen, send: send}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.watchers[w] = true
	s.watching.Add(1)
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer s.unwatch(w)
		w.run(gone, s.closing)
	}()
	s.Changed() // between seen and now
}

func (s *Server) unwatch(w *watcher) {
	s.watching.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

func (w *watcher) run(gone, closing <-chan struct{}) {
	for {
		select {
		case <-gone:
			return
		case <-closing:
			return
		case f := <-w.news:
			if w.send(changes(w.seen, f)) != nil {
				return
			}
			w.seen = f
		}
	}
}

// change is one signal.
type change struct {
	path          dbus.ObjectPath
	iface, member string
	body          []any
}

const propertiesChanged = "PropertiesChanged"

// changes are the differences between two views of one fleet: of the properties that emit
// them, and which slots there are. A slot is its name, wherever it stands.
func changes(was, is *Status) (all []change) {
	tell := func(path dbus.ObjectPath, iface string, was, is any) {
		if changed := difference(was, is); len(changed) > 0 {
			all = append(all, change{path, propertiesInterface, propertiesChanged, []any{iface, changed, []string{}}})
		}
	}
	tell(Path, Interface, was, is)
	before := make(map[string]*SlotStatus, len(was.Slots))
	for i := range was.Slots {
		before[was.Slots[i].Name] = &was.Slots[i]
	}
	for i := range is.Slots {
		s := &is.Slots[i]
		old, known := before[s.Name]
		delete(before, s.Name)
		if !known {
			added := map[string]map[string]dbus.Variant{SlotInterface: properties(*s, every)}
			all = append(all, change{"/", managerInterface, "InterfacesAdded", []any{SlotPath(s.Name), added}})
			continue
		}
		tell(SlotPath(s.Name), SlotInterface, old, s)
	}
	for _, s := range was.Slots {
		if _, gone := before[s.Name]; gone {
			all = append(all, change{"/", managerInterface, "InterfacesRemoved", []any{SlotPath(s.Name), []string{SlotInterface}}})
		}
	}
	return all
}

// difference is what of an object is not as it was: of a *Status or a *SlotStatus. After
// each change all slots are compared, and most are as they were: nothing is made of those.
func difference(was, is any) map[string]dbus.Variant {
	changed := map[string]dbus.Variant{}
	before, after := reflect.ValueOf(was).Elem(), reflect.ValueOf(is).Elem()
	for i, field := range fieldsOf(after.Type()) {
		if field.isProperty() && field.emits() == "true" && !same(before.Field(i), after.Field(i)) {
			changed[field.Name] = dbus.MakeVariant(after.Field(i).Interface())
		}
	}
	return changed
}

func same(was, is reflect.Value) bool {
	if is.Comparable() {
		return was.Equal(is)
	}
	return reflect.DeepEqual(was.Interface(), is.Interface())
}
