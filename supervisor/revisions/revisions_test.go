// SPDX-License-Identifier: AGPL-3.0-or-later

package revisions

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/sockets"
)

// house is a fleet file in a folder of the test's own, and the revisions of that fleet.
type house struct {
	*Table
	t   *testing.T
	dir string
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(strings.ReplaceAll(text, "DIR", h.dir)), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) exists(name string) bool {
	_, err := os.Lstat(h.path(name))
	return !errors.Is(err, fs.ErrNotExist)
}

const first = `
[socket.one]
listen = "DIR/one"
[worker.web]
exec = ["true"]
sockets = ["one"]
environment_file = "DIR/env"
`

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	h.write("f.toml", first)
	h.write("env", "A=1\n")
	file, err := fleetfile.Load(h.path("f.toml"), fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	log, _ := outputtest.NewLog()
	open, err := sockets.Open(file, nil, false, log, poll.Source{}, poll.Source{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(open.Close)
	h.Table = New(file, open)
	return h
}

func (h *house) read() *Draft {
	h.t.Helper()
	d, err := Read(h.Current().File, false)
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// born has processes of every worker that were born with these environments.
func born(envs ...string) func(string) []Stamp {
	return func(string) (all []Stamp) {
		for _, env := range envs {
			all = append(all, StampOf([]string{env}))
		}
		return all
	}
}

func plan(old, next *Revision) string {
	p := policy.Difference(old.Config(nil), next.Config(nil))
	return p.String()
}

// A revision has its sockets beside those that there are, until it is the current one, or
// not wanted any more.
func TestARevisionLivesUntilItIsCommittedOrDiscarded(t *testing.T) {
	before := testutil.OpenFDs()
	h := newHouse(t)
	open := testutil.OpenFDs()
	h.write("f.toml", strings.ReplaceAll(first, "one", "two")+"[worker.more]\nexec = [\"true\"]\n")
	for range 3 {
		r, err := h.Add(h.read(), born("A=1"))
		if err != nil {
			t.Fatal(err)
		}
		if !h.exists("one") || !h.exists("two") || h.Of(r.ID) != r || h.Current().ID != 1 || r.Worker("more") == nil || r.Worker("none") != nil {
			t.Errorf("prepared: %+v, current %+v", r, h.Current())
		}
		h.Discard(r.ID)
		h.Discard(r.ID) // once is enough
		if !h.exists("one") || h.exists("two") || h.Of(r.ID) != nil {
			t.Error("it is not wanted any more")
		}
	}
	if now := testutil.OpenFDs(); now != open {
		t.Errorf("open descriptors: %s, want %s", now, open)
	}
	r, err := h.Add(h.read(), born("A=1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := plan(h.Current(), r), "add socket two, remove socket one, roll web (sockets), add more"; got != want {
		t.Errorf("the plan is %q, want %q", got, want)
	}
	h.Commit(r.ID)
	h.Discard(r.ID) // it is not to be discarded any more
	if h.exists("one") || !h.exists("two") || h.Current() != r || h.Of(1) != nil {
		t.Errorf("committed: %+v", h.Current())
	}
	h.sockets.Close()
	if now := testutil.OpenFDs(); now != before {
		t.Errorf("open descriptors: %s, want %s", now, before)
	}
}

// A floor has room for some sockets more than its workers have.
func TestDescriptorsOfAFloor(t *testing.T) {
	h := newHouse(t)
	const entry = "[floor]\n[worker.e]\nentry = \"a:b\"\n"
	for _, c := range []struct {
		text string
		want int
	}{
		{first, 0},
		{entry, 0},
		{entry + "file_descriptor_store_max = 1\n", 16},
		{entry + "file_descriptor_store_max = 16\n", 16},
		{entry + "file_descriptor_store_max = 15\nsockets = [\"s\"]\n[socket.s]\nlisten = [\"DIR/1\", \"DIR/2\"]\n", 32},
	} {
		h.write("f.toml", c.text)
		d := h.read()
		r, err := h.Add(d, born())
		if err != nil {
			t.Fatal(err)
		}
		if look := h.Look(d, born()); r.Descriptors() != c.want || look.Descriptors() != c.want {
			t.Errorf("%s: %d, and looked at %d, want %d", c.text, r.Descriptors(), look.Descriptors(), c.want)
		}
		h.Discard(r.ID)
	}
}

// What is like the one that there is, is like the one that there is when it begins.
func TestAgainIsWhatIsCurrentByThen(t *testing.T) {
	h := newHouse(t)
	again := h.Again()
	h.write("f.toml", first+"[worker.more]\nexec = [\"true\"]\n")
	r, err := h.Add(h.read(), born())
	if err != nil {
		t.Fatal(err)
	}
	h.Commit(r.ID)
	if got := h.Of(again.ID); got.File != r.File || got.Sockets != r.Sockets || plan(r, got) != "nothing changes" {
		t.Errorf("got %+v", got)
	}
	h.Commit(again.ID)
	if h.Current().ID != again.ID || !h.exists("one") {
		t.Errorf("current: %+v", h.Current())
	}
}

// Environment files are compared by what they hold with those that processes were born with.
func TestEnvironmentFilesAreCompared(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		file string
		born []string
		want string
	}{
		{"A=1", []string{"A=1", "A=1"}, "nothing changes"},
		{"# the same\nA=1", []string{"A=1"}, "nothing changes"},
		{"A=2", nil, "nothing changes"}, // nobody has an older one
		{"A=2", []string{"A=1"}, "roll web (environment_file)"},
		{"A=2", []string{"A=2", "A=1"}, "roll web (environment_file)"}, // one was born before it changed
	} {
		h.write("env", c.file+"\n")
		r := h.Look(h.read(), born(c.born...))
		if got := plan(h.Current(), r); got != c.want {
			t.Errorf("%q, and processes with %q: %s, want %s", c.file, c.born, got, c.want)
		}
	}
	// What was rolled for is not rolled for again; and what then changes is.
	for n := range 3 {
		h.write("env", fmt.Sprintf("A=%d\n", n+5))
		r, err := h.Add(h.read(), born("A=1"))
		if err != nil {
			t.Fatal(err)
		}
		if got := plan(h.Current(), r); got != "roll web (environment_file)" {
			t.Errorf("%d: %s", n, got)
		}
		h.Commit(r.ID)
		if got := plan(h.Current(), h.Look(h.read(), born(fmt.Sprintf("A=%d", n+5)))); got != "nothing changes" {
			t.Errorf("%d, again: %s", n, got)
		}
		if got := plan(h.Current(), h.Look(h.read(), born("A=1"))); got != "roll web (environment_file)" {
			t.Errorf("%d, of one that was born before: %s", n, got)
		}
	}
}

// Credentials that systemd has renewed are read anew by new processes, and by a new floor.
func TestCredentialsAreCompared(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	secret := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "token"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret("one")
	h := newHouse(t)
	if got := plan(h.Current(), h.Look(h.read(), born())); got != "nothing changes" {
		t.Errorf("the same: %s", got)
	}
	secret("two")
	r, err := h.Add(h.read(), born())
	if err != nil {
		t.Fatal(err)
	}
	if got := plan(h.Current(), r); got != "roll web (credentials)" {
		t.Errorf("another: %s", got)
	}
	h.Commit(r.ID)
	if got := plan(h.Current(), h.Look(h.read(), born())); got != "nothing changes" {
		t.Errorf("and again: %s", got)
	}
	again := h.Again()
	if got := plan(h.Current(), h.Of(again.ID)); got != "nothing changes" {
		t.Errorf("like the current one: %s", got)
	}
}

// What cannot be read, or not be bound, changes nothing.
func TestWhatCannotBeARevision(t *testing.T) {
	h := newHouse(t)
	for text, want := range map[string]string{
		"cuont = 1\n": "unknown key",
		strings.Replace(first, "/env", "/none", 1):     "f.toml: worker.web.environment_file: ",
		strings.Replace(first, "\"true\"", "", 1):      "worker.web.exec",
		strings.Replace(first, "DIR/one", "DIR/x/", 1): "socket.one.listen",
	} {
		h.write("f.toml", text)
		d, err := Read(h.Current().File, false)
		if err == nil {
			_, err = h.Add(d, born())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if h.Current().ID != 1 || len(h.byID) != 1 || !h.exists("one") {
		t.Errorf("left: %+v", h.byID)
	}
	if err := os.Remove(h.path("f.toml")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(h.Current().File, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestCommitOfNothingPanics(t *testing.T) {
	h := newHouse(t)
	defer func() {
		if recover() == nil {
			t.Error("it did not panic")
		}
	}()
	h.Commit(99)
}
