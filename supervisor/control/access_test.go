// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// refusing is a backend that lets nobody change anything.
type refusing struct{ backend }

func (*refusing) MayChange(Caller) error { return errors.New("not you") }

// argumentsOf are some that a method takes.
func argumentsOf(m method) (args []any) {
	given := map[string]any{"s": "web", "as": []string{"web"}, "i": int32(9), "t": uint64(1)}
	for _, kind := range types(m.in) {
		args = append(args, given[kind])
	}
	return args
}

// TestWhoMayNotChangesNothing: every verb that is not for reading is refused
// before anything else is looked at.
func TestWhoMayNotChangesNothing(t *testing.T) {
	b := &refusing{backend{look: lookAtDemo}}
	conn := connect(t, serveBackend(t, b))
	for _, v := range methods() {
		if v.access != accessChange {
			continue
		}
		args := argumentsOf(v)
		for _, path := range []dbus.ObjectPath{"/", Path, slotsPath + "/web_2e0", slotsPath + "/none"} {
			err := conn.Object(Interface, path).CallWithContext(within(t, ceiling), v.iface+"."+v.name, 0, args...).Err
			if e := (dbus.Error{}); !errors.As(err, &e) || e.Name != busInterface+".Error.AccessDenied" {
				t.Errorf("%s at %s: %v", v.name, path, err)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.done) > 0 {
		t.Errorf("done: %q", b.done)
	}
}

// TestEveryVerbForEveryCallerAtEveryPath: reading is for all who are let in, at the
// paths that have what is read; changing is for who has the right, of a slot that
// is there. All else is refused, and does nothing.
func TestEveryVerbForEveryCallerAtEveryPath(t *testing.T) {
	callers := map[string]struct {
		who Caller
		may bool
	}{
		"root":     {Caller{UID: 0, PID: os.Getpid()}, true},
		"a worker": {Caller{UID: 0, PID: os.Getppid()}, false},
		"a user":   {Caller{UID: 12345, PID: 7}, false},
		"nobody":   {Caller{}, false},
	}
	const web, none = slotsPath + "/web_2e0", slotsPath + "/none"
	objects := []dbus.ObjectPath{Path, web}
	everywhere := []dbus.ObjectPath{"/", Path, slotsPath, web, none}
	readable := map[string][]dbus.ObjectPath{ // where each may be called
		"Hello": everywhere, "ListNames": everywhere, "ListActivatableNames": everywhere, "NameHasOwner": everywhere, "GetNameOwner": everywhere,
		"AddMatch": everywhere, "RemoveMatch": everywhere, "Ping": everywhere, "GetMachineId": everywhere,
		"Introspect": {"/", Path, slotsPath, web}, "Get": objects, "GetAll": objects, "Set": nil, "GetManagedObjects": {"/"}, "History": {web}, "TaskHistory": {web}, "Outcome": {Path},
	}
	args := map[string][]string{"Get": {"", "Name"}, "GetAll": {""}, "Set": {"", "Name"}, "NameHasOwner": {"x"}, "GetNameOwner": {"x"}, "Scale": {"web"}, "TaskHistory": {"t"}, "StartTask": {"t"}, "StopTask": {"t"}, "RestartTask": {"t"}}
	for _, v := range methods() {
		for name, c := range callers {
			for _, path := range everywhere {
				b := &choosy{backend{look: lookAtDemo}}
				s := &Server{backend: b, closing: make(chan struct{}), changed: make(chan struct{}, 1), watchers: map[*watcher]bool{}, closed: true}
				_, failed := s.carryOut(v, &call{path: path, args: args[v.name], number: 9, caller: c.who, client: &client{server: s, caller: c.who}})
				places, reads := readable[v.name]
				right := "AccessDenied"
				switch {
				case reads && slices.Contains(places, path), !reads && c.may && (v.iface == SlotInterface && path == web || v.iface == Interface && path == Path):
					right = ""
				case v.name == "Set":
					right = "PropertyReadOnly"
				case v.name == "GetManagedObjects":
					right = "UnknownInterface"
				case reads, c.may:
					right = "UnknownObject"
				}
				got := ""
				if failed != nil {
					got = strings.TrimPrefix(failed.Name, busInterface+".Error.")
				}
				if v.name == "GetMachineId" && got == "Failed" {
					got = "" // this machine has none
				}
				if got != right {
					t.Errorf("%s by %s at %s: %q, want %q", v.name, name, path, got, right)
				}
				if done := len(b.done) > 0; done != (!reads && right == "") {
					t.Errorf("%s by %s at %s does %q", v.name, name, path, b.done)
				}
			}
		}
	}
}

// choosy is a backend that only root may change, and not as a worker.
type choosy struct{ backend }

func (c *choosy) MayChange(who Caller) error {
	if who.UID == 0 && who.PID == os.Getpid() {
		return nil
	}
	return errors.New("not you")
}

// TestEveryVerbIsTried: a verb that is added must be added to the table above.
func TestEveryVerbIsTried(t *testing.T) {
	source, err := os.ReadFile("control_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range methods() {
		if v.name == "Hello" || v.name == "ListActivatableNames" || v.name == "GetMachineId" {
			continue // every connection says the first; the others are for busctl
		}
		if !bytes.Contains(source, []byte(`".`+v.name+`"`)) {
			t.Errorf("%s.%s is not tried", v.iface, v.name)
		}
	}
}
