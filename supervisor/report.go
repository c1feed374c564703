// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"log/slog"
	"strconv"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/slots"
)

// messageIDs are the MESSAGE_IDs of the journal's entries, which the catalog
// explains (packaging/prefork.catalog). They never change their meaning.
var messageIDs = map[fleet.Kind]string{
	fleet.KindFleetReady:      "1de3c98a35ce42b584524267b97c38b6",
	fleet.KindFleetDegraded:   "a9c66048343d4a8ca32eeee5e48ec42f",
	fleet.KindFleetDrains:     "c25f4fdd69564f2e9a3b9d47a5d71c8e",
	fleet.KindSocketUnserved:  "734756d46d2d4536a33a4c12402e9870",
	fleet.KindFleetStops:      "709b145230c24f25a81b1050c19a96f7",
	fleet.KindFleetFails:      "a6ff1ae6b7ac4f2e8c05b6f3064b45f7",
	fleet.KindFloorLoaded:     "122d94efb0f54ba8ae3c1323c0cd0ffc",
	fleet.KindFloorLost:       "5a6e4c694244402c9c540a476c4f135a",
	fleet.KindSpareFailed:     "a772f9800f80494ba73394e51dd9c1f0",
	fleet.KindOverslept:       "0feecd83cf76463789b190b3411bd9a4",
	fleet.KindChangeBegins:    "f040cd3c37bc4468bd8ce9cdd8f0df6d",
	fleet.KindChangeDone:      "66fc3e55381447c595a496937a26da47",
	fleet.KindChangeFailed:    "79b7236f3d9149f6b338fbb7053e8807",
	fleet.KindSlotReplaced:    "81179b44ac9a41cfbc2b07409b489a41",
	fleet.KindSlotRecycled:    "dcacee55a6564e6794192c22c7392bf6",
	fleet.KindSlotNotRecycled: "2419d959ead24e61b5d2cfe97846cda6",
	fleet.KindSlotReady:       "89949d3c234244abb6e58dc62a9eda6d",
	fleet.KindSlotListens:     "d5e3a48c34f84d048255d9cdecd2d8fb",
	fleet.KindSlotExited:      "4e479d7df8aa4826bd30c39fdc4db3b0",
	fleet.KindSlotRestarts:    "18d6286108d74321bfdd6671aade63b4",
	fleet.KindSlotOOMKilled:   "d47178f2cefb4e4e92404d75fad0273e",
	fleet.KindSlotFailed:      "7058b74b86604772ad877768c67193a9",
	fleet.KindSlotStops:       "417a87b7963c43e7aa49c5ffd7abcb53",
	fleet.KindSlotTimeout:     "1ab4fc2085c7454a8731f5c9d64e6514",
	fleet.KindSlotWatchdog:    "5eaa7d196df9418e88e30f44fae6dc86",
	fleet.KindSlotLeft:        "bc5b0ec933524e71bd800df66bd88bfe",
	fleet.KindSlotStuck:       "428d1b29533d494c878e69babc404244",
	fleet.KindTaskReady:       "45d8d2e9bdbb4343a6b78c7661202bed",
	fleet.KindTaskExited:      "d6b347811258458d95a28e6d987b8600",
	fleet.KindTaskRestarts:    "fa50755435ea4abc9a852f6660e00dcc",
	fleet.KindTaskFailed:      "8df219f9bcfb42989197a8c7f175f280",
	fleet.KindTaskLate:        "e8dd182232924e418cee5571b352581a",
	fleet.KindLoopBlocked:     "1b2997b4880c46d4b485eb96323f4e50",
}

// report writes what has happened as a line, and as an entry of the journal.
func (m *master) report(r fleet.Report) {
	if !m.log.Shows(r.Level) {
		return
	}
	text := r.Text
	switch {
	case r.Task != "":
		text = r.Slot + "/" + r.Task + ": " + text
	case r.Slot != "":
		text = r.Slot + ": " + text
	}
	var attrs []slog.Attr
	if r.PID != 0 {
		attrs = append(attrs, slog.Int("pid", r.PID))
	}
	if r.Generation != 0 {
		attrs = append(attrs, slog.Int("gen", r.Generation))
	}
	if end := r.End; end.Usage != (fleet.Usage{}) {
		attrs = append(attrs, slog.String("cpu", policy.Span(end.Usage.CPU)))
		if end.Usage.MemoryPeak > 0 {
			attrs = append(attrs, slog.String("memory_peak", fmt.Sprintf("%.1fM", float64(end.Usage.MemoryPeak)/(1<<20))))
		}
	}
	m.log.At(r.Level, text, append(attrs, m.entryOf(r).Attr())...)
}

// entryOf has the fields of a report, in systemd's words where it has some
// (systemd.journal-fields(7)).
func (m *master) entryOf(r fleet.Report) output.Entry {
	var e output.Entry
	e.Add("MESSAGE_ID", messageIDs[r.Kind])
	e.Add("PREFORK_FLEET", m.file().Name)
	e.Add("PREFORK_EVENT", string(r.Kind))
	if s := m.slotOf(r); s != nil {
		e.Add("PREFORK_WORKER", s.Config.Name)
		e.Add("PREFORK_SLOT", s.Name)
		e.Add("PREFORK_INVOCATION_ID", s.Invocation())
	}
	e.Add("PREFORK_TASK", r.Task)
	e.Add("CODE_FILE", r.Code.File)
	e.Number("CODE_LINE", int64(r.Code.Line))
	e.Add("CODE_FUNC", r.Code.Func)
	e.Number("PREFORK_GENERATION", int64(r.Generation))
	e.Number("OBJECT_PID", int64(r.PID))
	addEnd(&e, r.End)
	return e
}

// slotOf is the slot that a report is about: of two that have its name, the one whose
// process it is.
func (m *master) slotOf(r fleet.Report) *slots.Slot {
	if s := m.slots.OfPID(r.PID); s != nil && s.Name == r.Slot {
		return s
	}
	return m.slots.Named(r.Slot)
}

func addEnd(e *output.Entry, end fleet.End) {
	e.Add("PREFORK_RESULT", string(end.Result))
	if end.Result == "" {
		return
	}
	switch {
	case end.Exit.Signal != 0:
		how := "killed"
		if end.Exit.Core {
			how = "dumped"
		}
		e.Add("EXIT_CODE", how)
		e.Add("EXIT_STATUS", strconv.Itoa(int(end.Exit.Signal)))
	case end.Exit.Code >= 0:
		e.Add("EXIT_CODE", "exited")
		e.Add("EXIT_STATUS", strconv.Itoa(end.Exit.Code))
	}
	e.Number("PREFORK_FAILURES", int64(end.Failures))
	e.Number("PREFORK_DELAY_USEC", end.Delay.Microseconds())
	e.Number("CPU_USAGE_NSEC", int64(end.Usage.CPU))
	e.Number("MEMORY_PEAK", int64(end.Usage.MemoryPeak))
}
