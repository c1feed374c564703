// SPDX-License-Identifier: AGPL-3.0-or-later

package manager

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
)

// systemd stands for systemd: a socket that is read when the test says so.
type systemd struct {
	t  *testing.T
	fd int
	n  *Manager
}

func newSystemd(t *testing.T) (*systemd, *outputtest.Lines) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	log, said := outputtest.NewLog()
	m := &systemd{t: t, fd: fd, n: New(sdnotify.Environment{NotifySocket: path}, log)}
	t.Cleanup(func() {
		_ = m.n.client.Close()
		_ = unix.Close(m.fd)
	})
	return m, said
}

// read returns the datagrams that are in the queue, at most so many.
func (m *systemd) read(most int) (all []string) {
	m.t.Helper()
	buf := make([]byte, 8192)
	for len(all) < most {
		n, err := unix.Read(m.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, string(buf[:n]))
	}
	return all
}

const everything = 1 << 20

// fill sends until the queue is full.
func (m *systemd) fill() {
	m.t.Helper()
	for range 1 << 16 {
		m.n.SetStatus("filling")
		if m.n.Flush(0); m.n.retryAt != policy.Never {
			return
		}
	}
	m.t.Fatal("the queue does not get full")
}

func fields(datagram string) []string {
	all := strings.Split(strings.TrimSpace(datagram), "\n")
	slices.Sort(all)
	return all
}

func (m *systemd) want(got []string, want ...[]string) {
	m.t.Helper()
	same := len(got) == len(want)
	for i := range got {
		same = same && slices.Equal(fields(got[i]), want[i])
	}
	if !same {
		m.t.Errorf("got %q, want %q", got, want)
	}
}

func TestSendsOneDatagramATurn(t *testing.T) {
	m, _ := newSystemd(t)
	m.n.SetStatus("first")
	m.n.SetStatus("second")
	m.n.ping, m.n.extend, m.n.states = true, 30*time.Second, []state{ready}
	m.n.Flush(0)
	m.want(m.read(everything), []string{"EXTEND_TIMEOUT_USEC=30000000", "READY=1", "STATUS=second", "WATCHDOG=1"})
	m.n.Flush(0)
	m.want(m.read(everything))
	if m.n.retryAt != policy.Never {
		t.Errorf("it wants to try again at %d", m.n.retryAt)
	}
}

// systemd takes one state from a datagram.
func TestSaysReadyBeforeStopping(t *testing.T) {
	m, _ := newSystemd(t)
	m.n.SetStatus("stopping")
	m.n.states = []state{ready, stopping}
	m.n.Flush(0)
	m.want(m.read(everything), []string{"READY=1"}, []string{"STATUS=stopping", "STOPPING=1"})
}

func TestSaysReadyOnceIfThereWasRoomForOne(t *testing.T) {
	m, _ := newSystemd(t)
	m.fill()
	filled := len(m.read(1))
	m.n.SetStatus("stopping")
	m.n.states = []state{ready, stopping}
	m.n.Flush(0) // room for one
	if m.n.retryAt == policy.Never {
		t.Fatal("there was room for both")
	}
	got := m.read(everything)
	m.want(got[len(got)-filled:], []string{"READY=1"})
	m.n.Flush(0)
	m.want(m.read(everything), []string{"STATUS=stopping", "STOPPING=1"})
}

// While nobody reads nothing is lost but what is out of date, and nothing is
// sent in bulk afterwards.
func TestTriesAgainWhenTheQueueIsFull(t *testing.T) {
	m, said := newSystemd(t)
	m.fill()
	const now = policy.Instant(5 * time.Second)
	for _, status := range []string{"one", "two", "three"} {
		m.n.SetStatus(status)
		m.n.ping = true
		if m.n.Flush(now); m.n.retryAt != now.Add(retryAfter) {
			t.Errorf("tries again at %d, want %d", m.n.retryAt, now.Add(retryAfter))
		}
	}
	m.n.Ready()
	m.n.Flush(now)
	for _, old := range m.read(everything) {
		m.want([]string{old}, []string{"STATUS=filling"})
	}
	m.n.Flush(now)
	m.want(m.read(everything), []string{"READY=1", "STATUS=three", "WATCHDOG=1"})
	m.n.Flush(now)
	m.want(m.read(everything))
	if m.n.retryAt != policy.Never {
		t.Errorf("it wants to try again at %d", m.n.retryAt)
	}
	if len(said.All()) != 0 {
		t.Errorf("it complained: %q", said.All())
	}
}

