// SPDX-License-Identifier: AGPL-3.0-or-later

// Package reach is how commands find a fleet: the file that FLEET names, the master that
// runs it, its unit at systemd, and the socket units of that. What cannot be reached is an
// error of package exit, which says what to do.
//
//	reach.go   the file, and the connection to the master
//	await.go   a master that is not there yet
//	means.go   which fleet a name means, and what may have been meant
//	fleets.go  all fleets, and why one has no master
//	unit.go    the unit; sockets.go its socket units
//	newer.go   the code that a floor does not have yet
package reach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rights"
	"github.com/decnet/prefork/supervisor/rundir"
)

// File reads the fleet file that FLEET names, as it is for this process.
func File(fleet string) (*fleetfile.File, error) {
	path, err := fleetfile.Resolve(fleet)
	if faults := fleetfile.Errors(nil); errors.As(err, &faults) {
		return nil, exit.Located(exit.Config, err)
	}
	if err != nil {
		return nil, exit.Misused("%v", err)
	}
	file, err := fleetfile.Load(path, rights.Host())
	if err != nil {
		return nil, exit.Located(exit.Config, err)
	}
	return file, nil
}

// Known refuses a name that is not that of a fleet. The file is not read.
func Known(fleet string) error {
	_, err := fleetfile.Resolve(fleet)
	if faults := fleetfile.Errors(nil); errors.As(err, &faults) {
		return exit.Located(exit.Failure, err)
	}
	if err != nil {
		return exit.Misused("%v", err)
	}
	return nil
}

// AnswerTimeout is how long a master may take to answer before it is called
// stuck.
const AnswerTimeout = 5 * time.Second

// Master is the connection of a command to the master of a fleet.
type Master struct {
	*control.Client

	Fleet   string // as the command line names it
	Address control.Address
	Status  *control.Status // as it was
}

// Connect finds the master of the fleet that FLEET names, and looks at it. It waits
// [AnswerTimeout] at most for each place where a master may be. The caller closes the
// connection.
func Connect(fleet string) (*Master, error) {
	path, missing := fleetfile.Resolve(fleet)
	if faults := fleetfile.Errors(nil); missing != nil && !errors.As(missing, &faults) {
		return nil, exit.Misused("%v", missing)
	}
	sockets, err := socketsOf(fleet, path)
	if err != nil {
		return nil, exit.Failed("%v", err)
	}
	for _, address := range sockets {
		c, f, err := dial(address)
		switch {
		case err == nil:
			return &Master{c, fleet, address, f}, nil
		case !isAbsent(err):
			return nil, Explain(fleet, err)
		}
	}
	if missing != nil {
		return connectByName(fleet, missing)
	}
	if _, missing = os.Stat(path); missing != nil {
		return nil, &notRunning{exit.Failed("no fleet runs by that name, and: %v", missing), true}
	}
	for _, address := range sockets {
		if rundir.Served(address.Socket) {
			return nil, exit.Failed("fleet %s runs, and cannot be reached: somebody has removed %s, which its master serves. Stop that by a signal, and start it again",
				fleet, address.Socket)
		}
	}
	return nil, &notRunning{exit.Failed("fleet %s does not run%s; start it: %s%s%s",
		fleet, unitSays(fleet), startWith(fleet), another(fleet), hiddenBy()), false}
}

// hiddenBy tells what may keep a fleet from being found that runs, "" if nothing does.
func hiddenBy() string {
	if os.Geteuid() != 0 && os.Getenv("XDG_RUNTIME_DIR") == "" {
		return "; XDG_RUNTIME_DIR is not set: one that was started with it is not found without it"
	}
	return ""
}

// notRunning is the error of a fleet that has no master.
type notRunning struct {
	error
	forGood bool // it has no file
}

func (a *notRunning) Unwrap() error { return a.error }

// Runs reports whether there is a master that answers, or one that does not.
func Runs(fleet string) bool {
	m, err := Connect(fleet)
	if err == nil {
		m.Close()
		return true
	}
	return !errors.As(err, new(*notRunning))
}

// Look asks the master of the fleet that FLEET names how the fleet is.
func Look(fleet string) (*control.Status, error) {
	m, err := Connect(fleet)
	if err != nil {
		return nil, err
	}
	m.Close()
	return m.Status, nil
}

// LookAgain asks the master how the fleet is now.
func (m *Master) LookAgain() error {
	ctx, cancel := context.WithTimeout(context.Background(), AnswerTimeout)
	defer cancel()
	f, err := m.Look(ctx)
	if err != nil {
		return Explain(m.Fleet, err)
	}
	m.Status = f
	return nil
}

func dial(at control.Address) (*control.Client, *control.Status, error) {
	return dialWithin(AnswerTimeout, at)
}

func dialWithin(patience time.Duration, at control.Address) (*control.Client, *control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
func socketsOf(fleet, path string) (sockets []control.Address, err error) {
	if !fleetfile.IsPath(fleet) {
		sockets = append(sockets, rundir.ControlOfUnit(fleet))
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

// Explain says what to do about an error of the connection to the master of a fleet.
func Explain(fleet string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return exit.Failed("fleet %s: only root and the user that it runs as may look at it: sudo prefork status %s", fleet, fleet)
	case errors.Is(err, context.DeadlineExceeded):
		return exit.Failed("fleet %s: its master does not answer: it is stuck, or stopped; "+
			"systemd's watchdog will restart it; without systemd, kill -ABRT its process, which dumps its goroutines", fleet)
	default:
		return exit.Failed("fleet %s: %v", fleet, err)
	}
}

// unitSays is what systemd says of a fleet that does not run, if it is not just
// stopped.
func unitSays(fleet string) string {
	if fleetfile.IsPath(fleet) {
		return ""
	}
	if f, ok := unitFleets()[fleet]; ok && f.StatusText != "" {
		return fmt.Sprintf(" (%s: %s)", f.ActiveState, f.StatusText)
	}
	return ""
}

func startWith(fleet string) string {
	if fleetfile.IsPath(fleet) {
		return "prefork run " + fleet
	}
	return "systemctl start prefork@" + fleet
}
