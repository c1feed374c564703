// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own_prefix="io.github.decnet.Prefork1"/>
  </policy>
</busconfig>
`

// systemBus starts a bus of the test's own in the place of the system's. What it
// returns ends that bus and starts the next one.
func systemBus(t *testing.T) (again func()) {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	socket, config := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(busConfig, "SOCKET", socket)), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	start := func() *exec.Cmd {
		cmd := exec.Command(daemon, "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !bufio.NewScanner(out).Scan() {
			t.Fatal("dbus-daemon says nothing")
		}
		return cmd
	}
	end := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by the signal
	}
	bus := start()
	t.Cleanup(func() { end(bus) })
	return func() {
		end(bus)
		bus = start()
	}
}

// onBus waits until the fleet has its name on the bus.
func onBus(t *testing.T) *dbus.Conn {
	t.Helper()
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for owned, end := false, time.Now().Add(ceiling); !owned; time.Sleep(10 * time.Millisecond) {
		call := conn.BusObject().CallWithContext(within(t, ceiling), busInterface+".NameHasOwner", 0, BusName("edge-eu"))
		if err := call.Store(&owned); err != nil || time.Now().After(end) {
			t.Fatalf("the name has no owner: %v", err)
		}
	}
	return conn
}

// TestBusOffersTheSame tries verbs on a real bus: the list is the same as on the
// private socket, but for what is the bus's own, and the right to change is asked
// for with what the bus says of the caller. A bus that ends is joined again.
func TestBusOffersTheSame(t *testing.T) {
	again := systemBus(t)
	b := newStage()
	s, _ := listen(t, b)
	s.JoinBus(BusName("edge-eu"), func(err error) { t.Error(err) })
	const web = slotsPath + "/web_2e0"
	try := func(conn *dbus.Conn) {
		for _, c := range []struct {
			path   dbus.ObjectPath
			method string
			args   []any
			want   string // a part of the result, or the name of an error
		}{
			{web, peerInterface + ".Ping", nil, "[]"},
			{web, introspectableInterface + ".Introspect", nil, `<method name="Freeze">`},
			{Path, propertiesInterface + ".Get", []any{Interface, "StatusText"}, "1/2 ready"},
			{Path, propertiesInterface + ".Get", []any{Interface}, "InvalidArgs"},
			{web, propertiesInterface + ".GetAll", []any{SlotInterface}, "94371840"},
			{Path, propertiesInterface + ".Set", []any{Interface, "Name", dbus.MakeVariant("x")}, "PropertyReadOnly"},
			{"/", managerInterface + ".GetManagedObjects", nil, "web_2e10"},
			{web, SlotInterface + ".Kill", []any{int32(10)}, "[]"},
			{web, SlotInterface + ".Kill", []any{uint32(10)}, "InvalidArgs"},
			{web, SlotInterface + ".Freeze", nil, "[]"},
			{slotsPath + "/none", SlotInterface + ".Freeze", nil, "UnknownObject"},
			{Path, busInterface + ".ListNames", nil, "UnknownInterface"},
			{Path, busInterface + ".AddMatch", []any{"type='signal'"}, "UnknownInterface"},
			{Path, "org.example.Ping", nil, "UnknownMethod"},
		} {
			call := conn.Object(BusName("edge-eu"), c.path).CallWithContext(within(t, ceiling), c.method, 0, c.args...)
			got := bodyText(call.Body)
			if e := (dbus.Error{}); errors.As(call.Err, &e) {
				got = e.Name
			} else if call.Err != nil {
				t.Fatalf("%s: %v", c.method, call.Err)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%s at %s of %v: got %s, want %q in it", c.method, c.path, c.args, got, c.want)
			}
		}
	}
	conn := onBus(t)
	try(conn)
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(within(t, ceiling), dbus.WithMatchObjectPath(Path)); err != nil {
		t.Fatal(err)
	}
	b.change(func(f *Status) { f.StatusText = "2/2 ready" })
	s.Changed()
	for told := false; !told; { // after what was told when the bus was joined
		changed := next(t, signals).Body[1].(map[string]dbus.Variant)
		told = changed["StatusText"].Value() == "2/2 ready"
	}
	again()
	b.change(func(f *Status) { f.StatusText = "1/2 ready" })
	try(onBus(t))
	b.mu.Lock()
	defer b.mu.Unlock()
	want := []string{"kill web.0 10", "freeze web.0 0"}
	if !slices.Equal(b.done, slices.Concat(want, want)) {
		t.Errorf("done: %q", b.done)
	}
}

// TestNobodyMayChangeOnTheBus whom the backend refuses.
func TestNobodyMayChangeOnTheBus(t *testing.T) {
	systemBus(t)
	s, _ := listen(t, &refusing{backend{look: lookAtDemo}})
	s.JoinBus(BusName("edge-eu"), func(err error) { t.Error(err) })
	conn := onBus(t)
	for _, v := range methods() {
		if v.access != accessChange {
			continue
		}
		err := conn.Object(BusName("edge-eu"), slotsPath+"/web_2e0").CallWithContext(within(t, ceiling), v.iface+"."+v.name, 0, argumentsOf(v)...).Err
		if e := (dbus.Error{}); !errors.As(err, &e) || e.Name != busInterface+".Error.AccessDenied" {
			t.Errorf("%s: %v", v.name, err)
		}
	}
}

// TestNameThatIsTaken is told once; a bus that is not there is not told at all.
func TestNameThatIsTaken(t *testing.T) {
	systemBus(t)
	s, _ := listen(t, newStage())
	s.JoinBus(BusName("edge-eu"), func(err error) { t.Error(err) })
	onBus(t)
	reports := make(chan error, 10)
	s.JoinBus(BusName("edge-eu"), func(err error) { reports <- err })
	if err := <-reports; fmt.Sprint(err) != "io.github.decnet.Prefork1.f_edge_2deu: the name is another's" {
		t.Errorf("got %v", err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	if err := (&bus{server: s, name: "none.none"}).join(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bus: %v", err)
	}
}
