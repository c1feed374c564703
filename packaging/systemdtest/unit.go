// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Unit is what systemd says about a service. Pids are those of the machine's
// own namespace.
type Unit struct {
	ActiveState    string
	SubState       string
	Result         string
	StatusText     string
	ControlGroup   string
	MainPID        int
	ExecMainStatus int
	NRestarts      int
	Watchdog       time.Duration // when it was last served, on the monotonic clock
}

// Service asks systemd about a service.
func (m *Machine) Service(t testing.TB, name string) Unit {
	t.Helper()
	p := m.properties(t, name)
	text := func(key string) string { s, _ := p[key].(string); return s }
	u := Unit{
		ActiveState:  text("ActiveState"),
		SubState:     text("SubState"),
		Result:       text("Result"),
		StatusText:   text("StatusText"),
		ControlGroup: text("ControlGroup"),
	}
	// Each number has the type that org.freedesktop.systemd1(5) gives it.
	main, _ := p["MainPID"].(uint32)
	status, _ := p["ExecMainStatus"].(int32)
	restarts, ok := p["NRestarts"].(uint32)
	if !ok || u.ActiveState == "" {
		t.Fatalf("%s: systemd does not know %s as a service", m.Suite, name)
	}
	watchdog, _ := p["WatchdogTimestampMonotonic"].(uint64)
	u.Watchdog = time.Duration(watchdog) * time.Microsecond
	u.MainPID, u.ExecMainStatus, u.NRestarts = int(main), int(status), int(restarts)
	return u
}

// properties asks the machine's systemd over its system bus: systemd's private
// socket refuses clients whose pid it cannot see.
func (m *Machine) properties(t testing.TB, unit string) map[string]any {
	t.Helper()
	if m.manager == nil || !m.manager.Connected() {
		conn, err := dbus.NewConnection(m.dialBus)
		if err != nil {
			t.Fatalf("%s: connect to the system bus: %v", m.Suite, err)
		}
		m.manager = conn
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p, err := m.manager.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		t.Fatalf("%s: properties of %s: %v", m.Suite, unit, err)
	}
	return p
}

func (m *Machine) dialBus() (*godbus.Conn, error) {
	socket := filepath.Join("/proc", strconv.Itoa(m.PID), "root/run/dbus/system_bus_socket")
	return godbus.Connect("unix:path="+socket,
		godbus.WithAuth(godbus.AuthExternal(strconv.Itoa(os.Getuid()))))
}
