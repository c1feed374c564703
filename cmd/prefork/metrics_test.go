// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// monitored puts [metrics] before a fleet file, and returns where it listens.
func monitored(t *testing.T, file string) (address, with string) {
	t.Helper()
	address = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	return address, fmt.Sprintf("[metrics]\nlisten = %q\n%s", address, file)
}

// ask makes a request as an orchestrator does, each on a connection of its own.
func ask(t *testing.T, client *http.Client, address, path, accept string) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

var plainClient = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// probe is the status of a path, 0 if nobody answers; and what is said.
func probe(t *testing.T, address, path string) (int, string) {
	t.Helper()
	status, body, _ := ask(t, plainClient, address, path, "*/*") // an error is the status 0
	return status, body
}

// value is that of one line of /metrics; it fails if there is none.
func value(t *testing.T, address, series string) float64 {
	t.Helper()
	status, text, err := ask(t, plainClient, address, "/metrics", "*/*")
	if err != nil || status != 200 {
		t.Fatalf("/metrics: %d, %v", status, err)
	}
	return valueIn(t, text, series)
}

func valueIn(t *testing.T, text, series string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in\n%s", series, text)
	return 0
}

const metricsFleet = `
[floor]
path = ["DIR"]
preload = ["app"]
[socket.http]
listen = "DIR/http.sock"
[worker.web]
entry = "app:serve"
count = 2
sockets = ["http"]
restart_sec = "1ms"
[worker.sleep]
exec = ["sleep", "987654"]
restart_sec = "10min"
restart_max_delay_sec = "10min"
`

// TestMetrics: what happens to a fleet can be seen in what a machine reads of it.
func TestMetrics(t *testing.T) {
	address, file := monitored(t, metricsFleet)
	r := start(t, file)
	r.waitReady()

	if status, body := probe(t, address, "/readyz"); status != 200 || body != "3/3 ready\n" {
		t.Errorf("/readyz: %d, %s", status, body)
	}
	for series, want := range map[string]float64{
		`prefork_fleet_info{fleet="fleet"}`:                                        1,
		`prefork_fleet_ready`:                                                      1,
		`prefork_slots{worker="web",state="ready"}`:                                2,
		`prefork_slots{worker="web",state="waiting"}`:                              0,
		`prefork_slots{worker="sleep",state="ready"}`:                              1,
		`prefork_slot_restarts_total{worker="web",slot="web.0"}`:                   0,
		`prefork_restarts_total{worker="web",result="signal"}`:                     0,
		`prefork_floor_generation`:                                                 1,
		`prefork_log_lines_lost_total`:                                             0,
		`prefork_notifications_dropped_total`:                                      0,
		`prefork_slot_next_start_timestamp_seconds{worker="sleep",slot="sleep.0"}`: 0,
	} {
		if got := value(t, address, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}

	for _, series := range []string{
		`prefork_slot_memory_private_bytes{worker="web",slot="web.0"}`, `prefork_slot_memory_shared_bytes{worker="web",slot="web.0"}`,
		`prefork_slot_memory_private_bytes{worker="sleep",slot="sleep.0"}`, `prefork_floor_memory_bytes`, `prefork_spawn_duration_seconds_sum`,
	} {
		if got := value(t, address, series); got <= 0 {
			t.Errorf("%s is %v", series, got)
		}
	}
	if got := value(t, address, `prefork_spawn_duration_seconds_count`); got != 3 {
		t.Errorf("%v slots were started, want 3", got)
	}

	kill(t, r.child("prefork: web.1").pid, syscall.SIGKILL)
	r.eventually("web.1 was restarted", func() bool {
		return value(t, address, `prefork_slot_restarts_total{worker="web",slot="web.1"}`) == 1 &&
			value(t, address, `prefork_slots{worker="web",state="ready"}`) == 2
	})
	for result, want := range map[string]float64{"signal": 1, "exit-code": 0} {
		if got := value(t, address, fmt.Sprintf(`prefork_restarts_total{worker="web",result=%q}`, result)); got != want {
			t.Errorf("%v restarts after %s, want %v", got, result, want)
		}
	}
	kill(t, r.child("sleep 987654").pid, syscall.SIGKILL)
	r.eventually("sleep.0 waits", func() bool { return value(t, address, `prefork_slots{worker="sleep",state="waiting"}`) == 1 })
	if got := value(t, address, `prefork_slot_failures{worker="sleep",slot="sleep.0"}`); got != 1 {
		t.Errorf("%v failures in a row, want 1", got)
	}
	if got := value(t, address, `prefork_slot_next_start_timestamp_seconds{worker="sleep",slot="sleep.0"}`); got < 1e9 {
		t.Errorf("next start at %v", got)
	}
	if status, body := probe(t, address, "/readyz"); status != 200 || !strings.HasPrefix(body, "2/3 ready; sleep.0 restarts in ") {
		t.Errorf("/readyz with a slot that waits: %d, %s", status, body)
	}
}

// tool finds a program that packaging/test provides.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is needed when CI=true: %v", name, err)
	default:
		t.Skipf("%s is not in PATH; packaging/test as root on Debian provides it", name)
	}
	return path
}

