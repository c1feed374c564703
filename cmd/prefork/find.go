// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rundir"
)

// load reads the fleet file that FLEET names.
func load(arg string) (*fleetfile.File, error) {
	path, err := fleetfile.Resolve(arg)
	if faults := fleetfile.Errors(nil); errors.As(err, &faults) {
		return nil, located(exitConfig, err)
	}
	if err != nil {
		return nil, misused("%v", err)
	}
	file, err := fleetfile.Load(path)
	if err != nil {
		return nil, located(exitConfig, err)
	}
	return file, nil
}

// answerTimeout is how long a master may take to answer before it is called
// stuck.
const answerTimeout = 5 * time.Second

// master is the connection of a command to the master of a fleet.
type master struct {
	*control.Client
	fleet   string // as the command line names it
	address control.Address
	status  *control.Status // as it was
}

// lookAt asks the master of the fleet that FLEET names.
func lookAt(arg string) (*control.Status, error) {
	m, err := connect(arg)
	if err != nil {
		return nil, err
	}
	m.Close()
	return m.status, nil
}

// look asks the master at an address.
func look(address control.Address) (*control.Status, error) {
	c, f, err := dial(address)
	if err != nil {
		return nil, err
	}
	c.Close()
	return f, nil
}

// connect finds the master of the fleet that FLEET names, and looks at it. The caller
// closes the connection.
func connect(arg string) (*master, error) {
	path, missing := fleetfile.Resolve(arg)
	if faults := fleetfile.Errors(nil); missing != nil && !errors.As(missing, &faults) {
		return nil, misused("%v", missing)
	}
	sockets, err := socketsOf(arg, path)
	if err != nil {
		return nil, failed("%v", err)
	}
	for _, address := range sockets {
		c, f, err := dial(address)
		switch {
		case err == nil:
			return &master{c, arg, address, f}, nil
		case !isAbsent(err):
			return nil, explain(arg, err)
		}
	}
	if missing == nil {
		_, missing = os.Stat(path)
	}
	if missing != nil {
		return nil, &notRunning{failed("no fleet runs by that name, and: %v", missing)}
	}
	return nil, &notRunning{failed("fleet %s does not run%s; start it: %s", arg, unitSays(arg), startWith(arg))}
}

// notRunning is the error of a fleet that has no master.
type notRunning struct{ error }

func (a *notRunning) Unwrap() error { return a.error }

func dial(at control.Address) (*control.Client, *control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	c, err := control.Dial(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	f, err := c.Look(ctx)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, f, nil
}

// socketsOf are the places where the master may be: that of the unit, and that of
// a fleet that this user runs from the file at path, which may be "".
func socketsOf(arg, path string) (sockets []control.Address, err error) {
	if !fleetfile.IsPath(arg) {
		sockets = append(sockets, rundir.ControlOfUnit(arg))
	}
	if path == "" {
		return sockets, nil
	}
	own, err := rundir.ControlsOfFile(path)
	return append(sockets, own...), err
}

// isAbsent reports whether an error says that there is no master.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// explain says what to do about an error.
func explain(fleet string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return failed("fleet %s: only root and the user that it runs as may look at it: sudo prefork status %s", fleet, fleet)
	case errors.Is(err, context.DeadlineExceeded):
		return failed("fleet %s: its master does not answer: it is stuck, or stopped; "+
			"systemd's watchdog will restart it; without systemd, kill -ABRT its process, which dumps its goroutines", fleet)
	default:
		return failed("fleet %s: %v", fleet, err)
	}
}

// unitSays is what systemd says of a fleet that does not run, if it is not just
// stopped.
func unitSays(arg string) string {
	if fleetfile.IsPath(arg) {
		return ""
	}
	if f, ok := unitFleets()[arg]; ok && f.StatusText != "" {
		return fmt.Sprintf(" (%s: %s)", f.ActiveState, f.StatusText)
	}
	return ""
}

func startWith(arg string) string {
	if fleetfile.IsPath(arg) {
		return "prefork run " + arg
	}
	return "systemctl start prefork@" + arg
}
