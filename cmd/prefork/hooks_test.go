// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"os"
	"strings"
	"testing"
)

// TestHookOfAForkCostsItsWorkerOnly has a hook in the child hang, end the process,
// and start a thread, while a file says so. The slot that gets such a worker is tried
// again, by name and by its own deadline; the floor is not loaded anew, another
// worker serves on, and nothing is left of those that did not start.
func TestHookOfAForkCostsItsWorkerOnly(t *testing.T) {
	const module = `
import os, signal, threading, time
def hook():
    try:
        how = open(os.environ["OUT"] + ".how").read()
    except OSError:
        return
    if how == "hang":
        time.sleep(100000)
    elif how == "exit":
        os._exit(7)
    elif how == "raise":
        raise LookupError("by a hook")
    elif how == "thread":
        threading.Thread(target=time.sleep, args=(100000,), daemon=True).start()
os.register_at_fork(after_in_child=hook)
def entry():
    signal.pause()
`
	for how, want := range map[string]string{
		"hang":   "web.0: starting -> stopping: did not start within 500ms (timeout_start_sec)",
		"exit":   "web.0: starting -> waiting: exit-code: exited with status 7",
		"raise":  "LookupError: by a hook",
		"thread": "web.0: starting -> ready: running, after 1 failure",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["hooks"]
spares = 0
[defaults]
restart = "always"
restart_sec = "1ms"
restart_max_delay_sec = "1ms"
[worker.calm]
entry = "hooks:entry"
[worker.web]
entry = "hooks:entry"
timeout_start_sec = "500ms"
`)
			r.write("hooks.py", module)
			r.start()
			r.waitReady()
			calm, web := r.child("prefork: calm.0 [fleet] gen 1").pid, r.child("prefork: web.0 [fleet] gen 1").pid
			if err := os.WriteFile(r.path("out.how"), []byte(how), 0o644); err != nil {
				t.Fatal(err)
			}
			kill(t, web, 9)
			r.eventually(want, func() bool { return strings.Contains(r.logged(), want) })
			if err := os.Remove(r.path("out.how")); err != nil {
				t.Fatal(err)
			}
			r.eventually("web.0 is ready again, and nothing else is there", func() bool {
				now := r.children("prefork: web.0 [fleet] gen 1")
				return len(now) == 1 && now[0].pid != web && len(r.children("")) == 3 // with calm.0 and the floor
			})
			if !alive(calm) || strings.Contains(r.logged(), "gen=2") {
				t.Errorf("the floor or another worker suffered:\n%s", r.logged())
			}
		})
	}
}
