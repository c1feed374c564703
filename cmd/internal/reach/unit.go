// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Unit is the service that runs a fleet by its name.
func Unit(fleet string) string { return "prefork@" + fleet + ".service" }

// fleetOfUnit is the fleet whose service a unit is.
func fleetOfUnit(unit string) string {
	return strings.TrimSuffix(strings.TrimPrefix(unit, "prefork@"), ".service")
}

// JobDone is the result of a job of systemd's that has done its work.
const JobDone = "done"

// Job has systemd do something to a unit. It sends the result to done, or has systemd send
// it, unless it returns an error.
type Job func(ctx context.Context, c *systemd.Conn, unit string, done chan<- string) error

// Systemd connects to the system's manager. The caller closes the connection.
func Systemd(ctx context.Context, fleet string) (*systemd.Conn, error) {
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, exit.Failed("systemd, which runs fleets by their names, cannot be reached: %v; to run one here: prefork run %s", err, fleet)
	}
	return conn, nil
}

// LogNamespace is the journal's namespace in which the unit of a fleet logs, "" for the
// usual one, also where systemd cannot be asked.
func LogNamespace(fleet string) string {
	ctx, cancel := context.WithTimeout(context.Background(), AnswerTimeout)
	defer cancel()
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return ""
	}
	defer conn.Close()
	return property(ctx, conn, Unit(fleet), "LogNamespace")
}

// property is a property of a service that is a string, "" if it is not known.
func property(ctx context.Context, conn *systemd.Conn, unit, name string) string {
	p, err := conn.GetUnitTypePropertyContext(ctx, unit, "Service", name)
	if err != nil {
		return ""
	}
	text, _ := p.Value.Value().(string)
	return text
}

// OnUnit does a job to the unit of a fleet, for the command of that name, and waits until
// systemd has done it: without bound, for a fleet may take its time to start. Meanwhile tell,
// if there is one, gets what the fleet says of itself, once a second at most. A fleet that
// this user runs from a file is not systemd's.
func OnUnit(fleet, command string, tell func(text string), do Job) error {
	named := fleet
	fleet, err := Means(fleet)
	if err != nil {
		return err
	}
	if fleetfile.IsPath(fleet) && Runs(fleet) {
		return exit.Failed("%s: systemd does not run fleet %s, which was started with %s: prefork restart %[2]s replaces its processes, prefork stop %[2]s ends it",
			command, named, fleet)
	}
	if fleetfile.IsPath(fleet) {
		return exit.Misused("%s: systemd runs fleets by their names; %s runs one here: prefork run %s, which Ctrl-C or SIGTERM ends",
			command, fleet, fleet)
	}
	unknown := Known(fleet)
	if unknown != nil && (command != "stop" || exit.Status(unknown) == exit.Usage) {
		return unknown
	}
	ctx := context.Background()
	conn, err := Systemd(ctx, fleet)
	if err != nil {
		return err
	}
	defer conn.Close()
	if unknown != nil { // what runs, or is to be tried again, can be stopped even if its file is gone
		state, err := conn.GetUnitPropertyContext(ctx, Unit(fleet), "ActiveState")
		if err != nil || state.Value.Value() == inactive && OpenSockets(ctx, conn, Unit(fleet)) == "" {
			return unknown
		}
	}
	said, hangUp := statusOf(conn, Unit(fleet))
	defer hangUp()
	done := make(chan string, 1) // without room the library would wait for ever
	if err := do(ctx, conn, Unit(fleet), done); err != nil {
		return exit.Failed("%s %s: %v", command, Unit(fleet), err)
	}
	result, last := until(done, said, tell)
	if result == JobDone {
		return nil
	}
	if last == "" {
		last = control.Printable(property(ctx, conn, Unit(fleet), "StatusText"))
	}
	if last == "" {
		return exit.Failed("%s %s: %s; see why: prefork logs %s", command, Unit(fleet), result, fleet)
	}
	again := ""
	if property(ctx, conn, Unit(fleet), "Restart") != "no" && command != "stop" {
		again = fmt.Sprintf("; systemd tries again until prefork stop %s", fleet)
	}
	return exit.Failed("%s %s: %s: %s%s", command, Unit(fleet), result, strings.TrimPrefix(last, result+": "), again)
}

// statusOf has the channel get what a unit says of itself, STATUS= of sd_notify(3), whenever
// that changes, until the connection is closed. Where it cannot be heard nothing comes.
func statusOf(systemdConn *systemd.Conn, unit string) (said <-chan *dbus.Signal, hangUp func()) {
	const room = 64 // what has no place is lost, and the next is heard
	signals := make(chan *dbus.Signal, room)
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		return signals, func() {}
	}
	bus.Signal(signals)
	path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(unit))
	_ = bus.AddMatchSignal(dbus.WithMatchObjectPath(path), dbus.WithMatchInterface("org.freedesktop.DBus.Properties")) // else nothing comes
	_ = systemdConn.Subscribe()                                                                                        // the same
	return signals, func() { _ = bus.Close() }
}

// countdown is what changes by itself in what a fleet says: "in 1min 30s".
var countdown = regexp.MustCompile(`\bin \d[\w.]*( \d[\w.]*)*`)

// until waits for the result of a job, and returns with it what the unit has said last. Once
// a second at most it tells what it says.
func until(done <-chan string, said <-chan *dbus.Signal, tell func(text string)) (result, last string) {
	told := ""
	each := time.NewTicker(time.Second)
	defer each.Stop()
	for {
		select {
		case result = <-done:
			return result, last
		case signal, more := <-said:
			if !more {
				said = nil
				continue
			}
			if text := statusIn(signal); text != "" {
				last = text
			}
		case <-each.C:
			if is := countdown.ReplaceAllString(last, ""); is != told && tell != nil {
				told = is
				tell(last)
			}
		}
	}
}

// statusIn is the StatusText of PropertiesChanged, "" if it is not in there.
func statusIn(signal *dbus.Signal) string {
	if len(signal.Body) < 2 {
		return ""
	}
	changed, _ := signal.Body[1].(map[string]dbus.Variant)
	text, _ := changed["StatusText"].Value().(string)
	return control.Printable(text)
}
