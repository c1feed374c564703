// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// FuzzFleet lets bytes choose a fleet and what happens to it, and ends with a
// stop after which the world is fair: what is killed, ends. The world checks
// each action, and check what holds between events.
func FuzzFleet(f *testing.F) {
	f.Add([]byte{})
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 150 {
		data := make([]byte, 20*(n+1))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t, data)
		w.tell(Tick{})
		for len(w.bytes) > 0 && w.quits == 0 {
			w.step()
		}
		if len(data)%2 == 1 {
			w.concludes()
		}
		w.end()
	})
}

// step lets one thing happen.
func (w *world) step() {
	w.t.Helper()
	switch b := w.byte(); {
	case b < 40:
		w.pass(time.Duration(w.byte()) * pick(w, 1, ms, 100*ms, sec))
	case b < 70:
		w.passToDeadline()
	case b < 80:
		w.strange()
	case b < 84:
		w.operator()
	case b < 87:
		w.connection()
	case b < 88:
		w.tell(Examine{3, pick(w, w.f.floor.number, w.f.floor.number, int(w.byte()%4)), "uid 0"})
	case b < 89:
		w.tell(Saturated{[]Saturation{{"http", int(w.byte()), w.byte()%2 == 0}}[w.byte()%2:]})
	case b < 90:
		w.tell(StopRequested{"SIGTERM"})
	case b < 100:
		w.change()
	case len(w.order) > 0:
		w.happens(w.procs[w.order[int(w.byte())%len(w.order)]])
	}
}

// pass lets time pass with or without a tick at each deadline: a loop can be
// late, and the clock of a machine that slept makes a step.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for w.byte()%4 != 0 && w.f.Deadline() <= end && w.quits == 0 {
		w.passToDeadline()
	}
	w.now = max(w.now, end)
	w.tell(Tick{})
}

// connection lets one come to some worker that is watched.
func (w *world) connection() {
	w.t.Helper()
	for worker := WorkerID(1); worker <= w.f.last.worker; worker++ {
		if w.watched[worker] && w.byte()%2 == 0 {
			delete(w.watched, worker)
			w.tell(Demand{worker})
			return
		}
	}
}

// notification is something that a process says of itself.
func (w *world) notification(b *being) Notified {
	return pick(w,
		Notified{Ready: true},
		Notified{Ready: true, HasStatus: true, Status: "well", Cause: "ValueError: no"},
		Notified{Watchdog: true},
		Notified{Watchdog: true},
		Notified{Reloading: true},
		Notified{Stopping: true, Errno: "EIO"},
		Notified{Trigger: true},
		Notified{Extend: 20 * sec, Interval: sec},
		Notified{Recycle: policy.RecycleAsked},
		Notified{Recycle: policy.RecycleRequests},
	).about(b.id)
}

func (n Notified) about(p Proc) Notified {
	n.Proc = p
	return n
}

func (w *world) passToDeadline() {
	w.t.Helper()
	if d := w.f.Deadline(); d != policy.Never {
		if d-1 > w.now {
			w.now = d - 1
			w.quiet()
		}
		w.now = d
		w.tell(Tick{})
	}
}

// quiet checks that nothing happens before its time.
func (w *world) quiet() {
	w.t.Helper()
	for _, a := range clone(w.f).Decide(w.now, Tick{}) {
		if _, ok := a.(Status); !ok {
			w.fail("1 ns before the deadline: %s", tellAction(a))
		}
	}
}

// strange sends an event about a process that the fleet does not hold. It does
// what a tick does.
func (w *world) strange() {
	w.t.Helper()
	unknown := []Proc{0, w.f.last.proc + 1 + Proc(w.byte())}
	for id := Proc(1); id <= w.f.last.proc; id++ {
		if b := w.procs[id]; b == nil || b.abandoned {
			unknown = append(unknown, id)
		}
	}
	evs := eventsAbout(unknown[int(w.byte())%len(unknown)])
	ev := evs[int(w.byte())%len(evs)]
	ticked := clone(w.f)
	want := ticked.Decide(w.now, Tick{})
	if got := clone(w.f).Decide(w.now, ev); !sameActions(got, want) {
		w.fail("%T%+v about an unknown process does:\n%sa tick does:\n%s", ev, ev, transcribe(got), transcribe(want))
	}
	w.tell(ev)
	if !same(w.f, ticked) {
		w.fail("%T%+v about an unknown process changed the fleet", ev, ev)
	}
	w.inspect()
}

