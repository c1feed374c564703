// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/verb"
)

var demo = &Status{
	Name: "demo", File: "/etc/prefork/demo.toml", MainPID: 7, ActiveState: "active", StatusText: "1/2 ready", Generation: 3,
	FloorPID: 6, FloorMemory: 100 << 20, Spares: 1, NRestarts: 9, NotificationsDropped: 2,
	Slots: []SlotStatus{
		{
			Name: "web.0", Worker: "web", State: "ready", StateTimestamp: 1, Reason: "running", MainPID: 8, Generation: 3, StatusText: "at work",
			FreezerState: "running", Restarts: map[string]uint64{}, CPUUsageNSec: 5e9, MemoryPrivate: 1 << 20, MemoryShared: 90 << 20,
		},
		{
			Name: "web.10", Worker: "web", State: "waiting", StateTimestamp: 2, Reason: "exit-code", Result: "exit-code",
			Failures: 4, NRestarts: 9, NextStartTimestamp: 5, FreezerState: "running", Restarts: map[string]uint64{"exit-code": 9},
		},
	},
}

// backend is a fleet that only this user may change.
type backend struct {
	look func() (*Status, error)

	mu       sync.Mutex
	done     []string // verb, slot and signal
	measured int
	idle     atomic.Bool // the last client has gone
}

func (b *backend) Look() (*Status, error) { return b.look() }

// Measure has numbers for those that have a process.
func (b *backend) Measure(f *Status) {
	b.mu.Lock()
	b.measured++
	b.mu.Unlock()
	f.FloorMemory = demo.FloorMemory
	for i := range f.Slots {
		if s := &f.Slots[i]; s.MainPID != 0 {
			s.CPUUsageNSec, s.MemoryPrivate, s.MemoryShared = 5e9, 1<<20, 90<<20
		}
	}
}

func (b *backend) Idle() { b.idle.Store(true) }

func (b *backend) History(slot string) []HistoryEntry {
	return []HistoryEntry{{7, slot + " has started"}, {8, "it is ready\x1b[2J"}}
}

func (b *backend) MayChange(c Caller) error {
	if b.look == nil || c.UID != uint32(os.Geteuid()) || c.PID != os.Getpid() {
		return fmt.Errorf("uid %d may not", c.UID)
	}
	return nil
}

