// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/disposal"
	"github.com/decnet/prefork/supervisor/internal/disposal/disposaltest"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/internal/testutil"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/rundir"
)

// newHearingMaster returns a master with one slot whose process is this one, and
// the fd from which it notifies.
func newHearingMaster(t *testing.T, w fleetfile.Worker) (m *master, s *slot, said *outputtest.Lines, notify int) {
	t.Helper()
	log, said := outputtest.NewLog()
	poller := polltest.New(t)
	wake := polltest.NewWake(t, poller.Source(wakeups))
	w.Name, w.Count = "web", 1
	m = &master{
		log: log, procs: procs.New(cgroup.NewPool(nil, false), log, poller.Source(deaths), poller.Source(groupEvents)), poller: poller, unmuteAt: fleet.Never,
		wake: wake, disposal: disposal.New(wake),
		slots:    newSlots(&fleetfile.Fleet{Name: "test", Workers: []fleetfile.Worker{w}}),
		storedIn: map[uint64]*slot{},
		runtime:  &rundir.Dir{Notify: t.TempDir()},
	}
	if err := m.openNotify(); err != nil {
		t.Fatal(err)
	}
	s = m.slots[0]
	s.process = m.procs.Add(7)
	s.process.PID = os.Getpid()
	var err error
	if notify, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(notify, &unix.SockaddrUnix{Name: s.notify.Path()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.close()
		disposaltest.ProdAll(t, m.disposal)
		linux.CloseFD(&notify)
	})
	return m, s, said, notify
}

func notifyMain() fleetfile.Worker {
	return fleetfile.Worker{NotifyAccess: fleetfile.NotifyMain, FDStoreMax: 2}
}

// hearAll hears a slot until nothing that it said waits.
func hearAll(t *testing.T, m *master, s *slot) (events []fleet.Event) {
	t.Helper()
	for {
		events = append(events, m.hear(s)...)
		m.skipBurdens()
		testutil.Eventually(t, "all is dropped", s.errands.Idle)
		if !s.burdened {
			return events
		}
		m.unmute(m.now())
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
	m, s, _, fd := newHearingMaster(t, notifyMain())
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
			sendTo(t, fd, text)
		}
		if got := m.hear(s); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, want %+v", c.said, got, c.want)
		}
	}
}

// What is refused costs one line, and no descriptor.
func TestHostileNotifications(t *testing.T) {
	m, s, said, fd := newHearingMaster(t, notifyMain())
	before := testutil.OpenFDs()
	for range 5 {
		sendTo(t, fd, "")
		sendTo(t, fd, "READY=1\x00STOPPING=1", 0, 1, 2)
		sendTo(t, fd, strings.Repeat("X", 5000), 0)
		sendTo(t, fd, "READY=1\nFDSTOREREMOVE=1\nFDNAME=none", 0, 0, 0)
		if got := len(hearAll(t, m, s)); got != 1 {
			t.Fatalf("got %d events, want that of the last", got)
		}
	}
	if after := testutil.OpenFDs(); after != before {
		t.Errorf("open descriptors: got %s, want %s", after, before)
	}
	if got := len(said.All()); got != 1 || s.dropped != 15 {
		t.Errorf("%d lines and %d counted, want 1 and 15: %q", got, s.dropped, said.All())
	}
	if got := m.hearLast(s.process); len(got) != 0 || s.process != nil {
		t.Errorf("got %+v, and the slot has %+v", got, s.process)
	}
	said.Want(t, "web.0: 15 notifications were ignored")
	sendTo(t, fd, "READY=1")
	if got := m.hear(s); len(got) != 0 {
		t.Errorf("from a process that has ended: got %+v", got)
	}
}

