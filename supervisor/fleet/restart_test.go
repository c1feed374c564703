// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var results = []Result{
	Success, ExitCode, Signalled, CoreDump, Watchdog, Timeout, Protocol, OOMKill, Resources, StartLimitHit,
}

// systemd's table: which results each policy restarts (systemd.service(5),
// Restart=).
var restartTable = map[Restart][]Result{
	RestartNo:         {},
	RestartOnSuccess:  {Success},
	RestartOnFailure:  results[1:],
	RestartOnAbnormal: results[2:],
	RestartOnWatchdog: {Watchdog},
	RestartOnAbort:    {Signalled, CoreDump},
	RestartAlways:     results,
}

// exitOf is an end that each result can have. The timeouts end in SIGKILL.
func exitOf(r Result) Exit {
	switch r {
	case Success:
		return Exit{}
	case ExitCode:
		return Exit{Code: 3}
	case Signalled:
		return Exit{Signal: 11}
	case CoreDump:
		return Exit{Signal: 6, Core: true}
	case Resources, StartLimitHit:
		return noExit
	default:
		return Exit{Signal: SIGKILL}
	}
}

func TestRestartTable(t *testing.T) {
	if len(restartTable) != len(Restarts) {
		t.Fatalf("the table has %d policies, there are %d", len(restartTable), len(Restarts))
	}
	for _, restart := range Restarts {
		for _, result := range results {
			e := exitOf(result)
			matching := ExitSet{Codes: []int{0, 3}, Signals: []Signal{6, SIGKILL, 11}}
			other := ExitSet{Codes: []int{4, 11}, Signals: []Signal{3, SIGTERM}}
			listed := e != noExit // what never ran is in no list
			byTable := slices.Contains(restartTable[restart], result)
			for _, c := range []struct {
				name           string
				prevent, force ExitSet
				want           bool
			}{
				{"no lists", ExitSet{}, ExitSet{}, byTable},
				{"other lists", other, other, byTable},
				{"prevented", matching, ExitSet{}, byTable && !listed},
				{"forced", ExitSet{}, matching, byTable || listed},
				{"prevented and forced", matching, matching, byTable && !listed},
			} {
				p := Policy{Restart: restart, RestartPrevent: c.prevent, RestartForce: c.force}
				if got, rule := p.shouldRestart(result, e); got != c.want {
					t.Errorf("restart %s, result %s, %s: got %t (%s), want %t", restart, result, c.name, got, rule, c.want)
				}
			}
		}
	}
}

func TestRestartRuleIsNamed(t *testing.T) {
	p := Policy{Restart: RestartAlways, RestartPrevent: ExitSet{Codes: []int{1}}, RestartForce: ExitSet{Codes: []int{2}}}
	for code, want := range map[int]string{
		1: "restart_prevent_exit_status", 2: "restart_force_exit_status", 3: `restart = "always"`,
	} {
		if _, got := p.shouldRestart(ExitCode, Exit{Code: code}); got != want {
			t.Errorf("status %d: got rule %q, want %q", code, got, want)
		}
	}
}

func TestUnknownRestartPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an unknown policy did not panic")
		}
	}()
	p := Policy{Restart: "sometimes"}
	p.shouldRestart(ExitCode, Exit{Code: 1})
}

func TestCleanExits(t *testing.T) {
	for signal := Signal(1); signal <= 64; signal++ {
		clean := slices.Contains([]Signal{SIGHUP, SIGINT, SIGPIPE, SIGTERM}, signal)
		wantResult(t, Policy{}, Exit{Signal: signal}, map[bool]Result{true: Success, false: Signalled}[clean])
		wantResult(t, Policy{}, Exit{Signal: signal, Core: true}, CoreDump)
		listed := Policy{Success: ExitSet{Signals: []Signal{signal}}}
		wantResult(t, listed, Exit{Signal: signal}, Success)
		wantResult(t, listed, Exit{Signal: signal, Core: true}, CoreDump)
		byCode := Policy{Success: ExitSet{Codes: []int{int(signal)}}}
		wantResult(t, byCode, Exit{Signal: 11}, Signalled)
	}
	for code := range 256 {
		want := ExitCode
		if code == 0 {
			want = Success
		}
		wantResult(t, Policy{}, Exit{Code: code}, want)
		wantResult(t, Policy{Success: ExitSet{Codes: []int{code}}}, Exit{Code: code}, Success)
		wantResult(t, Policy{Success: ExitSet{Signals: []Signal{Signal(code)}}}, Exit{Code: code}, want)
	}
}

