// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import "testing"

// What a file names is looked for in what is loaded; all that is missing is told at once,
// with its place. Other modules are for the workers.
func TestNamesAreResolvedWithTheFloor(t *testing.T) {
	forEachPython(t, func(t *testing.T, python string) {
		app := module(t, "app", "number = 7\ndef setup():\n    globals()['made'] = setup\n")
		cause, _ := loadBroken(t, python, func(f *LoadRequest) {
			app(f)
			f.Setup = "app:setup"
			f.Python.Calls = []string{"/f:1: floor.setup app:setup", "/f:2: k app:made", "/f:3: l app:nosuch", "/a b:4: m app:number", "/f:5: n other:nosuch"}
		})
		const want = "/f:3: l: app:nosuch: module 'app' has no attribute 'nosuch'; /a b:4: m: app:number: app:number is of type int, which cannot be called"
		if cause != want {
			t.Errorf("got %q, want %q", cause, want)
		}
		cause, _ = loadBroken(t, python, func(f *LoadRequest) {
			app(f)
			f.Setup, f.Python.Calls = "app:nosuch", []string{"/f:1: floor.setup app:nosuch"}
		})
		if want := "/f:1: floor.setup: app:nosuch: module 'app' has no attribute 'nosuch'"; cause != want {
			t.Errorf("got %q, want %q", cause, want)
		}
	})
}
