// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/verb"
)

func newBridge(t *testing.T) *Bridge {
	t.Helper()
	b := New(Config{Wake: polltest.New(t).Wake()})
	b.clients.tidier.stop() // not while another test measures
	return b
}

// TestWhoMayChange: root and, in a terminal, the user who runs the fleet; never
// what descends from the master.
func TestWhoMayChange(t *testing.T) {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill() // it may not end by itself
		_ = child.Wait()
	}()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	own, gone := uint32(os.Geteuid()), ended.Process.Pid
	for _, c := range []struct {
		name    string
		managed bool
		caller  control.Caller
		want    string // a part of the refusal
	}{
		{"root", true, control.Caller{UID: 0, PID: os.Getppid(), PIDFD: -1}, ""},
		{"another user", true, control.Caller{UID: 12345, PID: os.Getppid(), PIDFD: -1}, "only root"},
		{"another user, in a terminal", false, control.Caller{UID: 12345, PID: os.Getppid(), PIDFD: -1}, "only root and uid"},
		{"the user, in a terminal", false, control.Caller{UID: own, PID: os.Getppid(), PIDFD: -1}, ""},
		{"root, of another pid namespace", true, control.Caller{UID: 0, PIDFD: -1}, ""},
		{"a process of the fleet", false, control.Caller{UID: own, PID: child.Process.Pid, PIDFD: -1}, "a process of the fleet"},
		{"who has ended", false, control.Caller{UID: own, PID: gone, PIDFD: -1}, "has ended"},
	} {
		o := newBridge(t).clients
		o.managed = c.managed
		switch err := o.MayChange(c.caller); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestOperatorsAreAnswered plays the loop's part.
func TestOperatorsAreAnswered(t *testing.T) {
	b := newBridge(t)
	o := b.clients
	failed := make(chan error)
	go func() { failed <- o.Operate("web.0", verb.Call{Name: verb.Kill, Signal: 10}, control.Caller{UID: 7}) }()
	var events []fleet.Event
	for len(events) == 0 {
		events = b.Asked()
	}
	want := fleet.Operate{ID: 1, Slot: "web.0", Call: verb.Call{Name: verb.Kill, Signal: 10}, Who: "uid 7"}
	if len(events) != 1 || events[0] != want {
		t.Errorf("got %+v, want %+v", events, want)
	}
	b.Answer(fleet.Answer{ID: 1, Refusal: "no"})
	if err := <-failed; err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	for _, call := range []verb.Call{{Name: verb.Kill}, {Name: "reboot"}} {
		if err := o.Operate("web.0", call, control.Caller{}); err == nil || len(b.Asked()) != 0 {
			t.Errorf("%+v: %v, or the loop is asked", call, err)
		}
	}
	go func() {
		_, err := o.Look()
		failed <- err
	}()
	for len(b.Asked()) == 0 {
	}
	b.Close()
	if err := <-failed; err == nil || err.Error() != errEnded.Error() {
		t.Errorf("got %v", err)
	}
	if err := o.Operate("web.0", verb.Call{Name: verb.Start}, control.Caller{}); err == nil || err.Error() != errEnded.Error() {
		t.Errorf("afterwards: %v", err)
	}
}