// Only the main process is heard, unless the file says otherwise; then those of
// its session, where there are no control groups.
func TestTheSenderIsChecked(t *testing.T) {
	for access, want := range map[fleetfile.NotifyAccess]int{fleetfile.NotifyMain: 0, fleetfile.NotifyAll: 1} {
		m, s, said, fd := newHearingMaster(t, fleetfile.Worker{NotifyAccess: access})
		stat, err := linux.ReadStat(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		s.process.PID = stat.Session
		if stat.Session == os.Getpid() {
			t.Skip("the tests lead a session")
		}
		sendTo(t, fd, "READY=1")
		if got := m.hear(s); len(got) != want {
			t.Errorf("notify_access = %q: got %+v, want %d", access, got, want)
		}
		s.process.PID = 1 << 22 // nobody's session
		sendTo(t, fd, "READY=1")
		if got := m.hear(s); len(got) != 0 {
			t.Errorf("notify_access = %q, from a stranger: got %+v", access, got)
		}
		said.Want(t, "web.0: a notification is ignored: from pid")
	}
}

func TestNoNotifySocket(t *testing.T) {
	_, err := os.Stat("/nonexistent")
	m := &master{slots: newSlots(&fleetfile.Fleet{Workers: []fleetfile.Worker{{Name: "web", Count: 1, NotifyAccess: fleetfile.NotifyNone}}})}
	if m.openNotify() != nil || m.slots[0].notify != nil {
		t.Errorf("got a socket; %v", err)
	}
}

// A slot that floods is read at a bounded rate, and is heard again later; what
// it says meanwhile waits in its own queue.
func TestAFloodIsMuted(t *testing.T) {
	m, s, _, fd := newHearingMaster(t, notifyMain())
	polled := func() bool { return len(m.poller.Wait(0, 1)) > 0 }
	for turn := 0; len(m.muted) == 0; turn++ {
		if turn > 2000 {
			t.Fatal("so many datagrams at once are not too many")
		}
		for range mostHeard {
			if linux.Send(fd, []byte("WATCHDOG=1")) != nil {
				break // its queue is full
			}
		}
		if got := len(m.hear(s)); got > 1 {
			t.Fatalf("%d events of a hundred keep-alives, want 1", got)
		}
	}
	_ = linux.Send(fd, []byte("WATCHDOG=1")) // there is one at least
	if polled() {
		t.Error("a slot that is muted wakes the master")
	}
	m.unmute(m.unmuteAt - 1)
	if polled() {
		t.Error("it does before its time")
	}
	m.unmute(m.unmuteAt)
	if !polled() || m.unmuteAt != fleet.Never {
		t.Error("the slot is not heard again")
	}
}

func TestBudget(t *testing.T) {
	b, now := fullBudget(), fleet.Instant(time.Second)
	took := func() (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	if got := took(); got != budgetMost {
		t.Errorf("at once: got %d, want %v", got, budgetMost)
	}
	now = now.Add(100 * time.Millisecond)
	if got := took(); got < 99 || got > 100 {
		t.Errorf("after 100 ms: got %d, want 100", got)
	}
	now = now.Add(time.Hour)
	if got := took(); got != budgetMost {
		t.Errorf("after an hour: got %d, want %v", got, budgetMost)
	}
}

// A barrier is answered at the end of the turn, when what was said before it has
// been done; what was said after it is heard then.
func TestABarrierIsClosedAfterTheTurn(t *testing.T) {
	m, s, _, fd := newHearingMaster(t, notifyMain())
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer linux.CloseFD(&pipe[0])
	sendTo(t, fd, "STATUS=before")
	sendTo(t, fd, "BARRIER=1", pipe[1])
	sendTo(t, fd, "STATUS=after")
	linux.CloseFD(&pipe[1])
	hungUp := func() bool {
		n, err := unix.Read(pipe[0], make([]byte, 1))
		return n == 0 && err == nil
	}
	if got := m.hear(s); len(got) != 1 || hungUp() {
		t.Fatalf("got %+v; the barrier is closed: %t", got, hungUp())
	}
	if got := m.hear(s); len(got) != 0 || len(m.poller.Wait(0, 1)) > 0 {
		t.Errorf("before the barrier is answered: got %+v", got)
	}
	m.skipBurdens()
	testutil.Eventually(t, "the barrier is closed", hungUp)
	testutil.Eventually(t, "nothing is left to do", s.errands.Idle)
	m.unmute(m.now())
	if got := m.hear(s); len(got) != 1 {
		t.Errorf("what was said after it: got %+v", got)
	}
}

func TestStore(t *testing.T) {
	m, s, said, fd := newHearingMaster(t, notifyMain())
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
		for _, f := range s.store.fds {
			names = append(names, f.name)
		}
		return names
	}
	sendTo(t, fd, "FDSTORE=1\nFDNAME=conn", a)
	sendTo(t, fd, "FDSTORE=1\nFDNAME=again", a)
	sendTo(t, fd, "FDSTORE=1", int(file.Fd()))
	sendTo(t, fd, "FDSTORE=1\nFDNAME=again", int(file.Fd()))
	sendTo(t, fd, "FDSTORE=1\nFDNAME=toomany", fd)
	sendTo(t, fd, "FDSTORE=1\nFDNAME=toomany", fd)
	m.hear(s)
	if got := strings.Join(names(), " "); got != "conn stored" {
		t.Errorf("stored: %s", got)
	}
	if got := len(said.All()); got != 1 {
		t.Errorf("got %q, want one line", said.All())
	}
	said.Want(t, "web.0: no room", "file_descriptor_store_max (2)")
	_ = unix.Close(b) // the other end: a is of no use any more, though it is open here too
	for _, ready := range m.poller.Wait(m.now().Add(testutil.Patience), m.now()) {
		if ready.Kind == storedFDs {
			m.storedHungUp(ready.ID)
		}
	}
	if got := strings.Join(names(), " "); got != "stored" {
		t.Errorf("after the hang-up: %s", got)
	}
	sendTo(t, fd, "FDSTOREREMOVE=1\nFDNAME=stored")
	m.hear(s)
	if got := names(); len(got) != 0 {
		t.Errorf("after the removal: %s", got)
	}
	_ = unix.Close(a)
	_ = file.Close()
	testutil.Eventually(t, "nothing is left to do", s.errands.Idle)
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
