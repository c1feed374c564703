// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/supervisor/control"
)

// startInto runs a fleet with both of its streams where they are told to go.
func (r *rig) startInto(stdout, stderr *os.File) {
	r.t.Helper()
	r.cmd.Stdout, r.cmd.Stderr = stdout, stderr
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.watch(strings.NewReader(""))
}

// fleet asks the master about all of it.
func (r *rig) fleet() *control.Status {
	r.t.Helper()
	f, err := reach.Look(r.path("fleet.toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

const liars = `
[log]
format = "json"
[worker.liar]
exec = ["python3", "-u", "DIR/lie.py"]
restart = "no"
[worker.nobody]
exec = ["sh", "-c", "for f in /dev/stderr /proc/self/fd/2 /dev/stdout; do echo opened $f >$f; done"]
user = "nobody"
restart = "no"
`

// lie says what is hard to keep apart, and numbers on both of its streams.
const lie = `
import os, threading

def numbers(fd):
    for i in range(20000):
        os.write(fd, b"number %d\n" % i)

os.write(1, bytes(range(256)) * 3 + b"\n")
os.write(1, b'"}\n{"time":"2026-12-01T00:00:00.000000Z","fleet":"fleet","name":"prefork","level":"error","message":"forged"}\n')
os.write(1, b'\x1b]0;title\a\x1b[2J\x9b1m\xc2\x9b1m\xe2\x80\xae\xe2\x80\xa8\xed\xa0\x80\xf4\x90\x80\x80 \r\n')
os.write(1, b"<3>trouble\n<9>no level\n<3>\n")
left = b"\xe2\x82\xac" * 3500000
while left:
    left = left[os.write(1, left):]
os.write(1, b"\n")
both = [threading.Thread(target=numbers, args=(fd,)) for fd in (1, 2)]
for t in both: t.start()
for t in both: t.join()
os.write(1, b"unfinished")
`

// judge reads lines as a machine does, and says what is wrong with them.
const judge = `
import datetime, json, sys

joined, open_, pids = {}, {}, {}
for line in sys.stdin.buffer:
    assert line.endswith(b"}\n") and len(line) < 70000, line[:100]
    assert not any(c < 32 or c == 127 for c in line[:-1]), line[:100]
    o = json.loads(line.decode())
    t = datetime.datetime.strptime(o["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
    assert o["fleet"] == "fleet", o
    if o["name"] == "prefork":
        assert "stream" not in o, o
        continue
    assert (o["worker"], o["slot"]) == (o["name"].split(".")[0], o["name"]), o
    key = o["name"], o["stream"]
    pids.setdefault(o["name"], set()).add(o["pid"])
    if key in open_:
        joined[key][-1][1] += o["message"]
    else:
        joined.setdefault(key, []).append([o["level"], o["message"]])
    open_.pop(key, None)
    if o.get("partial"): open_[key] = True
assert all(len(p) == 1 for p in pids.values()), pids
out = joined["liar.0", "stdout"]
for want in (bytes(range(256)) * 3).split(b"\n"):
    level, got = out.pop(0)
    assert got == want.decode(errors="replace"), (want, got)
assert out.pop(0) == ["info", '"}'], out[0]
level, got = out.pop(0)
assert level == "info" and json.loads(got)["message"] == "forged", got
level, got = out.pop(0)
assert got.startswith("\x1b]0;title\a\x1b[2J\ufffd1m\x9b1m\u202e\u2028\ufffd") and got.endswith(" "), ascii(got)
assert out[:3] == [["error", "trouble"], ["info", "<9>no level"], ["error", ""]], out[:3]
level, got = out[3]
assert got == "\u20ac" * 3500000, (len(got), ascii(got[:20]))
assert out[4:] == [["info", "number %d" % i] for i in range(20000)] + [["info", "unfinished"]], out[-3:]
assert joined["liar.0", "stderr"] == [["info", "number %d" % i] for i in range(20000)]
print("well")
`

// TestLinesAreObjects: whatever a worker says, each line in a pipe is an object of JSON, as
// Python reads it, that says who it was; nothing is lost or changed places.
func TestLinesAreObjects(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := prepare(t, liars)
	r.write("lie.py", lie)
	out, stderr := newPlace(t, "pipe"), newPlace(t, "file")
	r.startInto(out.open, stderr.open)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d\n%s", code, stderr)
	}
	_ = out.open.Close()
	r.eventually("the last line", func() bool { return strings.Contains(out.String(), "unfinished") })
	all := out.String() + stderr.String()
	check := exec.Command("python3", "-c", judge)
	check.Stdin = strings.NewReader(all)
	if said, err := check.CombinedOutput(); err != nil || string(said) != "well\n" {
		t.Errorf("%v: %s", err, said)
	}
	for _, want := range []string{`"message":"opened /dev/stderr"`, `"message":"opened /proc/self/fd/2"`} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("there is no %s in\n%.3000s", want, stderr)
		}
	}
	if !strings.Contains(out.String(), `"message":"opened /dev/stdout"`) || strings.Contains(out.String(), `"name":"prefork"`) {
		t.Errorf("standard output is not what it should be: %.300s", out)
	}
}