var sampleLine = regexp.MustCompile(`(?m)^([^#].*)$`)

// TestPromtoolReadsMetrics holds what a fleet exposes against Prometheus's own
// parsers and rules. That for OpenMetrics wants to import samples, which must have
// timestamps.
func TestPromtoolReadsMetrics(t *testing.T) {
	promtool, curl := tool(t, "promtool"), tool(t, "curl")
	address, file := monitored(t, metricsFleet)
	r := start(t, file)
	r.waitReady()
	get := func(accept string) string {
		out, err := exec.Command(curl, "--silent", "--show-error", "--fail", "--header", "Accept: "+accept, "http://"+address+"/metrics").Output()
		if err != nil {
			t.Fatalf("curl: %v", err)
		}
		return string(out)
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(get("*/*"))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	imported := t.TempDir() + "/openmetrics"
	if err := os.WriteFile(imported, []byte(sampleLine.ReplaceAllString(get("application/openmetrics-text"), "$1 1700000000")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "tsdb", "create-blocks-from", "openmetrics", imported, t.TempDir()).CombinedOutput(); err != nil {
		t.Errorf("promtool does not read OpenMetrics: %v\n%s", err, out)
	}
}

// TestReadinessOfAFleetThatStops: who drains gets no new traffic, and is alive.
func TestReadinessOfAFleetThatStops(t *testing.T) {
	address, file := monitored(t, `
[floor]
path = ["DIR"]
preload = ["app"]
[worker.stubborn]
entry = "app:stubborn"
timeout_stop_sec = "infinity"
`)
	r := start(t, file)
	r.waitReady()
	pid := r.waitNotes(1)[0].PID
	r.signal(syscall.SIGTERM)
	r.eventually("/readyz says that it stops", func() bool {
		status, body := probe(t, address, "/readyz")
		return status == 503 && strings.HasPrefix(body, "stopping: ")
	})
	if status, _ := probe(t, address, "/healthz"); status != 200 {
		t.Errorf("/healthz of a fleet that stops: %d", status)
	}
	kill(t, pid, syscall.SIGKILL)
	if code := r.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if status, _ := probe(t, address, "/readyz"); status != 0 {
		t.Errorf("after the end: %d", status)
	}
}

// TestReadinessBeforeAFleetIsReady: alive from the start, ready when ready_when
// holds.
func TestReadinessBeforeAFleetIsReady(t *testing.T) {
	address, file := monitored(t, `
[worker.late]
exec = ["sleep", "987655"]
type = "notify"
`)
	r := start(t, file)
	r.eventually("/readyz says what is missing", func() bool {
		status, body := probe(t, address, "/readyz")
		return status == 503 && strings.HasPrefix(body, "0/1 ready")
	})
	if status, body := probe(t, address, "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d, %s", status, body)
	}
	if got := value(t, address, "prefork_fleet_ready"); got != 0 {
		t.Errorf("prefork_fleet_ready is %v", got)
	}
}

// TestMetricsNeverReachWorkers: neither the socket nor who is connected to it.
func TestMetricsNeverReachWorkers(t *testing.T) {
	address, file := monitored(t, lookFleet)
	r := prepare(t, file)
	r.write("env", "")
	r.start()
	first := r.waitNotes(2)
	for range 4 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // a test's
	}
	if status, _ := probe(t, address, "/healthz"); status != 200 { // those before it have been accepted
		t.Fatalf("/healthz: %d", status)
	}
	r.wantCloseOnExec()
	for _, n := range first {
		kill(t, n.PID, syscall.SIGKILL)
	}
	for _, n := range r.waitNotes(4) {
		checkFDs(t, n)
	}
}

func TestMetricsAddressInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // a test's
	r := start(t, fmt.Sprintf("[metrics]\nlisten = %q\n[worker.a]\nexec = [\"true\"]\n", listener.Addr()))
	if code := r.wait(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	want := fmt.Sprintf("%s:2: metrics.listen: %s: bind: address already in use; listen elsewhere", r.path("fleet.toml"), listener.Addr())
	r.eventually("the log says where and what to do", func() bool { return strings.Contains(r.logged(), want) })
	if want := fmt.Sprintf("ERRNO=%d", unix.EADDRINUSE); !slices.Contains(r.notifications(), want) {
		t.Errorf("%s was not sent: %v", want, r.notifications())
	}
}

// wantCloseOnExec: no socket of the master outlives an exec, as the flags in
// /proc/PID/fdinfo/FD say (proc_pid_fdinfo(5)). Other descriptors may be those that
// whoever runs the tests has left open.
func (r *rig) wantCloseOnExec() {
	r.t.Helper()
	for _, fd := range r.fdTable() {
		number, target, _ := strings.Cut(fd, " ")
		if !strings.HasPrefix(target, "socket:") || len(number) == 1 && number < "3" {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", r.pid(), number))
		if err != nil {
			continue // closed since
		}
		flags, err := strconv.ParseInt(one(r.t, string(info), `^flags:\s*(\d+)$`), 8, 64)
		if err != nil || flags&unix.O_CLOEXEC == 0 {
			r.t.Errorf("descriptor %s: flags %o, %v", fd, flags, err)
		}
	}
}
