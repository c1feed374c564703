// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each module is in the program once, after all that it imports from. What user code
// could replace comes from base.py alone, which has copies.
func TestTheProgramHasAllModules(t *testing.T) {
	entries, err := modules.ReadDir("prefork_zygote")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".py")
		if name != "__init__" && !slices.Contains(parts, name) {
			t.Errorf("%s is no part of the program", entry.Name())
		}
	}
	imports := regexp.MustCompile(`(?m)^from \.(\w+) import`)
	raw := regexp.MustCompile(`(?m)^import (os|time|_signal|_socket)$`)
	for i, name := range parts {
		text, err := modules.ReadFile("prefork_zygote/" + name + ".py")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range imports.FindAllSubmatch(text, -1) {
			if !slices.Contains(parts[:i], string(m[1])) {
				t.Errorf("%s imports from %s, which does not stand before it", name, m[1])
			}
		}
		if found := raw.FindString(string(text)); found != "" && name != "base" {
			t.Errorf("%s: %s, of which user code may have replaced parts: take it from .base", name, found)
		}
	}
	if left := regexp.MustCompile(`(?m)^ *(from|import) \.`).Find(Source()); left != nil {
		t.Errorf("the program has %q", left)
	}
}
