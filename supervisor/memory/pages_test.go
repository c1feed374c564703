// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
)

// recorded are entries of a pagemap as the kernel gave them (6.18, x86-64): to root, and
// to another user, who sees no frames.
var recorded = map[string][]uint64{
	"floor": {
		0x810000000019c339, // its own alone
		0x80000000001d1aeb, // shared with what was forked from it
		0x8000000000003b32,
		0,                  // was never touched
		0x4000000000000000, // swapped out
		0xa0000000000f7001, // of a file
	},
	"worker": {
		0x80000000002c0040, // the page that the floor had before it wrote to it
		0x80000000001d1aeb, // the floor's
		0x8100000000204455, // a copy
		0x8100000000204456, // new
		0x8100000000204457,
		0x8100000000204458, // a copy of the file's
	},
	"parent": { // of processes that share two pages with it
		0, 0x80000000001d1aeb, 0x8000000000204455, 0x8000000000204456, 0, 0,
	},
}

func pagesOf(t *testing.T, name string, frames bool) *pages {
	t.Helper()
	var b bytes.Buffer
	for _, e := range recorded[name] {
		if !frames {
			e &^= uint64(frameMask)
		}
		if err := binary.Write(&b, binary.NativeEndian, e); err != nil {
			t.Fatal(err)
		}
	}
	p := &pages{}
	p.sift(0x7000_0000, Heap, parseEntries(b.Bytes()))
	return p
}

func baseOf(p *pages) *Base { return &Base{runs: p.runs} }

func TestPagesOfARecordedMap(t *testing.T) {
	p := pagesOf(t, "floor", true)
	if p.files != pageSize || len(p.runs) != 2 {
		t.Fatalf("got %+v, want one page of a file, and two runs", p)
	}
	if first, second := p.runs[0], p.runs[1]; first.first != 0x7000_0000 || len(first.entries) != 3 ||
		second.first != 0x7000_0000+4*pageSize || len(second.entries) != 1 {
		t.Errorf("got %+v", p.runs)
	}
}

func TestCompareRecordedMaps(t *testing.T) {
	page := pageSize
	for _, c := range []struct {
		name           string
		worker         string
		frames, former bool
		of             *Base
		want           Share
	}{
		{"a worker, seen by root", "worker", true, false, baseOf(pagesOf(t, "floor", true)), Share{
			Shared: 2 * page, Written: page, Own: 2 * page, Swapped: page,
		}},
		{"a worker, seen by its user", "worker", false, false, baseOf(pagesOf(t, "floor", false)), Share{
			Shared: 2 * page, Written: page, Own: 2 * page, Swapped: page,
		}},
		{"one that has forked, seen by root", "parent", true, false, baseOf(pagesOf(t, "floor", true)), Share{
			Shared: page, Written: page, Own: page,
		}},
		{"its floor has ended", "worker", true, true, nil, Share{Own: 4 * page, Former: 2 * page}},
		{"a program", "worker", true, false, nil, Share{Own: 6 * page}},
		{"the floor with itself", "floor", true, false, baseOf(pagesOf(t, "floor", true)), Share{
			Shared: 2 * page, Written: page, Files: page, Swapped: page, // its own alone is no worker's
		}},
	} {
		got := compare(c.of, c.former, pagesOf(t, c.worker, c.frames))
		var sums [2]uint64
		for i, in := range []map[Kind]uint64{got.WrittenIn, got.OwnIn} {
			for _, n := range in {
				sums[i] += n
			}
		}
		if sums != [2]uint64{got.Written, got.Own} || uint64(len(got.pages))*page != got.Written {
			t.Errorf("%s: the kinds do not add up: %+v", c.name, got)
		}
		got.WrittenIn, got.OwnIn, got.pages = nil, nil, nil
		if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: got  %+v\nwant %+v", c.name, *got, c.want)
		}
	}
}

func TestKindsOfMappings(t *testing.T) {
	const maps = `00400000-00946000 r-xp 00000000 fe:01 1 /usr/bin/python3.11
00946000-00a85000 rw-p 00546000 fe:01 1 /usr/bin/python3.11
00a85000-00aca000 rw-p 00000000 00:00 0
2a15c000-2a548000 rw-p 00000000 00:00 0          [heap]
7f0000000000-7f0000300000 rw-p 00000000 00:00 0
7f0000400000-7f0000401000 ---p 00000000 00:00 0
7f0000401000-7f0000c01000 rw-p 00000000 00:00 0
7f0001000000-7f0001001000 rw-p 00000000 00:00 0 [anon: cpython:pymalloc]
7f394a250000-7f394a251000 rw-p 00001000 fe:01 2 /usr/lib/python3.11/lib dynload/_json.so (deleted)
7f394a251000-7f394c652000 rw-p 00000000 00:00 0
7fff08174000-7fff08195000 rw-p 00000000 00:00 0  [stack]
`
	var all []mapping
	for line := range bytes.Lines([]byte(maps)) {
		m, err := parseMapping(string(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	want := []Kind{Libraries, Libraries, Libraries, Heap, Arenas, Other, Stacks, Arenas, Libraries, Other, Stacks}
	if got := kindsOf(all); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := all[8].path; got != "/usr/lib/python3.11/lib dynload/_json.so (deleted)" {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"", "x", "1-2 r--p 0 0:0", "2-1 r--p 0 0:0 0", "z-1 r--p 0 0:0 0"} {
		if m, err := parseMapping(bad); err == nil {
			t.Errorf("%q: got %+v", bad, m)
		}
	}
}
