// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// stage is a backend whose fleet changes.
type stage struct {
	backend
	now  Status
	once sync.Mutex
}

func newStage() *stage {
	s := &stage{now: *demo}
	s.now.Slots = slices.Clone(demo.Slots)
	s.look = func() (*Status, error) {
		s.once.Lock()
		defer s.once.Unlock()
		f := s.now
		f.Slots = slices.Clone(s.now.Slots)
		return &f, nil
	}
	return s
}

func (s *stage) change(what func(*Status)) {
	s.once.Lock()
	defer s.once.Unlock()
	what(&s.now)
}

func listen(t *testing.T, b Backend) (s *Server, path string) {
	t.Helper()
	path = t.TempDir() + "/control"
	s, err := Listen(path, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, path
}

func TestChangesAreTold(t *testing.T) {
	b := newStage()
	s, path := listen(t, b)
	conn := connect(t, path)
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(within(t, ceiling), dbus.WithMatchInterface(propertiesInterface)); err != nil {
		t.Fatal(err)
	}
	b.change(func(f *Status) {
		f.StatusText, f.Spares, f.Slots[1].State, f.Slots[1].StatusText = "2/2 ready", 7, "starting", "not told"
	})
	s.Changed()
	for _, want := range []struct {
		path    dbus.ObjectPath
		iface   string
		changed map[string]any
	}{
		{Path, Interface, map[string]any{"StatusText": "2/2 ready"}},
		{slotsPath + "/web_2e10", SlotInterface, map[string]any{"State": "starting"}},
	} {
		got := next(t, signals)
		changed := map[string]any{}
		for name, v := range got.Body[1].(map[string]dbus.Variant) {
			changed[name] = v.Value()
		}
		if got.Path != want.path || got.Name != propertiesInterface+"."+propertiesChanged || got.Body[0] != want.iface ||
			!reflect.DeepEqual(changed, want.changed) || len(got.Body[2].([]string)) != 0 {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	s.Changed() // and nothing has
	b.change(func(f *Status) { f.ActiveState = "deactivating" })
	s.Changed()
	if got := next(t, signals); got.Path != Path {
		t.Errorf("got %+v", got)
	}
	b.change(func(f *Status) { f.Slots[1].Name = "web.11" })
	s.Changed()
	if got := next(t, signals); got.Path != "/" || got.Name != managerInterface+".InterfacesAdded" || got.Body[0] != SlotPath("web.11") {
		t.Errorf("got %+v", got)
	}
	if got := next(t, signals); got.Path != "/" || got.Name != managerInterface+".InterfacesRemoved" || got.Body[0] != SlotPath("web.10") {
		t.Errorf("got %+v", got)
	}
}

func next(t *testing.T, signals <-chan *dbus.Signal) *dbus.Signal {
	t.Helper()
	select {
	case s := <-signals:
		return s
	case <-time.After(ceiling):
		t.Fatal("no signal came")
		return nil
	}
}

// TestClientLearnsOfChanges: one value stands for many, and the end of the
// connection is told.
func TestClientLearnsOfChanges(t *testing.T) {
	b := newStage()
	s, path := listen(t, b)
	c := dial(t, path)
	changes, err := c.Changes(within(t, ceiling))
	if err != nil {
		t.Fatal(err)
	}
	b.change(func(f *Status) {
		for i := range f.Slots {
			f.Slots[i].State = "failed"
		}
	})
	s.Changed()
	if _, ok := <-changes; !ok {
		t.Error("the channel is closed")
	}
	if f, err := c.Look(within(t, ceiling)); err != nil || f.Slots[0].State != "failed" {
		t.Errorf("got %+v, %v", f, err)
	}
	s.mu.Lock()
	_ = s.clients[0].conn.Close()
	s.mu.Unlock()
	for range changes { // until it is closed
	}
}

// TestNobodyWatches: then a change costs no look at the fleet; nor does one after
// the last client has gone, or has taken its match back.
func TestNobodyWatches(t *testing.T) {
	looks := make(chan struct{}, 100)
	s, path := listen(t, &backend{look: func() (*Status, error) {
		looks <- struct{}{}
		return demo, nil
	}})
	s.Changed()
	c := dial(t, path)
	if _, err := c.Changes(within(t, ceiling)); err != nil {
		t.Fatal(err)
	}
	<-looks // for its name,
	<-looks // and its file
	<-looks // for AddMatch
	<-looks // for what may have changed since
	c.Close()
	for s.watching.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(2 * tellPause) // the publisher has gone back to sleep
	s.Changed()
	if len(s.changed) > 0 || len(looks) > 0 {
		t.Errorf("%d changes wait, %d looks", len(s.changed), len(looks))
	}
}

// TestWatcherThatDoesNotRead holds up neither the others nor the loop.
func TestWatcherThatDoesNotRead(t *testing.T) {
	b := newStage()
	s, path := listen(t, b)
	deaf := raw(t, path)
	match := encoded(t, &dbus.Message{Type: dbus.TypeMethodCall, Body: []any{"type='signal'"}, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldMember: dbus.MakeVariant("AddMatch"),
		dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("")),
	}})
	if _, err := deaf.Write(append([]byte(sdBus), match...)); err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	changes, err := c.Changes(within(t, ceiling))
	if err != nil {
		t.Fatal(err)
	}
	long := make([]byte, 1<<20) // more than a socket takes
	for i := range long {
		long[i] = 'x'
	}
	for i := range 5 {
		b.change(func(f *Status) { f.StatusText = fmt.Sprintf("%d%s", i, long) })
		s.Changed()
		if _, ok := <-changes; !ok {
			t.Fatal("the one that reads was dropped")
		}
	}
}

// TestWhatIsToldOfEachProperty: state changes are told, counters and texts that
// change all the time are not, and what is measured cannot be.
func TestWhatIsToldOfEachProperty(t *testing.T) {
	for _, object := range []any{Status{}, SlotStatus{}} {
		for _, f := range fieldsOf(reflect.TypeOf(object)) {
			if f.measured() && f.emits() != "false" {
				t.Errorf("%T.%s is measured, and told", object, f.Name)
			}
			if !slices.Contains([]string{"true", "false", "const"}, f.emits()) {
				t.Errorf("%T.%s: emits %q", object, f.Name, f.emits())
			}
		}
	}
}

// A slot is its name: of those that only stand elsewhere nothing is told.
func TestChangesAreOfSlotsByName(t *testing.T) {
	slot := func(name, state string) SlotStatus { return SlotStatus{Name: name, State: state} }
	was := &Status{Slots: []SlotStatus{slot("a.0", "ready"), slot("a.1", "ready"), slot("b.0", "ready")}}
	is := &Status{Slots: []SlotStatus{slot("a.0", "ready"), slot("c.0", "ready"), slot("a.1", "failed")}}
	var told []string
	for _, c := range changes(was, is) {
		told = append(told, fmt.Sprintf("%s %s %v", c.path, c.member, c.body[0]))
	}
	want := []string{
		"/ InterfacesAdded " + string(SlotPath("c.0")), string(SlotPath("a.1")) + " PropertiesChanged " + SlotInterface,
		"/ InterfacesRemoved " + string(SlotPath("b.0")),
	}
	if !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
}

// TestLastClientIsTold: the fleet hears when nobody is left who looks.
func TestLastClientIsTold(t *testing.T) {
	b := &backend{look: lookAtDemo}
	path := serveBackend(t, b)
	first, second := dial(t, path), dial(t, path)
	first.Close()
	if _, err := second.Look(within(t, ceiling)); err != nil || b.idle.Load() {
		t.Errorf("%v, idle %t with a client", err, b.idle.Load())
	}
	second.Close()
	for end := time.Now().Add(ceiling); !b.idle.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not told")
		}
	}
}