func TestOutlivesAManagerThatIsGone(t *testing.T) {
	m, said := newSystemd(t)
	_ = unix.Close(m.fd)
	for range 3 {
		m.n.SetStatus("nobody reads this")
		if m.n.Flush(0); m.n.retryAt == policy.Never {
			t.Error("it does not try again")
		}
	}
	if got := said.All(); len(got) != 1 || !strings.Contains(got[0], "trying again") {
		t.Errorf("got %q, want one line", got)
	}
}

// A manager that stays away is asked ever less often, and one that comes back is
// heard at once.
func TestAsksAManagerThatIsGoneEverLessOften(t *testing.T) {
	m, _ := newSystemd(t)
	here := m.n.client
	gone, err := sdnotify.New(t.TempDir() + "/gone")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close() //nolint:errcheck // a test's
	m.n.client = gone
	m.n.SetStatus("status")
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		if m.n.Flush(0); m.n.retryAt != policy.Instant(want*time.Second) {
			t.Errorf("tries again at %d, want after %d s", m.n.retryAt, want)
		}
	}
	m.n.client = here
	m.n.Flush(0)
	m.want(m.read(everything), []string{"STATUS=status"})
}

func TestWithoutAManagerIsSilent(t *testing.T) {
	log, said := outputtest.NewLog()
	n := New(sdnotify.Environment{}, log)
	n.SetStatus("nobody")
	n.states, n.ping = []state{ready}, true
	n.Flush(0)
	n.Failed(errors.New("nothing"), 1)
	n.Close()
	if n.retryAt != policy.Never || n.pingEvery != 0 || len(said.All()) != 0 {
		t.Errorf("it tries again at %d, pings every %s, said %q", n.retryAt, n.pingEvery, said.All())
	}
}

func TestTellsWhatIsWrongWithTheEnvironment(t *testing.T) {
	log, said := outputtest.NewLog()
	n := New(sdnotify.Environment{NotifySocket: "relative", WatchdogUSec: "soon"}, log)
	if n.client != nil || n.pingEvery != 0 {
		t.Errorf("got %+v", n)
	}
	said.Want(t, "<4>", "no notifications", "relative")
	said.Want(t, "<4>", "no watchdog", "soon")
}

func TestSaysWhyItFailed(t *testing.T) {
	m, _ := newSystemd(t)
	m.n.Failed(errors.New("user: not for you"), 78)
	m.n.Failed(unix.EADDRINUSE, 1)
	m.want(
		m.read(everything),
		[]string{"EXIT_STATUS=78", "STATUS=failed: user: not for you"},
		[]string{"ERRNO=98", "EXIT_STATUS=1", "STATUS=failed: address already in use"},
	)
}

// Nobody is pinged where nobody listens, and nobody so often that nothing else is
// done.
func TestKeepAlivesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, c := range []struct {
		socket, usec string
		want         time.Duration
		lines        int
	}{
		{path, "", 0, 0},
		{path, "20000000", 10 * time.Second, 0},
		{path, "1", minPing, 1},
		{path, "19999", minPing, 1},
		{path, "20000", minPing, 0},
		{path, "0", 0, 1},
		{"", "20000000", 0, 1},
		{"", "1", 0, 1},
		{"relative", "1", 0, 2},
	} {
		log, said := outputtest.NewLog()
		n := New(sdnotify.Environment{NotifySocket: c.socket, WatchdogUSec: c.usec}, log)
		if n.pingEvery != c.want || len(said.All()) != c.lines {
			t.Errorf("%q, WATCHDOG_USEC=%q: each %s, want %s; %d lines, want %d: %q",
				c.socket, c.usec, n.pingEvery, c.want, len(said.All()), c.lines, said.All())
		}
		_ = n.client.Close()
	}
}

// Each state is a datagram of its own, in the order in which the fleet had them; of reloads
// that could not be said, the last counts.
func TestSaysReloadsInOrder(t *testing.T) {
	m, _ := newSystemd(t)
	m.n.Ready()
	for range 3 {
		m.n.Reloading()
		m.n.Ready()
	}
	m.n.Reloading()
	m.n.Stopping()
	m.n.SetStatus("stopping")
	m.n.Flush(0)
	got := m.read(everything)
	for i, begins := range []string{"READY=1", "RELOADING=1\nMONOTONIC_USEC=", "STOPPING=1\nSTATUS=stopping"} {
		if len(got) != 3 || !strings.HasPrefix(got[i], begins) {
			t.Fatalf("got %q, want %q", got, begins)
		}
	}
	if m.n.Flush(0); len(m.read(everything)) != 0 {
		t.Error("a state was said twice")
	}
}
