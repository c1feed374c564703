// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

func TestReload(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.slot("w.0").watchdog = 0 // it is about the reload
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	p.wantState("w.0", StateReady)
	p.wantStatus("2/2 ready")
	p.wait(60 * sec)
	p.say("w.0", Notified{Reloading: true}) // still the same reload
	p.wantNothing()
	if got := p.left("w.0"); got != 30*sec {
		t.Errorf("the reload may take %s more, want 30 s", got)
	}
	p.say("w.0", Notified{Ready: true})
	p.wantWhy("w.0", "reloaded")
	if got := p.f.Deadline(); got != policy.Never {
		t.Errorf("something is due in %s after the reload", got.Sub(p.now))
	}
	p.say("w.0", Notified{Reloading: true})
	if got := p.left("w.0"); got != 90*sec {
		t.Errorf("the next reload may take %s, want 90 s", got)
	}
}

// A reload that does not end is reported, once, and nothing else.
func TestReloadTimeout(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.slot("w.0").watchdog = 0
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	if got := p.untilDue(); got != 90*sec {
		t.Fatalf("the reload ends after %s, want 90 s", got)
	}
	none[Kill](p)
	p.wantState("w.0", StateReady)
	p.wantWhy("w.0", "did not finish its reload within 1min 30s (timeout_start_sec); it is left as it is")
	p.wait(time.Hour)
	p.wantNothing()
	p.say("w.0", Notified{Ready: true}) // late, and of no meaning any more
	p.wantNothing()
	p.exit("w.0", status0)
	p.wantResult("w.0", policy.Success)
}

func TestReloadWithoutTimeout(t *testing.T) {
	w := notifyWorker()
	w.Policy.TimeoutStart, w.Policy.Watchdog = 0, 0
	p := playBeside(t, w)
	p.ready()
	p.say("w.0", Notified{Reloading: true})
	p.wait(1000 * time.Hour)
	p.wantNothing()
	p.say("w.0", Notified{Ready: true})
	p.wantWhy("w.0", "reloaded")
}

// Nothing of a reload is left for what comes after it.
func TestReloadEndsWithReady(t *testing.T) {
	for name, end := range map[string]func(p *player){
		"crash": func(p *player) { p.exit("w.0", status1) },
		"stop":  func(p *player) { p.send(StopRequested{"SIGTERM"}) },
		"stops": func(p *player) { p.say("w.0", Notified{Stopping: true}) },
		"stuck": func(p *player) { p.untilDue() },
		"left":  func(p *player) { p.send(Exited{Proc: p.slot("w.0").proc, Left: 1}) },
	} {
		p := playBeside(t, notifyWorker())
		p.ready()
		p.say("w.0", Notified{Reloading: true})
		end(p)
		if s := p.slot("w.0"); s.state == StateReady || s.reloading || s.beatDue != policy.Never {
			t.Errorf("%s: state %s, reloading %t, a keep-alive is due at %d", name, s.state, s.reloading, s.beatDue)
		}
	}
}

func TestReloadingOnlyWhileReady(t *testing.T) {
	p := playBeside(t, notifyWorker())
	p.say("w.0", Notified{Reloading: true})
	p.wantNothing()
	p.ready()
	if p.slot("w.0").reloading {
		t.Error("a start became a reload")
	}
}
