// SPDX-License-Identifier: AGPL-3.0-or-later

package report

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSeries(t *testing.T) {
	for _, c := range []struct {
		samples Series
		want    string
	}{
		{nil, "-"},
		{Series{0}, "0"},
		{Series{7, 7, 7}, "7"},
		{Series{3, 1, 2}, "2 (1–3)"},
		{Series{0.25, 0.75}, "0.500 (0.250–0.750)"},
		{Series{1234.5, 1e6}, "500617 (1234–1000000)"},
	} {
		if got := c.samples.String(); got != c.want {
			t.Errorf("%v: got %s, want %s", []float64(c.samples), got, c.want)
		}
	}
	var many Series
	for x := range 101 {
		many = append(many, float64(100-x))
	}
	if got, want := many.String(), "50 (10–90)"; got != want {
		t.Errorf("0 to 100: got %s, want %s: deciles", got, want)
	}
	if got := many.Quantile(0.99); got != 99 {
		t.Errorf("0 to 100: p99 is %v", got)
	}
	if got := (Series{10, 10, 10}).Variation(); got != 0 {
		t.Errorf("equal shares vary by %v", got)
	}
	if got := (Series{0, 20}).Variation(); got != 1 {
		t.Errorf("0 and 20 vary by %v, want 1", got)
	}
}

// made is a run whose samples are made up.
func made() *Run {
	kill := &Topic{
		Name: "kill", Title: "A worker is killed", About: "How.", Base: "os.fork",
		Columns: []Column{{"successor accepts", "ms", true}, {"lost", "", false}},
		Notes:   []string{"s6: it has no | here"},
		Turns:   []Turn{{Row: "os.fork", Before: "0.1 0.2 0.3"}, {Row: "gunicorn", After: "1 2 3"}},
	}
	kill.Row("os.fork", 0).Add("successor accepts", 2, 2)
	kill.Row("prefork run", 0).Add("successor accepts", 1, 3, 2)
	kill.Row("gunicorn", 0).Add("successor accepts", 600, 700)
	count := &Topic{Name: "count", Title: "Workers", About: "How.", Columns: []Column{{"PSS", "MB", true}}}
	for _, n := range []int{1, 8, 64} {
		count.Row("prefork run", n).Add("PSS", 100+float64(n))
		count.Row("gunicorn", n).Add("PSS", 70*float64(n))
	}
	return &Run{
		Began: time.Unix(1e9, 0).UTC(), Facts: []Fact{{"kernel", "Linux 6.18"}},
		Topics: []*Topic{kill, count, {Name: "empty", Title: "Nothing", Columns: []Column{{"x", "", true}}}},
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	WriteMarkdown(&b, made(), map[string][]string{"kill": {"plots/kill-1.svg"}})
	for _, want := range []string{
		"| kernel | Linux 6.18 |",
		"| | successor accepts, ms | lost | samples |\n| --- | --- | --- | --- |\n",
		"| os.fork | 2 | - | 2 |",
		"| prefork run | 2 (1–3) ×1.00 | - | 3 |",
		"| gunicorn | 650 (600–700) ×325.00 | - | 2 |",
		"Load average before the first turn: 0.1 0.2 0.3; after the last: 1 2 3.",
		`- s6: it has no \| here`,
		"![A worker is killed](plots/kill-1.svg)",
		"| gunicorn | 64 | 4480 | 1 |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, b.String())
		}
	}
}

func TestGoals(t *testing.T) {
	goals := []Goal{
		{Figure: "kill", Reach: "≤ 1.5 ms", Limit: 1.5, Scale: 1, Topic: "kill", Column: "successor accepts"},
		{Figure: "memory", Reach: "≤ 0.2 GB", Limit: 0.2, Scale: 0.001, Topic: "count", Column: "PSS", Number: 8},
		{Figure: "many", Reach: "≥ 500 MB", Limit: 500, Least: true, Scale: 1, Topic: "count", Column: "PSS", Number: 8},
		{Figure: "not measured", Topic: "roll", Column: "failed"},
	}
	var b strings.Builder
	WriteGoals(&b, made(), goals, []string{"prefork run", "prefork@.service"}, []string{"gunicorn", "os.fork"})
	want := `| figure | goal | prefork run | prefork@.service | best peer |
| --- | --- | --- | --- | --- |
| kill | ≤ 1.5 ms | 2 (missed) | - | 2, os.fork |
| memory | ≤ 0.2 GB | 0.108 | - | 0.560, gunicorn |
| many | ≥ 500 MB | 108 (missed) | - | 560, gunicorn |
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestEverySampleIsKept(t *testing.T) {
	var first, second bytes.Buffer
	if err := made().Write(&first); err != nil {
		t.Fatal(err)
	}
	run, err := Read(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Write(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("wrote\n%s\nread back as\n%s", &first, &second)
	}
	if got := run.Topic("kill").Row("prefork run", 0).Samples["successor accepts"]; len(got) != 3 {
		t.Errorf("samples: got %v", got)
	}
}

func TestPlots(t *testing.T) {
	dir := t.TempDir()
	files, err := WritePlots(dir, made())
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || len(files["kill"]) != 1 || len(files["count"]) != 1 {
		t.Fatalf("plots: %v", files)
	}
	for topic, names := range files {
		text, err := os.ReadFile(filepath.Join(dir, names[0]))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "<svg") || !strings.Contains(string(text), "gunicorn") {
			t.Errorf("%s: a plot without its rows:\n%.300s", topic, text)
		}
	}
}

// A run that completes another one has the topics of both, in order, and refuses what was
// measured in other conditions.
func TestComplete(t *testing.T) {
	run := func(kernel, date string, topics ...string) *Run {
		r := &Run{Facts: []Fact{{"kernel", kernel}, {Date, date}}}
		for _, name := range topics {
			r.Topics = append(r.Topics, &Topic{Name: name, Title: name + " of " + date})
		}
		return r
	}
	now := run("Linux 6.18", "today", "memory", "load")
	if err := now.Complete(run("Linux 6.18", "yesterday", "roll", "memory", "kill"), []string{"kill", "memory", "load", "roll"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, topic := range now.Topics {
		got = append(got, topic.Title)
	}
	if want := []string{"kill of yesterday", "memory of today", "load of today", "roll of yesterday"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := now.Complete(run("Linux 6.19", "yesterday", "roll"), nil); err == nil {
		t.Error("another kernel is the same")
	}
}
