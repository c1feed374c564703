// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/rundir"
)

// Names are those of the fleets that have a file, as far as it can be told.
func Names() (names []string) {
	found, _ := fleetfile.Find(fleetfile.Dirs) // what cannot be read has no names
	for _, f := range found {
		if f.Err == nil && !f.Masked {
			names = append(names, f.Name)
		}
	}
	return names
}

// All looks at every fleet that has a file or runs. Masters that do not answer are among
// the errors, and so is what cannot be read; the others are there nevertheless. Those that
// run, and at which this user may not look, are counted as hidden.
func All() (fleets []control.Status, hidden int, errs []error) {
	found, err := fleetfile.Find(fleetfile.Dirs)
	if err != nil {
		errs = append(errs, err)
	}
	sockets := rundir.Controls()
	looked := make([]*control.Status, len(sockets))
	failed := make([]error, len(sockets))
	var all sync.WaitGroup
	for i, at := range sockets {
		all.Go(func() { looked[i], failed[i] = lookAt(at) })
	}
	all.Wait()
	fleets = []control.Status{}
	var stuck []string
	for i, f := range looked {
		switch {
		case f != nil:
			fleets = append(fleets, *f)
		case errors.Is(failed[i], fs.ErrPermission) && !rundir.Served(sockets[i].Socket):
			// A master that was killed has left it.
		case errors.Is(failed[i], fs.ErrPermission):
			hidden++
			stuck = append(stuck, sockets[i].Socket)
		case !isAbsent(failed[i]):
			stuck = append(stuck, sockets[i].Socket)
			errs = append(errs, Explain(fleetOfSocket(sockets[i].Socket), failed[i]))
		}
	}
	return append(fleets, idleFleets(found, fleets, stuck)...), hidden, errs
}

// lookAt asks the master at an address.
func lookAt(address control.Address) (*control.Status, error) {
	c, f, err := dial(address)
	if err != nil {
		return nil, err
	}
	c.Close()
	return f, nil
}

// fleetOfSocket names a fleet by the directory of its control socket.
func fleetOfSocket(socket string) string { return filepath.Base(filepath.Dir(socket)) }

// inactive is the state of a fleet that has a file and no master.
const inactive = "inactive"

// State is how a fleet is, in systemd's words, and whether there is such a fleet: it runs, or
// has a file or a unit.
func State(fleet string) (state string, known bool, err error) {
	f, err := Look(fleet)
	if err == nil {
		return f.ActiveState, true, nil
	}
	if !errors.As(err, new(*notRunning)) {
		return "", false, err
	}
	if !fleetfile.IsPath(fleet) {
		if f, ok := unitFleets()[fleet]; ok {
			return f.ActiveState, true, nil
		}
	}
	path, err := fleetfile.Resolve(fleet)
	if err == nil {
		_, err = os.Stat(path)
	}
	return inactive, err == nil, nil
}

// withoutMaster is a fleet that has none.
func withoutMaster(name, state, text string) control.Status {
	return control.Status{
		Name: name, ActiveState: state, StatusText: text, Slots: []control.SlotStatus{}, Workers: []control.WorkerStatus{},
		Sockets: []control.SocketStatus{},
		Floors:  map[uint32]uint32{}, SparePIDs: map[uint32]uint32{},
	}
}

// idleFleets are those that have a file, or a unit, and no master, stuck or not.
func idleFleets(found []fleetfile.Found, running []control.Status, stuck []string) (idle []control.Status) {
	units := unitFleets()
	for _, f := range found {
		if f.Err != nil || f.Masked {
			continue
		}
		one, known := units[f.Name]
		if !known {
			one = withoutMaster(f.Name, inactive, "")
		}
		one.File = f.Path
		units[f.Name] = one
	}
	for name, one := range units {
		runs := slices.ContainsFunc(running, func(o control.Status) bool { return o.File == one.File || o.Name == name && one.File == "" })
		if !runs && !slices.Contains(stuck, rundir.ControlOfUnit(name).Socket) {
			idle = append(idle, one)
		}
	}
	return idle
}

// unitFleets are the fleets of which systemd has a unit, by name, as it sees them:
// what does not run, and why. Where systemd cannot be asked there are none.
func unitFleets() map[string]control.Status {
	fleets := map[string]control.Status{}
	ctx, cancel := context.WithTimeout(context.Background(), AnswerTimeout)
	defer cancel()
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return fleets
	}
	defer conn.Close()
	units, err := conn.ListUnitsByPatternsContext(ctx, nil, []string{Unit("*")})
	if err != nil {
		return fleets
	}
	for i := range units {
		u := &units[i]
		name := fleetOfUnit(u.Name)
		fleets[name] = withoutMaster(name, u.ActiveState, whyNot(ctx, conn, u))
	}
	return fleets
}

// whyNot says in a line what systemd knows of a unit without a master.
func whyNot(ctx context.Context, conn *systemd.Conn, u *systemd.UnitStatus) string {
	props, err := conn.GetUnitTypePropertiesContext(ctx, u.Name, "Service")
	if err != nil {
		return u.SubState
	}
	result, _ := props["Result"].(string)
	text, _ := props["StatusText"].(string) // a process of the fleet may have said it
	if u.ActiveState == inactive && result == "success" {
		return ""
	}
	parts := []string{u.SubState}
	if result != "" && result != "success" {
		parts[0] += " (" + result + ")"
	}
	if text != "" {
		parts = append(parts, control.Printable(text))
	}
	return strings.Join(parts, ": ")
}