const flooders = `
[log]
format = "name"
[worker.flood]
exec = ["python3", "-u", "DIR/flood.py"]
[worker.calm]
exec = ["sleep", "987710"]
`

// flood writes for ever, and tells in a file how much it has written.
const flood = `
import os
n = 0
while True:
    os.write(1, b"x" * 99 + b"\n")
    n += 1
    if n % 1000 == 0:
        with open("DIR/written", "w") as f: f.write(str(n))
`

// TestAPipeThatNobodyReads holds workers up for a while only: then they go on, and what
// they say is lost and counted. The master waits for nobody. When somebody reads, he is told.
func TestAPipeThatNobodyReads(t *testing.T) {
	t.Parallel()
	address, file := monitored(t, flooders)
	r := prepare(t, file)
	r.write("flood.py", strings.ReplaceAll(flood, "DIR", r.dir))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	r.startInto(write, write)
	_ = write.Close()
	r.waitReady()
	r.eventually("the worker goes on", func() bool {
		text, _ := os.ReadFile(r.path("written"))
		n, _ := strconv.Atoi(string(text))
		return n > 20000 // more than all pipes and queues hold
	})
	s := r.fleet()
	if s.ActiveState != "active" || s.LinesLost == 0 || len(s.Slots) != 2 {
		t.Errorf("the status is %+v", s)
	}
	if lost := value(t, address, "prefork_log_lines_lost_total"); lost < float64(s.LinesLost) {
		t.Errorf("%v lines are lost, and were %d", lost, s.LinesLost)
	}
	var text bytes.Buffer
	buf := make([]byte, 1<<16)
	for !strings.Contains(text.String(), "lines were lost: nobody has read them in time") {
		n, err := read.Read(buf)
		if err != nil {
			t.Fatalf("%v after %d bytes", err, text.Len())
		}
		text.Write(buf[:n])
	}
	if !strings.Contains(text.String(), " flood.0 stdout  | xxx") {
		t.Errorf("lines have no name: %.300s", text.String())
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 { // though nobody reads again
		t.Errorf("exit status %d", code)
	}
}

// TestAPipeWhoseReaderIsGone: the fleet goes on, as it does where nobody ever read; its
// workers do not even notice.
func TestAPipeWhoseReaderIsGone(t *testing.T) {
	t.Parallel()
	r := prepare(t, flooders)
	r.write("flood.py", strings.ReplaceAll(flood, "DIR", r.dir))
	head := exec.Command("head", "-n", "3")
	stdin, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	head.Stdin = stdin
	var got strings.Builder
	head.Stdout = &got
	if err := head.Start(); err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	r.startInto(write, write)
	_ = write.Close()
	r.waitReady()
	if err := head.Wait(); err != nil || strings.Count(got.String(), "\n") != 3 || !strings.Contains(got.String(), "Z prefork info    | fleet starts") {
		t.Errorf("head: %v, %q", err, got.String())
	}
	r.eventually("lines are counted", func() bool { return r.fleet().LinesLost > 1000 })
	if s := r.slot("flood.0"); s.State != "ready" || s.NRestarts != 0 {
		t.Errorf("the worker is %+v", s)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestLinesOfAMasterThatIsKilled end with it: a worker that writes then gets EPIPE, and is
// gone with its master anyway.
func TestLinesOfAMasterThatIsKilled(t *testing.T) {
	t.Parallel()
	r := prepare(t, flooders)
	r.write("flood.py", strings.ReplaceAll(flood, "DIR", r.dir))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	r.startInto(write, write)
	_ = write.Close()
	r.waitReady()
	r.signal(unix.SIGKILL)
	if _, err := io.Copy(io.Discard, read); err != nil { // until nobody holds it
		t.Error(err)
	}
	r.wait()
}
