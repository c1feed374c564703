// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	sec = time.Second
	ms  = time.Millisecond
)

// systemd's table: which results each policy restarts (systemd.service(5),
// Restart=).
var restartTable = map[Restart][]Result{
	RestartNo:         {},
	RestartOnSuccess:  {Success},
	RestartOnFailure:  Results[1:],
	RestartOnAbnormal: Results[2:],
	RestartOnWatchdog: {Watchdog},
	RestartOnAbort:    {Signalled, CoreDump},
	RestartAlways:     Results[:],
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
		return NoExit
	default:
		return Exit{Signal: SIGKILL}
	}
}

func TestRestartTable(t *testing.T) {
	if len(restartTable) != len(Restarts) {
		t.Fatalf("the table has %d policies, there are %d", len(restartTable), len(Restarts))
	}
	for _, restart := range Restarts {
		for _, result := range Results {
			e := exitOf(result)
			matching := ExitSet{Codes: []int{0, 3}, Signals: []Signal{6, SIGKILL, 11}}
			other := ExitSet{Codes: []int{4, 11}, Signals: []Signal{3, SIGTERM}}
			listed := e != NoExit // what never ran is in no list
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
				if got, rule := p.ShouldRestart(result, e); got != c.want {
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
		if _, got := p.ShouldRestart(ExitCode, Exit{Code: code}); got != want {
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
	p.ShouldRestart(ExitCode, Exit{Code: 1})
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
	if got := p.Result(e); got != want {
		t.Errorf("%+v with success %+v: got %s, want %s", e, p.Success, got, want)
	}
	if p.Clean(e) != (want == Success) {
		t.Errorf("%+v with success %+v: clean is %t", e, p.Success, p.Clean(e))
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
			if got := Backoff(c.first, c.most, i+1); got != want*sec {
				t.Errorf("Backoff(%s, %s, %d) = %s, want %s", c.first, c.most, i+1, got, want*sec)
			}
		}
	}
	if got := Backoff(sec, Forever, 1000); got != Forever {
		t.Errorf("without a maximum the delay ends at %s, want infinity", got)
	}
	if got := Backoff(Forever, Forever, 1); got != Forever {
		t.Errorf("got %s, want infinity", got)
	}
	for n := 1; n < 200; n++ {
		if a, b := Backoff(ms, Forever, n), Backoff(ms, Forever, n+1); b < a {
			t.Fatalf("the %d-th delay %s is shorter than the one before, %s", n+1, b, a)
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
		if got := p.ResetAfter(c.last); got != c.want {
			t.Errorf("reset %s after a delay of %s: got %s, want %s", c.configured, c.last, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
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

func TestCircle(t *testing.T) {
	for want, after := range map[string]map[string][]string{
		"":      {"web": {"broker", "migrate"}, "broker": {"migrate", "nobody"}, "mail": {"broker"}},
		"a":     {"a": {"a"}},
		"b a":   {"c": {"b"}, "b": {"a"}, "a": {"b"}},
		"a b c": {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}},
	} {
		names := slices.Sorted(maps.Keys(after))
		got := strings.Join(Circle(names, func(name string) []string { return after[name] }), " ")
		if len(want) != len(got) || !strings.Contains(want+" "+want, got) {
			t.Errorf("%v: got %q, want %q", after, got, want)
		}
	}
}
