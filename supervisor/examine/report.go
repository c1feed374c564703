// SPDX-License-Identifier: AGPL-3.0-or-later

package examine

import (
	"strings"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Report is what was found out about a floor. Sizes are bytes. Texts are printable: the
// floor chose many of them.
type Report struct {
	Fleet     string   `json:"fleet"`
	File      string   `json:"file"`
	Python    string   `json:"python"`    // its version; "" if it was not reached
	User      string   `json:"user"`      // who loaded the floor
	Directory string   `json:"directory"` // in which
	Notes     []string `json:"notes"`     // what was not as in the fleet, and what could not be looked at

	Usable bool   `json:"usable"` // whether the fleet would use the floor
	Cause  string `json:"cause"`  // why it would not
	// Stuck is where the floor was when its time was over: lines of Python's stacks, the
	// innermost first.
	Stuck []string `json:"stuck"`

	Seconds     float64      `json:"seconds"` // until it was loaded, while it was watched
	Modules     []Module     `json:"modules"` // each step of the load
	Threads     []Thread     `json:"threads"`
	Descriptors []Descriptor `json:"descriptors"`
	Loops       []Loop       `json:"event_loops"`
	Processes   []Process    `json:"processes"`
	Devices     []Device     `json:"devices"`
	ForkHooks   []ForkHook   `json:"fork_hooks"`
	Changes     []Change     `json:"changes"`

	Entries []Entry  `json:"entries"`
	Memory  *Memory  `json:"memory"` // null: the floor cannot be forked
	Advice  []Advice `json:"advice"`
}

// newReport has lists that are empty, which JSON tells from none.
func newReport(file *fleetfile.File) *Report {
	return &Report{
		Fleet: file.Name, File: file.Path, Notes: []string{}, Stuck: []string{}, Modules: []Module{}, Threads: []Thread{},
		Descriptors: []Descriptor{}, Loops: []Loop{}, Processes: []Process{}, Devices: []Device{}, ForkHooks: []ForkHook{},
		Changes: []Change{}, Entries: []Entry{}, Advice: []Advice{},
	}
}

// Module is a module that was imported, or a step of the load such as setup, with what it
// imported itself. Seconds and Memory are of all of that; Own is the part without it.
type Module struct {
	Name       string   `json:"name"`
	Seconds    float64  `json:"seconds"`
	Memory     int64    `json:"memory"` // by how much the resident memory grew
	OwnSeconds float64  `json:"own_seconds"`
	OwnMemory  int64    `json:"own_memory"`
	Count      int      `json:"count"` // modules that were imported, this one too
	Failed     bool     `json:"failed"`
	Modules    []Module `json:"modules"`
}

// Origin is where something comes from.
type Origin struct {
	// During is the way to the module that ran: "app.base > requests > urllib3".
	During string `json:"during"`
	Where  string `json:"where"` // FILE:LINE, of user code if that is in it; "" if Python does not tell
}

// Thread is one that runs beside the main thread.
type Thread struct {
	ID   int    `json:"id"`
	Name string `json:"name"` // of module threading, or comm and what the kernel calls it
	Origin
}

// The verdicts on a descriptor that is open when the floor has been loaded.
const (
	Fine    = "fine"
	Spoiled = "spoiled" // workers would write over each other
	Shared  = "shared"  // workers cannot share it: refused
)

// Descriptor is one that an import left open.
type Descriptor struct {
	Number  int    `json:"number"`
	Target  string `json:"target"` // as in /proc/PID/fd
	Verdict string `json:"verdict"`
	Locked  bool   `json:"locked"` // by flock(2) or fcntl(2)
	Origin
}

// Loop is an event loop of asyncio.
type Loop struct {
	Class   string `json:"class"`
	Running bool   `json:"running"`
	Closed  bool   `json:"closed"`
	Origin
}

// Process is one that was started, and whether it runs still.
type Process struct {
	Command string `json:"command"`
	Origin
}

// Device is the library or the device of a processor whose state no fork survives.
type Device struct {
	Path string `json:"path"`
	Origin
}

// ForkHook are the hooks of one module that run at each fork (os.register_at_fork). The
// seconds are those of one fork; 0: not measured.
type ForkHook struct {
	Module        string  `json:"module"`
	Where         string  `json:"where"` // of its first
	Before        int     `json:"before"`
	Parent        int     `json:"parent"`
	Child         int     `json:"child"`
	BeforeSeconds float64 `json:"before_seconds"`
	ParentSeconds float64 `json:"parent_seconds"`
	ChildSeconds  float64 `json:"child_seconds"`
}

// Change is what an import did to the process.
type Change struct {
	What   string `json:"what"`
	Before string `json:"before"` // "": not set
	After  string `json:"after"`  // "": not set; of a variable of the environment neither is told
	Kept   bool   `json:"kept"`   // workers have it so; else they have what was before
	Origin
}

// Entry is what a worker imports that the floor does not have.
type Entry struct {
	Worker    string   `json:"worker"`
	Entry     string   `json:"entry"`
	Slots     int      `json:"slots"`
	Preloaded bool     `json:"preloaded"` // its module is in the floor
	Error     string   `json:"error"`     // why it could not be imported
	Seconds   float64  `json:"seconds"`
	Memory    int64    `json:"memory"` // by how much the private memory of a worker grew
	Threads   int      `json:"threads"`
	Count     int      `json:"count"`
	Modules   []string `json:"modules"` // in the order of their import; not all if they are many
}

// Memory is the private memory of workers, one row for each way to load the floor.
type Memory struct {
	Worker  string `json:"worker"`  // whose entry was imported
	Slots   int    `json:"slots"`   // of the fleet that are forked from the floor
	Samples int    `json:"samples"` // workers of which each figure is the median
	Rows    []Row  `json:"rows"`
}

// Row is the private memory of a worker of one floor; a figure is 0 if it was not taken.
type Row struct {
	AsFile   bool `json:"as_file"` // the floor as the fleet loads it
	Advised  bool `json:"advised"` // with all that is advised
	Immortal bool `json:"immortal"`
	Warm     bool `json:"warm"`
	Repack   bool `json:"repack"`
	GCFreeze bool `json:"gc_freeze"`

	Error   string  `json:"error"` // why there is no such floor
	Seconds float64 `json:"seconds"`
	Floor   int64   `json:"floor"` // resident memory of the floor

	Birth           int64  `json:"birth"`            // it waits to become a slot
	Entry           int64  `json:"entry"`            // its entry has been imported
	Collected       int64  `json:"collected"`        // and its garbage been collected
	Worked          int64  `json:"worked"`           // floor.warm has been called in it
	WorkedCollected int64  `json:"worked_collected"` // and its garbage been collected
	WorkError       string `json:"work_error"`
}

// Words say how the floor was loaded.
func (row *Row) Words() string {
	var words []string
	for _, w := range []struct {
		is   bool
		name string
	}{{row.Advised, "as advised"}, {row.Warm, "warm"}, {row.Repack, "repack"}, {row.Immortal, "immortal"}, {!row.GCFreeze, "not frozen"}} {
		if w.is {
			words = append(words, w.name)
		}
	}
	if len(words) == 0 {
		return "plain"
	}
	if row.Advised {
		return words[0]
	}
	return strings.Join(words, ", ")
}

// Advice is what to do, with the key of the fleet file that does it.
type Advice struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // as TOML; "": see Text
	Text   string `json:"text"`
	Saves  int64  `json:"saves"`  // in each worker, as it was measured; 0: it is no matter of memory
	Worker string `json:"worker"` // for which; "": for all that are forked from the floor

	preload []string // what Value says, of floor.preload
}