func wantResult(t *testing.T, p Policy, e Exit, want Result) {
	t.Helper()
	if got := p.result(e); got != want {
		t.Errorf("%+v with success %+v: got %s, want %s", e, p.Success, got, want)
	}
	if p.clean(e) != (want == Success) {
		t.Errorf("%+v with success %+v: clean is %t", e, p.Success, p.clean(e))
	}
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		first, most time.Duration
		want        []time.Duration
	}{
		{sec, 30 * sec, []time.Duration{1, 2, 4, 8, 16, 30, 30, 30}},
		{sec, 32 * sec, []time.Duration{1, 2, 4, 8, 16, 32, 32}},
		{3 * sec, 5 * sec, []time.Duration{3, 5, 5}},
		{60 * sec, 30 * sec, []time.Duration{30, 30}},
		{0, 30 * sec, []time.Duration{0, 0, 0}},
		{sec, 0, []time.Duration{0, 0}},
		{Forever, 30 * sec, []time.Duration{30, 30}},
	} {
		for i, want := range c.want {
			if got := backoff(c.first, c.most, i+1); got != want*sec {
				t.Errorf("backoff(%s, %s, %d) = %s, want %s", c.first, c.most, i+1, got, want*sec)
			}
		}
	}
	if got := backoff(sec, Forever, 1000); got != Forever {
		t.Errorf("without a maximum the delay ends at %s, want infinity", got)
	}
	if got := backoff(Forever, Forever, 1); got != Forever {
		t.Errorf("got %s, want infinity", got)
	}
	for n := 1; n < 200; n++ {
		if a, b := backoff(ms, Forever, n), backoff(ms, Forever, n+1); b < a {
			t.Fatalf("the %d-th delay %s is shorter than the one before, %s", n+1, b, a)
		}
	}
}

func TestJitterIsAtMostTenPercent(t *testing.T) {
	f := New(Config{Host: Host{Seed: 7}})
	var least, most time.Duration = Forever, 0
	for range 10000 {
		j := f.jitter(10 * sec)
		least, most = min(least, j), max(most, j)
	}
	if least < 0 || least > 10*ms || most > sec || most < 990*ms {
		t.Errorf("10,000 jitters of 10 s lie between %s and %s, want nearly 0 and 1 s", least, most)
	}
	for _, d := range []time.Duration{0, 1, 9, 10, 100, Forever} {
		for range 100 {
			if j := f.jitter(d); j < 0 || j > d/10 {
				t.Fatalf("the jitter of %d is %d", d, j)
			}
		}
	}
}

func TestResetAfter(t *testing.T) {
	for _, c := range []struct{ configured, last, want time.Duration }{
		{-1, 0, 30 * sec},
		{-1, 8 * sec, 30 * sec},
		{-1, 40 * sec, 40 * sec},
		{0, 40 * sec, 0},
		{5 * sec, 40 * sec, 5 * sec},
		{Forever, 0, Forever},
	} {
		p := Policy{RestartReset: c.configured}
		if got := p.resetAfter(c.last); got != c.want {
			t.Errorf("reset %s after a delay of %s: got %s, want %s", c.configured, c.last, got, c.want)
		}
	}
}

func TestInstants(t *testing.T) {
	for _, c := range []struct {
		i    Instant
		d    time.Duration
		want Instant
	}{
		{5, 7, 12},
		{5, Forever, Never},
		{Never, 1, Never},
		{Never, -1, Never},
		{Never - 5, 5, Never},
		{Never - 5, 4, Never - 1},
		{Never - 5, 6, Never},
	} {
		if got := c.i.Add(c.d); got != c.want {
			t.Errorf("%d.Add(%d) = %d, want %d", c.i, c.d, got, c.want)
		}
	}
	if got := Instant(9).Sub(4); got != 5 {
		t.Errorf("9 - 4 = %d", got)
	}
	if got := Never.Sub(4); got != Forever {
		t.Errorf("never - 4 = %d, want forever", got)
	}
	if a, b := Instant(4).timeout(0), Instant(4).timeout(2); a != Never || b != 6 {
		t.Errorf("got timeouts %d and %d, want never and 6", a, b)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-5 * sec:                  "0ms",
		0:                         "0ms",
		250 * ms:                  "250ms",
		999*ms + 400*1000:         "999ms",
		999*ms + 600*1000:         "1s",
		sec:                       "1s",
		1500 * ms:                 "1.5s",
		9940 * ms:                 "9.9s",
		9960 * ms:                 "10s",
		59*sec + 400*ms:           "59s",
		59*sec + 600*ms:           "1min",
		125 * sec:                 "2min 5s",
		time.Hour - 300*ms:        "1h",
		200 * time.Minute:         "3h 20min",
		24*time.Hour - sec:        "1d",
		49*time.Hour + 10*sec:     "2d 1h",
		48*time.Hour - time.Hour:  "1d 23h",
		Forever:                   "infinity",
		90 * sec:                  "1min 30s",
		time.Hour + 29*sec:        "1h",
		2*time.Hour - 10*sec:      "2h",
		time.Hour + 2*time.Minute: "1h 2min",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for n, want := range map[int]string{
		1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 10: "10th", 11: "11th", 12: "12th", 13: "13th",
		21: "21st", 22: "22nd", 101: "101st", 111: "111th", 112: "112th", 123: "123rd",
	} {
		if got := ordinal(n); got != want {
			t.Errorf("ordinal(%d) = %q, want %q", n, got, want)
		}
	}
	for s, want := range map[Signal]string{
		SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGKILL: "SIGKILL", SIGPIPE: "SIGPIPE", SIGTERM: "SIGTERM",
		31: "SIGSYS", 0: "signal 0", 34: "signal 34", -1: "signal -1",
	} {
		if got := s.String(); got != want {
			t.Errorf("signal %d is %q, want %q", int(s), got, want)
		}
	}
	for e, want := range map[Exit]string{{Code: 3}: "3", {Signal: 9}: "SIGKILL"} {
		if got := fmt.Sprint(e); got != want {
			t.Errorf("%+v prints as %q, want %q", struct{ Exit }{e}, got, want)
		}
	}
}
