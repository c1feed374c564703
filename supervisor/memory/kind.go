// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import "strings"

// Kind is a kind of memory, as far as the kernel's names of mappings tell.
type Kind string

// The kinds.
const (
	Heap      Kind = "heap"      // of C's malloc(3)
	Arenas    Kind = "arenas"    // of Python's allocator of small objects
	Libraries Kind = "libraries" // .data and .bss of programs and libraries
	Stacks    Kind = "stacks"
	Other     Kind = "other" // anonymous mappings: large blocks of malloc(3), for example
	Files     Kind = "files" // mapped from files, or shared
)

// arenaSize is that of CPython's arenas since 3.10: mappings of whole ones, side by side,
// are taken for arenas.
const arenaSize = 1 << 20

// maxBSS is above the .bss of an interpreter: what is larger is a mapping of another kind
// that stands beside it, and that the kernel shows as one with it.
const maxBSS = 1 << 20

// guardSize is the inaccessible page below the stack of a thread.
const guardSize = 4096

// kindsOf tells the kind of the anonymous pages of each mapping.
func kindsOf(maps []mapping) []Kind {
	kinds := make([]Kind, len(maps))
	for i, m := range maps {
		var before mapping
		if i > 0 && maps[i-1].end == m.first {
			before = maps[i-1]
		}
		kinds[i] = kindOf(m, before)
	}
	return kinds
}

// kindOf: before is the mapping that ends where this one begins, if there is one.
func kindOf(m, before mapping) Kind {
	switch {
	case m.path == "[heap]":
		return Heap
	case strings.HasPrefix(m.path, "[stack"):
		return Stacks
	case strings.HasPrefix(m.path, "[anon: cpython"):
		return Arenas
	case m.path != "" && m.path[0] == '/':
		return Libraries
	case m.path == "" && strings.HasPrefix(before.path, "/") && strings.HasPrefix(before.perms, "rw") && m.end-m.first < maxBSS:
		return Libraries // .bss follows .data
	case before.perms == "---p" && before.path == "" && before.end-before.first == guardSize:
		return Stacks
	case (m.end-m.first)%arenaSize == 0 && strings.HasPrefix(m.perms, "rw"):
		return Arenas
	default:
		return Other
	}
}
