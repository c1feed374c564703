// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"os"
	"os/exec"
	"testing"
)

// What runs tasks decides as the fleet decides of slots: it is given the runs that package
// fleet has played, and must come to the same delays, failures and ends.
func TestTasksHaveThePolicyOfSlots(t *testing.T) {
	golden, err := os.Open("../fleet/testdata/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	policy, err := modules.ReadFile("prefork_tasks/policy.py")
	if err != nil {
		t.Fatal(err)
	}
	forEachPython(t, func(t *testing.T, python string) {
		if _, err := golden.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(python, "-c", string(policy)+comparison)
		cmd.Stdin = golden
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "same\n" {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

const comparison = `
import json, sys
for case in json.load(sys.stdin):
    record = Record(case["policy"])
    record.may_start(case["steps"][0]["now"])
    for step in case["steps"]:
        record.started = step["now"]
        if record.starts:
            record.starts[-1] = step["now"]
        now = step["now"] + step["lived"]
        ready = step["ready"] if step["ready"] >= 0 else None
        delay = record.after(now, step["result"], ready, lambda d: step["jitter"])
        state = "waiting" if delay is not None else "exited" if step["result"] == "success" else "failed"
        got = (state, delay or 0, record.failures)
        want = (step["state"], step["delay"], step["row"])
        assert got == want, (case["policy"], step, got)
        if delay is not None:
            assert record.may_start(now + delay) != step["hit"], (case["policy"], step, "start limit")
print("same")
`
