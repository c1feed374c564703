// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is how many kB there are of this program's code, and of its read-only data.
func resident(t *testing.T) map[string]int {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kB := map[string]int{}
	var at mapping
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case strings.Contains(fields[0], "-"):
			at = parseMapping(lines.Text())
		case fields[0] == "Rss:" && at.file == exe && at.fixed():
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			kB[at.mode] += n
		}
	}
	return kB
}

// TestReleasedProgramComesBack: fewer pages of it are resident afterwards, and the
// program finds them as they were.
func TestReleasedProgramComesBack(t *testing.T) {
	before := resident(t)
	program, err := FindProgram()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Release(); err != nil {
		t.Fatal(err)
	}
	after := resident(t)
	for _, mode := range []string{"r-xp", "r--p"} {
		if before[mode] == 0 || after[mode] >= before[mode] { // what looking at it needs is back
			t.Errorf("%s: %d kB are resident, %d were", mode, after[mode], before[mode])
		}
	}
	defer func() {
		if text := recover(); text != "found again" { // unwinding reads many of them
			t.Errorf("got %v", text)
		}
	}()
	panic("found" + " again")
}

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]mapping{
		"00400000-006ad000 r--p 00000000 08:01 42     /usr/bin/a b (deleted)": {0x400000, 0x6ad000, "r--p", "/usr/bin/a b (deleted)"},
		"7ffe-7fff rw-p 00000000 00:00 0 [stack]":                             {0x7ffe, 0x7fff, "rw-p", ""},
		"Rss: 4 kB": {},
	} {
		if got := parseMapping(line); got != want {
			t.Errorf("%q: got %+v, want %+v", line, got, want)
		}
	}
}
