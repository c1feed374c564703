// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/packaging/man"
	"github.com/decnet/prefork/supervisor/zygote"
)

// moduleName is an attribute or a function of the module prefork, as its source has it.
type moduleName struct{ name, arguments, text string }

// What the source has at its outermost level. It is formatted: one definition is one line.
var (
	moduleText      = regexp.MustCompile(`(?s)\A# SPDX.*?\n"""(.*?)\n"""\n`)
	moduleFunction  = regexp.MustCompile(`(?m)^def ([a-z]\w*)\((.*)\):$\n(?:    """((?s:.*?))"""$)?`)
	moduleAttribute = regexp.MustCompile(`(?m)^([a-z]\w*) = .*?(?:  # (.*))?$`)
	moduleComputed  = regexp.MustCompile(`(?m)^    if name == "(\w+)":`)
)

// moduleNames are those that anybody may use: functions, then attributes.
func moduleNames(t *testing.T) (functions, attributes []moduleName) {
	t.Helper()
	for _, m := range moduleFunction.FindAllStringSubmatch(zygote.Module, -1) {
		functions = append(functions, moduleName{m[1], m[2], unindent(m[3])})
	}
	for _, m := range moduleAttribute.FindAllStringSubmatch(zygote.Module, -1) {
		attributes = append(attributes, moduleName{m[1], "", m[2]})
	}
	for _, m := range moduleComputed.FindAllStringSubmatch(zygote.Module, -1) {
		text := regexp.MustCompile(`(?m)^def _` + m[1] + `\(\):\n    """(.*)"""$`).FindStringSubmatch(zygote.Module)
		if text == nil {
			text = []string{"", ""}
		}
		attributes = append(attributes, moduleName{m[1], "", text[1]})
	}
	if other := regexp.MustCompile(`(?m)^(async def|class) [a-z].*`).FindString(zygote.Module); other != "" {
		t.Errorf("nothing here describes %q", other)
	}
	if len(functions) < 15 || len(attributes) < 7 {
		t.Fatalf("the module has %d functions and %d attributes", len(functions), len(attributes))
	}
	for _, n := range append(functions, attributes...) {
		if n.text == "" {
			t.Errorf("prefork.py says nothing of %s", n.name)
		}
	}
	return functions, attributes
}

func unindent(text string) string { return strings.ReplaceAll(text, "\n    ", "\n") }

// The page of the module has what its source says, and the examples that are run below.
func TestManPageOfTheModule(t *testing.T) {
	functions, attributes := moduleNames(t)
	synopsis := "import prefork\n\n"
	var described, listed strings.Builder
	for _, f := range functions {
		synopsis += fmt.Sprintf("prefork.%s(%s)\n", f.name, f.arguments)
		macro := ".It Fn " + f.name
		for argument := range strings.SplitSeq(f.arguments, ", ") {
			if argument != "" {
				macro += " " + man.Arg(argument)
			}
		}
		described.WriteString(macro + "\n" + man.Text(f.text))
	}
	for _, a := range attributes {
		listed.WriteString(".It Va " + man.Arg(a.name) + "\n" + man.Text(sentence(a.text)))
	}
	_, description, _ := strings.Cut(moduleText.FindStringSubmatch(zygote.Module)[1], "\n\n")
	man.Check(t, "../../packaging/man", "prefork.3", map[string]string{
		"SYNOPSIS":    man.Display(synopsis),
		"DESCRIPTION": man.Text(description),
		"FUNCTIONS":   described.String(),
		"ATTRIBUTES":  listed.String(),
		"ACCEPT":      man.Display(manualExample(t, "accept")),
		"LOOP":        man.Display(manualExample(t, "loop")),
		"STOP":        man.Display(manualExample(t, "stop")),
	}, *update)
}

func manualExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/manual/" + name + ".py")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the manual shows is right: a server without clients is well for the watchdog, all
// of its processes answer, and what is asked to stop does so in order.
func TestExamplesOfTheModule(t *testing.T) {
	const watchdog = 2 * time.Second
	for name, entry := range map[string]string{"accept": "serve", "loop": "serve", "stop": "consume"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := prepare(t, fmt.Sprintf(`
[floor]
path = ["DIR"]
preload = ["example"]
[socket.http]
listen = "DIR/http.sock"
[worker.web]
entry = "example:%s"
count = 2
sockets = ["http"]
type = "notify"
watchdog_sec = %d
`, entry, int(watchdog/time.Second)))
			r.write("example.py", manualExample(t, name))
			r.write("jobs.py", aJob)
			r.start()
			r.waitReady()
			first := r.children("prefork: web.")
			answers := map[string]bool{}
			r.eventually("both at work", func() bool {
				if name == "stop" {
					for _, n := range r.seen() {
						answers[n.Slot] = true
					}
					return len(answers) == 2
				}
				answers[whoAnswers(t, r)] = true
				return len(answers) == 2
			})
			since := time.Now()
			r.eventually("watchdogs that have passed", func() bool { return time.Since(since) > 3*watchdog })
			if now := r.children("prefork: web."); len(now) != 2 || now[0].pid != first[0].pid || now[1].pid != first[1].pid {
				t.Errorf("the processes were %v, and are %v", first, now)
			}
			r.signal(unix.SIGTERM)
			if code := r.wait(); code != 0 || strings.Contains(r.logged(), "Traceback") || strings.Contains(r.logged(), "-> killing") {
				t.Errorf("it ended with %d, and said:\n%s", code, r.logged())
			}
			if name == "stop" && strings.Count(r.logged(), "-> exited: exited with status 0") != 2 {
				t.Errorf("not both have ended by themselves:\n%s", r.logged())
			}
		})
	}
}

// whoAnswers reads the line that a connection gets.
func whoAnswers(t *testing.T, r *rig) string {
	t.Helper()
	c, err := net.Dial("unix", r.path("http.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}

const aJob = `
import time
import app

class Job:
    name = "a job"
    def run(self):
        app.note()

left = [Job()]

def take(timeout):
    if left:
        return left.pop()
    time.sleep(timeout)
`
