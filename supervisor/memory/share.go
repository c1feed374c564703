// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import "slices"

// Base is a floor as others share it: the pages that it had when it was looked at.
type Base struct {
	Anonymous uint64          `json:"anonymous"`    // bytes of its own, which those that are forked from it share
	In        map[Kind]uint64 `json:"anonymous_in"` // the same, by kind
	Files     uint64          `json:"files"`        // bytes of files that it has mapped
	Swapped   uint64          `json:"swapped"`      // bytes that are swapped out
	Huge      uint64          `json:"huge"`         // bytes of Anonymous that are mapped as huge pages

	runs []run
}

// Share is what a process has of a floor's memory and of its own, in bytes. Each page
// counts once.
type Share struct {
	Shared    uint64          `json:"shared"`  // is the floor's, and has not been written since the fork
	Written   uint64          `json:"written"` // was the floor's, and is a copy that the process has made by writing
	WrittenIn map[Kind]uint64 `json:"written_in"`
	Own       uint64          `json:"own"` // where the floor had nothing
	OwnIn     map[Kind]uint64 `json:"own_in"`
	Former    uint64          `json:"former"`  // shared, but with no floor any more: with others that were forked from it
	Files     uint64          `json:"files"`   // of files, and shared memory
	Swapped   uint64          `json:"swapped"` // swapped out, or the floor's is: the kernel does not say whose it was
	Huge      uint64          `json:"huge"`    // of all that is not of files, what is mapped as huge pages

	pages []uint64 // addresses of what is written, sorted
}

// Base looks at a floor.
func (p *Process) Base() (*Base, error) {
	found, err := p.pages()
	if err != nil {
		return nil, err
	}
	b := &Base{Files: found.files, Huge: found.huge, In: map[Kind]uint64{}, runs: found.runs}
	for _, r := range found.runs {
		for _, e := range r.entries {
			if e&isSwapped != 0 {
				b.Swapped += pageSize
				continue
			}
			b.Anonymous += pageSize
			b.In[r.kind] += pageSize
		}
	}
	return b, nil
}

// Share compares a process with the floor that it was forked from: nil if it was forked
// from none, or from one that has ended, as former says.
func (p *Process) Share(of *Base, former bool) (*Share, error) {
	found, err := p.pages()
	if err != nil {
		return nil, err
	}
	return compare(of, former, found), nil
}

func compare(of *Base, former bool, found *pages) *Share {
	s := &Share{Files: found.files, Huge: found.huge, WrittenIn: map[Kind]uint64{}, OwnIn: map[Kind]uint64{}}
	base := cursor{}
	if of != nil {
		base.runs = of.runs
	}
	for _, r := range found.runs {
		for i, e := range r.entries {
			address := r.first + uint64(i)*pageSize
			floors, had := base.at(address)
			switch {
			case e&isSwapped != 0, had && floors&isSwapped != 0:
				s.Swapped += pageSize
			case had && isShared(e, floors):
				s.Shared += pageSize
			case had:
				s.Written += pageSize
				s.WrittenIn[r.kind] += pageSize
				s.pages = append(s.pages, address)
			case former && e&exclusive == 0:
				s.Former += pageSize
			default: // what it shares with processes that it has forked itself, too
				s.Own += pageSize
				s.OwnIn[r.kind] += pageSize
			}
		}
	}
	return s
}

// isShared reports whether a page is one that the floor had. It is not the process's
// doing if the floor has written to its own since: others that were forked from it then
// have the old one, too. Where frames can be seen they tell a page that the process shares
// with no floor, but with processes that it has forked itself.
func isShared(e, floors entry) bool {
	switch {
	case e&exclusive != 0:
		return false
	case e.frame() != 0 && floors.frame() != 0 && floors&exclusive == 0:
		return e.frame() == floors.frame()
	default:
		return true
	}
}

// cursor finds the entries of addresses that come in order.
type cursor struct {
	runs []run
	next int
}

func (c *cursor) at(address uint64) (entry, bool) {
	for c.next < len(c.runs) && c.runs[c.next].end() <= address {
		c.next++
	}
	if c.next == len(c.runs) || address < c.runs[c.next].first {
		return 0, false
	}
	return c.runs[c.next].entries[(address-c.runs[c.next].first)/pageSize], true
}

// kindAt is the kind of the floor's memory at an address.
func (b *Base) kindAt(address uint64) Kind {
	i, _ := slices.BinarySearchFunc(b.runs, address, func(r run, a uint64) int {
		if r.end() <= a {
			return -1
		}
		return 1
	})
	if i < len(b.runs) && b.runs[i].first <= address {
		return b.runs[i].kind
	}
	return Other
}
