// SPDX-License-Identifier: AGPL-3.0-or-later

package floorreport

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/decnet/prefork/supervisor/examine"
)

// Whatever a floor has and is named, the report has no line that is too long, and says each
// thing once.
func TestAReportFits(t *testing.T) {
	long := strings.Repeat("long.", 40) + "name"
	by := examine.Origin{During: "app > " + long, Where: "/opt/" + long + ".py:7"}
	r := &examine.Report{
		Fleet: "edge", File: "/etc/prefork/edge.toml", Python: "3.14.8", User: "prefork", Directory: "/", Cause: "workers would share " + long,
		Notes: []string{"a note of many words " + strings.Repeat("and words ", 20)}, Stuck: []string{`File "/opt/` + long + `.py", line 3 in wait`},
		Modules: []examine.Module{{
			Name: "app", Seconds: 2, Memory: 100 << 20, Count: 3, Modules: []examine.Module{
				{Name: long, Seconds: 1.5, Memory: -5 << 10, Count: 1, Failed: true}, {Name: "small", Seconds: 0.001, Count: 1},
			},
		}},
		Threads: []examine.Thread{{ID: 7, Name: "flusher (threading)", Origin: by}},
		Descriptors: []examine.Descriptor{
			{Number: 4, Target: "socket:[1]", Verdict: examine.Shared, Origin: examine.Origin{During: "loop"}},
			{Number: 5, Target: "anon_inode:[eventpoll]", Verdict: examine.Shared, Origin: examine.Origin{During: "loop"}},
			{Number: 6, Target: "/run/lock", Verdict: examine.Shared, Locked: true, Origin: by},
			{Number: 7, Target: "/var/db", Verdict: examine.Spoiled, Origin: by},
			{Number: 8, Target: "/etc/hosts", Verdict: examine.Fine, Origin: by},
		},
		Loops:     []examine.Loop{{Class: "asyncio.Loop", Origin: examine.Origin{During: "loop"}}, {Class: "asyncio.Closed", Closed: true}},
		Processes: []examine.Process{{Command: "sleep", Origin: by}},
		Devices:   []examine.Device{{Path: "/usr/lib/libcuda.so.1", Origin: by}},
		ForkHooks: []examine.ForkHook{{Module: "logging", Before: 1, Parent: 1, Child: 1, ChildSeconds: 0.006}, {Module: long, Child: 2}},
		Changes:   []examine.Change{{What: "umask", Before: "0022", After: "0077", Origin: by}, {What: "environment X", After: "set", Kept: true, Origin: by}},
		Entries: []examine.Entry{
			{Worker: "web", Entry: "app:serve", Preloaded: true},
			{Worker: "io", Entry: "app:lifespan", Preloaded: true},
			{Worker: "io", Entry: "app:poll", Preloaded: true},
			{Worker: "late", Entry: "late:run", Count: 9, Memory: 4 << 20, Modules: strings.Split("a b c d e f g h i", " ")},
			{Worker: "bad", Entry: "bad:run", Error: "ImportError: " + long},
		},
		Memory: &examine.Memory{Worker: "web", Slots: 7, Samples: 5, Rows: []examine.Row{
			{AsFile: true, Warm: true, GCFreeze: true, Birth: 1200 << 10, Entry: 1 << 30, Worked: 5 << 20},
			{Immortal: true, GCFreeze: true, Error: "it needs CPython 3.12"},
			{Advised: true, GCFreeze: true, Birth: 600 << 10, WorkError: "ValueError: " + long},
		}},
		Advice: []examine.Advice{{Key: "floor.immortal", Value: "true", Text: "Would save 1.0 MB " + strings.Repeat("and more ", 20)}},
	}
	for _, width := range []int{80, 60, 200} {
		text := Text(r, width)
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > width || strings.TrimRight(line, " ") != line {
				t.Errorf("a line of %d characters of %d: %q", utf8.RuneCountInString(line), width, line)
			}
		}
	}
	text := Text(r, 80)
	for _, want := range []string{
		"edge: the fleet would refuse this floor: workers would share", "it was here when its time was over:", "thread flusher (threading)\n",
		"fd 6, /run/lock: locked", "fd 7, /var/db: workers would write over each other", "asyncio.Loop, and what belongs to it: fd 4, 5\n",
		"started a process: sleep", "libcuda.so.1 is mapped", "fd 8, /etc/hosts: workers have it, too, which does no harm\n", "logging", "6000\n", "umask: 0022, now 0077; workers have it as before",
		"environment X: not set, now set; workers have it so", "web, app:serve: nothing", "io, for 2 of its tasks and lifespan: nothing", "late, late:run: 9 modules, 4.0 MB", "bad, bad:run: ImportError",
		"  warm*  ", "  as advised  ", "1,048,576", "immortal: it needs CPython 3.12", "floor.immortal = true: Would save 1.0 MB",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q is not there once", want)
		}
	}
	for _, not := range []string{"small", "asyncio.Closed", "fd 5,"} {
		if strings.Contains(text, not) {
			t.Errorf("%q is there", not)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