// operator does something to some slot.
func (w *world) operator() {
	w.t.Helper()
	ev := operator(pick(w, verb.All...))
	ev.Slot = "nobody"
	if i := int(w.byte()) % (len(w.f.slots) + 1); i < len(w.f.slots) {
		ev.Slot = w.f.slots[i].name
		w.followed.goes[ev.Slot] = w.followed.goes[ev.Slot] || ev.Call.Name == verb.Start
		w.excused[w.f.slots[i].id] = len(w.starts[w.f.slots[i].id])
	}
	w.tell(ev)
}

// change is something that somebody wants of the fleet as a whole.
func (w *world) change() {
	w.t.Helper()
	w.revision++
	ev := Propose{ID: 1, Kind: ChangeRestart, Revision: w.revision, Who: "uid 0"}
	switch w.byte() % 10 {
	case 8:
		ev.Kind, ev.Fresh = ChangeTrial, true
	case 9:
		if len(w.f.cfg.Workers) > 0 {
			ev.Kind, ev.Scale = ChangeScale, &policy.Scale{Worker: w.f.cfg.Workers[int(w.byte())%len(w.f.cfg.Workers)].Name, Count: int(w.byte()%5) - 1}
		}
	case 0:
		w.tell(Cancel{2, "uid 0"})
		return
	case 1:
		ev.Fresh = true
	case 2:
	case 3:
		if len(w.f.slots) > 0 {
			ev.Slots = []string{w.f.slots[int(w.byte())%len(w.f.slots)].name}
		}
	default:
		next := w.config()
		next.Host = w.cfg.Host
		next.FloorKeys = []policy.Key{{Name: "preload", Class: policy.Birth, Sum: uint64(w.byte() % 3)}}
		for i := range next.Workers {
			next.Workers[i].Keys = append(next.Workers[i].Keys, policy.Key{Name: "exec", Class: policy.Birth, Sum: uint64(w.byte() % 3)}, policy.Key{Name: "memory_max", Class: policy.Limit, Sum: uint64(w.byte() % 2)})
		}
		ev.Kind, ev.Config, ev.Reloads = ChangeReload, &next, true
	}
	w.tell(ev)
}

// inspect looks at the fleet, which changes nothing, and wants to see it as it is.
func (w *world) inspect() {
	w.t.Helper()
	f := clone(w.f)
	acts := f.Decide(w.now, Inspect{})
	if !same(f, w.f) {
		w.fail("Inspect changed the fleet")
	}
	if f.phase == ended {
		return
	}
	show, ok := acts[0].(Show)
	if !ok || len(acts) != 1 || len(show.Snapshot.Slots) != f.count().slots {
		w.fail("Inspect does:\n%s", transcribe(acts))
	}
	for i := range show.Snapshot.Slots {
		v := &show.Snapshot.Slots[i]
		s := f.named(v.Name)
		if v.Name != s.name || v.State != s.state || v.PID != s.pid || v.Since > w.now || v.Restarts < 0 ||
			v.Due != policy.Never && (s.state != StateWaiting || v.Due < w.now) {
			w.fail("%s is shown as %+v", s.name, v)
		}
	}
}

// happens lets something happen to a process.
func (w *world) happens(b *being) {
	w.t.Helper()
	switch {
	case b.frozen && w.byte()%4 != 0:
	case b.frozen:
		w.ends(b) // somebody else's SIGKILL
	case b.state == left && !b.dying && w.byte()%4 != 0:
	case b.state == left:
		w.dead(b.id)
		w.tell(Swept{b.id})
	case b.abandoned:
		w.dead(b.id)
		w.tell(pick[Event](w, Introduced{b.id, 9}, Exited{Proc: b.id, Exit: killed}, SpawnFailed{b.id, "closed"}))
	case b.dying && w.byte()%2 == 0:
		w.ends(b)
	case b.kind == floorBeing:
		w.floorHappens(b)
	case w.isMeasured(b):
	default:
		w.workerHappens(b)
	}
}

