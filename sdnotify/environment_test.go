// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/decnet/prefork/sdnotify"
)

// managers holds each variable with its own value, so that none can be mistaken
// for another.
var managers = []string{
	"NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=1", "WATCHDOG_PID=2",
	"LISTEN_PID=3", "LISTEN_PIDFDID=4", "LISTEN_FDS=5", "LISTEN_FDNAMES=6",
	"FDSTORE=7", "MAINPID=8", "MAINPIDFDID=9",
	"JOURNAL_STREAM=10:11", "INVOCATION_ID=12", "SYSTEMD_EXEC_PID=13",
}

var managersParsed = sdnotify.Environment{
	PID: 99, NotifySocket: "/run/notify", WatchdogUSec: "1", WatchdogPID: "2",
	ListenPID: "3", ListenPIDFDID: "4", ListenFDs: "5", ListenFDNames: "6",
	FDStore: "7", MainPID: "8", MainPIDFDID: "9",
	JournalStream: "10:11", InvocationID: "12", SystemdExecPID: "13",
}

var users = []string{"PATH=/bin", "LISTEN_ADDRESS=:80", "WATCHDOG=x", "NOTIFY_SOCKET_DIR=/", "EMPTY=", "odd", "=odd=odd"}

func TestParseEnvironment(t *testing.T) {
	environ := slices.Concat(users, managers, []string{"LISTEN_FDS=77", "WATCHDOG_PID"})
	if got := sdnotify.ParseEnvironment(environ, 99); got != managersParsed {
		t.Errorf("got %+v, want %+v", got, managersParsed)
	}
}

func TestScrub(t *testing.T) {
	environ := slices.Concat(managers[:5], users, managers[5:])
	before := slices.Clone(environ)
	if got := sdnotify.Scrub(environ); !slices.Equal(got, users) {
		t.Errorf("got %q, want %q", got, users)
	}
	if !slices.Equal(environ, before) {
		t.Error("the argument was changed")
	}
}

