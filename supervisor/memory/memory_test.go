// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOfAProcessThatSharesAndWrites: a forked child shares what its parent holds,
// and what it writes becomes its own.
func TestOfAProcessThatSharesAndWrites(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	const size = 32 << 20
	cmd := exec.Command(python, "-c", `
import os
data = bytearray(b"x") * (32 << 20)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    input()
    for i in range(0, len(data), 4096):
        data[i] = 1
    print("written", flush=True)
    input()
    os._exit(0)
os.wait()`)
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
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	lines.Scan()
	child, err := strconv.Atoi(lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	before, err := Of(child)
	if err != nil || before.Shared < size || before.Private > size {
		t.Errorf("before it writes: %+v, %v", before, err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "written" {
		t.Fatalf("it says %q", lines.Text())
	}
	after, err := Of(child)
	if err != nil || after.Private < size || after.Shared > before.Shared-size+(1<<20) {
		t.Errorf("after it has written: %+v, %v; before: %+v", after, err, before)
	}
}

func TestOfAProcessThatIsNotThere(t *testing.T) {
	if _, err := Of(1 << 30); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		t.Errorf("got %v", err)
	}
	if use, err := Of(os.Getpid()); err != nil || use.Private == 0 {
		t.Errorf("of this one: %+v, %v", use, err)
	}
}

func TestParse(t *testing.T) {
	const good = "00-ff ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\nShared_Clean: 1 kB\nShared_Dirty:  2 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\nSwap: 0 kB\n"
	for text, want := range map[string]Use{
		good: {Private: 12 << 10, Shared: 3 << 10},
		good + "SwapPss: 16 kB\nPrivate_Hugetlb: 2048 kB\n": {Private: 2060 << 10, Shared: 3 << 10, Swapped: 16 << 10},
		"":                           {},
		"Private_Dirty: 8 kB\n":      {},
		good + "Private_Dirty: x kB": {},
		"Shared_Clean: 1 MB\nShared_Dirty:  2 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n": {},
	} {
		if got, err := parse([]byte(text)); got != want || (err == nil) != (want != Use{}) {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}
