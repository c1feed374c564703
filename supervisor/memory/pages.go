// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// pageSize is that of this machine's pages, in bytes.
var pageSize = uint64(os.Getpagesize())

// entry is one of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst of the
// kernel). Who has no CAP_SYS_ADMIN sees 0 in place of the frame.
type entry uint64

const (
	exclusive entry = 1 << 56 // mapped by this process alone; needs no privilege
	isFile    entry = 1 << 61 // of a file, or shared memory
	isSwapped entry = 1 << 62
	isPresent entry = 1 << 63
	frameMask entry = 1<<55 - 1
)

func (e entry) frame() entry { return e & frameMask }

// run is a number of pages side by side, of one mapping, that are all present or swapped
// out.
type run struct {
	first   uint64 // address
	kind    Kind
	huge    bool
	entries []entry
}

func (r *run) end() uint64 { return r.first + uint64(len(r.entries))*pageSize }

// pages are those of a process that hold something of its own or of its floor's: sorted
// runs, and the bytes of what is only counted.
type pages struct {
	runs  []run
	files uint64
	huge  uint64
}

// pages lists them. It stops nothing, and costs some 10 ms for 100 MB.
func (p *Process) pages() (*pages, error) { return p.pagesBy(false) }

// pagesBy: old does without PAGEMAP_SCAN.
func (p *Process) pagesBy(old bool) (*pages, error) {
	maps, err := p.mappings()
	if err != nil {
		return nil, err
	}
	file, err := p.open("pagemap")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // read only
	all, scan := &pages{}, scanner{file: file, old: old, regions: make([]linux.PageRegion, 512)}
	for i, kind := range kindsOf(maps) {
		if m := maps[i]; !strings.HasPrefix(m.path, "[v") { // vdso, vvar and vsyscall are the kernel's
			if err := scan.read(m, kind, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// scanner reads the pages of one mapping after the other.
type scanner struct {
	file    *os.File
	regions []linux.PageRegion
	old     bool // the kernel does not know PAGEMAP_SCAN
}

func (s *scanner) read(m mapping, kind Kind, into *pages) error {
	if s.old {
		return s.readAll(m, kind, into)
	}
	for at := m.first; at < m.end; {
		n, next, err := linux.ScanPages(int(s.file.Fd()), at, m.end, s.regions)
		if errors.Is(err, unix.ENOTTY) {
			s.old = true
			return s.readAll(m, kind, into)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.file.Name(), err)
		}
		for _, r := range s.regions[:n] {
			if err := s.region(r, kind, into); err != nil {
				return err
			}
		}
		if next <= at {
			break
		}
		at = next
	}
	return nil
}

// region takes pages of one kind. A page of zeros is nobody's.
func (s *scanner) region(r linux.PageRegion, kind Kind, into *pages) error {
	size := r.End - r.First
	huge := r.Categories&linux.PageIsHuge != 0
	switch {
	case r.Categories&linux.PageIsZero != 0:
		return nil
	case r.Categories&linux.PageIsFile != 0 && r.Categories&linux.PageIsPresent != 0:
		into.files += size
		return nil
	case huge:
		into.huge += size
	}
	entries, err := s.entries(r.First, size/pageSize)
	into.add(run{r.First, kind, huge, entries})
	return err
}

// chunk is how many entries are read at a time where the kernel does not say which pages
// there are.
const chunk = 1 << 16

// readAll reads an entry for each page of a mapping, but not of one that only keeps
// addresses free.
func (s *scanner) readAll(m mapping, kind Kind, into *pages) error {
	if strings.HasPrefix(m.perms, "---") {
		return nil
	}
	for at := m.first; at < m.end; at += chunk * pageSize {
		entries, err := s.entries(at, min(chunk, (m.end-at)/pageSize))
		if err != nil {
			return err
		}
		into.sift(at, kind, entries)
	}
	return nil
}

// sift keeps what of these entries is of pages that are there.
func (p *pages) sift(first uint64, kind Kind, entries []entry) {
	for i := 0; i < len(entries); {
		switch e := entries[i]; {
		case e&(isPresent|isSwapped) == 0:
			i++
		case e&isFile != 0 && e&isPresent != 0:
			p.files += pageSize
			i++
		default:
			n := 1
			for i+n < len(entries) && entries[i+n]&(isPresent|isSwapped) != 0 && entries[i+n]&isFile == 0 {
				n++
			}
			p.add(run{first + uint64(i)*pageSize, kind, false, slices.Clone(entries[i : i+n])})
			i += n
		}
	}
}

func (p *pages) add(r run) {
	if len(r.entries) > 0 {
		p.runs = append(p.runs, r)
	}
}

// entries reads so many from an address on. A mapping that has gone meanwhile has fewer.
func (s *scanner) entries(address, n uint64) ([]entry, error) {
	text := make([]byte, 8*n)
	got, err := s.file.ReadAt(text, int64(address/pageSize*8))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return parseEntries(text[:got]), nil
}

func parseEntries(text []byte) []entry {
	entries := make([]entry, len(text)/8)
	for i := range entries {
		entries[i] = entry(binary.NativeEndian.Uint64(text[8*i:]))
	}
	return entries
}
