// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// runDirectly runs a script as a child of this process, without a shim.
func runDirectly(t *testing.T, env []string, script string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = append([]string{}, env...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return string(output)
}

// database returns a user of this machine who is in a group beside the primary
// one, in words and in numbers.
func database(t *testing.T) (name, home string, uid, gid int, more []int) {
	t.Helper()
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 4 || fields[3] == "" {
			continue
		}
		u, err := user.Lookup(strings.Split(fields[3], ",")[0])
		if err != nil || u.Uid == "0" || u.Gid == fields[2] {
			continue
		}
		uid, _ = parseID(u.Uid)
		gid, _ = parseID(u.Gid)
		ids, err := u.GroupIds()
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range ids {
			if id, _ := parseID(text); id != gid {
				more = append(more, id)
			}
		}
		return u.Username, u.HomeDir, uid, gid, more
	}
	t.Skip("no user of this machine is in a second group")
	return "", "", 0, 0, nil
}

// identity lets a shim assume an account and returns what the kernel says of it:
// the three users, the three groups, and the others, sorted.
func identity(t *testing.T, o Orders) string {
	t.Helper()
	o.Argv = []string{"/bin/grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status"}
	lines := strings.Split(become(t, &o), "\n")
	groups := strings.Fields(lines[2])[1:]
	slices.Sort(groups)
	return strings.Join(append(append(strings.Fields(lines[0])[1:4], strings.Fields(lines[1])[1:4]...), groups...), " ")
}

func identityOf(uid, gid int, groups ...int) string {
	var sorted []string
	for _, g := range groups {
		if text := fmt.Sprint(g); !slices.Contains(sorted, text) {
			sorted = append(sorted, text)
		}
	}
	slices.Sort(sorted)
	return strings.TrimSpace(fmt.Sprintf("%d %d %d %d %d %d %s", uid, uid, uid, gid, gid, gid, strings.Join(sorted, " ")))
}

func TestShimAssumesAUserByNameAndByNumber(t *testing.T) {
	testutil.NeedRoot(t)
	name, _, uid, gid, more := database(t)
	want := identityOf(uid, gid, append(more, gid)...)
	for _, text := range []string{name, fmt.Sprint(uid)} {
		if got := identity(t, Orders{User: text}); got != want {
			t.Errorf("user %s: got %s, want %s", text, got, want)
		}
	}
	if got, want := identity(t, Orders{User: "54321"}), identityOf(54321, 54321, 54321); got != want {
		t.Errorf("a number that nobody has: got %s, want %s", got, want)
	}
}

