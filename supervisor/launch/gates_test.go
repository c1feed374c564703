// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/cgroup"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/errands"
	"github.com/decnet/prefork/supervisor/internal/errands/errandstest"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/procs"
	"github.com/decnet/prefork/supervisor/revisions"
	"github.com/decnet/prefork/supervisor/sockets"
)

const (
	deaths poll.Kind = iota + 1
	gates
	commands
	emptied
)

// world is a launcher with nothing but a table of processes, and one of them with the
// other ends of its gate and command.
type world struct {
	*Launcher
	p             *procs.Process
	gate, command int
	poller        *poll.Poller
}

func newWorld(t *testing.T) *world {
	t.Helper()
	log, _ := outputtest.NewLog()
	poller := polltest.New(t)
	groups := cgroup.NewPool(nil, false)
	l, err := New(Config{
		Revisions: revisions.New(&fleetfile.File{}, &sockets.Sockets{}), Log: log, Groups: groups,
		Procs:   procs.New(groups, log, poller.Source(deaths), poller.Source(emptied)),
		Errands: errands.New(poller.Wake()),
		Gates:   poller.Source(gates), Commands: poller.Source(commands),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &world{Launcher: l, p: l.procs.Add(7), poller: poller}
	m.p.PID = 4711
	if m.p.Birth.Gate, m.gate, err = linux.Seqpacket(); err != nil {
		t.Fatal(err)
	}
	if m.p.Birth.Command, m.command, err = linux.Seqpacket(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.forget(m.p)
		linux.CloseFD(&m.gate)
		linux.CloseFD(&m.command)
		m.Close()
	})
	return m
}

func say(t *testing.T, fd int, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := linux.Send(fd, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// A floor says what it imports and then what is wrong, and ends: all of it is
// read, though its end is seen at the same time, and though it has not read
// everything that it was sent.
func TestTheLastWordsOfAFloorAreAllRead(t *testing.T) {
	m := newWorld(t)
	m.p.Floor, m.p.Birth.Assigned = true, true
	say(t, m.p.Birth.Command, "fork\x001")
	say(t, m.command, "progress\x00importing a", "progress\x00importing b", "broken\x00no module b")
	linux.CloseFD(&m.gate)
	linux.CloseFD(&m.command)
	want := []fleet.Event{
		fleet.FloorProgress{Proc: 7, Text: "importing a"},
		fleet.FloorProgress{Proc: 7, Text: "importing b"},
		fleet.FloorBroken{Proc: 7, Text: "no module b"},
	}
	if got := m.Drain(m.p); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTheLastWordsOfAWorkerAreAllRead(t *testing.T) {
	m := newWorld(t)
	m.p.Birth.Assigned = true
	say(t, m.p.Birth.Gate, "go\x00worker=web")
	say(t, m.gate, "nonsense", "failed\x00203\x00no such program")
	linux.CloseFD(&m.gate)
	want := []fleet.Event{fleet.CannotBecome{Proc: 7, Text: "no such program"}}
	if got := m.Drain(m.p); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Whoever has read that it is to go, and has not refused, has become its slot, though its
// end is seen at the same time; not so who has ended before.
func TestWhoEndsAtOnceHasRun(t *testing.T) {
	for reads, want := range map[bool][]fleet.Event{true: {fleet.Running{Proc: 7}}, false: nil} {
		m := newWorld(t)
		m.p.Birth.Assigned = true
		say(t, m.p.Birth.Gate, "go\x00worker=web")
		if reads {
			if _, err := unix.Read(m.gate, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
		linux.CloseFD(&m.gate)
		if got := m.Drain(m.p); !reflect.DeepEqual(got, want) {
			t.Errorf("reads: %t, got %+v, want %+v", reads, got, want)
		}
	}
}

// A floor is user code: what it sends costs the master one read.
func TestAFloorCannotSteerTheMaster(t *testing.T) {
	m := newWorld(t)
	m.p.Floor = true
	for range 10 {
		say(t, m.command, "progress\x00x")
		if events, more := m.readFloor(m.p.ID); len(events) != 1 || !more {
			t.Errorf("got %+v and %t", events, more)
		}
	}
	say(t, m.command, "")
	events, more := m.readFloor(m.p.ID)
	if _, ok := events[0].(fleet.FloorBroken); !ok || !more {
		t.Errorf("an empty message: got %+v and %t, want it broken", events, more)
	}
	say(t, m.command, "refused\x0099\x0011\x00not asked for")
	if events, more := m.readFloor(m.p.ID); len(events) != 0 || !more {
		t.Errorf("an answer that nobody waits for: got %+v and %t", events, more)
	}
	asked := m.procs.Add(99)
	m.requests[m.p.ID+1] = []*procs.Process{asked}
	say(t, m.command, "refused\x0099\x0011\x00asked of another floor")
	if events, more := m.readFloor(m.p.ID); len(events) != 0 || !more || m.procs.Of(99) != asked {
		t.Errorf("an answer for another floor: got %+v and %t", events, more)
	}
}

// Who introduces itself must be a child, and must answer what was asked.
func TestOnlyAChildIsAdopted(t *testing.T) {
	m := newWorld(t)
	m.p.PID = 0
	say(t, m.gate, "hello\x007")
	if events, _ := m.readGate(m.p.ID); len(events) != 0 {
		t.Errorf("without a request: got %+v", events)
	}
	m.requests[1] = []*procs.Process{m.p}
	say(t, m.gate, "hello\x008")
	if events, _ := m.readGate(m.p.ID); len(events) != 0 || !slices.Equal(m.requests[1], []*procs.Process{m.p}) {
		t.Errorf("with another's number: got %+v", events)
	}
	say(t, m.gate, "hello\x007") // from this process, which is not its own child
	events, _ := m.readGate(m.p.ID)
	if len(events) != 1 || len(m.requests) != 0 || m.procs.Of(7) != nil {
		t.Fatalf("from a stranger: got %+v", events)
	}
	if failed, ok := events[0].(fleet.SpawnFailed); !ok || failed.Proc != 7 {
		t.Errorf("from a stranger: got %+v", events)
	}
}

// A process that pushes descriptors into its master is not waited for, whatever they
// are: it ends.
func TestWhoSendsDescriptorsIsEnded(t *testing.T) {
	linger := errandstest.Lingering(t)
	push := func(ours int, theirs int) {
		_ = unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 1) // as before Linux 6.16
		for range 3 {
			fd := linger()
			if err := linux.Send(theirs, []byte("hello\x007"), fd); err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(fd) // not the last: one is on its way
		}
	}
	m := newWorld(t)
	if err := m.gates.Add(m.p.Birth.Gate, 7); err != nil {
		t.Fatal(err)
	}
	push(m.p.Birth.Gate, m.gate)
	push(m.p.Birth.Command, m.command)
	errandstest.Quick(t, "the gate", func() {
		if events, more := m.readGate(7); len(events) != 0 || more || m.p.Birth.Gate != -1 {
			t.Errorf("got %+v, %t; the gate is %d", events, more, m.p.Birth.Gate)
		}
	})
	errandstest.Quick(t, "the socket of a floor", func() {
		if events, more := m.readFloor(7); len(events) != 0 || more || m.p.Birth.Command != -1 {
			t.Errorf("got %+v, %t; the socket is %d", events, more, m.p.Birth.Command)
		}
	})
	if got := m.poller.Wait(0, 1); len(got) != 0 {
		t.Errorf("the gate is still polled: %v", got)
	}
	if err := linux.Send(m.gate, nil); err == nil {
		t.Error("more can be sent to the gate")
	}
	if m.errands.Due() == policy.Never {
		t.Error("nothing is being closed")
	}
	errandstest.ProdAll(t, m.errands)
}

// One that has not introduced itself does not become anything.
func TestWhoSendsDescriptorsIsNotIntroduced(t *testing.T) {
	m := newWorld(t)
	_ = unix.SetsockoptInt(m.p.Birth.Gate, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 1) // as before Linux 6.16
	m.p.PID, m.requests[1] = 0, []*procs.Process{m.p}
	if err := linux.Send(m.gate, []byte("hello\x007"), 0); err != nil {
		t.Fatal(err)
	}
	events, _ := m.readGate(7)
	if len(events) != 1 || len(m.requests) != 0 || m.procs.Of(7) != nil {
		t.Errorf("got %+v", events)
	}
}
