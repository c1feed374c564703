// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"github.com/decnet/prefork/supervisor/policy"
)

// Kind says what a value of a key is, in the words of the manual.
type Kind string

// The kinds of values.
const (
	KindString   Kind = "string"
	KindStrings  Kind = "list of strings"
	KindOneOrAll Kind = "string or list of strings"
	KindInteger  Kind = "integer"
	KindBool     Kind = "true or false"
	KindSpan     Kind = "time span"
	KindChoice   Kind = "one of several words"
	KindMode     Kind = "octal number"
	KindID       Kind = "user or group"
	KindIDs      Kind = "list of groups"
	KindSignal   Kind = "signal"
	KindExits    Kind = "exit statuses and signals"
	KindLimit    Kind = "limit, or soft:hard"
	KindEnv      Kind = "table of strings"
	KindList     Kind = "list"
	KindTable    Kind = "table"
	KindTasks    Kind = "table of tasks"
	KindNames    Kind = "list of socket names"
	KindWorkers  Kind = "list of worker names"
	KindReady    Kind = "word or number"
	KindSize     Kind = "size"
	KindPercent  Kind = "percentage"
	KindCount    Kind = "integer or infinity"
	KindSlots    Kind = "integer, or so many for each processor"
)

// Key describes one key of a table. What it is for is said in the template, see
// [Template], of which the manual is made.
type Key struct {
	Name    string
	Kind    Kind
	Class   policy.Class // what a change of it costs; 0 for a table, whose keys have their own
	Default string       // as it would be written; "" if there is none
	Example string       // a value as it is written in TOML
	Rule    string       // completes "must be"
	Only    string       // what the key needs beside it, or excludes; "" if nothing
	Own     bool         // cannot stand in [defaults]
}

// Table describes one table of a fleet file.
type Table struct {
	Header string // such as [worker.NAME]; "" for the top level
	Keys   []Key  // in the order in which they are printed
}

// Schema returns every table and key that a fleet file can have. [defaults]
// takes the keys of [worker.NAME] that are not Own.
func Schema() []Table {
	return []Table{topTable.describe(), floorTable.describe(), logTable.describe(), metricsTable.describe(), socketTable.describe(), workerTable.describe(), taskTable.describe()}
}

// table is a Table with the code that reads and prints each key of a T.
type table[T any] struct {
	header string
	fields []field[T]
}

// field is a key and what reads and prints it.
type field[T any] struct {
	Key
	value[T]
}

// value reads a cell into a T, and writes it as TOML. show returns "" for a key
// that need not be printed; a nil show is a key that is printed elsewhere.
type value[T any] struct {
	set  func(c *cell, t *T)
	show func(t *T) string
}

func (t *table[T]) describe() Table {
	d := Table{Header: t.header}
	for i := range t.fields {
		d.Keys = append(d.Keys, t.fields[i].Key)
	}
	return d
}

func (t *table[T]) field(name string) *field[T] {
	for i := range t.fields {
		if t.fields[i].Name == name {
			return &t.fields[i]
		}
	}
	return nil
}

// given says which keys of a table were written, and where: their paths. Values
// that were refused are among them, and in bad.
type given struct {
	from map[string]string
	bad  map[string]bool
}

func newGiven() given { return given{from: map[string]string{}, bad: map[string]bool{}} }

// walk reads the table at path into t and notes in g what it held. isDefaults
// is true for [defaults].
func walk[T any](l *loader, path string, v any, schema *table[T], t *T, g given, isDefaults bool) {
	m, ok := l.table(path, v)
	if !ok {
		return
	}
	for name, v := range m {
		at := join(path, name)
		f := schema.field(name)
		switch {
		case f == nil:
			_, isTable := v.(map[string]any)
			l.unknown(at, name, schema.header, isDefaults, isTable)
			continue
		case isDefaults && f.Own:
			l.errorf(at, "cannot stand in [defaults]; write %s in each [worker.NAME] that needs it", name)
			continue
		}
		c := &cell{loader: l, path: at, key: &f.Key, v: v}
		f.set(c, t)
		g.from[name] = at
		g.bad[name] = c.bad
	}
}
