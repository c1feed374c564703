// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/verb"
)

var demo = &Status{
	Name: "demo", File: "/etc/prefork/demo.toml", MainPID: 7, ActiveState: "active", StatusText: "1/2 ready", Generation: 3,
	FloorPID: 6, FloorMemory: 100 << 20, Spares: 1, NRestarts: 9, Floors: map[uint32]uint32{3: 6}, SparePIDs: map[uint32]uint32{9: 3}, NotificationsDropped: 2, LinesLost: 4,
	Workers: []WorkerStatus{{Name: "web", Slots: 2, Ready: 1, Waiting: 1, Needs: 1}},
	Sockets: []SocketStatus{
		{Name: "http", Address: "[::]:8080", Type: "stream", Queue: 37, QueueLimit: 4096, Drops: 12},
		{Name: "far", Address: "@far", Type: "seqpacket", Queue: -1, QueueLimit: -1, Drops: -1},
	},
	Slots: []SlotStatus{
		{
			Name: "web.0", Worker: "web", State: "ready", StateTimestamp: 1, Reason: "running", MainPID: 8, Generation: 3, StatusText: "at work",
			Tasks: []TaskStatus{
				{Name: "t", State: "ready", StateTimestamp: 3, Reason: "running", NRestarts: 1},
				{Name: "u", State: "waiting", Result: "exit-code", Failures: 2, NextStartTimestamp: 9, StatusText: "at work"},
			},
			LoopLagUSec:  7,
			FreezerState: "running", Restarts: map[string]uint64{}, Recycles: map[string]uint64{"age": 2}, NRecycles: 2, CPUUsageNSec: 5e9, MemoryPrivate: 1 << 20, MemoryShared: 90 << 20,
		},
		{
			Name: "web.10", Worker: "web", State: "waiting", StateTimestamp: 2, Reason: "exit-code", Result: "exit-code",
			Failures: 4, NRestarts: 9, NextStartTimestamp: 5, FreezerState: "running", Restarts: map[string]uint64{"exit-code": 9}, Recycles: map[string]uint64{},
			Tasks: []TaskStatus{},
		},
	},
}

// serve offers a fleet at a path.
func serve(t *testing.T, look func() (*Status, error)) (path string) {
	t.Helper()
	return serveBackend(t, &backend{look: look})
}

func serveBackend(t *testing.T, b Backend) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control")
	s, err := Listen(path, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return path
}

