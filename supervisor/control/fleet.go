// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"reflect"
	"sync"

	"github.com/godbus/dbus/v5"

	"github.com/decnet/prefork/supervisor/internal/text"
)

// Status is what there is to see of a fleet. Its fields are the properties of the
// object, by the same names, and what prefork status --json prints. The tag
// emits says of a property that a signal tells when it changes, or that it never
// does; measured, that the kernel has to be asked for it.
type Status struct {
	Name           string `json:"name" emits:"const"`
	File           string `json:"file" emits:"const"`           // the path of the fleet file
	MainPID        uint32 `json:"main_pid" emits:"const"`       // the master
	ActiveState    string `json:"active_state" emits:"true"`    // activating, active or deactivating
	StatusText     string `json:"status_text" emits:"true"`     // one line: is it well, and what is next
	Generation     uint32 `json:"generation" emits:"true"`      // of the floor that is, or was, loaded; 0: none was
	FloorState     string `json:"floor_state" emits:"true"`     // loading, loaded, lost, ending or ended; "": none is needed
	FloorPID       uint32 `json:"floor_pid" emits:"true"`       // 0: there is no floor, or it is being loaded
	FloorTimestamp uint64 `json:"floor_timestamp" emits:"true"` // when it began to be loaded; 0: there is none
	FloorMemory    uint64 `json:"floor_memory" measured:"true"` // bytes that are resident; 0: not known
	Spares         uint32 `json:"spares"`                       // processes that wait to become a slot
	NRestarts      uint32 `json:"n_restarts" emits:"true"`      // of all slots

	// FloorLosses counts floors that have ended though nobody had asked for it, and
	// FloorLoadFailures those that could not be loaded.
	FloorLosses       uint64 `json:"floor_losses"`
	FloorLoadFailures uint64 `json:"floor_load_failures"`

	// Floors are the processes of all floors that are loaded, by their generations: two
	// while one takes the place of the other. SparePIDs are the spares, each with the
	// generation of the floor that it was forked from.
	Floors    map[uint32]uint32 `json:"floors"`
	SparePIDs map[uint32]uint32 `json:"spare_pids"`

	// NotificationsDropped counts datagrams that were not heard: of strangers, not
	// well-formed, or too many.
	NotificationsDropped uint64 `json:"notifications_dropped"`

	// LinesLost counts lines of the master, and of slots where it passes theirs on, that
	// nobody has taken in time, or that could not be written.
	LinesLost uint64 `json:"lines_lost"`

	// OutdatedSockets are the names, with blanks between them, of sockets for which systemd
	// listens elsewhere than the file says: prefork restart --now takes that up.
	OutdatedSockets string `json:"outdated_sockets"`

	// UnservedSockets are the names of those whose last slot has finished or failed: they listen,
	// and clients wait.
	UnservedSockets string `json:"unserved_sockets"`

	// Sockets are those of the fleet file, each with what waits there, as the kernel tells.
	Sockets []SocketStatus `json:"sockets"`

	// Change is the number of the change that is under way, 0 if there is none; its kind is
	// reload, restart, scale, trial or recycle, its state loading, proving, rolling or returning.
	Change      uint64 `json:"change" emits:"true"`
	ChangeKind  string `json:"change_kind" emits:"true"`
	ChangeState string `json:"change_state" emits:"true"`
	ChangeText  string `json:"change_text" emits:"true"` // one line: how far it is
	Revision    uint32 `json:"revision" emits:"true"`    // of the fleet: 1 is the one that was started

	// What has become of the last change that somebody wanted: done, failed, cancelled or superseded; "" before
	// the first.
	LastChange       uint64 `json:"last_change" emits:"true"`
	LastChangeResult string `json:"last_change_result" emits:"true"`
	LastChangeText   string `json:"last_change_text" emits:"true"`

	// Workers are those of the fleet as it is, in the order of the file.
	Workers []WorkerStatus `json:"workers" emits:"true"`

	Slots []SlotStatus `json:"slots"` // objects of their own
}

