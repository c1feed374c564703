// SPDX-License-Identifier: AGPL-3.0-or-later

package units

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const twoSockets = `start = "boot"
[socket.a]
listen = "/run/a.sock"
mode = 0o640
[socket.b]
listen = ["0.0.0.0:1", "[::]:1"]
`

// TestSocketsOfBrokenFile has each kind of fault: a socket is lost only if it is
// itself what is wrong, or cannot be found any more.
func TestSocketsOfBrokenFile(t *testing.T) {
	const a, b = "prefork-x:a.socket", "prefork-x:b.socket"
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"unknown key":         {twoSockets + "[floor]\nno_such_key = 1\n", []string{a, b}},
		"wrong type":          {twoSockets + "[worker.w]\nexec = 5\n", []string{a, b}},
		"undeclared socket":   {twoSockets + "[worker.w]\nexec = [\"w\"]\nsockets = [\"c\"]\n", []string{a, b}},
		"broken table":        {twoSockets + "[worker.w\nexec = [\"w\"]\n", []string{a, b}},
		"broken value":        {twoSockets + "[worker.w]\nexec = [\"w]\n", []string{a, b}},
		"open array":          {twoSockets + "[worker.w]\nexec = [\"w\"\n[worker.v]\n", []string{a, b}},
		"open text":           {twoSockets + "[worker.w]\nexec = ['''w\n[worker.v]\n[worker.u]\n", []string{a, b}},
		"repeated key":        {twoSockets + "[worker.w]\nexec = [\"w\"]\nexec = [\"w\"]\n", []string{a, b}},
		"repeated table":      {twoSockets + "[socket.a]\nlisten = \"/run/c\"\n", []string{a, b}},
		"fault in a socket":   {twoSockets + "[socket.c]\nlisten = \"nowhere\"\n", []string{a, b}},
		"broken socket":       {twoSockets + "[socket.c]\nlisten = \"/run/c\n", []string{a, b}},
		"broken above":        {strings.Replace(twoSockets, "0o640", "0o680", 1), nil},
		"mode is not octal":   {strings.Replace(twoSockets, "0o640", "640", 1), []string{b}},
		"same address":        {twoSockets + "[socket.c]\nlisten = \"/run/a.sock\"\n", nil},
		"broken first line":   {"start = boot\n" + twoSockets, nil},
		"sockets are numbers": {"socket = 5\n", nil},
		"a socket is one":     {twoSockets + "[socket]\nc = 5\n", []string{a, b}},
		"not text":            {twoSockets + "\x00\xff", []string{a}},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.toml"), []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		files, logged := generate(t, 0, dir)
		var got []string
		for path := range files {
			if filepath.Ext(path) == ".socket" && filepath.Dir(path) == "." {
				got = append(got, path)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		if len(logged) == 0 {
			t.Errorf("%s: nothing is logged", name)
		}
		if mode := settings(t, files[a])["SocketMode"]; files[a] != "" && !slices.Equal(mode, []string{"0640"}) {
			t.Errorf("%s: mode %q, want 0640", name, mode)
		}
		if only := settings(t, files[b])["BindIPv6Only"]; files[b] != "" && !slices.Equal(only, []string{"ipv6-only"}) {
			t.Errorf("%s: IPv6 takes the port of IPv4", name)
		}
	}
}

// TestOtherFilesAreNotRead: a pipe does not stop the boot, nor does a directory.
func TestOtherFilesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.toml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.toml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link.toml")); err != nil {
		t.Fatal(err)
	}
	files, logged := generate(t, 0, dir)
	for _, name := range []string{"pipe", "folder", "link"} {
		if !slices.ContainsFunc(logged, func(line string) bool { return strings.Contains(line, name+".toml: ") }) {
			t.Errorf("nothing is logged about %s: %q", name, logged)
		}
	}
	if len(files) != 0 {
		t.Errorf("got %v", files)
	}
}

// FuzzBrokenFile looks for a file that makes the generator fail.
func FuzzBrokenFile(f *testing.F) {
	f.Add([]byte(twoSockets))
	f.Add([]byte(twoSockets + "[worker.w\n"))
	f.Add([]byte("[socket]\na = [1]\n[socket.b]\nlisten = {}\nmode = -1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.toml"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		generate(t, 0, dir)
	})
}