func (b *backend) Operate(slot string, call verb.Call, _ Caller) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slot == "web.10" {
		return errors.New("the fleet stops")
	}
	b.done = append(b.done, fmt.Sprintf("%s %s %d", call.Name, slot, call.Signal))
	return nil
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
	got, err := Look(within(t, ceiling), anyAt(path))
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
	if _, err := Look(within(t, ceiling), anyAt(filepath.Join(dir, "none"))); !errors.Is(err, fs.ErrNotExist) {
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
	if _, err := Look(within(t, 50*time.Millisecond), anyAt(mute)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a master that does not answer: %v", err)
	}
	l.Close()
	if _, err := Look(within(t, ceiling), anyAt(stale)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a socket that nobody serves: %v", err)
	}
	busy := serve(t, func() (*Status, error) { return nil, errors.New("busy") })
	if _, err := Look(within(t, ceiling), anyAt(busy)); err == nil || !strings.Contains(err.Error(), "busy") {
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
		{web, SlotInterface + ".Start", nil, "[]"},
		{web, SlotInterface + ".Stop", nil, "[]"},
		{web, SlotInterface + ".Restart", nil, "[]"},
		{web, SlotInterface + ".Reset", nil, "[]"},
		{web, SlotInterface + ".Freeze", nil, "[]"},
		{web, SlotInterface + ".Thaw", nil, "[]"},
		{web, SlotInterface + ".Kill", []any{int32(10)}, "[]"},
		{web, SlotInterface + ".Kill", []any{uint32(10)}, "InvalidArgs"},
		{slotsPath + "/web_2e10", SlotInterface + ".Stop", nil, "Failed"},
		{slotsPath + "/web_2e9", SlotInterface + ".Stop", nil, "UnknownObject"},
		{Path, SlotInterface + ".Stop", nil, "UnknownObject"},
		{"/", SlotInterface + ".Stop", nil, "UnknownObject"},
		{Path, Interface + ".Restart", nil, "UnknownMethod"},
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
	if want := []string{"start web.0 0", "stop web.0 0", "restart web.0 0", "reset web.0 0", "freeze web.0 0", "thaw web.0 0", "kill web.0 10"}; !slices.Equal(b.done, want) {
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

// refusing is a backend that lets nobody change anything.
type refusing struct{ backend }

func (*refusing) MayChange(Caller) error { return errors.New("not you") }

// TestWhoMayNotChangesNothing: every verb that is not for reading is refused
// before anything else is looked at.
func TestWhoMayNotChangesNothing(t *testing.T) {
	b := &refusing{backend{look: lookAtDemo}}
	conn := connect(t, serveBackend(t, b))
	for _, v := range methods() {
		if v.access != accessChange {
			continue
		}
		var args []any
		if v.in == "i" {
			args = append(args, int32(9))
		}
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
		"Introspect": {"/", Path, slotsPath, web}, "Get": objects, "GetAll": objects, "Set": nil, "GetManagedObjects": {"/"}, "History": {web},
	}
	args := map[string][]string{"Get": {"", "Name"}, "GetAll": {""}, "Set": {"", "Name"}, "NameHasOwner": {"x"}, "GetNameOwner": {"x"}}
	for _, v := range methods() {
		for name, c := range callers {
			for _, path := range everywhere {
				b := &choosy{backend{look: lookAtDemo}}
				s := &Server{backend: b, closing: make(chan struct{}), changed: make(chan struct{}, 1), watchers: map[*watcher]bool{}, closed: true}
				_, failed := s.carryOut(v, &call{path: path, args: args[v.name], number: 9, caller: c.who, client: &client{server: s, caller: c.who}})
				places, reads := readable[v.name]
				right := "AccessDenied"
				switch {
				case reads && slices.Contains(places, path), !reads && c.may && path == web:
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

// raw connects without a library.
func raw(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(ceiling)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// sdBus is what libsystemd sends at once: it waits for no answer.
const sdBus = "\x00AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"

// encoded is a message as it goes over the wire.
func encoded(t testing.TB, m *dbus.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b.Bytes()[8:], 1)
	return b.Bytes()
}

func ping(flags dbus.Flags) *dbus.Message {
	return &dbus.Message{Type: dbus.TypeMethodCall, Flags: flags, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldMember: dbus.MakeVariant("Ping"),
	}}
}

func TestClientMaySendEverythingAtOnce(t *testing.T) {
	conn := raw(t, serve(t, lookAtDemo))
	if _, err := conn.Write(append([]byte(sdBus), append(encoded(t, ping(dbus.FlagNoReplyExpected)), encoded(t, ping(0))...)...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for _, want := range []string{"DATA", "OK ", "ERROR"} {
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("got %q, %v, want %s", line, err, want)
		}
	}
	if m, err := dbus.DecodeMessage(r); err != nil || m.Type != dbus.TypeMethodReply || m.Serial() == 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestHostileClients are shown the door, or nothing.
func TestHostileClients(t *testing.T) {
	path := serve(t, lookAtDemo)
	huge := encoded(t, ping(0))
	binary.LittleEndian.PutUint32(huge[4:], 1<<26)
	for name, sent := range map[string]string{
		"no NUL":            "AUTH EXTERNAL\r\n",
		"another's uid":     "\x00AUTH EXTERNAL 3939393939\r\nBEGIN\r\n",
		"no authentication": "\x00BEGIN\r\n",
		"anonymous":         "\x00AUTH ANONYMOUS\r\nBEGIN\r\n",
		"many lines":        "\x00" + strings.Repeat("X\r\n", 1000),
		"a long line":       "\x00" + strings.Repeat("X", 100_000),
		"a huge message":    sdBus + string(huge),
		"not a message":     sdBus + strings.Repeat("\xff", 1000),
	} {
		conn := raw(t, path)
		_, _ = io.WriteString(conn, sent) // it may be closed before all is sent
		_, err := io.Copy(io.Discard, conn)
		if err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Look(within(t, ceiling), anyAt(path)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestIdleClientsKeepNobodyOut has a thousand that say nothing, and some that do
// not read.
func TestIdleClientsKeepNobodyOut(t *testing.T) {
	path := serve(t, lookAtDemo)
	for i := range 1000 {
		conn := raw(t, path)
		if i%10 == 0 {
			_, _ = io.WriteString(conn, sdBus) // it may have made room already
		}
	}
	deaf := raw(t, path)
	go func() {
		all := encoded(t, ping(0))
		for _, err := io.WriteString(deaf, sdBus); err == nil; {
			_, err = deaf.Write(all)
		}
	}()
	for range 10 {
		if _, err := Look(within(t, ceiling), anyAt(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVictimIsNotRoot: what shares the owner's uid makes room before root does.
func TestVictimIsNotRoot(t *testing.T) {
	a, b, c := &client{}, &client{caller: Caller{UID: 1000}}, &client{caller: Caller{UID: 1000}}
	s := &Server{clients: []*client{a, b, c}}
	s.heard(b)
	for _, want := range []*client{c, b, a} {
		if got := s.victim(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte(sdBus), encoded(f, ping(0)))
	f.Add([]byte("\x00AUTH EXTERNAL 30\r\nBEGIN\r\n"), []byte("l\x01\x00\x01"))
	long := encoded(f, ping(0)) // of a path, which says that it has 4 GB
	binary.LittleEndian.PutUint32(long[20:], 0xfffffffa)
	f.Add([]byte(sdBus), long)
	s := &Server{backend: &backend{look: lookAtDemo}}
	f.Fuzz(func(t *testing.T, lines, messages []byte) {
		_ = authenticate(bufio.NewReaderSize(bytes.NewReader(lines), maxMessage), io.Discard, 0, "guid") // only that it ends
		c := &client{reader: bufio.NewReaderSize(bytes.NewReader(messages), maxMessage)}
		for {
			m, err := c.receive()
			if err != nil {
				return
			}
			if _, failed := s.answer(&m, &client{server: s}); failed == nil {
				if _, ok := findMethod(m.iface, m.member); !ok {
					t.Errorf("%q of %q was answered", m.member, m.iface)
				}
			}
		}
	})
}
