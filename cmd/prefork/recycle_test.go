// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// insistent is a worker that asks to be recycled all the time.
const insistent = `
[worker.asks]
entry = "web:insist"
environment = { BROKEN = "DIR/broken" }
roll = "start-first"
settle_sec = %q
`

// Slots are recycled for every reason there is, under load: no client notices, it is one
// slot after the other, a successor is ready before its predecessor is asked to stop, and
// nothing of it is a failure. Who asks all the time is recycled no more often than others.
func TestRecycleUnderLoad(t *testing.T) {
	c := startChanging(t)
	c.now.keys = "recycle_requests = 200\n"
	c.now.more = `
[worker.old]
exec = ["sleep", "987665"]
recycle_after = "10s"
settle_sec = 0
[worker.big]
entry = "web:grow"
recycle_private = "40M"
settle_sec = 0
` + fmt.Sprintf(insistent, "20ms")
	c.writeFile()
	began := time.Now()
	c.do("reload")
	were := c.pids()
	reasons := map[string]string{"web.0": "requests", "web.1": "requests", "old.0": "age", "big.0": "private", "asks.0": "asked"}
	c.eventually("a recycling of each", func() bool {
		c.pids() // for all that there have been
		return !slices.ContainsFunc(c.look().Slots, func(s control.SlotStatus) bool {
			return s.Recycles[reasons[s.Name]] == 0 && s.Name != "job.0"
		})
	})
	f := c.look()
	took := time.Since(began)
	c.check(t, "recycling")
	for _, s := range f.Slots {
		reason := reasons[s.Name]
		recycled := reason != ""
		if (s.MainPID != were[s.Name]) != recycled || s.NRestarts != 0 || s.Failures != 0 || uint64(s.NRecycles) != s.Recycles[reason] {
			t.Errorf("it was %d: %+v", were[s.Name], s)
		}
		if most := uint32(took/policy.MinRecycleAge) + 1; s.NRecycles > most {
			t.Errorf("%s was recycled %d times within %s", s.Name, s.NRecycles, took)
		}
	}
	if f.Revision != 2 || f.LastChange != 1 || f.LastChangeResult != "done" {
		t.Errorf("they count as changes: %+v", f)
	}
	log := c.logged()
	oneByOne(t, log)
	for _, want := range []string{
		`web\.0: recycled: after 200 requests \(recycle_requests\); takes the place of pid`,
		`old\.0: recycled: after 10s \(recycle_after\)`,
		`big\.0: recycled: [67]\d(\.\d)?M private, \d+s after it was ready \(recycle_private = 40M: too low\?\)`,
		`asks\.0: recycled: its process has asked for it; takes the place of pid`,
	} {
		if !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("not in the log: %s", want)
		}
	}
	out, _, _ := c.try("why", "old.0")
	for _, want := range []string{"why: recycled: after 10s (recycle_after)", " in all, ", " for age\n", "is recycled in "} {
		if !strings.Contains(out, want) {
			t.Errorf("why says\n%s\nwant %q", out, want)
		}
	}
}

// oneByOne reads in a log that each recycling had ended when the next one began, and that
// processes of web were asked to stop when their successors were ready.
func oneByOne(t *testing.T, log string) {
	t.Helper()
	begins := regexp.MustCompile(`(\S+): is being recycled: `)
	ends := regexp.MustCompile(`(\S+): (recycled: |not recycled |is recycled later )`)
	recycles := ""
	ready := map[string]bool{}
	for line := range strings.Lines(log) {
		if m := begins.FindStringSubmatch(line); m != nil {
			if recycles != "" {
				t.Errorf("%s is recycled while %s is", m[1], recycles)
			}
			recycles, ready[m[1]] = m[1], false
		}
		if strings.Contains(line, recycles+": starting -> ready") {
			ready[recycles] = true
		}
		if recycles != "" && recycles != "old.0" && strings.Contains(line, recycles+": ready -> stopping: was replaced") && !ready[recycles] {
			t.Errorf("%s was stopped before its successor was ready", recycles)
		}
		if m := ends.FindStringSubmatch(line); m != nil {
			recycles = ""
		}
	}
}

// What an operator wants comes first; a successor that fails leaves the process that
// serves; and nothing is left of either when the master is killed.
func TestRecycleThatComesToNothing(t *testing.T) {
	c := startChanging(t)
	settle := func(span, worker string) {
		c.now.more = strings.ReplaceAll(fmt.Sprintf(insistent, span), "worker.asks", "worker."+worker)
		c.writeFile()
		c.do("reload")
	}
	settle("10ms", "asks")
	settle("1h", "asks")
	old := c.pids()["asks.0"]
	settles := func(slot string) func() bool {
		return func() bool { return c.look().ChangeKind == "recycle" && c.slot(slot).SuccessorState == "ready" }
	}
	c.eventually("a successor that settles", settles("asks.0"))
	successor := int(c.slot("asks.0").SuccessorPID)
	settle("10ms", "asks") // waits for its end: the recycling does not go on for an hour
	c.eventually("the end of the successor", func() bool { return !alive(successor) })
	c.eventually("a recycling after all", func() bool { return c.slot("asks.0").NRecycles == 1 && c.slot("asks.0").MainPID != old })

	c.write("broken", "")
	now := c.pids()["asks.0"]
	c.eventually("a successor that fails", func() bool { return strings.Contains(c.logged(), "asks.0: not recycled") })
	s := c.slot("asks.0")
	if s.MainPID != now || s.State != "ready" || s.NRecycles != 1 || s.NRestarts != 0 || !alive(int(now)) {
		t.Errorf("it was %d: %+v", now, s)
	}
	if want := "not recycled (its process has asked for it): failed: exited with status 3"; !strings.Contains(s.Reason, want) {
		t.Errorf("the reason is %q, want %q in it", s.Reason, want)
	}
	c.check(t, "all of it")

	if err := os.Remove(c.path("broken")); err != nil {
		t.Fatal(err)
	}
	settle("10ms", "insists") // a worker that has not failed yet
	settle("1h", "insists")
	c.eventually("a successor that settles", settles("insists.0"))
	c.end()
	var left []int
	for _, p := range c.children("") {
		left = append(left, p.pid)
	}
	c.signal(unix.SIGKILL)
	c.rig.wait()
	c.eventually("nothing is left", func() bool { return !slices.ContainsFunc(left, alive) })
}