func TestTakeEnvironment(t *testing.T) {
	for _, entry := range managers {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	t.Setenv("LISTEN_ADDRESS", ":80")
	want := managersParsed
	want.PID = os.Getpid()
	if got := sdnotify.TakeEnvironment(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, entry := range managers {
		name, _, _ := strings.Cut(entry, "=")
		if value, set := os.LookupEnv(name); set {
			t.Errorf("%s=%s is still there", name, value)
		}
	}
	if os.Getenv("LISTEN_ADDRESS") != ":80" {
		t.Error("LISTEN_ADDRESS is gone")
	}
	if again := sdnotify.TakeEnvironment(); again != (sdnotify.Environment{PID: os.Getpid()}) {
		t.Errorf("taken twice: %+v", again)
	}
}

func TestWatchdog(t *testing.T) {
	tests := []struct {
		usec, pid string
		want      time.Duration
		ok        bool
	}{
		{"", "", 0, true},
		{"", "7", 0, true},
		{"10000000", "", 10 * time.Second, true},
		{"10000000", "99", 10 * time.Second, true},
		{"10000000", "7", 0, true},
		{"9223372036854775", "99", math.MaxInt64 / 1000 * 1000, true},
		{"9223372036854776", "99", 0, false},
		{"18446744073709551615", "99", 0, false},
		{"0", "99", 0, false},
		{"-1", "99", 0, false},
		{"10s", "99", 0, false},
		{"10000000", "self", 0, false},
		{"10000000", "0", 0, false},
	}
	for _, test := range tests {
		env := sdnotify.Environment{PID: 99, WatchdogUSec: test.usec, WatchdogPID: test.pid}
		got, err := env.Watchdog()
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("usec %q, pid %q: got %v, %v, want %v", test.usec, test.pid, got, err, test.want)
		}
	}
}

func TestListenNames(t *testing.T) {
	tests := []struct {
		name            string
		pid, fds, names string
		want            []string
		ok              bool
	}{
		{"nothing", "", "", "", nil, true},
		{"no pid", "", "1", "http", nil, true},
		{"another's", "7", "1", "http", nil, true},
		{"another's, whatever it says", "7", "many", "", nil, true},
		{"no count", "99", "", "", nil, true},
		{"one", "99", "1", "http", []string{"http"}, true},
		{"same name", "99", "2", "http:http", []string{"http", "http"}, true},
		{"no names", "99", "2", "", []string{"unknown", "unknown"}, true},
		{"empty name", "99", "3", "a::c", []string{"a", "unknown", "c"}, true},
		{"names too few", "99", "2", "http", nil, false},
		{"names too many", "99", "1", "http:https", nil, false},
		{"zero", "99", "0", "", nil, false},
		{"negative", "99", "-1", "", nil, false},
		{"not a number", "99", "one", "", nil, false},
		{"far too many", "99", "2147483647", "", nil, false},
		{"too long", "99", "99999999999999999999", "", nil, false},
		{"pid not a number", "self", "1", "", nil, false},
		{"pid zero", "0", "1", "", nil, false},
	}
	for _, test := range tests {
		env := sdnotify.Environment{PID: 99, ListenPID: test.pid, ListenFDs: test.fds, ListenFDNames: test.names}
		got, err := env.ListenNames()
		if !slices.Equal(got, test.want) || (err == nil) != test.ok {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}

// FuzzEnvironment reads any environment: no panic, nothing of a manager's
// survives Scrub and nothing else is lost, and where go-systemd sees a watchdog
// so do we.
func FuzzEnvironment(f *testing.F) {
	f.Add(strings.Join(managers, "\x00"), 2)
	f.Add(strings.Join(users, "\x00"), 1)
	f.Add("LISTEN_PID=5\x00LISTEN_FDS=2\x00LISTEN_FDNAMES=a:b\x00LISTEN_FDS=3", 5)
	f.Add("LISTEN_PID=5\x00LISTEN_FDS=1000000\x00LISTEN_PIDFDID=x", 5)
	f.Add("WATCHDOG_USEC=3000000\x00WATCHDOG_PID=5\x00JOURNAL_STREAM=8:1", 5)
	f.Fuzz(func(t *testing.T, text string, pid int) {
		environ := strings.Split(text, "\x00")
		env := sdnotify.ParseEnvironment(environ, pid)
		scrubbed := sdnotify.Scrub(environ)
		if got := sdnotify.ParseEnvironment(scrubbed, pid); got != (sdnotify.Environment{PID: pid}) {
			t.Errorf("left after scrub: %+v", got)
		}
		kept := slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
			name, _, _ := strings.Cut(entry, "=")
			return slices.ContainsFunc(managers, func(m string) bool { return strings.HasPrefix(m, name+"=") })
		})
		if !slices.Equal(scrubbed, kept) {
			t.Errorf("got %q, want %q", scrubbed, kept)
		}
		if got := parseAgain(env); got != env {
			t.Errorf("round trip: got %+v, want %+v", got, env)
		}
		if names, err := env.ListenNames(); err != nil && names != nil || slices.Contains(names, "") {
			t.Errorf("names %q, %v", names, err)
		}
		if d, err := env.Watchdog(); d < 0 || err != nil && d != 0 {
			t.Errorf("watchdog %v, %v", d, err)
		}
		sdnotify.JournalStream(env, 0)
		compareWatchdog(t, env)
	})
}

// parseAgain writes an environment as a list and reads it, by the table above.
func parseAgain(env sdnotify.Environment) sdnotify.Environment {
	var environ []string
	from, names := reflect.ValueOf(env), reflect.ValueOf(managersParsed)
	for _, entry := range managers {
		name, value, _ := strings.Cut(entry, "=")
		for i := range names.NumField() {
			if names.Field(i).Kind() == reflect.String && names.Field(i).String() == value {
				environ = append(environ, name+"="+from.Field(i).String())
			}
		}
	}
	return sdnotify.ParseEnvironment(environ, env.PID)
}

// compareWatchdog asks go-systemd about the same variables, for this process.
func compareWatchdog(t *testing.T, env sdnotify.Environment) {
	if strings.HasPrefix(env.WatchdogUSec, "+") || strings.HasPrefix(env.WatchdogPID, "+") {
		return // go-systemd takes a sign; systemd writes none
	}
	t.Setenv("WATCHDOG_USEC", env.WatchdogUSec)
	t.Setenv("WATCHDOG_PID", env.WatchdogPID)
	env.PID = os.Getpid()
	want, wantErr := daemon.SdWatchdogEnabled(false)
	got, err := env.Watchdog()
	if err == nil && (wantErr != nil || got != want) {
		t.Errorf("usec %q, pid %q: got %v, go-systemd %v, %v", env.WatchdogUSec, env.WatchdogPID, got, want, wantErr)
	}
	if err != nil && wantErr == nil && want > 0 && len(env.WatchdogUSec) < 16 {
		t.Errorf("usec %q, pid %q: got %v, go-systemd %v", env.WatchdogUSec, env.WatchdogPID, err, want)
	}
}