// Group= takes the place of the primary group; SupplementaryGroups= adds to what
// there is: the groups of the user, or without one those of the master.
func TestShimAddsGroupsToThoseThatThereAre(t *testing.T) {
	testutil.NeedRoot(t)
	name, _, uid, gid, more := database(t)
	own, err := unix.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgroups([]int{4711}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setgroups(own); err != nil {
			t.Error(err)
		}
	}()
	extra := []string{"6001", "6002"}
	for _, c := range []struct {
		name   string
		orders Orders
		want   string
	}{
		{"a user and more", Orders{User: name, ExtraGroups: extra}, identityOf(uid, gid, append(more, gid, 6001, 6002)...)},
		{"a user in another group", Orders{User: name, Group: "6000"}, identityOf(uid, 6000, append(more, 6000)...)},
		{"all three", Orders{User: name, Group: "6000", ExtraGroups: extra}, identityOf(uid, 6000, append(more, 6000, 6001, 6002)...)},
		{"more only", Orders{ExtraGroups: extra}, identityOf(0, os.Getgid(), 4711, 6001, 6002)},
		{"a group only", Orders{Group: "6000"}, identityOf(0, 6000, 4711, 6000)},
		{"nothing", Orders{}, identityOf(0, os.Getgid(), 4711)},
	} {
		if got := identity(t, c.orders); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestShimSetsWhatALoginWouldSet(t *testing.T) {
	testutil.NeedRoot(t)
	name, home, _, _, _ := database(t)
	base := []string{"HOME=/root", "USER=root", "PATH=/bin", "SHELL=/bin/zsh"}
	for _, c := range []struct {
		user string
		env  []string
		want []string
	}{
		{name, nil, []string{"HOME=" + home, "LOGNAME=" + name, "PATH=/bin", "SHELL=" + loginShell(name), "USER=" + name}},
		{name, []string{"HOME=/x"}, []string{"HOME=/x", "LOGNAME=" + name, "PATH=/bin", "SHELL=" + loginShell(name), "USER=" + name}},
		{"54321", nil, []string{"HOME=/", "LOGNAME=54321", "PATH=/bin", "SHELL=/bin/sh", "USER=54321"}},
	} {
		output := become(t, &Orders{User: c.user, Base: base, Env: c.env, Argv: []string{"/usr/bin/env"}})
		got := strings.Split(strings.TrimSpace(output), "\n")
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s with %q: got %q, want %q", c.user, c.env, got, c.want)
		}
	}
}

// The rights of before serve for what needs them; the folder is entered with
// those of the user, and a program that the user may not execute is not.
func TestShimGivesRightsUpInTime(t *testing.T) {
	testutil.NeedRoot(t)
	got := become(t, &Orders{
		User: "nobody", Nice: new(-5), Base: []string{"PATH=/usr/bin:/bin"},
		Argv: []string{"/bin/sh", "-c", "id -un; nice; grep CapEff /proc/self/status"},
	})
	if want := "nobody\n-5\nCapEff:\t0000000000000000\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, &Orders{User: "nobody", Dir: closed, Argv: []string{"/bin/true"}}, ExitChdir)
	wantRefusal(t, &Orders{User: "nobody", Argv: []string{closed + "/true"}}, ExitExec)
}

// It takes rights to be killed later than the master: those of before serve for
// it. Root has none of that kind in a user namespace.
func TestShimAdjustsTheScoreBeforeItGivesRightsUp(t *testing.T) {
	testutil.NeedRoot(t)
	o := &Orders{
		User: "nobody", OOMScoreAdjust: new(-999),
		Argv: []string{"/bin/sh", "-c", "read -r n </proc/self/oom_score_adj; echo $n"},
	}
	if exec.Command("/bin/sh", "-c", "echo -999 >/proc/self/oom_score_adj").Run() != nil {
		cause := wantRefusal(t, o, ExitOOMAdjust)
		if want := "oom_score_adjust -999: write: permission denied"; cause != want {
			t.Errorf("got %q, want %q", cause, want)
		}
		return
	}
	if got, want := become(t, o), "-999\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoginShell(t *testing.T) {
	if got := loginShell("root"); !strings.HasPrefix(got, "/") {
		t.Errorf("root: got %q", got)
	}
	if got := loginShell("no such"); got != "/bin/sh" {
		t.Errorf("nobody: got %q", got)
	}
}

// The notify socket is the user's when the program begins; without a user it stays
// whose it was. What cannot be given away is a refusal.
func TestShimGivesItsNotifySocketToItsUser(t *testing.T) {
	testutil.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "notify")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	owner := func(o Orders) string {
		o.Argv, o.Notify = []string{"/usr/bin/stat", "-c", "%u", socket}, socket
		return strings.TrimSpace(become(t, &o))
	}
	if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(socket); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	for _, c := range []struct {
		orders Orders
		want   string
	}{{Orders{}, "0"}, {Orders{Group: "6000"}, "0"}, {Orders{User: "54321"}, "54321"}, {Orders{User: "54321"}, "54321"}} {
		if got := owner(c.orders); got != c.want {
			t.Errorf("%+v: it is uid %s's, want %s", c.orders, got, c.want)
		}
	}
	link := socket + ".link"
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	got := wantRefusal(t, &Orders{User: "54322", Argv: []string{"/bin/true"}, Notify: link}, ExitUser)
	if !strings.Contains(got, "give the notify socket to user 54322") {
		t.Errorf("got %q", got)
	}
}
