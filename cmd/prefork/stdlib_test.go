// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// conduct is what can be seen of a program: what it writes, how it ends, and what
// it leaves.
type conduct struct {
	lines  []string // of standard output, sorted: a child's come when they come
	end    string
	errors []string // what standard error says of exceptions
	files  []string // in its temporary directory, with their sizes
}

var (
	endings    = regexp.MustCompile(`exited with status \d+|killed by [A-Z]+`)
	exceptions = regexp.MustCompile(`(?m)^(?:\w+Error: .*|the reason)$`)
)

func observe(t *testing.T, stdout []byte, end, stderr, temporary string) (c conduct) {
	t.Helper()
	c.lines = strings.Split(string(stdout), "\n")
	slices.Sort(c.lines)
	c.end, c.errors = end, exceptions.FindAllString(stderr, -1)
	err := filepath.WalkDir(temporary, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == temporary {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			c.files = append(c.files, fmt.Sprintf("%s %d", entry.Name(), info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// conductOfPython is that of python3 -m. It is unbuffered, since a worker's lines are
// seen when they are printed.
func conductOfPython(t *testing.T, name, modules string) conduct {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("python3", "-m", name)
	cmd.Dir = dir
	cmd.Env = append(slices.Concat(environment(t), variables(t, dir, modules)), "PYTHONUNBUFFERED=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	end := fmt.Sprintf("exited with status %d", status.ExitStatus())
	if status.Signaled() {
		end = "killed by " + unix.SignalName(status.Signal())
	}
	return observe(t, stdout.Bytes(), end, stderr.String(), filepath.Join(dir, "tmp"))
}

// variables makes a temporary directory, and returns what the modules need to know.
func variables(t *testing.T, dir, modules string) []string {
	t.Helper()
	temporary := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"TMPDIR=" + temporary, "PWD_OF_TEST=" + dir, "PYTHONPATH=" + modules}
}

func conductOfWorker(t *testing.T, name, modules, preload string) conduct {
	t.Helper()
	r := prepare(t, fmt.Sprintf("[floor]\npreload = [%s]\n[worker.w]\nentry = %q\nrestart = \"no\"\n", preload, name+":main"))
	out, err := os.Create(r.path("stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r.cmd.Stdout, r.cmd.Env = out, append(r.cmd.Env, variables(t, r.dir, modules)...)
	r.start()
	r.wait()
	r.eventually("nothing of the worker is left", func() bool {
		return !slices.ContainsFunc(processes(t), func(p process) bool { return hasVariable(p.pid, "PWD_OF_TEST="+r.dir) })
	})
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return observe(t, text, endings.FindString(r.logged()), r.logged(), r.path("tmp"))
}

func hasVariable(pid int, variable string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.Contains(strings.Split(string(text), "\x00"), variable)
}

// TestWorkerBehavesAsPython3 runs modules that use the standard library as python3
// does, and as entries: imported by the worker, and by the floor.
func TestWorkerBehavesAsPython3(t *testing.T) {
	modules, err := filepath.Abs("testdata/stdlib")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(modules, "*.py"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".py")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := conductOfPython(t, name, modules)
			for how, preload := range map[string]string{"imported by the worker": "", "imported by the floor": `"` + name + `"`} {
				got := conductOfWorker(t, name, modules, preload)
				if !slices.Equal(got.lines, want.lines) {
					t.Errorf("%s: it says\n%s\nwant\n%s", how, strings.Join(got.lines, "\n"), strings.Join(want.lines, "\n"))
				}
				if got.end != want.end {
					t.Errorf("%s: it %s, want %s", how, got.end, want.end)
				}
				if !slices.Equal(got.errors, want.errors) {
					t.Errorf("%s: exceptions %q, want %q", how, got.errors, want.errors)
				}
				if !slices.Equal(got.files, want.files) {
					t.Errorf("%s: it leaves %q, want %q", how, got.files, want.files)
				}
			}
		})
	}
}