// lookAtDemo shows the demo fleet as the loop does, without what is measured.
func lookAtDemo() (*Status, error) {
	f := *demo
	f.FloorMemory, f.Slots = 0, slices.Clone(demo.Slots)
	for i := range f.Slots {
		s := &f.Slots[i]
		s.CPUUsageNSec, s.MemoryPrivate, s.MemoryShared = 0, 0, 0
	}
	return &f, nil
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// anyAt is for tests to which it does not matter which fleet it is.
func anyAt(path string) Address {
	return Address{Socket: path, Fleet: "demo", Serves: func(string, string) bool { return true }}
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(within(t, ceiling), anyAt(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ceiling is for what comes at once on a machine that is not busy.
const ceiling = time.Minute

func TestLookSeesTheFleet(t *testing.T) {
	path := serve(t, lookAtDemo)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	got, err := lookThere(within(t, ceiling), anyAt(path))
	if err != nil || !reflect.DeepEqual(got, demo) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, demo)
	}
}

func TestOperate(t *testing.T) {
	b := &backend{look: lookAtDemo}
	c := dial(t, serveBackend(t, b))
	if err := c.Operate(within(t, ceiling), "web.0", verb.Call{Name: verb.Kill, Signal: 15}); err != nil {
		t.Error(err)
	}
	if err := c.Operate(within(t, ceiling), "web.0", verb.Call{Name: verb.Restart}); err != nil {
		t.Error(err)
	}
	if err := c.Operate(within(t, ceiling), "web.10", verb.Call{Name: verb.Restart}); err == nil || err.Error() != "the fleet stops" {
		t.Errorf("refused: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if want := []string{"kill web.0 15", "restart web.0 0"}; !slices.Equal(b.done, want) {
		t.Errorf("done: %q, want %q", b.done, want)
	}
}

func TestLookSaysWhyItSeesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := lookThere(within(t, ceiling), anyAt(filepath.Join(dir, "none"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	mute := filepath.Join(dir, "mute")
	if _, err := net.Listen("unix", mute); err != nil { // closed with the process
		t.Fatal(err)
	}
	if _, err := lookThere(within(t, 50*time.Millisecond), anyAt(mute)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a master that does not answer: %v", err)
	}
	l.Close()
	if _, err := lookThere(within(t, ceiling), anyAt(stale)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a socket that nobody serves: %v", err)
	}
	busy := serve(t, func() (*Status, error) { return nil, errors.New("busy") })
	if _, err := lookThere(within(t, ceiling), anyAt(busy)); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a busy master: %v", err)
	}
}

// connect returns a D-Bus connection, as any client makes one.
func connect(t *testing.T, path string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestOnlyWhatIsListedCanBeCalled tries each verb at each path, and what is not
// on the list.
func TestOnlyWhatIsListedCanBeCalled(t *testing.T) {
	b := &backend{look: lookAtDemo}
	conn := connect(t, serveBackend(t, b))
	const web = slotsPath + "/web_2e0"
	for _, c := range []struct {
		path   dbus.ObjectPath
		method string
		args   []any
		want   string // a part of the result, or the name of an error
	}{
		{"/", busInterface + ".ListNames", nil, Interface},
		{"/", busInterface + ".GetNameOwner", []any{Interface}, ":1.0"},
		{"/", busInterface + ".NameHasOwner", []any{Interface}, "true"},
		{"/", busInterface + ".NameHasOwner", []any{"org.example"}, "false"},
		{"/", peerInterface + ".Ping", nil, "[]"},
		{"/", introspectableInterface + ".Introspect", nil, managerInterface},
		{"/io", introspectableInterface + ".Introspect", nil, `<node name="github"/>`},
		{Path, introspectableInterface + ".Introspect", nil, `<property name="StatusText" type="s" access="read">`},
		{Path, introspectableInterface + ".Introspect", nil, `<node name="slot"/>`},
		{slotsPath, introspectableInterface + ".Introspect", nil, `<node name="web_2e10"/>`},
		{web, introspectableInterface + ".Introspect", nil, `<property name="NRestarts" type="u" access="read">`},
		{Path, propertiesInterface + ".Get", []any{Interface, "StatusText"}, "1/2 ready"},
		{Path, propertiesInterface + ".Get", []any{Interface, "FloorMemory"}, "104857600"},
		{Path, propertiesInterface + ".Get", []any{Interface, "Slots"}, "UnknownProperty"},
		{Path, introspectableInterface + ".Introspect", nil, `<signal name="PropertiesChanged">`},
		{Path, propertiesInterface + ".Get", []any{SlotInterface, "State"}, "UnknownInterface"},
		{Path, propertiesInterface + ".GetAll", []any{""}, "/etc/prefork/demo.toml"},
		{Path, propertiesInterface + ".GetAll", []any{peerInterface}, "[map[]]"},
		{web, propertiesInterface + ".Get", []any{SlotInterface, "State"}, "ready"},
		{web, propertiesInterface + ".Get", []any{SlotInterface}, "InvalidArgs"},
		{slotsPath + "/web_2e9", propertiesInterface + ".GetAll", []any{SlotInterface}, "UnknownObject"},
		{slotsPath + "/web_2e9", introspectableInterface + ".Introspect", nil, "UnknownObject"},
		{"/", propertiesInterface + ".GetAll", []any{Interface}, "UnknownObject"},
		{Path, propertiesInterface + ".Set", []any{Interface, "Name", dbus.MakeVariant("x")}, "PropertyReadOnly"},
		{"/", managerInterface + ".GetManagedObjects", nil, "web_2e10"},
		{Path, managerInterface + ".GetManagedObjects", nil, "UnknownInterface"},
		{web, SlotInterface + ".History", nil, "web.0 has started"},
		{Path, SlotInterface + ".History", nil, "UnknownObject"},
		{web, SlotInterface + ".TaskHistory", []any{"t"}, "web.0/t has started"},
		{web, SlotInterface + ".TaskHistory", []any{""}, "InvalidArgs"},
		{web, SlotInterface + ".StartTask", []any{"t"}, "[]"},
		{web, SlotInterface + ".StopTask", []any{"t"}, "[]"},
		{web, SlotInterface + ".StopTask", []any{""}, "InvalidArgs"},
		{web, SlotInterface + ".RestartTask", []any{"t"}, "[]"},
		{web, SlotInterface + ".Start", nil, "[]"},
		{web, SlotInterface + ".Stop", nil, "[]"},
		{web, SlotInterface + ".Restart", nil, "[]"},
		{web, SlotInterface + ".Reset", nil, "[]"},
		{web, SlotInterface + ".Freeze", nil, "[]"},
		{web, SlotInterface + ".Thaw", nil, "[]"},
		{web, SlotInterface + ".Stacks", nil, "[]"},
		{web, SlotInterface + ".Kill", []any{int32(10)}, "[]"},
		{web, SlotInterface + ".Kill", []any{uint32(10)}, "InvalidArgs"},
		{slotsPath + "/web_2e10", SlotInterface + ".Stop", nil, "Failed"},
		{slotsPath + "/web_2e9", SlotInterface + ".Stop", nil, "UnknownObject"},
		{Path, SlotInterface + ".Stop", nil, "UnknownObject"},
		{"/", SlotInterface + ".Stop", nil, "UnknownObject"},
		{Path, Interface + ".Start", nil, "UnknownMethod"},
		{Path, Interface + ".Restart", nil, "InvalidArgs"},
		{Path, Interface + ".Restart", []any{[]string{"web", "api.0"}}, "8"},
		{Path, Interface + ".Restart", []any{[]string{}}, "8"},
		{web, "Restart", nil, "[]"},
		{Path, "Restart", []any{[]string{}}, "8"},
		{web, Interface + ".Restart", []any{[]string{}}, "UnknownObject"},
		{Path, Interface + ".Reload", nil, "7"},
		{"/", Interface + ".Reload", nil, "UnknownObject"},
		{Path, Interface + ".Plan", nil, `["worker", "web", "roll", ["exec", "nice"], 2, 3]`},
		{Path, Interface + ".Scale", []any{"web", int32(-1)}, "9"},
		{Path, Interface + ".Scale", []any{"web", uint32(1)}, "InvalidArgs"},
		{Path, Interface + ".Cancel", nil, "[]"},
		{Path, Interface + ".Try", nil, "10"},
		{Path, Interface + ".Probe", []any{int32(3)}, "4003"},
		{Path, Interface + ".Probe", nil, "InvalidArgs"},
		{Path, Interface + ".Outcome", []any{uint64(7)}, "done"},
		{Path, Interface + ".Outcome", []any{uint64(1)}, "Failed"},
		{"/", busInterface + ".AddMatch", []any{"type='signal'"}, "[]"},
		{"/", busInterface + ".RemoveMatch", []any{"type='signal'"}, "[]"},
		{"/", busInterface + ".AddMatch", nil, "InvalidArgs"},
		{Path, busInterface + ".RequestName", []any{"org.example", uint32(0)}, "UnknownMethod"},
		{Path, "org.example.Ping", nil, "UnknownMethod"},
	} {
		call := conn.Object(Interface, c.path).CallWithContext(within(t, ceiling), c.method, 0, c.args...)
		got := strings.TrimSpace(bodyText(call.Body))
		if e := (dbus.Error{}); errors.As(call.Err, &e) {
			got = e.Name
		} else if call.Err != nil {
			t.Fatalf("%s at %s: %v", c.method, c.path, call.Err)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s at %s of %v: got %s, want %q in it", c.method, c.path, c.args, got, c.want)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if want := []string{
		"start web.0/t 0", "stop web.0/t 0", "restart web.0/t 0",
		"start web.0 0", "stop web.0 0", "restart web.0 0", "reset web.0 0", "freeze web.0 0", "thaw web.0 0", "stacks web.0 0", "kill web.0 10",
		`restart fleet ["web" "api.0"]`, `restart fleet []`, "restart web.0 0", `restart fleet []`, "reload", "plan", "scale web -1", "cancel", "try", "probe 3",
	}; !slices.Equal(b.done, want) {
		t.Errorf("done: %q, want %q", b.done, want)
	}
}

// TestIntrospectionIsXML of the specification's form, as a library reads it.
func TestIntrospectionIsXML(t *testing.T) {
	conn := connect(t, serve(t, lookAtDemo))
	for _, path := range []dbus.ObjectPath{"/", "/io", Path, slotsPath, slotsPath + "/web_2e0"} {
		node, err := introspect.Call(conn.Object(Interface, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		methods, properties := 0, 0
		for _, i := range node.Interfaces {
			methods, properties = methods+len(i.Methods), properties+len(i.Properties)
		}
		if path == slotsPath+"/web_2e0" && (methods < 10 || properties < 10) || path == slotsPath && len(node.Children) != 2 {
			t.Errorf("%s: %+v", path, node)
		}
	}
}

func bodyText(body []any) string {
	var b strings.Builder
	b.WriteString("[")
	for _, v := range body {
		b.WriteString(strings.TrimSpace(strings.ReplaceAll(dbusText(v), `\"`, `"`)))
	}
	return b.String() + "]"
}

func dbusText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case map[string]dbus.Variant:
		if len(v) == 0 {
			return "map[]"
		}
	}
	return dbus.MakeVariant(v).String()
}

// lookThere asks the master at an address for its fleet.
func lookThere(ctx context.Context, at Address) (*Status, error) {
	c, err := Dial(ctx, at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Look(ctx)
}
