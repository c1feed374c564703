// SPDX-License-Identifier: AGPL-3.0-or-later

package slots

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/errands/errandstest"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/manager"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/slots/slotstest"
)

const (
	deaths poll.Kind = iota + 1
	notices
	hangups
	emptied
)

// world is a table with one slot, whose process is this one, and what it works with.
type world struct {
	*Table
	s       *Slot
	said    *outputtest.Lines
	poller  *poll.Poller
	errands *errands.Pool
	fd      int // from which the process notifies
}

func newWorld(t *testing.T, w fleetfile.Worker) *world {
	t.Helper()
	return newManagedWorld(t, w, sdnotify.Environment{})
}

// newManagedWorld has a service manager that passes an environment.
func newManagedWorld(t *testing.T, w fleetfile.Worker, env sdnotify.Environment) *world {
	t.Helper()
	log, said := outputtest.NewLog()
	poller := polltest.New(t)
	d := errands.New(poller.Wake())
	w.Name, w.Count = "web", 1
	file := &fleetfile.File{Name: "test", Workers: []fleetfile.Worker{w}}
	table := New(slotstest.Revision(file), slotstest.Infos(file), log, manager.New(env, log), d,
		poller.Source(notices), poller.Source(hangups))
	m := &world{Table: table, s: table.All()[0], said: said, poller: poller, errands: d}
	if err := m.Listen(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	processes := procs.New(cgroup.NewPool(nil, false), log, poller.Source(deaths), poller.Source(emptied))
	p := processes.Add(7)
	p.PID = os.Getpid()
	m.s.Assign(p)
	var err error
	if m.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(m.fd, &unix.SockaddrUnix{Name: m.s.NotifySocket()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		errandstest.ProdAll(t, d)
		linux.CloseFD(&m.fd)
	})
	return m
}

func notifyMain() fleetfile.Worker {
	return fleetfile.Worker{NotifyAccess: fleetfile.NotifyMain, FDStoreMax: 2}
}

// readAll hears a slot until nothing that it said waits.
func (m *world) readAll(t *testing.T) (events []fleet.Event) {
	t.Helper()
	for {
		events = append(events, m.read(m.s)...)
		m.Flush()
		testutil.Eventually(t, "all is dropped", m.s.inbox.errands.Idle)
		if !m.s.inbox.burdened {
			return events
		}
		m.Unmute(poll.Now())
	}
}

// sendTo sends one datagram with copies of descriptors.
func sendTo(t *testing.T, fd int, text string, fds ...int) {
	t.Helper()
	if err := linux.Send(fd, []byte(text), fds...); err != nil {
		t.Fatal(err)
	}
}

func TestNotificationsBecomeEvents(t *testing.T) {
	m := newWorld(t, notifyMain())
	for _, c := range []struct {
		said []string
		want []fleet.Event
	}{
		{[]string{"READY=1\nSTATUS=well"}, []fleet.Event{fleet.Notified{Proc: 7, Ready: true, HasStatus: true, Status: "well"}}},
		{[]string{"WATCHDOG=1", "STATUS=a", "WATCHDOG=1", "STATUS=b"}, []fleet.Event{
			fleet.Notified{Proc: 7, Watchdog: true, HasStatus: true, Status: "b"},
		}},
		{[]string{"RELOADING=1", "STATUS=again", "READY=1"}, []fleet.Event{
			fleet.Notified{Proc: 7, Reloading: true, HasStatus: true, Status: "again"}, fleet.Notified{Proc: 7, Ready: true},
		}},
		{[]string{"STOPPING=1\nERRNO=2"}, []fleet.Event{fleet.Notified{Proc: 7, Stopping: true, Errno: "ENOENT"}}},
		{[]string{"ERRNO=4000"}, []fleet.Event{fleet.Notified{Proc: 7, Errno: "errno 4000"}}},
		{[]string{"EXIT_STATUS=78"}, []fleet.Event{fleet.Notified{Proc: 7, Errno: "exit status 78"}}},
		{[]string{"ERRNO=2\nEXIT_STATUS=1"}, []fleet.Event{fleet.Notified{Proc: 7, Errno: "ENOENT"}}},
		{[]string{"EXIT_STATUS=0"}, nil},
		{[]string{"BUSERROR=org.example.Bad"}, []fleet.Event{fleet.Notified{Proc: 7, Errno: "org.example.Bad"}}},
		{[]string{"WATCHDOG=trigger", "WATCHDOG_USEC=2000000\nEXTEND_TIMEOUT_USEC=3000000"}, []fleet.Event{
			fleet.Notified{Proc: 7, Trigger: true, Interval: 2 * time.Second, Extend: 3 * time.Second},
		}},
		{[]string{"X_PRIVATE=1", "MAINPID=1"}, nil},
		{nil, nil},
	} {
		for _, text := range c.said {
			sendTo(t, m.fd, text)
		}
		if got := m.read(m.s); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, want %+v", c.said, got, c.want)
		}
	}
}

