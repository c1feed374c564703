// SPDX-License-Identifier: AGPL-3.0-or-later

// Package revisions has what the fleet was told to be: the file with which it was started,
// and what has been proposed since. A revision is the fleet file, read once, and its
// sockets; it lives until another is in its place, or until it is not wanted any more.
//
//	goroutine of who asks            the loop
//	Read: the file is read, ───────> Add: its sockets are bound ──> fleet.Propose
//	checked, and what it                    │
//	names is read, too                      ├── Commit: it is the current one
//	                                        └── Discard: nothing is left of it
package revisions

import (
	"fmt"
	"slices"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/sockets"
)

// Revision is one of them. It is never changed once it is the current one.
type Revision struct {
	ID      fleet.Revision
	File    *fleetfile.File
	Sockets *sockets.Set // open as long as the revision lives

	stamps      map[string]uint64 // of what environment files hold, by worker
	credentials Stamp
}

// Worker is a worker of the file, nil if it has none of that name.
func (r *Revision) Worker(name string) *fleetfile.Worker {
	i := slices.IndexFunc(r.File.Workers, func(w fleetfile.Worker) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return &r.File.Workers[i]
}

// Descriptors is how many descriptors from 3 on a floor keeps free for its workers: for
// their sockets, and for what they have stored. There is room for some more, so that not
// each further socket needs another floor.
func (r *Revision) Descriptors() int {
	const step = 16
	most := 0
	for i := range r.File.Workers {
		if w := &r.File.Workers[i]; w.Forked() {
			most = max(most, r.addresses(w.Sockets)+w.FDStoreMax)
		}
	}
	return (most + step - 1) / step * step
}

// addresses is how many sockets these names stand for.
func (r *Revision) addresses(names []string) (n int) {
	if r.Sockets != nil {
		return len(r.Sockets.Of(names))
	}
	for _, s := range r.File.Sockets {
		if slices.Contains(names, s.Name) {
			n += len(s.Listen)
		}
	}
	return n
}

// Config is what the revision means for the state machine, but for the host.
func (r *Revision) Config(passed []string) policy.Config {
	cfg := r.File.Config(r.stamps, passed)
	cfg.Descriptors = r.Descriptors()
	if r.credentials == 0 {
		return cfg
	}
	// Whatever reads them has read them by now.
	key := policy.Key{Name: "credentials", Class: policy.Birth, Sum: uint64(r.credentials)}
	cfg.FloorKeys = append(cfg.FloorKeys, key)
	for i := range cfg.Workers {
		cfg.Workers[i].Keys = append(cfg.Workers[i].Keys, key)
	}
	return cfg
}

// Table has the revisions that live. Only the loop calls its methods, none of which blocks.
type Table struct {
	sockets *sockets.Sockets
	current *Revision
	byID    map[fleet.Revision]*Revision
	last    fleet.Revision
}

// New makes a table of the file with which the fleet starts, and of its open sockets.
func New(file *fleetfile.File, open *sockets.Sockets) *Table {
	first := &Revision{ID: 1, File: file, Sockets: open.Current(), credentials: Credentials()}
	return &Table{sockets: open, current: first, byID: map[fleet.Revision]*Revision{1: first}, last: 1}
}

// Current is what the fleet is.
func (t *Table) Current() *Revision { return t.current }

// Of is a revision that lives, nil if there is none of that number.
func (t *Table) Of(id fleet.Revision) *Revision {
	r := t.byID[id]
	if r != nil && r.File == nil { // of a restart, which begins now
		id := r.ID
		*r = *t.current
		r.ID = id
	}
	return r
}

// Add makes a revision of what was read: its sockets are bound beside those that there
// are. born says with which environment files the processes of a worker were born, as far
// as there are some. An error names the key and the remedy; nothing has happened then.
func (t *Table) Add(d *Draft, born func(worker string) []Stamp) (*Revision, error) {
	set, err := t.sockets.Prepare(d.File)
	if err != nil {
		return nil, err
	}
	r, look := t.add(), t.Look(d, born)
	look.ID, look.Sockets = r.ID, set
	*r = *look
	return r, nil
}

// Look is what Add would make, without its sockets and without a place in the table.
func (t *Table) Look(d *Draft, born func(worker string) []Stamp) *Revision {
	r := &Revision{File: d.File, stamps: map[string]uint64{}, credentials: d.credentials}
	for worker, stamp := range d.stamps {
		other := func(s Stamp) bool { return s != stamp }
		r.stamps[worker] = t.current.stamps[worker]
		if slices.ContainsFunc(born(worker), other) {
			r.stamps[worker] = uint64(stamp)
			if r.stamps[worker] == t.current.stamps[worker] {
				r.stamps[worker]++ // some slot was born with another
			}
		}
	}
	return r
}

// Again makes a revision that is like the one that is current when it is looked at first.
func (t *Table) Again() *Revision { return t.add() }

func (t *Table) add() *Revision {
	t.last++
	r := &Revision{ID: t.last}
	t.byID[r.ID] = r
	return r
}

// Commit puts a revision in the place of the current one, whose sockets are closed unless
// it has them too. None of them may be watched.
func (t *Table) Commit(id fleet.Revision) {
	r := t.Of(id)
	if r == nil {
		panic(fmt.Sprintf("revisions: there is no revision %d", id)) // the state machine has been told of it
	}
	delete(t.byID, t.current.ID)
	t.current = r
	t.sockets.Use(r.Sockets)
}

// Discard ends a revision that is not to be.
func (t *Table) Discard(id fleet.Revision) {
	r := t.byID[id]
	if r == nil || r == t.current {
		return
	}
	delete(t.byID, id)
	if r.Sockets != nil && r.Sockets != t.current.Sockets {
		t.sockets.Release(r.Sockets)
	}
}
