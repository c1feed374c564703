// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TZ works in an entry as in a program; what cannot work in an entry is refused with
// the key that does, and there it works.
func TestVariablesThatAreReadOnce(t *testing.T) {
	const module = `
import sys, time
def say():
    print(time.strftime("%Z %z"), "/srv/lib" in sys.path, sys.stdout.write_through, flush=True)
if __name__ == "__main__":
    say()
`
	r := prepare(t, "[floor]\npath = [\"DIR\"]\n[worker.entry]\nentry = \"zone:say\"\nenvironment = { PYTHONPATH = \"/srv/lib\", PYTHONUNBUFFERED = \"1\" }\n")
	_, stderr, code := prefork(t, "check", r.path("fleet.toml"))
	for _, name := range []string{"PYTHONPATH", "PYTHONUNBUFFERED"} {
		if code != 78 || !strings.Contains(stderr, "floor.env = { "+name) {
			t.Errorf("check: exit status %d, %q, which does not say where %s belongs", code, stderr, name)
		}
	}
	r = prepare(t, `
[floor]
path = ["DIR"]
preload = ["zone"]
env = { PYTHONPATH = "/srv/lib", PYTHONUNBUFFERED = "1" }
[defaults]
restart = "no"
environment = { TZ = "Asia/Tokyo" }
[worker.entry]
entry = "zone:say"
[worker.program]
exec = ["env", "PYTHONPATH=/srv/lib", "PYTHONUNBUFFERED=1", "python3", "DIR/zone.py"]
`)
	r.write("zone.py", module)
	out, err := os.Create(r.path("stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r.cmd.Stdout = out
	r.start()
	r.wait()
	if text, err := os.ReadFile(out.Name()); string(text) != strings.Repeat("JST +0900 True True\n", 2) || err != nil {
		t.Errorf("they say %q, %v", text, err)
	}
}

// Who is another user than the fleet can open /dev/stdout where that is a terminal.
func TestStandardOutputCanBeOpened(t *testing.T) {
	needRoot(t)
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["opens"]
[defaults]
user = "nobody"
restart = "no"
[worker.program]
exec = ["sh", "-c", "echo program >/dev/stdout; echo error >/dev/stderr"]
[worker.entry]
entry = "opens:it"
`)
	r.write("opens.py", "def it():\n    print('entry', file=open('/dev/stdout', 'w'))\n    open('/proc/self/environ').read()\n")
	screen := newPlace(t, "terminal")
	r.cmd.Stdout, r.cmd.Stderr = screen.open, screen.open
	r.open()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.watch(strings.NewReader(""))
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	for _, line := range []string{"program.0 |\x1b[0m program\r\n", "program.0 |\x1b[0m error\r\n", "entry.0   |\x1b[0m entry\r\n"} {
		r.eventually(line, func() bool { return strings.Contains(screen.String(), line) })
	}
}

// Names as long as they may be, and a deep runtime directory: a notify socket whose
// path would not fit its address has a short name.
func TestLongNames(t *testing.T) {
	r := prepare(t, "")
	name, worker, deep := strings.Repeat("n", 64), strings.Repeat("w", 64), r.path(strings.Repeat("d", 80))
	r.write(name+".toml", "[worker."+worker+"]\ntype = \"notify\"\nexec = [\"python3\", \"-c\", \"import os, socket, time; "+
		"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); time.sleep(1000)\"]\n")
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := prefork(t, "check", r.path(name+".toml")); code != 0 {
		t.Skipf("names are shorter: %s", stderr)
	}
	r.cmd.Args[2] = r.path(name + ".toml")
	r.cmd.Env = append(r.cmd.Env, "XDG_RUNTIME_DIR="+deep)
	if os.Geteuid() == 0 { // whose directories are elsewhere
		r.open()
		r.cmd.Path = r.path("prefork")
		if err := errors.Join(os.Link(self(t), r.cmd.Path), os.Chown(deep, 65534, -1)); err != nil {
			t.Fatal(err)
		}
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	r.start()
	r.eventually("the fleet is ready", func() bool { return strings.Contains(r.logged(), "fleet is ready") })
}

// By whatever path and name a fleet file is reached, it is the same fleet: commands find it,
// and no second master runs beside the first.
func TestTwoPathsOfOneFile(t *testing.T) {
	r := startSeen(t, "[worker.a]\nexec = [\"sleep\", \"1000\"]\n")
	r.waitReady()
	dir := t.TempDir()
	directory, name := filepath.Join(dir, "link"), filepath.Join(dir, "other.toml")
	if err := errors.Join(os.Symlink(r.dir, directory), os.Symlink(filepath.Join(directory, "fleet.toml"), name)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(directory, "fleet.toml"), name} {
		if out, stderr, code := prefork(t, "status", path); code != 0 || !strings.Contains(out, "a.0") {
			t.Errorf("status %s: exit status %d, %q, %q", path, code, out, stderr)
		}
		if _, stderr, code := prefork(t, "run", path); code == 0 || !strings.Contains(stderr, "runs already") {
			t.Errorf("run %s: exit status %d, %q", path, code, stderr)
		}
	}
}