// WorkerStatus counts the slots of a worker. What is neither ready nor waiting, nor has
// ended, is starting or stopping.
type WorkerStatus struct {
	Name      string `json:"name"`
	Slots     uint32 `json:"slots"`
	Ready     uint32 `json:"ready"`     // that serve: listening ones count, frozen ones do not
	Listening uint32 `json:"listening"` // of Ready: without a process until a connection waits
	Waiting   uint32 `json:"waiting"`   // for their start
	Exited    uint32 `json:"exited"`
	Failed    uint32 `json:"failed"`
	Needs     uint32 `json:"needs"` // ready slots without which the fleet is not ready; 0: it is ready without this worker
}

// SocketStatus is what waits at one address of a socket. A number that is not known is -1.
type SocketStatus struct {
	Name    string `json:"name"`    // of [socket.NAME]
	Address string `json:"address"` // as in the fleet file
	Type    string `json:"type"`    // stream, seqpacket or datagram

	// Queue counts connections that no worker has accepted, of which QueueLimit and one more
	// are let in; of a datagram socket they are bytes that no worker has read. Drops counts
	// what was turned away, a connection each time that its client has tried.
	Queue      int64 `json:"queue"`
	QueueLimit int64 `json:"queue_limit"`
	Drops      int64 `json:"drops"`
}

// SlotStatus is what there is to see of a slot. Timestamps are microseconds of
// CLOCK_REALTIME.
type SlotStatus struct {
	Name               string `json:"name" emits:"const"` // web.0
	Worker             string `json:"worker" emits:"const"`
	State              string `json:"state" emits:"true"`
	StateTimestamp     uint64 `json:"state_timestamp" emits:"true"`      // since when
	Reason             string `json:"reason" emits:"true"`               // of the state
	MainPID            uint32 `json:"main_pid" emits:"true"`             // 0: there is no process
	Generation         uint32 `json:"generation" emits:"true"`           // of the floor that it was forked from
	Result             string `json:"result" emits:"true"`               // of its last process; "" before the first end
	Failures           uint32 `json:"failures" emits:"true"`             // in a row
	NRestarts          uint32 `json:"n_restarts" emits:"true"`           // in all
	NextStartTimestamp uint64 `json:"next_start_timestamp" emits:"true"` // 0: none, or not known
	StatusText         string `json:"status_text"`                       // what its process says of itself
	ControlGroup       string `json:"control_group" emits:"true"`        // of its process, "" if it has none of its own
	FreezerState       string `json:"freezer_state" emits:"true"`        // running or frozen

	// A slot that is being replaced has two processes for a while: 0 is none.
	SuccessorPID   uint32 `json:"successor_pid" emits:"true"`   // is to take its place
	SuccessorState string `json:"successor_state" emits:"true"` // of the successor, "" if there is none
	PredecessorPID uint32 `json:"predecessor_pid" emits:"true"` // has lost its place, and ends
	Scaled         bool   `json:"scaled" emits:"true"`          // its worker has as many slots as an operator said

	// Tasks are those that share its process, in the order of the file: as it tells. LoopLag
	// is how late their loop was when it last sent WATCHDOG=1, in microseconds.
	Tasks       []TaskStatus `json:"tasks" emits:"true"`
	LoopLagUSec uint64       `json:"loop_lag_usec"`

	// Restarts counts them by the result of the process before.
	Restarts map[string]uint64 `json:"restarts"`

	// NRecycles is how often its process was replaced though nothing was wrong with it, and
	// Recycles counts that by the reason: private, age, requests or asked. What is known of
	// the next time is NextRecycleTimestamp, 0 if nothing is.
	NRecycles            uint32            `json:"n_recycles" emits:"true"`
	Recycles             map[string]uint64 `json:"recycles"`
	NextRecycleTimestamp uint64            `json:"next_recycle_timestamp"`

	// CPUUsageNSec is that of its control group; where there is none, of its
	// process, and of the children that this has waited for. 0 is not known.
	CPUUsageNSec uint64 `json:"cpu_usage_nsec" measured:"true"`

	// MemoryPrivate and MemoryShared are bytes of its main process: what would be
	// free if it ended, and what others, such as the floor, have mapped too. 0 is
	// not known: the kernel tells only of processes of the master's own user.
	MemoryPrivate uint64 `json:"memory_private" measured:"true"`
	MemoryShared  uint64 `json:"memory_shared" measured:"true"`
}

