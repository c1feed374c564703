// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// family is a python3 that has forked a child.
type family struct {
	t             *testing.T
	lines         *bufio.Scanner
	in            io.Writer
	parent, child *Process
}

// newFamily runs a script whose child says its pid, and then waits for a line before each
// step.
func newFamily(t *testing.T, script string) *family {
	t.Helper()
	cmd := exec.Command("python3", "-c", "import gc, os; gc.disable()\n"+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &family{t: t, lines: bufio.NewScanner(out), in: in}
	t.Cleanup(func() {
		_ = in.Close() // its child reads end of file, and both end
		_ = cmd.Wait()
	})
	child, err := strconv.Atoi(f.said())
	if err != nil {
		t.Fatal(err)
	}
	f.parent, f.child = open(t, cmd.Process.Pid), open(t, child)
	return f
}

func open(t *testing.T, pid int) *Process {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (f *family) said() string {
	f.t.Helper()
	if !f.lines.Scan() {
		f.t.Fatalf("it says nothing more: %v", f.lines.Err())
	}
	return f.lines.Text()
}

// step lets the child go on until it says so.
func (f *family) step() {
	f.t.Helper()
	if _, err := fmt.Fprintln(f.in); err != nil {
		f.t.Fatal(err)
	}
	f.said()
}

func (f *family) share() (*Base, *Share) {
	f.t.Helper()
	base, err := f.parent.Base()
	if err != nil {
		f.t.Fatal(err)
	}
	share, err := f.child.Share(base, false)
	if err != nil {
		f.t.Fatal(err)
	}
	return base, share
}

// within wants a to be b, but for the pages that an interpreter writes to when it runs.
func within(t *testing.T, what string, a, b uint64) {
	t.Helper()
	const noise = 1 << 20
	if a > b+noise || b > a+noise {
		t.Errorf("%s: got %d kB, want %d kB", what, a>>10, b>>10)
	}
}

// TestWhatAChildWrites: 32 MB of the parent's, of which the child writes 8, makes 16 of
// its own, and then gives them back; the rest is shared to the last page.
func TestWhatAChildWrites(t *testing.T) {
	f := newFamily(t, `
data = bytearray(b"x") * (32 << 20)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    input()
    for i in range(0, 8 << 20, 4096):
        data[i] = 1
    print("written", flush=True)
    input()
    own = bytearray(b"y") * (16 << 20)
    print("made", flush=True)
    input()
    del own
    print("given back", flush=True)
    input()
    os._exit(0)
os.wait()`)
	base, before := f.share()
	if before.Shared+before.Written+before.Swapped < base.Anonymous || before.Shared < 32<<20 {
		t.Errorf("before: %+v of %+v", before, base)
	}
	f.step()
	_, written := f.share()
	within(t, "written", written.Written-before.Written, 8<<20)
	within(t, "shared", before.Shared-written.Shared, 8<<20)
	within(t, "own", written.Own, before.Own)
	f.step()
	_, made := f.share()
	within(t, "own", made.Own-written.Own, 16<<20)
	within(t, "still written", made.Written, written.Written)
	f.step()
	_, after := f.share()
	within(t, "own again", after.Own, written.Own)
}

// A process that is a child of this one and has begun before is the one that was meant.
func TestProcessThatIsMeant(t *testing.T) {
	start := SinceBoot()
	f := newFamily(t, `print(os.getpid(), flush=True); input()`)
	self := f.parent
	now := SinceBoot()
	if !self.IsOf(os.Getpid(), now+clockTick) || self.IsOf(os.Getpid(), start) || self.IsOf(1<<30, now+clockTick) {
		t.Error("a child is not told from another process")
	}
}

// An older kernel tells the same in another way; only pages of zeros look like others.
func TestPagesWithoutScan(t *testing.T) {
	f := newFamily(t, `
import mmap
zeros = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
sparse = mmap.mmap(-1, 1 << 34, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
sparse[1 << 33] = 1
data = bytearray(b"x") * (8 << 20)
print(os.getpid(), flush=True)
input()`)
	count := func(old bool) (n, files uint64) {
		t.Helper()
		found, err := f.child.pagesBy(old)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found.runs {
			n += uint64(len(r.entries))
		}
		return n, found.files
	}
	n, files := count(false)
	oldN, oldFiles := count(true)
	if n < 8<<20/pageSize || oldN < n || oldN > n+16 || files != oldFiles {
		t.Errorf("%d pages and %d bytes of files with PAGEMAP_SCAN, %d and %d without", n, files, oldN, oldFiles)
	}
}
