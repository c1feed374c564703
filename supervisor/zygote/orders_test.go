// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestLimitsAndPlaceAreAsOrdered(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, func(f *LoadRequest) { f.Prctl = true })
		dir, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f := parseFacts(t, z.fork().run(fmt.Sprintf("entry=probe:facts limit=%d:100:200 limit=%d:infinity:infinity "+
			"nice=5 umask=0137 dir=%s no_new_privileges=1 death_signal=1 master=%d",
			unix.RLIMIT_NOFILE, unix.RLIMIT_FSIZE, dir, os.Getpid())))
		if !slices.Equal(f.NoFile, []int{100, 200}) || f.Nice != 5 || f.Umask != 0o137 || f.Cwd != dir || f.NoNewPrivs != "1" {
			t.Errorf("got %+v", f)
		}
	})
}

// The limit leaves no descriptor to open: the score comes before it.
func TestScoreForOutOfMemoryIsAsOrdered(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		before := parseHanded(t, z.fork().run("entry=probe:handed")).OOMScoreAdj
		for orders, want := range map[string]int{
			"oom_score_adjust=1000":                   1000,
			fmt.Sprint("oom_score_adjust=", before+1): before + 1,
		} {
			if got := parseHanded(t, z.fork().run("entry=probe:handed "+orders)).OOMScoreAdj; got != want {
				t.Errorf("%s: got %d, want %d", orders, got, want)
			}
		}
		if r := z.fork().run("entry=probe:returns oom_score_adjust=1000 limit=7:3:3"); r.status != 0 || r.failed != "" {
			t.Errorf("with a limit of three: status %#x, gate %q", r.status, r.failed)
		}
	})
}

// A worker whose master ended before the death signal was armed must not live.
func TestDeathSignalFindsMasterGone(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		for _, prctl := range []bool{false, true} {
			z := load(t, python, func(f *LoadRequest) { f.Prctl = prctl })
			r := z.fork().run("entry=probe:returns after_fork=probe:facts death_signal=1 master=1")
			if r.status != 0 || r.output != "" || r.failed != "" {
				t.Errorf("status %#x, output %q, gate %q", r.status, r.output, r.failed)
			}
		}
	})
}

// What cannot be done is told at the gate and on stderr, with systemd's status.
func TestImpossibleOrders(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		for _, test := range []struct {
			orders string
			status int
			text   string
		}{
			{"user=no-such-user", 217, "user 'no-such-user' does not exist"},
			{"group=no-such-group", 216, "group 'no-such-group' does not exist"},
			{"extra_group=no-such-group", 216, "group 'no-such-group' does not exist"},
			{"dir=/no/such", 200, "working directory '/no/such': No such file or directory"},
			{"limit=7:2:1", 205, "RLIMIT_NOFILE: "},
			{"limit=7:x:1", 1, "ValueError: "},
			{"listen=http", 202, "0 descriptors came for 1 names"},
			{"listen=http stored=a", 202, "0 descriptors came for 2 names"},
			{"oom_score_adjust=1001", 206, "oom_score_adjust 1001: Invalid argument"},
			{"oom_score_adjust=x", 206, "oom_score_adjust x: Invalid argument"},
		} {
			r := z.fork().run("entry=probe:returns " + test.orders)
			if r.status.ExitStatus() != test.status || !strings.HasPrefix(r.failed, fmt.Sprintf("failed\x00%d\x00%s", test.status, test.text)) {
				t.Errorf("%s: status %d, gate %q, want %d, %q", test.orders, r.status.ExitStatus(), r.failed, test.status, test.text)
			}
			if want := "prefork: web.0: " + test.text; !strings.HasPrefix(r.output, want) {
				t.Errorf("%s: output %q, want %q", test.orders, r.output, want)
			}
		}
	})
}

func TestBrokenUserCodeBeforeEntry(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		for _, test := range []struct{ orders, text, output string }{
			{"entry=probe:returns after_fork=probe:raises", "after_fork probe:raises: ValueError: from the entry", "in raises"},
			{"entry=probe:returns after_fork=probe:nope", "after_fork probe:nope: AttributeError: ", "AttributeError"},
			{"entry=nope:run", "entry nope:run: ModuleNotFoundError: No module named 'nope'", "ModuleNotFoundError"},
			{"entry=probe:facts args=open('/')", "entry probe:facts: ValueError: args and kwargs must be JSON", "ValueError"},
			{"entry=probe:facts args=().__class__", "entry probe:facts: ValueError: args and kwargs must be JSON", "ValueError"},
		} {
			r := z.fork().run(test.orders)
			if r.status.ExitStatus() != 1 || !strings.HasPrefix(r.failed, "failed\x001\x00"+test.text) {
				t.Errorf("%s: status %#x, gate %q, want %q", test.orders, r.status, r.failed, test.text)
			}
			if !strings.Contains(r.output, test.output) || strings.Contains(r.output, "prefork zygote") {
				t.Errorf("%s: output %q, want %q and no frames of the zygote", test.orders, r.output, test.output)
			}
		}
	})
}

func TestUnknownMessageAtGate(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		w := load(t, python, nil).fork()
		if _, err := unix.Write(w.gate, []byte("come\x00a=b")); err != nil {
			t.Fatal(err)
		}
		if status := w.wait(); status.ExitStatus() != 1 {
			t.Errorf("status %#x, want exit status 1", status)
		}
	})
}

