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
	scratch := slices.Concat(stepsParts, watchParts)
	all := slices.Concat(parts[:last], scratch, parts[last:])
	raw := regexp.MustCompile(`(?m)^import (os|time|_signal|_socket)$`)
	checkProgram(t, "prefork_zygote", all, ScratchSource(true), func(name, text string) {
		if found := raw.FindString(text); found != "" && name != "base" {
			t.Errorf("%s: %s, of which user code may have replaced parts: take it from .base", name, found)
		}
		if first, _, _ := strings.Cut(text, "\n\n"); slices.Contains(scratch, name) && strings.Contains(string(Source()), first) {
			t.Errorf("the program of a fleet has %s", name)
		}
	})
	checkProgram(t, "prefork_tasks", taskParts, []byte(Tasks()), func(string, string) {})
}

// checkProgram: all is one namespace, and what two of them define is that of the last.
func checkProgram(t *testing.T, program string, all []string, source []byte, check func(name, text string)) {
	t.Helper()
	entries, err := modules.ReadDir(program)
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
	defines := regexp.MustCompile(`(?m)^(?:(?:def|class) (\w+)|(?:    )?(\w+) = )`)
	definer := map[string]string{}
	for i, name := range all {
		text, err := modules.ReadFile(program + "/" + name + ".py")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range imports.FindAllSubmatch(text, -1) {
			if !slices.Contains(all[:i], string(m[1])) {
				t.Errorf("%s imports from %s, which does not stand before it", name, m[1])
			}
		}
		for _, m := range defines.FindAllSubmatch(topLevel(text), -1) {
			defined := string(m[1]) + string(m[2])
			if first := definer[defined]; first != "" && first != name {
				t.Errorf("%s and %s define %s", first, name, defined)
			}
			definer[defined] = name
		}
		check(name, string(text))
	}
	if left := regexp.MustCompile(`(?m)^ *(from|import) \.`).Find(source); left != nil {
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
