// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/policy"
)

// textOf is what a slot has of one text, by whatever way it comes to it.
func textOf(t *testing.T, text string, index, count int, host fleetfile.Host) (string, error) {
	t.Helper()
	file := "[worker.my-w]\nexec = [\"x\", " + text + "]\nenvironment = { A = " + text + " }\n" +
		"[floor]\n[worker.e]\nentry = \"a:b\"\nargs = [[" + text + "]]\nkwargs = { a = [{ b = " + text + " }] }\n"
	f, err := fleetfile.Parse("edge", "/etc/f.toml", []byte(file), host)
	if err != nil {
		return "", err
	}
	w, e := f.Workers[0].Of(index, count), f.Workers[1].Of(index, count)
	own := strings.ReplaceAll(w.Exec[1], "my-w", "e")
	if w.Environment["A"] != w.Exec[1] || !reflect.DeepEqual(e.Args, []any{[]any{own}}) ||
		!reflect.DeepEqual(e.Kwargs, map[string]any{"a": []any{map[string]any{"b": own}}}) {
		t.Errorf("%s: exec %q, environment %q, args %q, kwargs %q", text, w.Exec, w.Environment, e.Args, e.Kwargs)
	}
	if f.Workers[0].Exec[1] == w.Exec[1] != !strings.Contains(f.Workers[0].Exec[1], "%") {
		t.Errorf("%s: the worker was changed, or the slot was not: %q", text, f.Workers[0].Exec)
	}
	return w.Exec[1], nil
}

