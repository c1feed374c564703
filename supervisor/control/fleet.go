// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"reflect"

	"github.com/godbus/dbus/v5"
)

// Fleet is what there is to see of a fleet. Its fields are the properties of the
// object, by the same names, and what prefork status --json prints.
type Fleet struct {
	Name        string `json:"name"`
	File        string `json:"file"`         // the path of the fleet file
	MainPID     uint32 `json:"main_pid"`     // the master
	ActiveState string `json:"active_state"` // activating, active or deactivating
	StatusText  string `json:"status_text"`  // one line: is it well, and what is next
	Generation  uint32 `json:"generation"`   // of the floor; 0: there is none
	FloorPID    uint32 `json:"floor_pid"`    // 0: there is no floor, or it is being loaded
	FloorMemory uint64 `json:"floor_memory"` // bytes that are resident; 0: not known
	Spares      uint32 `json:"spares"`       // processes that wait to become a slot
	NRestarts   uint32 `json:"n_restarts"`   // of all slots

	// NotificationsDropped counts datagrams that were not heard: of strangers, not
	// well-formed, or too many.
	NotificationsDropped uint64 `json:"notifications_dropped"`

	Slots []Slot `json:"slots"` // objects of their own
}

// Slot is what there is to see of a slot. Timestamps are microseconds of
// CLOCK_REALTIME.
type Slot struct {
	Name               string `json:"name"` // web.0
	Worker             string `json:"worker"`
	State              string `json:"state"`
	StateTimestamp     uint64 `json:"state_timestamp"`      // since when
	Reason             string `json:"reason"`               // of the state
	MainPID            uint32 `json:"main_pid"`             // 0: there is no process
	Generation         uint32 `json:"generation"`           // of the floor that it was forked from
	Result             string `json:"result"`               // of its last process; "" before the first end
	Failures           uint32 `json:"failures"`             // in a row
	NRestarts          uint32 `json:"n_restarts"`           // in all
	NextStartTimestamp uint64 `json:"next_start_timestamp"` // 0: none, or not known
	StatusText         string `json:"status_text"`          // what its process says of itself
	FreezerState       string `json:"freezer_state"`        // running or frozen

	// Restarts counts them by the result of the process before.
	Restarts map[string]uint64 `json:"restarts"`

	// CPUUsageNSec is that of its control group; where there is none, of its
	// process, and of the children that this has waited for. 0 is not known.
	CPUUsageNSec uint64 `json:"cpu_usage_nsec"`

	// MemoryPrivate and MemoryShared are bytes of its main process: what would be
	// free if it ended, and what others, such as the floor, have mapped too. 0 is
	// not known: the kernel tells only of processes of the master's own user.
	MemoryPrivate uint64 `json:"memory_private"`
	MemoryShared  uint64 `json:"memory_shared"`
}

// properties are the fields of a Fleet or a Slot that a property can hold.
func properties(object any) map[string]dbus.Variant {
	all := map[string]dbus.Variant{}
	v := reflect.ValueOf(object)
	for i, field := range fieldsOf(v.Type()) {
		if field.isProperty() {
			all[field.Name] = dbus.MakeVariant(v.Field(i).Interface())
		}
	}
	return all
}

// setProperties is the reverse of properties. What has another type than it
// should, or is not known, is left out: the other side may be of another version.
func setProperties(object any, all map[string]dbus.Variant) {
	v := reflect.ValueOf(object).Elem()
	for i, field := range fieldsOf(v.Type()) {
		if value := reflect.ValueOf(all[field.Name].Value()); value.IsValid() && value.Type() == field.Type {
			v.Field(i).Set(value)
		}
	}
}

type field struct{ reflect.StructField }

func (f field) isProperty() bool { return f.Type.Kind() != reflect.Slice }

func fieldsOf(t reflect.Type) (all []field) {
	for i := range t.NumField() {
		all = append(all, field{t.Field(i)})
	}
	return all
}
