// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// newSystemd is a socket on which what is to be kept arrives, and the environment that
// names it.
func newSystemd(t *testing.T) (fd int, env sdnotify.Environment) {
	t.Helper()
	env = sdnotify.Environment{
		NotifySocket: filepath.Join(t.TempDir(), "notify"), FDStore: "10", SystemdExecPID: strconv.Itoa(os.Getpid()),
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { linux.CloseFD(&fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: env.NotifySocket}); err != nil {
		t.Fatal(err)
	}
	return fd, env
}

// datagrams are those that wait, with how many descriptors each has.
func datagrams(t *testing.T, fd int) (all []string) {
	t.Helper()
	text, control := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, text, control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EAGAIN { //nolint:errorlint // a plain errno
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(control[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				continue // credentials
			}
			for i := range fds {
				linux.CloseFD(&fds[i])
				count++
			}
		}
		all = append(all, string(text[:n])+" +"+strconv.Itoa(count))
	}
}

// What a slot stores is kept by systemd under its name too, and given up when the slot
// gives it up: not before the last of that name.
func TestWhatIsStoredOutlivesTheMaster(t *testing.T) {
	systemd, env := newSystemd(t)
	m := newManagedWorld(t, notifyMain(), env)
	a, b, err := unixPair(t)
	if err != nil {
		t.Fatal(err)
	}
	pass(t, m.fd, "FDSTORE=1\nFDNAME=conn", a)
	pass(t, m.fd, "FDSTORE=1\nFDNAME=conn\nFDPOLL=0", b)
	m.read(m.s)
	want := []string{"FDSTORE=1\nFDNAME=slot.web.0.conn +1", "FDSTORE=1\nFDNAME=slot.web.0.conn\nFDPOLL=0 +1"}
	if got := datagrams(t, systemd); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	m.dropStored(m.s, func(f stored) bool { return f.id != 0 })
	if got := datagrams(t, systemd); len(got) != 0 {
		t.Errorf("with one left: got %q", got)
	}
	sendTo(t, m.fd, "FDSTOREREMOVE=1\nFDNAME=conn")
	m.read(m.s)
	want = []string{"FDSTOREREMOVE=1\nFDNAME=slot.web.0.conn +0"}
	if got := datagrams(t, systemd); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A systemd that would close it on its only thread gets no socket.
func TestAnOldSystemdKeepsNoSockets(t *testing.T) {
	systemd, env := newSystemd(t)
	env.FDStore = ""
	m := newManagedWorld(t, notifyMain(), env)
	a, b, err := unixPair(t)
	if err != nil {
		t.Fatal(err)
	}
	defer linux.CloseFD(&b)
	pass(t, m.fd, "FDSTORE=1\nFDNAME=conn", a)
	m.read(m.s)
	if got := datagrams(t, systemd); len(got) != 0 || len(m.s.store.fds) != 1 {
		t.Errorf("got %q, and %d are stored here", got, len(m.s.store.fds))
	}
	m.said.Want(t, `web.0: its descriptor "conn" will not outlive this master`, "older than version 254")
}

// A new master gives slots what their processes have stored with an earlier one, and
// systemd what nobody wants.
func TestTakeKept(t *testing.T) {
	systemd, env := newSystemd(t)
	m := newManagedWorld(t, notifyMain(), env)
	var passed []sdnotify.Activated
	for _, name := range []string{"http", "slot.web.0.a", "slot.web.00.x", "slot.gone.0.b", "slot.web.0.b.c", "slot.web.0.toomany"} {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		passed = append(passed, sdnotify.Activated{Name: name, FD: fd})
	}
	kept, others := Split(passed)
	if len(others) != 1 || others[0].Name != "http" {
		t.Errorf("others: %+v", others)
	}
	linux.CloseFD(&others[0].FD)
	m.TakeKept(kept)
	names, fds := m.s.Stored()
	if !slices.Equal(names, []string{"a", "b.c"}) || !slices.Equal(fds, []int{passed[1].FD, passed[4].FD}) {
		t.Errorf("got %v %v", names, fds)
	}
	want := []string{"FDSTOREREMOVE=1\nFDNAME=slot.web.00.x +0", "FDSTOREREMOVE=1\nFDNAME=slot.gone.0.b +0", "FDSTOREREMOVE=1\nFDNAME=slot.web.0.toomany +0"}
	if got := datagrams(t, systemd); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, i := range []int{2, 3, 5} {
		testutil.Eventually(t, "what nobody wants is closed", func() bool {
			_, err := unix.FcntlInt(uintptr(passed[i].FD), unix.F_GETFD, 0)
			return err != nil
		})
	}
}
