// SPDX-License-Identifier: AGPL-3.0-or-later

// Package man writes the pages of the manual that tests keep in step with the
// program. A page is an mdoc(7) template, NAME.in, in which lines such as @KEYS@
// stand for what is said elsewhere: in the commands' help, or in the file that
// prefork init writes. Only tests use this package.
package man

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// Check compares a page of dir with its template, filled with the parts, or
// writes it anew. A part stands for the line @NAME@.
func Check(t testing.TB, dir, page string, parts map[string]string, update bool) {
	t.Helper()
	template := read(t, filepath.Join(dir, page+".in"))
	for name, text := range parts {
		line := "\n@" + name + "@\n"
		if strings.Count(template, line) != 1 {
			t.Fatalf("%s.in must have one line @%s@", page, name)
		}
		template = strings.Replace(template, line, "\n"+text, 1)
	}
	if left := regexp.MustCompile(`(?m)^@[A-Z]+@$`).FindString(template); left != "" {
		t.Fatalf("%s.in: nothing stands for %s", page, left)
	}
	got := fmt.Sprintf(".\\\" Made of %s.in by %s. Do not edit.\n%s", page, t.Name(), template)
	path := filepath.Join(dir, page)
	if update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := strings.Split(read(t, path), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || line != want[i] {
			t.Fatalf("%s:%d is not what the program says, which is\n%s\nmake it anew: go test -run %s -update", page, i+1, line, t.Name())
		}
	}
	if n := strings.Count(got, "\n") + 1; n < len(want) {
		t.Fatalf("%s:%d is not what the program says, which is nothing\nmake it anew: go test -run %s -update", page, n+1, t.Name())
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Text writes plain text as mdoc(7). A blank line ends a paragraph, and one that is
// indented stands as it is.
func Text(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			b.WriteString(Display(paragraph))
			continue
		}
		if i > 0 {
			b.WriteString(".Pp\n")
		}
		for _, sentence := range sentences(strings.Join(strings.Fields(paragraph), " ")) {
			b.WriteString(references(sentence))
		}
	}
	return b.String()
}

// Display writes lines as they are, but for the indentation of the first.
func Display(text string) string {
	text = strings.Trim(text, "\n")
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	var b strings.Builder
	b.WriteString(".Bd -literal -offset 2n\n")
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString(oneLine(strings.ReplaceAll(Escape(strings.TrimPrefix(line, indent)), "'", `\(aq`)))
	}
	return b.String() + ".Ed\n"
}

// sentences splits a paragraph: mdoc wants each on a line of its own.
func sentences(text string) (list []string) {
	begin := 0
	for i := range text {
		if text[i] == ' ' && endsSentence(text[begin:i]) {
			list = append(list, text[begin:i])
			begin = i + 1
		}
	}
	return append(list, text[begin:])
}

func endsSentence(text string) bool {
	text = strings.TrimRight(text, `)"`)
	return strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "..") || strings.HasSuffix(text, "?")
}

var reference = regexp.MustCompile(`(^| )([A-Za-z_][\w.@:-]*)\(([1-9]?)\)([.,;:]*)( |$)`)

// references writes a sentence, with NAME(5) as a reference to a page and NAME() as a
// function.
func references(sentence string) string {
	var b strings.Builder
	for {
		at := reference.FindStringSubmatchIndex(sentence)
		if at == nil {
			break
		}
		group := func(i int) string { return sentence[at[2*i]:at[2*i+1]] }
		if before := sentence[:at[0]]; before != "" {
			b.WriteString(wrap(Escape(before)))
		}
		macro := ".Fn " + Arg(group(2))
		if page := group(3); page != "" {
			macro = ".Xr " + group(2) + " " + page
		}
		b.WriteString(strings.TrimSpace(macro+" "+strings.Join(strings.Split(group(4), ""), " ")) + "\n")
		sentence = sentence[at[1]:]
	}
	if sentence != "" {
		b.WriteString(wrap(Escape(sentence)))
	}
	return b.String()
}

// wrap breaks a sentence into lines of at most 80 bytes.
func wrap(text string) string {
	const most = 80
	var b strings.Builder
	for len(text) > most {
		i := strings.LastIndexByte(text[:most+1], ' ')
		if i < 0 {
			break
		}
		b.WriteString(oneLine(text[:i]))
		text = text[i+1:]
	}
	return b.String() + oneLine(text)
}

// oneLine ends a line, which must not look like a macro.
func oneLine(text string) string {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text + "\n"
}

var special = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// Escape lets each character of a text stand for itself. A line must not begin
// with it.
func Escape(text string) string {
	var b strings.Builder
	for _, r := range special.Replace(text) {
		if r > unicode.MaxASCII {
			fmt.Fprintf(&b, `\[u%04X]`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Arg writes one argument of a macro. It is not taken for a macro itself, nor for
// punctuation.
func Arg(text string) string {
	text = strings.ReplaceAll(Escape(text), `"`, `\(dq`)
	if callable.MatchString(text) {
		text = `\&` + text
	}
	if strings.Contains(text, " ") {
		text = `"` + text + `"`
	}
	return text
}

var callable = regexp.MustCompile(`^([A-Z%][A-Za-z]{1,2}|[][(){}.,;:|?!]+)$`)