func TestSpecifiers(t *testing.T) {
	for text, want := range map[string]string{
		`"plain"`: "plain", `"%i"`: "3", `"%w.%i/%c"`: "my-w.3/12", `"%p"`: "edge", `"%t/%p.sock"`: "/run/user/5%x/edge.sock",
		`"%%"`: "%", `"%%i"`: "%i", `"%%%i"`: "%3", `"%%%%"`: "%%", `"100%%"`: "100%", `"date +%%H:%%M"`: "date +%H:%M", `"é%ié"`: "é3é",
	} {
		if got, err := textOf(t, text, 3, 12, fleetfile.Host{Runtime: "/run/user/5%x"}); err != nil || got != want {
			t.Errorf("%s: got %q and %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`"date +%H"`: `there is no specifier "%H": known here are %i (index), %w (worker), %c (count), %p (fleet), %t (runtime directory) and %%; write "%%H" for a percent sign`,
		`"a%20b"`:    `there is no specifier "%2": `,
		`"%"`:        `ends in a lone %; write %% for a percent sign`,
		`"%%%"`:      `ends in a lone %; `,
		`"%é"`:       `there is no specifier "%é": `,
		`"% "`:       `there is no specifier "% ": `,
	} {
		_, err := textOf(t, text, 0, 0, fleetfile.Host{})
		if err == nil || strings.Count(err.Error(), want) != 4 || !strings.Contains(err.Error(), "worker.my-w.exec[1]: "+want) ||
			!strings.Contains(err.Error(), "worker.e.kwargs.a[0].b: "+want) {
			t.Errorf("%s: got %v, want %q four times", text, err, want)
		}
	}
}

// What has no slot knows the fleet and the host alone. It is expanded when the file is read.
func TestSpecifiersWithoutASlot(t *testing.T) {
	f := mustParse(t, "description = \"%p: 100%%\"\n[socket.s]\nlisten = [\"%t/%p.sock\", \"@a%%b\", \"[fe80::1%%lo]:80\"]\n"+
		"[metrics]\nlisten = \"%t/m%%.sock\"\n[defaults]\nworking_directory = \"%t/%w\"\n[worker.w]\nexec = [\"x\"]\n")
	listen := []string{}
	for _, a := range f.Sockets[0].Listen {
		listen = append(listen, a.Text)
	}
	if want := []string{"/run/test.sock", "@a%b", "[fe80::1%lo]:80"}; f.Description != "test: 100%" || !slices.Equal(listen, want) ||
		f.Metrics.Listen.Unix != "/run/m%.sock" || f.Workers[0].WorkingDirectory != "/run/w" {
		t.Errorf("got %q, %q, %q, %q", f.Description, listen, f.Metrics.Listen.Unix, f.Workers[0].WorkingDirectory)
	}
	e := wantError(t, "[socket.s]\nlisten = [\"80\",\n\"/run/%i.sock\"]", 3, "socket.s.listen[1]")
	if want := `only a slot has %i (index): known here are %p (fleet), %t (runtime directory) and %%; write "%%i" for a percent sign`; e.Text != want {
		t.Errorf("got %s, want %s", e.Text, want)
	}
}

// What stands elsewhere is what it says.
func TestWhereNoSpecifiersAre(t *testing.T) {
	f := mustParse(t, "[floor]\nenv = { A = \"%i %\" }\nsetup = \"a:b\"\n[worker.w]\nexec = [\"x\"]\nenvironment_file = \"/etc/%i\"\ncpu_quota = \"50%\"")
	if w := &f.Workers[0]; f.Floor.Env["A"] != "%i %" || w.EnvironmentFiles[0].Path != "/etc/%i" || w.Of(1, 2) != w {
		t.Errorf("got %q, %v", f.Floor.Env, w.EnvironmentFiles)
	}
}

// A program in the folder of the file is found there, whatever the name of that folder; a
// name alone is looked for in PATH.
func TestRelativePrograms(t *testing.T) {
	for exec, want := range map[string]string{
		"./run.sh": "/srv/100%/run.sh", "bin/x": "/srv/100%/bin/x", "../x": "/srv/x", "bin/%w-%i": "/srv/100%/bin/w-1",
		"x": "x", "/x/../y": "/x/../y", "%t/x": "/run/x",
	} {
		f, err := fleetfile.Parse("f", "/srv/100%/f.toml", []byte("[worker.w]\nexec = [\""+exec+"\", \"./a\"]"), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Workers[0].Of(1, 2).Exec; !slices.Equal(got, []string{want, "./a"}) {
			t.Errorf("%s: got %q, want %q", exec, got, want)
		}
	}
}

// countsOf are the counts of the workers of a file on a host.
func countsOf(t *testing.T, host fleetfile.Host, text string) (counts map[string]int, why map[string]string, err error) {
	t.Helper()
	f, err := fleetfile.Parse("f", "/f.toml", []byte(strings.ReplaceAll(text, "; ", "\nexec = [\"x\"]\n")+"\nexec = [\"x\"]\n"), host)
	if err != nil {
		return nil, nil, err
	}
	counts, why = map[string]int{}, map[string]string{}
	for _, w := range f.Workers {
		counts[w.Name], why[w.Name] = w.Count, w.CountFrom
	}
	return counts, why, nil
}

func TestCountsOfProcessors(t *testing.T) {
	for _, c := range []struct {
		host fleetfile.Host
		want int
		why  string
	}{
		{fleetfile.Host{}, 3, "2*cpu+1 with 1 processor"},
		{fleetfile.Host{Affinity: 4}, 9, "2*cpu+1 with 4 processors"},
		{fleetfile.Host{Affinity: 4, Quota: 1.5}, 5, "2*cpu+1 with 2 processors (4 by affinity, 1.5 by cpu.max)"},
		{fleetfile.Host{Affinity: 4, Quota: 2}, 5, "2*cpu+1 with 2 processors (4 by affinity, 2 by cpu.max)"},
		{fleetfile.Host{Affinity: 4, Quota: 0.01}, 3, "2*cpu+1 with 1 processor (4 by affinity, 0.01 by cpu.max)"},
		{fleetfile.Host{Affinity: 4, Quota: 400}, 9, "2*cpu+1 with 4 processors (4 by affinity, 400 by cpu.max)"},
	} {
		counts, why, err := countsOf(t, c.host, "[worker.w]\ncount = \"2*cpu+1\"")
		if err != nil || counts["w"] != c.want || why["w"] != c.why {
			t.Errorf("%+v: got %v, %v, %v; want %d, %s", c.host, counts, why, err, c.want, c.why)
		}
	}
	counts, why, err := countsOf(t, fleetfile.Host{Affinity: 8}, "[defaults]\ncount = \"cpu\"\n[worker.a]; [worker.b]\ncount = 2")
	if err != nil || !maps.Equal(counts, map[string]int{"a": 8, "b": 2}) || why["b"] != "" {
		t.Errorf("defaults: got %v, %q, %v", counts, why, err)
	}
	// Two files of which one says the number that the other comes to are the same fleet.
	same := func(count string) policy.Config {
		f, err := fleetfile.Parse("f", "/f.toml", []byte("[worker.w]\nexec = [\"x\"]\ncount = "+count), fleetfile.Host{Affinity: 2})
		if err != nil {
			t.Fatal(err)
		}
		return f.Config(nil, nil)
	}
	if plan := policy.Difference(same("4"), same(`"2*cpu"`)); !plan.Empty() {
		t.Errorf("%s", plan.String())
	}
}

func TestCountsOfTheEnvironment(t *testing.T) {
	set := func(variables ...string) fleetfile.Host {
		h := fleetfile.Host{Affinity: 2, Counts: map[string]string{}}
		for _, v := range variables {
			name, value, _ := strings.Cut(v, "=")
			h.Counts[fleetfile.CountPrefix+name] = value
		}
		return h
	}
	const two = "[worker.my-web]\ncount = 3; [worker.mail]"
	for _, c := range []struct {
		host   fleetfile.Host
		counts string // of my-web and mail, or the error
	}{
		{set("MY_WEB=5"), "5 1"},
		{set("MY_WEB=0", "MAIL=2*cpu"), "0 4"},
		{set("MY_WEB=", "OTHER=many", "my_web=7", "MY-WEB=7"), "3 1"},
		{set("MY_WEB=x"), `/f.toml:2: worker.my-web.count: the variable PREFORK_COUNT_MY_WEB of the environment, which overrides count, must be a whole number from 0 to 10000, "cpu" or "2*cpu+1", not "x"; set it to 4, for example, or unset it`},
		{set("MAIL=-1"), `/f.toml:4: worker.mail: the variable PREFORK_COUNT_MAIL of the environment, which overrides count, must be`},
		{set("MAIL=10001"), `must be at most 10000, not 10001; set it to 4`},
		{set("MAIL=9999"), `a fleet can have at most 10000 slots`},
	} {
		counts, _, err := countsOf(t, c.host, two)
		got := fmt.Sprint(counts["my-web"], counts["mail"])
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.counts) {
			t.Errorf("%v: got %s, want %s", c.host.Counts, got, c.counts)
		}
	}
	both := "[worker.a-b]; [worker.A_b]"
	if _, _, err := countsOf(t, set(), both); err != nil {
		t.Errorf("a variable that is not set: %v", err)
	}
	if _, _, err := countsOf(t, set("A_B=2"), both); err == nil || !strings.Contains(err.Error(), "would be for the workers a-b and A_b; rename one of them") {
		t.Errorf("a variable of two workers: %v", err)
	}
	f, err := fleetfile.Parse("f", "/f.toml", []byte("[worker.w]\nexec = [\"x\"]"), set("Z=1", "V=2", "W=3", "EMPTY="))
	if err != nil || !slices.Equal(f.Strays, []string{"PREFORK_COUNT_V", "PREFORK_COUNT_Z"}) || f.CountVariables() != "PREFORK_COUNT_W" {
		t.Errorf("strays: got %q, %v", f.Strays, err)
	}
}

// Who says only how long a restart is put off at most means that; and the other way round.
func TestDelaysGiveWayToTheOneThatIsGiven(t *testing.T) {
	for text, want := range map[string][2]time.Duration{
		"restart_max_delay_sec = \"200ms\"":                    {200 * time.Millisecond, 200 * time.Millisecond},
		"restart_max_delay_sec = \"2s\"":                       {time.Second, 2 * time.Second},
		"restart_sec = \"1min\"":                               {time.Minute, time.Minute},
		"restart_sec = \"2s\"\nrestart_max_delay_sec = \"2s\"": {2 * time.Second, 2 * time.Second},
	} {
		f := mustParse(t, "[floor]\n[worker.w]\ntasks = { t = \"a:b\" }\n"+text+"\n[worker.v.tasks.t]\nentry = \"a:b\"\n"+text)
		for _, p := range []policy.Policy{f.Workers[0].Policy, f.Workers[0].Tasks[0].Policy, f.Workers[1].Tasks[0].Policy} {
			if p.RestartSec != want[0] || p.RestartMaxDelay != want[1] {
				t.Errorf("%s: got %s and %s, want %s", text, p.RestartSec, p.RestartMaxDelay, want)
			}
		}
	}
}

func TestASizeInOtherWordsIsTold(t *testing.T) {
	for text, want := range map[string]string{
		`"200 MB"`: `must be a size or "infinity", not "200 MB"; write memory_max = "200M"`,
		`"1.5gib"`: `; write memory_max = "1.5G"`, `"512mb"`: `; write memory_max = "512M"`, `"lots"`: `; write memory_max = "1.5G", for example`,
	} {
		if e := wantError(t, "[worker.w]\nexec = [\"x\"]\nmemory_max = "+text, 3, "worker.w.memory_max"); !strings.HasSuffix(e.Text, want) {
			t.Errorf("got %s, want %s", e.Text, want)
		}
	}
}