func (w *world) floorHappens(b *being) {
	w.t.Helper()
	switch c := w.byte() % 8; {
	case b.state == loading && c < 1:
		w.dead(b.id)
		w.tell(SpawnFailed{b.id, "clone: no memory"})
	case b.state == loading && c < 3:
		w.tell(FloorProgress{b.id, "importing numpy"})
	case b.state == loading && c < 7:
		b.state = runs
		b.forks = int(w.byte() % 4)
		w.tell(FloorLoaded{b.id, b.forks})
	case c < 1:
		w.tell(FloorBroken{b.id, "import failed"})
	case c < 3:
		w.ends(b)
	}
}

func (w *world) workerHappens(b *being) {
	w.t.Helper()
	c := w.byte() % 8
	switch b.state {
	case asked:
		if c < 2 {
			w.dead(b.id)
			w.tell(SpawnFailed{b.id, "fork: try again"})
			return
		}
		if c < 3 && b.kind == forkBeing {
			w.ends(b)
			return
		}
		b.state = atGate
		w.answered(b.id)
		w.tell(Introduced{b.id, 100 + int(b.id)})
	case atGate:
		if c < 2 {
			w.ends(b)
		}
	case told:
		switch {
		case c < 1:
			w.tell(CannotBecome{b.id, "execve: no such file"})
		case c < 2 && b.kind == forkBeing && w.byte() < 128:
			if s := w.starts[b.slot]; len(s) > 0 {
				w.starts[b.slot] = s[:len(s)-1] // it was none
			}
			b.slot, b.state = 0, atGate
			w.tell(Unfit{b.id, "pid 7 is stopped"})
		case c < 2:
			w.tell(SpawnFailed{b.id, "send orders: broken pipe"})
		case c < 3:
			w.ends(b)
		case c < 4:
			w.tell(w.notification(b))
		default:
			b.state = runs
			w.tell(Running{b.id})
		}
	case runs:
		switch {
		case c < 3:
			w.ends(b)
		case c < 6:
			w.tell(w.notification(b))
		}
	case loading, left:
	}
}

// ends lets a process end, and sometimes leave others behind.
func (w *world) ends(b *being) {
	w.t.Helper()
	if b.immortal && b.dying {
		return
	}
	ev := Exited{Proc: b.id, OOM: w.byte()%8 == 7, Exit: pick(w, status0, status1, policy.Exit{Code: 2}, killed, termed, policy.Exit{Signal: 6, Core: true})}
	user := b.kind == floorBeing || b.state >= told // code of the user's has run
	if user && w.byte()%4 == 0 {
		ev.Left, b.state, b.leftAt = 1+int(w.byte())%3, left, w.now
		b.dying, b.deaf = false, w.byte()%3 == 2
	} else {
		w.dead(b.id)
	}
	w.tell(ev)
}

// end stops the fleet and is fair to it. It must end, and quit once.
func (w *world) end() {
	w.t.Helper()
	for range 2 {
		if w.quits == 0 {
			w.tell(StopRequested{"SIGTERM"})
		}
	}
	w.tell(StopRequested{"SIGTERM"})
	stuck := false
	for range 1000 {
		for _, id := range slices.Clone(w.order) {
			b := w.procs[id]
			switch {
			case w.quits > 0:
			case b.frozen:
			case b.immortal && b.dying && b.state != left:
				stuck = stuck || !b.abandoned
			case b.dying || b.abandoned:
				w.fairEnd(b)
			}
		}
		if w.quits > 0 {
			break
		}
		if w.f.Deadline() == policy.Never {
			w.fail("the fleet waits forever for %s", w.remaining())
		}
		w.passToDeadline()
	}
	if w.quits != 1 || !w.f.Ended() {
		w.fail("%d quits; what is left: %s", w.quits, w.remaining())
	}
	if stuck && w.quitCode == 0 {
		w.fail("Quit 0 in front of a process that cannot be killed")
	}
}

func (w *world) fairEnd(b *being) {
	w.dead(b.id)
	switch {
	case b.abandoned:
	case b.state == left:
		w.tell(Swept{b.id})
	default:
		w.tell(Exited{Proc: b.id, Exit: killed})
	}
}

func (w *world) remaining() string {
	text := ""
	for _, id := range w.order {
		text += fmt.Sprintf("%+v ", *w.procs[id])
	}
	return text
}