// What is refused costs one line, and no descriptor.
func TestHostileNotifications(t *testing.T) {
	m := newWorld(t, notifyMain())
	before := testutil.OpenFDs()
	for range 5 {
		sendTo(t, m.fd, "")
		sendTo(t, m.fd, "READY=1\x00STOPPING=1", 0, 1, 2)
		sendTo(t, m.fd, strings.Repeat("X", 5000), 0)
		sendTo(t, m.fd, "READY=1\nFDSTOREREMOVE=1\nFDNAME=none", 0, 0, 0)
		if got := len(m.readAll(t)); got != 1 {
			t.Fatalf("got %d events, want that of the last", got)
		}
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
	if got := len(m.said.All()); got != 1 || m.s.inbox.dropped != 15 {
		t.Errorf("%d lines and %d counted, want 1 and 15: %q", got, m.s.inbox.dropped, m.said.All())
	}
	if got := m.Drain(m.s.process); len(got) != 0 || m.s.process != nil {
		t.Errorf("got %+v, and the slot has %+v", got, m.s.process)
	}
	m.said.Want(t, "web.0: 15 notifications were ignored")
	sendTo(t, m.fd, "READY=1")
	if got := m.read(m.s); len(got) != 0 {
		t.Errorf("from a process that has ended: got %+v", got)
	}
}

// Only the main process is heard, unless the file says otherwise; then those of
// its session, where there are no control groups.
func TestTheSenderIsChecked(t *testing.T) {
	for access, want := range map[fleetfile.NotifyAccess]int{fleetfile.NotifyMain: 0, fleetfile.NotifyAll: 1} {
		m := newWorld(t, fleetfile.Worker{NotifyAccess: access})
		stat, err := linux.ReadStat(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		m.s.process.PID = stat.Session
		if stat.Session == os.Getpid() {
			t.Skip("the tests lead a session")
		}
		sendTo(t, m.fd, "READY=1")
		if got := m.read(m.s); len(got) != want {
			t.Errorf("notify_access = %q: got %+v, want %d", access, got, want)
		}
		m.s.process.PID = 1 << 22 // nobody's session
		sendTo(t, m.fd, "READY=1")
		if got := m.read(m.s); len(got) != 0 {
			t.Errorf("notify_access = %q, from a stranger: got %+v", access, got)
		}
		m.said.Want(t, "web.0: a notification is ignored: from pid")
	}
}

func TestNoNotifySocket(t *testing.T) {
	file := &fleetfile.File{Workers: []fleetfile.Worker{{Name: "web", Count: 1, NotifyAccess: fleetfile.NotifyNone}}}
	m := New(slotstest.Revision(file), slotstest.Infos(file), nil, nil, nil, poll.Source{}, poll.Source{})
	if m.Listen("/nonexistent") != nil || m.All()[0].NotifySocket() != "" {
		t.Error("got a socket")
	}
	m.Close()
}

// A slot that floods is read at a bounded rate, and is heard again later; what
// it says meanwhile waits in its own queue.
func TestAFloodIsMuted(t *testing.T) {
	m := newWorld(t, notifyMain())
	polled := func() bool { return len(m.poller.Wait(0, 1)) > 0 }
	for turn := 0; len(m.muted) == 0; turn++ {
		if turn > 2000 {
			t.Fatal("so many datagrams at once are not too many")
		}
		for range maxHeard {
			if linux.Send(m.fd, []byte("WATCHDOG=1")) != nil {
				break // its queue is full
			}
		}
		if got := len(m.read(m.s)); got > 1 {
			t.Fatalf("%d events of a hundred keep-alives, want 1", got)
		}
	}
	_ = linux.Send(m.fd, []byte("WATCHDOG=1")) // there is one at least
	if polled() {
		t.Error("a slot that is muted wakes the master")
	}
	m.Unmute(m.unmuteAt - 1)
	if polled() {
		t.Error("it does before its time")
	}
	m.Unmute(m.unmuteAt)
	if !polled() || m.unmuteAt != policy.Never {
		t.Error("the slot is not heard again")
	}
}

func TestBudget(t *testing.T) {
	b, now := fullBudget(), policy.Instant(time.Second)
	took := func() (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	if got := took(); got != maxBudget {
		t.Errorf("at once: got %d, want %v", got, maxBudget)
	}
	now = now.Add(100 * time.Millisecond)
	if got := took(); got < 99 || got > 100 {
		t.Errorf("after 100 ms: got %d, want 100", got)
	}
	now = now.Add(time.Hour)
	if got := took(); got != maxBudget {
		t.Errorf("after an hour: got %d, want %v", got, maxBudget)
	}
}

// A barrier is answered at the end of the turn, when what was said before it has
// been done; what was said after it is heard then.
func TestABarrierIsClosedAfterTheTurn(t *testing.T) {
	m := newWorld(t, notifyMain())
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer linux.CloseFD(&pipe[0])
	sendTo(t, m.fd, "STATUS=before")
	sendTo(t, m.fd, "BARRIER=1", pipe[1])
	sendTo(t, m.fd, "STATUS=after")
	linux.CloseFD(&pipe[1])
	hungUp := func() bool {
		n, err := unix.Read(pipe[0], make([]byte, 1))
		return n == 0 && err == nil
	}
	if got := m.read(m.s); len(got) != 1 || hungUp() {
		t.Fatalf("got %+v; the barrier is closed: %t", got, hungUp())
	}
	if got := m.read(m.s); len(got) != 0 || len(m.poller.Wait(0, 1)) > 0 {
		t.Errorf("before the barrier is answered: got %+v", got)
	}
	m.Flush()
	testutil.Eventually(t, "the barrier is closed", hungUp)
	testutil.Eventually(t, "nothing is left to do", m.s.inbox.errands.Idle)
	m.Unmute(poll.Now())
	if got := m.read(m.s); len(got) != 1 {
		t.Errorf("what was said after it: got %+v", got)
	}
}

func TestStore(t *testing.T) {
	m := newWorld(t, notifyMain())
	before := testutil.OpenFDs()
	a, b, err := unixPair(t)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	names := func() (names []string) {
		for _, f := range m.s.store.fds {
			names = append(names, f.name)
		}
		return names
	}
	sendTo(t, m.fd, "FDSTORE=1\nFDNAME=conn", a)
	sendTo(t, m.fd, "FDSTORE=1\nFDNAME=again", a)
	sendTo(t, m.fd, "FDSTORE=1", int(file.Fd()))
	sendTo(t, m.fd, "FDSTORE=1\nFDNAME=again", int(file.Fd()))
	sendTo(t, m.fd, "FDSTORE=1\nFDNAME=toomany", m.fd)
	sendTo(t, m.fd, "FDSTORE=1\nFDNAME=toomany", m.fd)
	m.read(m.s)
	if got := strings.Join(names(), " "); got != "conn stored" {
		t.Errorf("stored: %s", got)
	}
	if got := len(m.said.All()); got != 1 {
		t.Errorf("got %q, want one line", m.said.All())
	}
	m.said.Want(t, "web.0: no room", "file_descriptor_store_max (2)")
	_ = unix.Close(b) // the other end: a is of no use any more, though it is open here too
	for _, ready := range m.poller.Wait(poll.Now().Add(testutil.Patience), poll.Now()) {
		if ready.Kind == hangups {
			m.HungUp(ready.ID)
		}
	}
	if got := strings.Join(names(), " "); got != "stored" {
		t.Errorf("after the hang-up: %s", got)
	}
	sendTo(t, m.fd, "FDSTOREREMOVE=1\nFDNAME=stored")
	m.read(m.s)
	if got := names(); len(got) != 0 {
		t.Errorf("after the removal: %s", got)
	}
	_ = unix.Close(a)
	_ = file.Close()
	testutil.Eventually(t, "nothing is left to do", m.s.inbox.errands.Idle)
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
}

func unixPair(t *testing.T) (a, b int, err error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return pair[0], pair[1], err
}

func TestMergeKeepsTheOrderOfWhatMatters(t *testing.T) {
	ready, stopping := fleet.Notified{Ready: true}, fleet.Notified{Stopping: true}
	if a := ready; merge(&a, stopping) {
		t.Error("READY and STOPPING are one")
	}
	if a := ready; !merge(&a, ready) || a != ready {
		t.Errorf("READY twice: %+v", a)
	}
	a := fleet.Notified{Errno: "EIO", Interval: time.Second}
	if !merge(&a, fleet.Notified{Ready: true, Errno: "EPERM", Extend: time.Second}) ||
		a != (fleet.Notified{Ready: true, Errno: "EPERM", Interval: time.Second, Extend: time.Second}) {
		t.Errorf("got %+v", a)
	}
}
