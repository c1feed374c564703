// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each module is in the program once, after all that it imports from. What user code
// could replace comes from base.py alone, which has copies.
func TestTheProgramHasAllModules(t *testing.T) {
	last := len(parts) - 1
	all := slices.Concat(parts[:last], []string{stepsPart, watchPart}, parts[last:])
	entries, err := modules.ReadDir("prefork_zygote")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".py")
		if name != "__init__" && !slices.Contains(all, name) {
			t.Errorf("%s is no part of the program", entry.Name())
		}
	}
	imports := regexp.MustCompile(`(?m)^from \.(\w+) import`)
	raw := regexp.MustCompile(`(?m)^import (os|time|_signal|_socket)$`)
	for i, name := range all {
		text, err := modules.ReadFile("prefork_zygote/" + name + ".py")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range imports.FindAllSubmatch(text, -1) {
			if !slices.Contains(all[:i], string(m[1])) {
				t.Errorf("%s imports from %s, which does not stand before it", name, m[1])
			}
		}
		if found := raw.FindString(string(text)); found != "" && name != "base" {
			t.Errorf("%s: %s, of which user code may have replaced parts: take it from .base", name, found)
		}
	}
	for _, name := range []string{stepsPart, watchPart} {
		text, err := modules.ReadFile("prefork_zygote/" + name + ".py")
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(string(text), "\n\n"); strings.Contains(string(Source()), first) {
			t.Errorf("the program of a fleet has %s", name)
		}
	}
	// All is one namespace: what two of them define is that of the last.
	defines := regexp.MustCompile(`(?m)^(?:(?:def|class) (\w+)|(?:    )?(\w+) = )`)
	definer := map[string]string{}
	for _, name := range all {
		text, err := modules.ReadFile("prefork_zygote/" + name + ".py")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range defines.FindAllSubmatch(topLevel(text), -1) {
			defined := string(m[1]) + string(m[2])
			if first := definer[defined]; first != "" && first != name {
				t.Errorf("%s and %s define %s", first, name, defined)
			}
			definer[defined] = name
		}
	}
	if left := regexp.MustCompile(`(?m)^ *(from|import) \.`).Find(ScratchSource(true)); left != nil {
		t.Errorf("the program has %q", left)
	}
}

// topLevel is a module without the bodies of its functions and classes.
func topLevel(text []byte) (rest []byte) {
	inside := false
	for line := range bytes.Lines(text) {
		if line[0] != ' ' && line[0] != '\n' {
			inside = bytes.HasPrefix(line, []byte("def ")) || bytes.HasPrefix(line, []byte("class ")) || bytes.HasPrefix(line, []byte("async "))
			rest = append(rest, line...)
		} else if !inside {
			rest = append(rest, line...)
		}
	}
	return rest
}