// TaskStatus is what there is to see of a task. Timestamps are microseconds of
// CLOCK_REALTIME.
type TaskStatus struct {
	Name               string `json:"name"`
	State              string `json:"state"`
	StateTimestamp     uint64 `json:"state_timestamp"`      // since when
	Reason             string `json:"reason"`               // of the state
	Result             string `json:"result"`               // of its last end; "" before that
	Failures           uint32 `json:"failures"`             // in a row
	NRestarts          uint32 `json:"n_restarts"`           // in all
	NextStartTimestamp uint64 `json:"next_start_timestamp"` // 0: none
	StatusText         string `json:"status_text"`          // what it says of itself
}

// HistoryEntry is something that happened to a slot, in words.
type HistoryEntry struct {
	Timestamp uint64 // microseconds of CLOCK_REALTIME
	Text      string
}

// properties are the fields of a Fleet or a Slot that a property can hold and that
// are chosen.
func properties(object any, chosen func(field) bool) map[string]dbus.Variant {
	all := map[string]dbus.Variant{}
	v := reflect.ValueOf(object)
	for i, field := range fieldsOf(v.Type()) {
		if field.isProperty() && chosen(field) {
			all[field.Name] = dbus.MakeVariant(v.Field(i).Interface())
		}
	}
	return all
}

func every(field) bool { return true }

// setProperties is the reverse of properties. What has another type than it
// should, or is not known, is left out: the other side may be of another version.
// Texts are made printable.
func setProperties(object any, all map[string]dbus.Variant) {
	v := reflect.ValueOf(object).Elem()
	for i, field := range fieldsOf(v.Type()) {
		switch list := v.Field(i).Addr().Interface().(type) {
		case *[]TaskStatus:
			setList(list, all[field.Name], func(t *TaskStatus) []*string { return []*string{&t.State, &t.Reason, &t.Result, &t.StatusText} })
			continue
		case *[]WorkerStatus:
			setList(list, all[field.Name], func(w *WorkerStatus) []*string { return []*string{&w.Name} })
			continue
		case *[]SocketStatus:
			setList(list, all[field.Name], func(s *SocketStatus) []*string { return []*string{&s.Name, &s.Address, &s.Type} })
			continue
		}
		if value := reflect.ValueOf(all[field.Name].Value()); value.IsValid() && value.Type() == field.Type {
			if field.Type.Kind() == reflect.String {
				value = reflect.ValueOf(text.Printable(value.String()))
			}
			v.Field(i).Set(value)
		}
	}
}

// setList reads a list of structs; one of another shape is none. Their texts are made
// printable.
func setList[T any](to *[]T, v dbus.Variant, texts func(*T) []*string) {
	if v.Value() == nil || dbus.Store([]any{v.Value()}, to) != nil || len(*to) == 0 {
		*to = []T{}
		return
	}
	for i := range *to {
		for _, said := range texts(&(*to)[i]) {
			*said = text.Printable(*said)
		}
	}
}

type field struct{ reflect.StructField }

// isProperty: slots are objects of their own.
func (f field) isProperty() bool { return f.Type != reflect.TypeFor[[]SlotStatus]() }

// emits is what introspection says of how changes are told (the D-Bus
// specification's EmitsChangedSignal).
func (f field) emits() string {
	if tag := f.Tag.Get("emits"); tag != "" {
		return tag
	}
	return "false"
}

func (f field) measured() bool { return f.Tag.Get("measured") != "" }

// fieldsOf are the fields of a Status or a SlotStatus, which are looked up once.
func fieldsOf(t reflect.Type) []field {
	if t == reflect.TypeFor[Status]() {
		return fleetFields()
	}
	return slotFields()
}

var (
	fleetFields = sync.OnceValue(allFields[Status])
	slotFields  = sync.OnceValue(allFields[SlotStatus])
)

func allFields[T any]() (all []field) {
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		all = append(all, field{t.Field(i)})
	}
	return all
}
