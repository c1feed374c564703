// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"cmp"
	"errors"
	"log/slog"
	"strconv"
	"sync"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleet"
)

// messageIDs are the MESSAGE_IDs of the journal's entries, which the catalog
// explains (packaging/prefork.catalog). They never change their meaning.
var messageIDs = map[fleet.Kind]string{
	fleet.KindFleetReady:    "1de3c98a35ce42b584524267b97c38b6",
	fleet.KindFleetDegraded: "a9c66048343d4a8ca32eeee5e48ec42f",
	fleet.KindFleetStops:    "709b145230c24f25a81b1050c19a96f7",
	fleet.KindFleetFails:    "a6ff1ae6b7ac4f2e8c05b6f3064b45f7",
	fleet.KindFloorLoaded:   "122d94efb0f54ba8ae3c1323c0cd0ffc",
	fleet.KindFloorLost:     "5a6e4c694244402c9c540a476c4f135a",
	fleet.KindSpareFailed:   "a772f9800f80494ba73394e51dd9c1f0",
	fleet.KindOverslept:     "0feecd83cf76463789b190b3411bd9a4",
	fleet.KindSlotReady:     "89949d3c234244abb6e58dc62a9eda6d",
	fleet.KindSlotListens:   "d5e3a48c34f84d048255d9cdecd2d8fb",
	fleet.KindSlotExited:    "4e479d7df8aa4826bd30c39fdc4db3b0",
	fleet.KindSlotRestarts:  "18d6286108d74321bfdd6671aade63b4",
	fleet.KindSlotOOMKilled: "d47178f2cefb4e4e92404d75fad0273e",
	fleet.KindSlotFailed:    "7058b74b86604772ad877768c67193a9",
	fleet.KindSlotStops:     "417a87b7963c43e7aa49c5ffd7abcb53",
	fleet.KindSlotTimeout:   "1ab4fc2085c7454a8731f5c9d64e6514",
	fleet.KindSlotWatchdog:  "5eaa7d196df9418e88e30f44fae6dc86",
	fleet.KindSlotLeft:      "bc5b0ec933524e71bd800df66bd88bfe",
	fleet.KindSlotStuck:     "428d1b29533d494c878e69babc404244",
}

// entry is what a record has for the journal alone: fields that can be searched
// for. It travels as an attribute of the record.
type entry []sdnotify.EntryField

func (e entry) attr() slog.Attr { return slog.Any("journal", e) }

// isEntry tells whether an attribute is not for the line of text.
func isEntry(a slog.Attr) (entry, bool) {
	if a.Value.Kind() != slog.KindAny {
		return nil, false
	}
	e, ok := a.Value.Any().(entry)
	return e, ok
}

func (e *entry) add(name, value string) {
	if value != "" {
		*e = append(*e, sdnotify.EntryField{Name: name, Value: value})
	}
}

func (e *entry) number(name string, n int64) {
	if n != 0 {
		e.add(name, strconv.FormatInt(n, 10))
	}
}

// entryOf has the fields of a report, in systemd's words where it has some
// (systemd.journal-fields(7)).
func (m *master) entryOf(r fleet.Report) entry {
	var e entry
	e.add("MESSAGE_ID", messageIDs[r.Kind])
	e.add("PREFORK_FLEET", m.file.Name)
	e.add("PREFORK_EVENT", string(r.Kind))
	if s := m.slotNamed(r.Slot); s != nil {
		e.add("PREFORK_WORKER", s.config.Name)
		e.add("PREFORK_SLOT", s.name)
		e.add("PREFORK_INVOCATION_ID", s.invocation)
	}
	e.number("PREFORK_GENERATION", int64(r.Generation))
	e.number("OBJECT_PID", int64(r.PID))
	e.addEnd(r.End)
	return e
}

func (e *entry) addEnd(end fleet.End) {
	e.add("PREFORK_RESULT", string(end.Result))
	if end.Result == "" {
		return
	}
	switch {
	case end.Exit.Signal != 0:
		how := "killed"
		if end.Exit.Core {
			how = "dumped"
		}
		e.add("EXIT_CODE", how)
		e.add("EXIT_STATUS", strconv.Itoa(int(end.Exit.Signal)))
	case end.Exit.Code >= 0:
		e.add("EXIT_CODE", "exited")
		e.add("EXIT_STATUS", strconv.Itoa(end.Exit.Code))
	}
	e.number("PREFORK_FAILURES", int64(end.Failures))
	e.number("PREFORK_DELAY_USEC", end.Delay.Microseconds())
	e.number("CPU_USAGE_NSEC", int64(end.Usage.CPU))
	e.number("MEMORY_PEAK", int64(end.Usage.MemoryPeak))
}

// slotNamed finds a slot for a report, which are few.
func (m *master) slotNamed(name string) *slot {
	for _, s := range m.slots {
		if s.name == name {
			return s
		}
	}
	return nil
}

// journalWriter sends records to the journal in its own protocol, which never
// blocks. What a busy journal does not take waits here, in order: a worker that
// floods the journal must not cost the master an entry.
type journalWriter struct {
	journal *sdnotify.Journal
	mu      sync.Mutex
	waiting []waitingEntry // at most mostWaiting
}

// waitingEntry has the line of text too, for when the journal never takes it.
type waitingEntry struct {
	level  slog.Level
	text   string
	fields entry
}

const mostWaiting = 256

func (w *journalWriter) send(level slog.Level, text string, e entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fields := entry{
		{Name: "MESSAGE", Value: cmp.Or(text, "(empty)")},
		{Name: "PRIORITY", Value: strconv.Itoa(int(priority(level)))},
		{Name: "SYSLOG_IDENTIFIER", Value: "prefork"},
	}
	fields = append(fields, e...)
	err := w.retry()
	if err == nil {
		err = w.journal.Send(fields...)
	}
	if errors.Is(err, sdnotify.ErrFull) && len(w.waiting) < mostWaiting {
		w.waiting = append(w.waiting, waitingEntry{level, text, fields})
		return nil
	}
	return err
}

// retry sends what waits, as far as the journal takes it.
func (w *journalWriter) retry() error {
	for len(w.waiting) > 0 {
		if err := w.journal.Send(w.waiting[0].fields...); err != nil {
			return err
		}
		w.waiting = w.waiting[1:]
	}
	w.waiting = nil
	return nil
}
