// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/packaging/man"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/examine"
	"github.com/decnet/prefork/supervisor/memory"
)

var update = flag.Bool("update", false, "write prefork.1 anew")

// prefork(1) has of each command what its --help says.
func TestManPage(t *testing.T) {
	root := newRoot()
	root.InitDefaultCompletionCmd() // as when it is executed
	var synopsis, commands strings.Builder
	commands.WriteString(".Bl -tag -width Ds\n")
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() {
			fmt.Fprintf(&synopsis, ".Nm\n.Cm %s\n%s", man.Arg(cmd.Name()), synopsisOf(t, cmd))
			commands.WriteString(entryOf(t, cmd))
		}
	}
	commands.WriteString(".El\n")
	short := []rune(root.Short)
	short[0] = unicode.ToLower(short[0])
	man.Check(t, "../../packaging/man", "prefork.1", map[string]string{
		"NAME":        ".Nd " + man.Escape(string(short)) + "\n",
		"SYNOPSIS":    synopsis.String(),
		"DESCRIPTION": man.Text(root.Long),
		"COMMANDS":    commands.String(),
	}, *update)
}

// prefork(1) describes every field of status --json, and the property that it is.
func TestManPageHasAllOfTheJSON(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/prefork.1")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n.Sh JSON\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	_, ofFloor, _ := strings.Cut(section, "\n.Ss Of check ")
	section, _, _ = strings.Cut(section, "\n.Ss ")
	wantFields(t, reflect.TypeFor[examine.Report](), strings.FieldsFunc(ofFloor, isSeparator))
	ofFleet, ofSlot, _ := strings.Cut(section, ".It Li slots\n")
	for of, object := range map[string]reflect.Type{ofFleet: reflect.TypeFor[control.Status](), ofSlot: reflect.TypeFor[control.SlotStatus]()} {
		words := strings.FieldsFunc(of, isSeparator)
		for i := range object.NumField() {
			field := object.Field(i)
			for _, name := range []string{field.Name, field.Tag.Get("json")} {
				if !slices.Contains(words, name) && field.Name != "Slots" {
					t.Errorf("%s.%s: %s is not described", object, field.Name, name)
				}
			}
		}
	}
}

// prefork(1) describes every field of memory --json.
func TestManPageHasAllOfMemory(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/prefork.1")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n.Ss Of memory\n")
	section, _, _ = strings.Cut(section, "\n.S")
	words := strings.FieldsFunc(section, isSeparator)
	for _, object := range []reflect.Type{
		reflect.TypeFor[memory.Report](), reflect.TypeFor[memory.FloorReport](), reflect.TypeFor[memory.Base](), reflect.TypeFor[memory.SlotReport](),
		reflect.TypeFor[memory.Share](), reflect.TypeFor[memory.Total](), reflect.TypeFor[memory.Why](), reflect.TypeFor[memory.CauseBytes](), reflect.TypeFor[memory.OwnerBytes](),
	} {
		for i := range object.NumField() {
			if name, _, _ := strings.Cut(object.Field(i).Tag.Get("json"), ","); name != "" && !slices.Contains(words, name) {
				t.Errorf("%s: %s is not described", object, name)
			}
		}
	}
}

func isSeparator(r rune) bool { return r != '_' && !unicode.IsLetter(r) }

// wantFields wants each field of an object, and of those in it, among words.
func wantFields(t *testing.T, object reflect.Type, words []string) {
	t.Helper()
	for object.Kind() == reflect.Slice || object.Kind() == reflect.Pointer {
		object = object.Elem()
	}
	if object.Kind() != reflect.Struct {
		return
	}
	for i := range object.NumField() {
		field := object.Field(i)
		name := field.Tag.Get("json")
		if name != "" && !slices.Contains(words, name) {
			t.Errorf("%s: %s is not described", object, name)
		}
		if name != "modules" || object.Name() != "Module" { // which has those of its own kind
			wantFields(t, field.Type, words)
		}
	}
}

// synopsisOf has the options and the arguments of a command, one a line.
func synopsisOf(t *testing.T, cmd *cobra.Command) string {
	var b strings.Builder
	for _, o := range options(t, cmd) {
		fmt.Fprintf(&b, ".Op %s\n", o.forms(" | "))
	}
	for _, arg := range arguments(cmd) {
		b.WriteString("." + arg + "\n")
	}
	return b.String()
}

// entryOf describes a command.
func entryOf(t *testing.T, cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".It %s\n", strings.Join(append([]string{"Cm " + man.Arg(cmd.Name())}, arguments(cmd)...), " "))
	text := cmd.Long
	if text == "" {
		text = sentence(cmd.Short)
	}
	b.WriteString(man.Text(text))
	if list := options(t, cmd); len(list) > 0 {
		b.WriteString(".Bl -tag -width Ds\n")
		for _, o := range list {
			fmt.Fprintf(&b, ".It %s\n%s", o.forms(" , "), man.Text(sentence(o.usage)))
		}
		b.WriteString(".El\n")
	}
	if cmd.Example != "" {
		b.WriteString(man.Display(cmd.Example))
	}
	return b.String()
}

// arguments writes what Use has after the name, such as FLEET and [WORKER[.N]...],
// in macros. A command with commands of its own takes one of their names.
func arguments(cmd *cobra.Command) (list []string) {
	_, use, _ := strings.Cut(cmd.Use, " ")
	for _, word := range strings.Fields(use) {
		var macros []string
		glued := true // to what stands before it: no blank
		for _, token := range regexp.MustCompile(`\[|\]|[A-Z]+|[^][A-Z]+`).FindAllString(word, -1) {
			macro := "No " + man.Arg(token)
			switch {
			case token == "[":
				macro = "Oo"
			case token == "]":
				macro = "Oc"
			case unicode.IsUpper(rune(token[0])):
				macro = "Ar " + man.Arg(token)
			}
			if !glued && token != "]" {
				macro = "Ns " + macro
			}
			macros, glued = append(macros, macro), token == "["
		}
		list = append(list, strings.Join(macros, " "))
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, "Cm "+man.Arg(sub.Name()))
		}
	}
	if len(names) > 0 {
		list = append(list, strings.Join(names, " | "))
	}
	return list
}

// option is an option of a command.
type option struct{ short, long, arg, usage string }

// options reads what --help says of them, but for --help itself.
func options(t *testing.T, cmd *cobra.Command) (list []option) {
	line := regexp.MustCompile(`^ +(?:-(\w), )?--([\w-]+)(?: (\S+))? {2,}(\S.*)$`)
	for text := range strings.Lines(cmd.LocalFlags().FlagUsages()) {
		m := line.FindStringSubmatch(strings.TrimSuffix(text, "\n"))
		if m == nil {
			t.Fatalf("%s: what option is this? %s", cmd.Name(), text)
		}
		if m[2] != "help" {
			list = append(list, option{m[1], m[2], m[3], m[4]})
		}
	}
	return list
}

// forms are the ways in which an option is written.
func (o option) forms(between string) string {
	arg := ""
	if o.arg != "" {
		arg = " Ar " + man.Arg(o.arg)
	}
	text := "Fl " + man.Arg("-"+o.long) + arg
	if o.short != "" {
		text = "Fl " + man.Arg(o.short) + arg + between + text
	}
	return text
}

// sentence makes one of the words that --help has in a line.
func sentence(text string) string {
	runes := []rune(text)
	runes[0] = unicode.ToUpper(runes[0])
	return string(runes) + "."
}
