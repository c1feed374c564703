// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"os"
	"strings"

	"github.com/decnet/prefork/supervisor/bridge"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
)

// snapshots makes what clients see.
type snapshots struct {
	file  string       // the absolute path of the fleet file
	clock bridge.Clock // in which they are told the time
}

// snapshot is a view as clients get it.
func (m *master) snapshot(v fleet.Snapshot) *bridge.Snapshot {
	m.snapshots.clock.Adjust(bridge.NewClock())
	f := &control.Status{
		Name: m.file().Name, File: m.snapshots.file, MainPID: uint32(os.Getpid()),
		ActiveState: v.State, StatusText: v.Status,
		Generation: uint32(v.Generation), FloorState: v.FloorState, FloorLosses: uint64(v.Losses), FloorLoadFailures: uint64(v.Failures),
		Spares: uint32(v.Spares), NotificationsDropped: m.slots.Dropped(), LinesLost: m.outputs.Lost(),
		Slots: make([]control.SlotStatus, 0, len(v.Slots)),
	}
	f.OutdatedSockets = strings.Join(m.sockets.Outdated(), " ")
	f.UnservedSockets = strings.Join(v.Unserved, " ")
	f.Sockets = m.socketStatus()
	f.Revision = uint32(v.Revision)
	f.Change, f.ChangeKind, f.ChangeState, f.ChangeText = uint64(v.Change.ID), string(v.Change.Kind), v.Change.State, v.Change.Text
	if last, ok := m.bridge.LastOutcome(); ok {
		f.LastChange, f.LastChangeResult, f.LastChangeText = uint64(last.Change), last.Result, last.Text
	}
	if p := m.procs.Of(v.Floor); p != nil {
		f.FloorPID, f.FloorTimestamp = uint32(p.PID), m.snapshots.clock.At(v.FloorSince)
	}
	f.Floors, f.SparePIDs = map[uint32]uint32{}, map[uint32]uint32{}
	for _, floor := range v.Floors {
		if p := m.procs.Of(floor.Proc); p != nil {
			f.Floors[uint32(floor.Generation)] = uint32(p.PID)
		}
	}
	for _, spare := range v.Waiting {
		if p := m.procs.Of(spare.Proc); p != nil {
			f.SparePIDs[uint32(p.PID)] = uint32(spare.Generation)
		}
	}
	f.Workers = make([]control.WorkerStatus, 0, len(v.Workers))
	for _, w := range v.Workers {
		f.Workers = append(f.Workers, control.WorkerStatus{
			Name: w.Name, Slots: uint32(w.Slots), Ready: uint32(w.Ready), Listening: uint32(w.Listening),
			Waiting: uint32(w.Waiting), Exited: uint32(w.Exited), Failed: uint32(w.Failed), Needs: uint32(w.Needs),
		})
	}
	for i := range v.Slots {
		f.Slots = append(f.Slots, m.slotStatus(&v.Slots[i]))
		f.NRestarts += f.Slots[i].NRestarts
	}
	return &bridge.Snapshot{Fleet: f, Spawns: v.Spawns}
}

func (m *master) socketStatus() []control.SocketStatus {
	all := []control.SocketStatus{}
	for _, q := range m.sockets.Queues() {
		all = append(all, control.SocketStatus{
			Name: q.Name, Address: q.Address, Type: string(q.Type), Queue: q.Length, QueueLimit: q.Limit, Drops: q.Drops,
		})
	}
	return all
}

func (m *master) slotStatus(v *fleet.SlotSnapshot) control.SlotStatus {
	s := control.SlotStatus{
		Name: v.Name, Worker: v.Worker,
		State: v.State.String(), StateTimestamp: m.snapshots.clock.At(v.Since), Reason: v.Why,
		MainPID: uint32(v.PID), Generation: uint32(v.Generation), Result: string(v.Result),
		Failures: uint32(v.Failures), NRestarts: uint32(v.Restarts), Restarts: map[string]uint64{},
		NextStartTimestamp: m.snapshots.clock.At(v.Due), StatusText: v.Text, FreezerState: "running",
	}
	s.SuccessorPID, s.PredecessorPID, s.Scaled = uint32(v.Successor.PID), uint32(v.Predecessor.PID), v.Scaled
	if v.Successor != (fleet.Beside{}) {
		s.SuccessorState = v.Successor.State.String()
	}
	if v.Frozen {
		s.FreezerState = "frozen"
	}
	s.Recycles, s.NextRecycleTimestamp = map[string]uint64{}, m.snapshots.clock.At(v.RecycleAt)
	for reason, n := range v.Recycles {
		s.Recycles[string(reason)] = uint64(n)
		s.NRecycles += uint32(n)
	}
	for result, n := range v.ByResult {
		s.Restarts[string(result)] = uint64(n)
	}
	for i := range v.Tasks {
		s.Tasks = append(s.Tasks, m.taskStatus(&v.Tasks[i]))
	}
	s.LoopLagUSec = uint64(v.LoopLag.Microseconds())
	if p := m.procs.Of(v.Proc); p != nil && p.Group != nil && v.PID != 0 {
		s.ControlGroup = p.Group.ControlGroup()
	}
	return s
}

func (m *master) taskStatus(v *fleet.TaskSnapshot) control.TaskStatus {
	return control.TaskStatus{
		Name: v.Name, State: v.State.String(), StateTimestamp: m.snapshots.clock.At(v.Since), Reason: v.Why,
		Result: string(v.Result), Failures: uint32(v.Failures), NRestarts: uint32(v.Restarts),
		NextStartTimestamp: m.snapshots.clock.At(v.Due), StatusText: v.Text,
	}
}
