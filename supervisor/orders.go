// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/zygote"
)

// floorOrders make the shim the interpreter of a floor.
func (m *master) floorOrders(generation int) *gate.Orders {
	floor := m.file.Floor
	return &gate.Orders{
		Fleet: m.file.Name, Slot: "floor", Generation: generation,
		User:        floor.User,
		DeathSignal: !m.managed, Master: m.pid,
		Base: m.base,
		// Workers inherit the variable: what is the same need not be set in each.
		Env:  append(list(floor.Env), "PREFORK_FLEET="+m.file.Name),
		Argv: []string{floor.Python, "-c", zygote.Boot},
	}
}

// floorMessage tells the interpreter what to load.
func (m *master) floorMessage(generation int) zygote.Floor {
	floor := m.file.Floor
	msg := zygote.Floor{
		Fleet: m.file.Name, Generation: generation,
		Title:   fmt.Sprintf("prefork: floor [%s] gen %d", m.file.Name, generation),
		Path:    floor.Path,
		Preload: floor.Preload, Setup: floor.Setup,
		AllowThreads: floor.Threads == fleetfile.Allow,
		AllowFDs:     floor.FDs == fleetfile.Allow,
		GCFreeze:     floor.GCFreeze,
		Prctl:        !m.managed,
	}
	for i := range m.file.Workers {
		w := &m.file.Workers[i]
		if w.Entry == "" {
			continue
		}
		msg.Entries = append(msg.Entries, w.Entry)
		msg.Reserve = max(msg.Reserve, len(m.sockets.of(w.Sockets)))
		msg.Prctl = msg.Prctl || w.NoNewPrivileges
	}
	return msg
}

// slotOrders make a process at its gate one slot. The descriptors stay the
// master's.
func (m *master) slotOrders(p *process, slot fleet.SlotID) (*gate.Orders, []int, error) {
	worker, index, name := m.slots.Slot(slot)
	w := &m.file.Workers[worker]
	o := *m.workerOrders(worker)
	o.Slot, o.Index, o.Comm, o.Generation = name, index, name, p.generation
	p.name, p.invocation = name, newInvocation()
	p.title = fmt.Sprintf("prefork: %s [%s] gen %d", name, m.file.Name, p.generation)
	o.Title = p.title
	env, err := readEnvironmentFiles(w.EnvironmentFiles)
	if err != nil {
		return nil, nil, err
	}
	o.Env = append(append(env, list(w.Environment)...),
		"PREFORK_FLEET="+m.file.Name,
		"PREFORK_WORKER="+w.Name,
		"PREFORK_SLOT="+name,
		"PREFORK_INVOCATION_ID="+p.invocation,
	)
	var fds []int
	for _, l := range m.sockets.of(w.Sockets) {
		o.Listen = append(o.Listen, l.name)
		fds = append(fds, l.fd)
	}
	return &o, fds, nil
}

// workerOrders is the part of the orders that is the same for each start of a
// worker.
func (m *master) workerOrders(worker int) *gate.Orders {
	if o := m.prepared[worker]; o != nil {
		return o
	}
	w := &m.file.Workers[worker]
	o := &gate.Orders{
		Fleet: m.file.Name, Worker: w.Name,
		Dir: w.WorkingDirectory, User: w.User, Group: w.Group, ExtraGroups: w.SupplementaryGroups,
		Umask: w.Umask, Nice: w.Nice, NoNewPrivs: w.NoNewPrivileges,
		DeathSignal: !m.managed, Master: m.pid,
	}
	for _, l := range w.Limits {
		o.Limits = append(o.Limits, gate.Limit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard})
	}
	if w.Entry == "" {
		o.Base, o.Argv = m.base, w.Exec
	} else {
		o.Entry, o.AfterFork = w.Entry, m.file.Floor.AfterFork
		o.Args, o.Kwargs = pythonArgs(w.Args), pythonKwargs(w.Kwargs)
	}
	m.prepared[worker] = o
	return o
}

// newInvocation is fresh for each start, like systemd's INVOCATION_ID.
func newInvocation() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// list turns variables into NAME=VALUE, sorted.
func list(env map[string]string) []string {
	var kvs []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		kvs = append(kvs, name+"="+env[name])
	}
	return kvs
}

// maxEnvironmentFile bounds what is read with the master's rights and kept in
// its memory.
const maxEnvironmentFile = 1 << 20

// readEnvironmentFiles reads the files with the master's rights, anew for each
// start.
func readEnvironmentFiles(files []fleetfile.EnvironmentFile) ([]string, error) {
	var env []string
	for _, file := range files {
		info, err := os.Stat(file.Path)
		if errors.Is(err, fs.ErrNotExist) && file.Optional {
			continue
		}
		if err == nil && (!info.Mode().IsRegular() || info.Size() > maxEnvironmentFile) {
			err = fmt.Errorf("%s: must be a regular file of at most %d bytes", file.Path, maxEnvironmentFile)
		}
		if err != nil {
			return nil, fmt.Errorf("environment_file: %v", err)
		}
		text, err := os.ReadFile(file.Path)
		if err != nil {
			return nil, fmt.Errorf("environment_file: %v", err)
		}
		vars, err := parseEnvironmentFile(string(text))
		if err != nil {
			return nil, fmt.Errorf("environment_file: %s:%v", file.Path, err)
		}
		env = append(env, vars...)
	}
	return env, nil
}

// parseEnvironmentFile reads NAME=VALUE lines as systemd.exec(5) describes for
// EnvironmentFile=: "#" and ";" begin comments, a backslash before the end of a
// line continues it, and quotes around a value are removed.
func parseEnvironmentFile(text string) (env []string, err error) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, errors.New("1: must be UTF-8 text without NUL bytes")
	}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		first, line := i+1, strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + strings.TrimSpace(lines[i])
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(strings.TrimPrefix(name, "export "))
		if !ok || name == "" || strings.ContainsAny(name, " \t\"'") {
			return nil, fmt.Errorf("%d: must be NAME=VALUE", first)
		}
		env = append(env, name+"="+unquote(strings.TrimSpace(value)))
	}
	return env, nil
}

// unquote removes one pair of quotes; inside double quotes a backslash keeps
// the next character.
func unquote(value string) string {
	n := len(value)
	switch {
	case n >= 2 && value[0] == '\'' && value[n-1] == '\'':
		return value[1 : n-1]
	case n >= 2 && value[0] == '"' && value[n-1] == '"':
		var b strings.Builder
		for i := 1; i < n-1; i++ {
			if value[i] == '\\' && i+1 < n-1 {
				i++
			}
			b.WriteByte(value[i])
		}
		return b.String()
	}
	return value
}
