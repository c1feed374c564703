// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/poll/polltest"
	"github.com/decnet/prefork/supervisor/output/outputtest"
	"github.com/decnet/prefork/supervisor/policy"
)

// withFile is a bridge of a fleet with this file.
func withFile(t *testing.T, text string) (*Bridge, *outputtest.Lines) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, lines := outputtest.NewLog()
	b := New(Config{File: &fleetfile.File{Name: "f", Path: path}, Log: log, Wake: polltest.New(t).Wake()})
	b.clients.tidier.stop()
	return b, lines
}

const goodFile = "[worker.web]\nexec = [\"true\"]\ncount = 2\n"

// Each kind of change is what the loop hears of it, and who asked gets its number.
func TestChangesAreProposed(t *testing.T) {
	b, _ := withFile(t, goodFile)
	by := control.Caller{UID: 7}
	shown := &Snapshot{Fleet: &control.Status{Slots: []control.SlotStatus{{Name: "web.0", Worker: "web"}, {Name: "web.1", Worker: "web"}, {Name: "api.0", Worker: "api"}}}}
	for name, c := range map[string]struct {
		ask   func() (uint64, error)
		want  fleet.Propose // but for its number
		reads bool
	}{
		"reload":         {func() (uint64, error) { return b.clients.Reload(by) }, fleet.Propose{Kind: fleet.ChangeReload, Reloads: true}, true},
		"restart of all": {func() (uint64, error) { return b.clients.Restart(nil, by) }, fleet.Propose{Kind: fleet.ChangeRestart, Fresh: true, Reloads: true}, true},
		"restart of some": {
			func() (uint64, error) { return b.clients.Restart([]string{"web", "api.0"}, by) },
			fleet.Propose{Kind: fleet.ChangeRestart, Reloads: true, Slots: []string{"web.0", "web.1", "api.0"}},
			false,
		},
		"trial": {func() (uint64, error) { return b.clients.Try(by) }, fleet.Propose{Kind: fleet.ChangeTrial, Fresh: true}, true},
		"scale": {
			func() (uint64, error) { return b.clients.Scale("web", 3, by) },
			fleet.Propose{Kind: fleet.ChangeScale, Scale: &policy.Scale{Worker: "web", Count: 3}},
			false,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			answered := make(chan error, 1)
			go func() {
				id, err := c.ask()
				if err == nil && id != 42 {
					err = fmt.Errorf("change %d", id)
				}
				answered <- err
			}()
			var heard Proposal
			for heard.Who == "" {
				synctest.Wait()
				for _, ev := range b.Asked() {
					switch ev := ev.(type) {
					case fleet.Inspect:
						b.Show(shown)
					case Proposal:
						heard = ev
					}
				}
			}
			c.want.ID, c.want.Who = heard.ID, "uid 7"
			if !reflect.DeepEqual(heard.Propose, c.want) || (heard.Draft != nil) != c.reads {
				t.Errorf("%s: got %+v, want %+v, read: %t", name, heard, c.want, c.reads)
			}
			b.Answer(fleet.Answer{ID: heard.ID, Change: 42})
			if err := <-answered; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A bad file does not come to the loop; what the loop refuses comes back as what it is.
func TestChangesAreRefused(t *testing.T) {
	b, _ := withFile(t, "cuont = 1\n")
	bad := (*control.BadFile)(nil)
	if _, err := b.clients.Reload(control.Caller{}); !errors.As(err, &bad) || !strings.Contains(bad.Text, "cuont: unknown key") {
		t.Errorf("a typo: %v", err)
	}
	if _, err := b.clients.Plan(control.Caller{}); !errors.As(err, &bad) {
		t.Errorf("the plan of a typo: %v", err)
	}
	if events := b.Asked(); len(events) > 0 {
		t.Errorf("the loop has heard %v", events)
	}
	for _, text := range []string{"", "[floor]\n"} { // as it is while it is being written
		b, _ := withFile(t, text)
		if _, err := b.clients.Reload(control.Caller{}); !errors.As(err, &bad) || !strings.Contains(bad.Text, "f.toml: there is no worker in it") {
			t.Errorf("%q: %v", text, err)
		}
		if events := b.Asked(); len(events) > 0 {
			t.Errorf("%q: the loop has heard %v", text, events)
		}
	}
	for _, c := range []struct {
		answer func(id uint64)
		bad    bool
	}{
		{func(id uint64) { b.Answer(fleet.Answer{ID: id, Refusal: "it stops"}) }, false},
		{func(id uint64) { b.Reject(id, &control.BadFile{Text: "it stops"}) }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			answered := make(chan error, 1)
			go func() { answered <- b.clients.Cancel(control.Caller{}) }()
			synctest.Wait()
			c.answer(b.Asked()[0].(fleet.Cancel).ID)
			if err := <-answered; err == nil || err.Error() != "it stops" || errors.As(err, &bad) != c.bad {
				t.Errorf("got %v", err)
			}
		})
	}
}

// One reader of the file is enough: who comes while a file system does not answer is told.
func TestAFileThatIsBeingRead(t *testing.T) {
	b, _ := withFile(t, goodFile)
	synctest.Test(t, func(t *testing.T) {
		b.clients.reading = make(chan struct{}, 1)
		b.clients.reading <- struct{}{}
		if _, err := b.clients.Reload(control.Caller{}); err == nil || !strings.Contains(err.Error(), "does the file system answer?") {
			t.Errorf("got %v", err)
		}
	})
}

// Of signals that come while one is dealt with, one is left; a refusal is in the log.
func TestHangups(t *testing.T) {
	b, lines := withFile(t, "cuont = 1\n")
	var h hangup
	synctest.Test(t, func(t *testing.T) {
		next, reloads := make(chan struct{}), 0
		reload := func() { <-next; reloads++ }
		for range 1000 {
			h.come(reload)
			synctest.Wait()
		}
		next <- struct{}{}
		next <- struct{}{}
		synctest.Wait()
		if reloads != 2 {
			t.Errorf("%d reloads, want 2", reloads)
		}
		h.come(reload)
		next <- struct{}{}
		synctest.Wait()
		if reloads != 3 || h.running {
			t.Errorf("%d reloads, running %t", reloads, h.running)
		}
		b.Hangup()
		synctest.Wait()
		lines.Want(t, "SIGHUP: ", "cuont: unknown key", "nothing has changed")
	})
}

// Outcomes are told with the end of a turn, the last of them only.
func TestOutcomes(t *testing.T) {
	b, _ := withFile(t, goodFile)
	if _, ok := b.LastOutcome(); ok {
		t.Error("there was no change")
	}
	b.Outcome(fleet.Outcome{Change: 1, Result: fleet.ChangeFailed, Text: "why"})
	if out, err := b.clients.Outcome(1); err != nil || out != (control.Outcome{}) {
		t.Errorf("before the end of the turn: %+v, %v", out, err)
	}
	b.Flush()
	if out, err := b.clients.Outcome(1); err != nil || out != (control.Outcome{Result: fleet.ChangeFailed, Text: "why"}) {
		t.Errorf("got %+v, %v", out, err)
	}
	for id := fleet.ChangeID(2); id <= maxOutcomes+1; id++ {
		b.Outcome(fleet.Outcome{Change: id, Result: fleet.ChangeDone})
		b.Flush()
	}
	if _, err := b.clients.Outcome(1); err == nil || !strings.Contains(err.Error(), "too long ago") {
		t.Errorf("of the first: %v", err)
	}
	if out, err := b.clients.Outcome(2); err != nil || out.Result != control.ChangeDone {
		t.Errorf("of the second: %+v, %v", out, err)
	}
	if out, err := b.clients.Outcome(maxOutcomes + 2); err != nil || out.Result != "" {
		t.Errorf("of one that is under way: %+v, %v", out, err)
	}
	if last, ok := b.LastOutcome(); !ok || last.Change != maxOutcomes+1 {
		t.Errorf("the last: %+v", last)
	}
}

// A plan is told part by part, without what is kept.
func TestStepsOfAPlan(t *testing.T) {
	old := policy.Config{
		Keys: []policy.Key{{Name: "ready_when", Class: policy.Live, Sum: 1}, {Name: "metrics.listen", Class: policy.Start, Sum: 1}},
		Workers: []policy.Worker{
			{Name: "kept", Count: 1},
			{Name: "grows", Count: 1},
			{Name: "rolls", Count: 2, Keys: []policy.Key{{Name: "exec", Class: policy.Birth, Sum: 1}}},
			{Name: "gone", Count: 1},
		},
		Sockets: []policy.Socket{{Name: "http"}},
	}
	next := policy.Config{
		Keys: []policy.Key{{Name: "ready_when", Class: policy.Live, Sum: 2}, {Name: "metrics.listen", Class: policy.Start, Sum: 2}},
		Workers: []policy.Worker{
			{Name: "kept", Count: 1},
			{Name: "grows", Count: 3},
			{Name: "rolls", Count: 2, Keys: []policy.Key{{Name: "exec", Class: policy.Birth, Sum: 2}}},
			{Name: "new", Count: 1, Entry: true},
		},
		Sockets: []policy.Socket{{Name: "http"}, {Name: "more"}},
	}
	plan := policy.Difference(old, next)
	want := []control.PlanStep{
		{Kind: "fleet", Step: "update", Keys: []string{"ready_when"}},
		{Kind: "floor", Name: "floor", Step: "add", Keys: []string{}},
		{Kind: "socket", Name: "more", Step: "add", Keys: []string{}},
		{Kind: "worker", Name: "grows", Step: "keep", Keys: []string{}, From: 1, To: 3},
		{Kind: "worker", Name: "rolls", Step: "roll", Keys: []string{"exec"}, From: 2, To: 2},
		{Kind: "worker", Name: "new", Step: "add", Keys: []string{}, To: 1},
		{Kind: "worker", Name: "gone", Step: "remove", Keys: []string{}, From: 1},
		{Kind: "fleet", Step: "wait", Keys: []string{"metrics.listen"}},
	}
	if got := stepsOf(&plan); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}