// Rights that were given up cannot be had again.
func TestUserIsChangedForGood(t *testing.T) {
	testutil.NeedRoot(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil, withGroups(7, 8))
		f := parseFacts(t, z.fork().run("entry=probe:facts user=nobody death_signal=1 master="+strconv.Itoa(os.Getpid())))
		uid, gid := number(t, nobody.Uid), number(t, nobody.Gid)
		if !slices.Equal(f.IDs, []int{uid, uid, uid, gid, gid, gid}) || !slices.Equal(f.Groups, []int{gid}) || strings.Trim(f.CapEff, "0") != "" {
			t.Errorf("ids %v, groups %v, capabilities %s", f.IDs, f.Groups, f.CapEff)
		}
		if f.Env["HOME"] != nobody.HomeDir || f.Env["USER"] != "nobody" || f.Env["LOGNAME"] != "nobody" || f.Env["SHELL"] == "" {
			t.Errorf("environment %v", f.Env)
		}
		if r := z.fork().run("entry=probe:regain user=nobody"); r.output != strings.Repeat("refused\n", 3) {
			t.Errorf("got %q", r.output)
		}
	})
}

func TestGroupsAreAsOrdered(t *testing.T) {
	testutil.NeedRoot(t)
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil, withGroups(7, 8))
		for _, test := range []struct {
			orders string
			ids    []int
			groups []int
		}{
			{"", []int{0, 0, 0, 0, 0, 0}, []int{7, 8}},
			{"user=54321", []int{54321, 54321, 54321, 54321, 54321, 54321}, []int{54321}},
			{"user=54321 group=daemon", []int{54321, 54321, 54321, 1, 1, 1}, []int{1}},
			{"user=54321 group=1 extra_group=sys extra_group=12", []int{54321, 54321, 54321, 1, 1, 1}, []int{1, 3, 12}},
			{"group=9", []int{0, 0, 0, 9, 9, 9}, []int{7, 8}},
			{"extra_group=sys", []int{0, 0, 0, 0, 0, 0}, []int{3, 7, 8}},
			{"user=root", []int{0, 0, 0, 0, 0, 0}, []int{0}},
			{"user=54321 env=HOME=/own", []int{54321, 54321, 54321, 54321, 54321, 54321}, []int{54321}},
		} {
			f := parseFacts(t, z.fork().run("entry=probe:facts "+test.orders))
			if !slices.Equal(f.IDs, test.ids) || !slices.Equal(f.Groups, test.groups) {
				t.Errorf("%s: ids %v, groups %v, want %v, %v", test.orders, f.IDs, f.Groups, test.ids, test.groups)
			}
			if strings.Contains(test.orders, "HOME") && f.Env["HOME"] != "/own" {
				t.Errorf("%s: HOME=%s", test.orders, f.Env["HOME"])
			}
		}
	})
}

// A floor that was loaded without privileges cannot change users, and says so;
// its own user is no change.
func TestUserWithoutPrivileges(t *testing.T) {
	testutil.NeedRoot(t)
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, module(t, "drop", `
import ctypes, os, probe
os.setgroups([])
os.setresgid(54321, 54321, 54321)
os.setresuid(54321, 54321, 54321)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) # PR_SET_DUMPABLE: or /proc/self is root's
`))
		if f := parseFacts(t, z.fork().run("entry=probe:facts user=54321")); f.IDs[0] != 54321 {
			t.Errorf("ids %v", f.IDs)
		}
		if r := z.fork().run("entry=probe:returns user=54322 group=54321"); r.status.ExitStatus() != 217 {
			t.Errorf("another user: status %#x, gate %q", r.status, r.failed)
		}
		if r := z.fork().run("entry=probe:returns user=root"); r.status.ExitStatus() != 216 {
			t.Errorf("root: status %#x, gate %q", r.status, r.failed)
		}
	})
}

func withGroups(groups ...uint32) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Groups: groups}
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A worker with a user gives its notify socket to it, and nothing else.
func TestUserGetsTheNotifySocket(t *testing.T) {
	testutil.NeedRoot(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := errors.Join(os.Symlink("notify", filepath.Join(dir, "link")), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	owner := func(name string) uint32 {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		return st.Uid
	}
	forEachPython(t, func(t *testing.T, python string) {
		z := load(t, python, nil)
		if err := os.Chown(socket, 0, -1); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			orders string
			want   uint32
		}{{"", 0}, {"group=9", 0}, {"user=54321", 54321}, {"user=54321", 54321}} {
			parseFacts(t, z.fork().run("entry=probe:facts notify="+socket+" "+test.orders))
			if got := owner("notify"); got != test.want {
				t.Errorf("%q: it is uid %d's, want %d", test.orders, got, test.want)
			}
		}
		for _, name := range []string{"link", "file"} {
			r := z.fork().run("entry=probe:returns user=54322 notify=" + filepath.Join(dir, name))
			if r.status.ExitStatus() != 217 || owner(name) == 54322 {
				t.Errorf("a %s: status %#x, gate %q; it is uid %d's", name, r.status, r.failed, owner(name))
			}
		}
	})
}
