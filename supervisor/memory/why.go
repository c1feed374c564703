// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
)

// Why is by what a process has made pages of its floor its own.
type Why struct {
	Interpreter string       `json:"interpreter"`
	Causes      []CauseBytes `json:"causes"`
	Modules     []OwnerBytes `json:"modules"`
	Problem     string       `json:"problem,omitempty"` // why nothing is told
}

// CauseBytes is what was written for one cause. A page of several counts for the one that
// has most words in it; Alone is of pages that have no other.
type CauseBytes struct {
	Cause Cause  `json:"cause"`
	Bytes uint64 `json:"bytes"`
	Alone uint64 `json:"alone"`
	Key   string `json:"key"` // of the fleet file, that would share it; "" if there is none
}

// OwnerBytes is what was written of the objects of a module.
type OwnerBytes struct {
	Module string `json:"module"`
	Bytes  uint64 `json:"bytes"`
}

// Cause is why a word was written.
type Cause string

// The causes.
const (
	Nothing    Cause = "nothing that lasts"        // the page is as it was: counted up and down again, for example
	Counts     Cause = "reference counts"          // an object was used
	Collected  Cause = "collector's headers"       // gc.collect() has looked at an object
	CodeWarm   Cause = "inline caches"             // code has run
	TypeCaches Cause = "type caches"               // an attribute was looked up, a subclass made
	Contents   Cause = "contents of containers"    // of dicts, lists, sets and bytearrays
	Attributes Cause = "contents of other objects" // their own words
	Libraryful Cause = "data of interpreter and libraries"
	OnStack    Cause = "stacks"
	Unknown    Cause = "free memory, or C's data" // no object of Python's is there
)

// Explain compares what was written with the floor's, which must not have ended, nor the
// process. It reads the memory of both: who has no right to, by the rules of ptrace(2),
// gets fs.ErrPermission or EIO.
func (s *Share) Explain(floor, slot *Process, of *Base, objects *Objects) (*Why, error) {
	w := &Why{Interpreter: objects.Interpreter, Problem: objects.Problem, Causes: []CauseBytes{}, Modules: []OwnerBytes{}}
	if w.Problem != "" {
		return w, nil
	}
	was, err := floor.open("mem")
	if err != nil {
		return nil, err
	}
	defer func() { _ = was.Close() }() // read only
	is, err := slot.open("mem")
	if err != nil {
		return nil, err
	}
	defer func() { _ = is.Close() }() // read only
	sum := summary{objects: objects, causes: map[Cause]*CauseBytes{}, owners: map[string]uint64{}}
	a, b := make([]byte, pageSize), make([]byte, pageSize)
	read := 0
	for _, address := range s.pages {
		if !readPage(was, a, address) || !readPage(is, b, address) {
			continue // it was unmapped meanwhile
		}
		read++
		sum.page(address, a, b, of.kindAt(address))
	}
	if read == 0 && len(s.pages) > 0 {
		return nil, fmt.Errorf("the memory of %d and %d cannot be read", floor.PID, slot.PID)
	}
	sum.tell(w)
	return w, nil
}

func readPage(from *os.File, into []byte, address uint64) bool {
	n, err := from.ReadAt(into, int64(address))
	return err == nil && n == len(into)
}

// WrittenPages are the addresses of all pages that some of these have written, sorted.
func WrittenPages(all []*Share) (pages []uint64) {
	for _, s := range all {
		pages = append(pages, s.pages...)
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}

// summary adds up pages.
type summary struct {
	objects *Objects
	causes  map[Cause]*CauseBytes
	owners  map[string]uint64
}

// word is the unit in which pages are compared: a reference count is one.
const word = 8

func (s *summary) page(address uint64, was, is []byte, kind Kind) {
	if bytes.Equal(was, is) {
		s.add(Nothing, true)
		return
	}
	causes, owners := map[Cause]int{}, map[int]int{}
	for i := 0; i+word <= len(was); i += word {
		if binary.NativeEndian.Uint64(was[i:]) == binary.NativeEndian.Uint64(is[i:]) {
			continue
		}
		at := address + uint64(i)
		x := s.objects.at(at)
		causes[causeOf(x, at, kind)]++
		if x != nil {
			owners[x.owner]++
		}
	}
	s.add(most(causes), len(causes) == 1)
	if len(owners) > 0 {
		s.owners[s.objects.owners[most(owners)]] += pageSize
	}
}

func (s *summary) add(cause Cause, alone bool) {
	c := s.causes[cause]
	if c == nil {
		c = &CauseBytes{Cause: cause, Key: s.objects.keyFor(cause)}
		s.causes[cause] = c
	}
	c.Bytes += pageSize
	if alone {
		c.Alone += pageSize
	}
}

// most is what was counted most often; of several the first in order.
func most[K cmp.Ordered](counts map[K]int) (winner K) {
	best := 0
	for k, n := range counts {
		if n > best || n == best && k < winner {
			winner, best = k, n
		}
	}
	return winner
}

// causeOf is why a word was written. It is of an object, or of none that is known.
func causeOf(x *object, at uint64, kind Kind) Cause {
	switch {
	case x == nil && kind == Libraries:
		return Libraryful
	case x == nil && kind == Stacks:
		return OnStack
	case x == nil:
		return Unknown
	case at < x.address:
		return Collected
	case x.kind == ofTable:
		return Contents
	case at == x.address:
		return Counts
	case x.kind == ofCode:
		return CodeWarm
	case x.kind == ofType:
		return TypeCaches
	default:
		return Attributes
	}
}

// keyFor is the key of the fleet file that would have left the page shared, "" if there is
// none that is not on.
func (o *Objects) keyFor(cause Cause) string {
	on := func(key string) bool { return slices.Contains(o.keys, key) }
	switch {
	case (cause == Counts || cause == Nothing) && !on("immortal") && o.canBeImmortal():
		return "floor.immortal"
	case (cause == CodeWarm || cause == TypeCaches) && !on("warm"):
		return "floor.warm"
	case cause == CodeWarm && !on("repack"):
		return "floor.repack"
	case cause == Collected && !on("gc_freeze"):
		return "floor.gc_freeze"
	default:
		return ""
	}
}

// canBeImmortal: since CPython 3.12.
func (o *Objects) canBeImmortal() bool {
	var major, minor int
	_, err := fmt.Sscanf(o.Interpreter, "%d.%d", &major, &minor)
	return err == nil && (major > 3 || major == 3 && minor >= 12)
}

// maxModules is how many modules are named.
const maxModules = 12

func (s *summary) tell(w *Why) {
	for _, c := range s.causes {
		w.Causes = append(w.Causes, *c)
	}
	slices.SortFunc(w.Causes, func(a, b CauseBytes) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Cause, b.Cause)) })
	for module, n := range s.owners {
		w.Modules = append(w.Modules, OwnerBytes{module, n})
	}
	slices.SortFunc(w.Modules, func(a, b OwnerBytes) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Module, b.Module))
	})
	w.Modules = w.Modules[:min(len(w.Modules), maxModules)]
}
