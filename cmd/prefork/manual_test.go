// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/zygote"
)

// section is one of a manual page.
func section(t *testing.T, page, title string) string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/man/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+title+"\n")
	if !found {
		t.Fatalf("%s has no %q", page, title)
	}
	own, _, _ := strings.Cut(rest, "\n"+strings.Fields(title)[0]+" ")
	return own
}

// items are the heads of a list in a manual page that are numbers.
func items(text string) (all []int) {
	for _, m := range regexp.MustCompile(`(?m)^\.It (\d+)$`).FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(m[1]) // digits
		all = append(all, n)
	}
	return all
}

// exitConstants are the constants of a file of Go whose names begin with Exit.
func exitConstants(t *testing.T, path string) (all []int) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Exit") {
			return true
		}
		number, _ := strconv.Atoi(spec.Values[0].(*ast.BasicLit).Value)
		all = append(all, number)
		return true
	})
	return all
}

// The manual has each exit status, and no other: of the commands, of the master, of a
// worker that could not become what its table says, by the shim or in the zygote.
func TestExitStatusesAreInTheManual(t *testing.T) {
	own := []int{0, exit.Failure, exit.Usage, exit.NotActive, exit.NoSuch, exit.NoFleet, exit.Config}
	master := []int{0, exit.Failure, exit.Usage, exit.NoFleet, exit.Config}
	gate := exitConstants(t, "../../supervisor/gate/orders.go")
	if len(gate) < 10 {
		t.Fatalf("%d statuses of the gate", len(gate))
	}
	for page, want := range map[string][]int{"prefork.1": own, "prefork@.service.8": append(master, gate...)} {
		if got := items(section(t, page, ".Sh EXIT STATUS")); !slices.Equal(got, want) {
			t.Errorf("%s has %d, the code has %d", page, got, want)
		}
	}
	text, err := os.ReadFile("../../supervisor/zygote/prefork_zygote/base.py")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^CHDIR, .* = ([\d, ]+)$`).FindStringSubmatch(string(text))
	if m == nil {
		t.Fatal("base.py has no exit statuses")
	}
	for _, status := range strings.Split(m[1], ", ") {
		if n, err := strconv.Atoi(status); err != nil || !slices.Contains(gate, n) {
			t.Errorf("a worker ends with %s, which is none of %d", status, gate)
		}
	}
}

// The manual has the signals that mean something to the master, and what it says of each
// is what the master does.
func TestSignalsAreInTheManual(t *testing.T) {
	var listed []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Dv (SIG[A-Z]+(?: , SIG[A-Z]+)*)$`).FindAllStringSubmatch(section(t, "prefork@.service.8", ".Ss Signals"), -1) {
		listed = append(listed, strings.Split(m[1], " , ")...)
	}
	if want := []string{"SIGTERM", "SIGINT", "SIGHUP", "SIGABRT", "SIGQUIT"}; !slices.Equal(listed, want) {
		t.Fatalf("the manual has %q, want %q", listed, want)
	}
	for _, c := range []struct {
		signal unix.Signal
		want   string // in the log
		code   int
	}{
		{unix.SIGTERM, "fleet stops: SIGTERM", 0},
		{unix.SIGINT, "fleet stops: SIGINT", 0},
		{unix.SIGABRT, "SIGABRT: abort", 2},
		{unix.SIGQUIT, "SIGQUIT: quit", 2},
	} {
		r := start(t, oneProgram)
		r.waitReady()
		r.signal(unix.SIGHUP)
		r.signal(unix.SIGUSR2)
		r.eventually("a signal that changes nothing, and one without effect", func() bool {
			return strings.Contains(r.logged(), "reload 1 is done: nothing has changed") && strings.Contains(r.logged(), "SIGUSR2 is ignored")
		})
		r.signal(c.signal)
		if code := r.wait(); code != c.code || !strings.Contains(r.logged(), c.want) {
			t.Errorf("%s: exit status %d, want %d, and %q in:\n%s", c.signal, code, c.code, c.want, r.logged())
		}
	}
}

// lists are the names at the head of the items of a list in a manual page.
func lists(text string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^\.It Li ([a-z_]+(?: , [a-z_]+)*)(?: Ar .*)?$`).FindAllStringSubmatch(text, -1) {
		names = append(names, strings.Split(m[1], " , ")...)
	}
	return names
}

// prefork-zygote(7) has each message and each key, and no other.
func TestTheProtocolOfZygotesIsInTheManual(t *testing.T) {
	const page = "prefork-zygote.7"
	kinds := []string{string(zygote.Progress), string(zygote.Loaded), string(zygote.Broken), string(zygote.Refused)}
	for title, want := range map[string][]string{
		".Ss From the zygote": kinds,
		".Ss Keys of floor":   zygote.RequestKeys(),
		".Ss Orders":          gate.ProtocolKeys(),
	} {
		got := lists(section(t, page, title))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the manual has\n%q, the code\n%q", title, got, want)
		}
	}
	statuses := exitConstants(t, "../../supervisor/gate/orders.go")
	for _, m := range regexp.MustCompile(`(?m)^\.Pq .*\b(2\d\d)$`).FindAllStringSubmatch(section(t, page, ".Ss Orders"), -1) {
		if n, err := strconv.Atoi(m[1]); err != nil || !slices.Contains(statuses, n) {
			t.Errorf("the manual has the status %s, which is none of %d", m[1], statuses)
		}
	}
	text := section(t, page, ".Sh DESCRIPTION")
	for _, want := range []string{fmt.Sprintf("This is version %d of the protocol.", zygote.Protocol), zygote.ProtocolVariable, zygote.SocketVariable} {
		if !strings.Contains(text, want) {
			t.Errorf("the manual has no %s", want)
		}
	}
}

const oneProgram = `
[worker.web]
exec = ["sleep", "1000"]
`
