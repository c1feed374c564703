// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import (
	"os"
	"strings"
	"testing"
)

// TestFirstFleetOfTheReadme does what README.md tells a stranger to do.
func TestFirstFleetOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	onEachSuite(t, func(t *testing.T, m machine) {
		m.WriteFile(t, "/etc/prefork/hello.py", indented(string(readme), "`hello.py`:\n"))
		m.WriteFile(t, "/etc/prefork/hello.toml", indented(string(readme), "and `hello.toml`:\n"))
		session := indented(string(readme), "\nThen:\n")
		for _, want := range []string{"web.1 restarts in", "prefork kill --signal KILL hello web.1"} {
			if !strings.Contains(session, want) {
				t.Errorf("the session has no %q:\n%s", want, session)
			}
		}
		for line := range strings.Lines(session) {
			command, ok := strings.CutPrefix(line, "$ ")
			if !ok {
				continue
			}
			out := m.Run(t, "sh", "-c", "exec 2>/dev/null; "+command) // where curl draws its progress
			switch {
			case strings.Contains(command, "curl") && !strings.HasPrefix(out, "web."):
				t.Errorf("%s: %s says %s", m.Suite, command, out)
			case strings.Contains(command, "status") && !strings.HasPrefix(out, "hello: active, "):
				t.Errorf("%s: %s says\n%s", m.Suite, command, out)
			}
		}
		m.assertState(t, "inactive", "prefork@hello.service")
		m.assertState(t, "inactive", "prefork-hello:http.socket")
	})
}

// indented is the block of code that follows some words.
func indented(text, after string) string {
	_, rest, _ := strings.Cut(text, after)
	var b strings.Builder
	for line := range strings.Lines(strings.TrimLeft(rest, "\n")) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "    ") {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "    "))
	}
	return b.String()
}
