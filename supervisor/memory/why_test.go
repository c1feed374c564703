// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"reflect"
	"strings"
	"testing"
)

const listed = `python 3.13.1 gc_freeze
m app
m typing
o 10000 64 16 o 0
o 10100 400 0 c 1
o 10400 900 16 t 1
o 11000 2000 0 d 0
end
`

func objectsOf(t *testing.T, text string) *Objects {
	t.Helper()
	o, err := ReadObjects(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Where a word is in an object tells why it was written.
func TestCauseOfAWord(t *testing.T) {
	o := objectsOf(t, listed)
	for at, want := range map[uint64]Cause{
		0xffe8:  Unknown, // before the header
		0xfff0:  Collected,
		0xfff8:  Collected,
		0x10000: Counts,
		0x10008: Attributes,
		0x1003f: Attributes,
		0x10040: Unknown, // behind it
		0x10100: Counts,
		0x10108: CodeWarm,
		0x103f0: Collected,
		0x10400: Counts,
		0x10408: TypeCaches,
		0x11000: Contents,
		0x117c8: Contents,
		0x117d0: Unknown,
	} {
		if got := causeOf(o.at(at), at, Heap); got != want {
			t.Errorf("%x: got %q, want %q", at, got, want)
		}
	}
	if got := causeOf(nil, 0, Libraries); got != Libraryful {
		t.Errorf("of a library: %q", got)
	}
}

// A page counts for its most frequent cause, and for one that is alone.
func TestPagesByCause(t *testing.T) {
	sum := summary{objects: objectsOf(t, listed), causes: map[Cause]*CauseBytes{}, owners: map[string]uint64{}}
	was := make([]byte, pageSize)
	write := func(at ...int) {
		is := make([]byte, pageSize)
		for _, i := range at {
			is[i] = 1
		}
		sum.page(0x10000, was, is, Arenas)
	}
	write()
	write(0, 0x100, 0x110) // two counts and a cache
	write(0x108, 0x120)
	var w Why
	sum.tell(&w)
	want := Why{
		Causes: []CauseBytes{
			{Cause: CodeWarm, Bytes: pageSize, Alone: pageSize, Key: "floor.warm"},
			{Cause: Nothing, Bytes: pageSize, Alone: pageSize, Key: "floor.immortal"},
			{Cause: Counts, Bytes: pageSize, Key: "floor.immortal"},
		},
		Modules: []OwnerBytes{{"typing", 2 * pageSize}},
	}
	if !reflect.DeepEqual(w, want) {
		t.Errorf("got  %+v\nwant %+v", w, want)
	}
}

func TestKeysThatWouldShare(t *testing.T) {
	for line, want := range map[string][3]string{ // for counts, caches, headers
		"python 3.11.2 gc_freeze":           {"", "floor.warm", ""},
		"python 3.11.2 warm":                {"", "floor.repack", "floor.gc_freeze"},
		"python 3.11.2 warm repack":         {"", "", "floor.gc_freeze"},
		"python 3.14.0":                     {"floor.immortal", "floor.warm", "floor.gc_freeze"},
		"python 3.12.1 immortal gc_freeze":  {"", "floor.warm", ""},
		"python nonsense\x1b[2J gc_freeze ": {"", "floor.warm", ""},
	} {
		o := objectsOf(t, line+"\nend\n")
		if got := [3]string{o.keyFor(Counts), o.keyFor(CodeWarm), o.keyFor(Collected)}; got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
	if o := objectsOf(t, "python 3.14.0\nunable free-threaded\n"); o.Problem != "free-threaded" {
		t.Errorf("got %+v", o)
	}
}

// FuzzReadObjects: whatever user code makes a probe say, it is an error or a list in
// which addresses can be looked for.
func FuzzReadObjects(f *testing.F) {
	f.Add(listed)
	f.Add("python 3.14\nunable x\n")
	f.Add("python 3.14\nm a\no ffffffffffffffff 8 0 c 0\nend\n")
	f.Add("python 3.14\no 1 1 2 c 0\nend\n")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ReadObjects(strings.NewReader(text))
		if err != nil || o.Problem != "" {
			return
		}
		for _, x := range o.sorted {
			if found := o.at(x.address); found != nil && found.owner >= len(o.owners) {
				t.Errorf("%+v has no owner", found)
			}
		}
		if strings.ContainsRune(strings.Join(o.owners, ""), '\x1b') {
			t.Error("an owner would steer a terminal")
		}
	})
}
