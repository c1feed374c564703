// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func saidBy(text string) *message {
	return &message{at: noon(), author: Author{Name: "web.0", Worker: "web", PID: 7}, stream: stderrName, text: []byte(text)}
}

// own is a line of the master's own, as the log makes it.
func own(level slog.Level, text string, attrs ...any) (m *message) {
	l := &Log{handler: &handler{}}
	l.use(keeper{last: &m})
	r := slog.NewRecord(time.Time{}, level, text, 0)
	r.Add(attrs...)
	_ = l.handler.Handle(context.Background(), r) // never fails
	m.at = noon()
	return m
}

// keeper is a sink that keeps the last message.
type keeper struct {
	sink
	last **message
}

func (k keeper) say(m *message) bool { *k.last = m; return true }

// What the formats make of lines.
func TestFormats(t *testing.T) {
	var e Entry
	e.Add("MESSAGE_ID", "89949d3c234244abb6e58dc62a9eda6d")
	e.Add("PREFORK_FLEET", "edge")
	e.Add("PREFORK_EVENT", "slot-ready")
	e.Add("PREFORK_SLOT", "web.0")
	e.Number("OBJECT_PID", 7)
	e.Number("PREFORK_GENERATION", 2)
	floor := &message{at: noon(), author: Author{Name: "floor", PID: 3}, stream: stdoutName, text: []byte("loaded")}
	piece := saidBy("<3>a")
	piece.partial = true
	rest := saidBy("<3>b")
	rest.follows = true
	for _, c := range []struct {
		m            *message
		name, object string
	}{
		{saidBy("hello"), `web.0   stderr  | hello`, `"name":"web.0","worker":"web","slot":"web.0","pid":7,"stream":"stderr","level":"info","message":"hello"`},
		{saidBy("<4>tab\t\"\\\r"), "web.0   stderr  | <4>tab\t\"\\", `"name":"web.0","worker":"web","slot":"web.0","pid":7,"stream":"stderr","level":"warning","message":"tab\t\"\\\r"`},
		{saidBy("\x1b[2J\xff\u202e"), "web.0   stderr  | ␛[2J\ufffd\ufffd", `"name":"web.0","worker":"web","slot":"web.0","pid":7,"stream":"stderr","level":"info","message":"\u001b[2J` + "\ufffd" + `\u202e"`},
		{piece, `web.0   stderr  + <3>a`, `"name":"web.0","worker":"web","slot":"web.0","pid":7,"stream":"stderr","level":"error","message":"a","partial":true`},
		{rest, `web.0   stderr  | <3>b`, `"name":"web.0","worker":"web","slot":"web.0","pid":7,"stream":"stderr","level":"info","message":"<3>b"`},
		{floor, `floor   stdout  | loaded`, `"name":"floor","pid":3,"stream":"stdout","level":"info","message":"loaded"`},
		{
			own(slog.LevelWarn, "web.0: ready", "pid", 7, "gen", 2, e.Attr()), `prefork warning | web.0: ready pid=7 gen=2`,
			`"name":"prefork","level":"warning","message_id":"89949d3c234244abb6e58dc62a9eda6d","event":"slot-ready","slot":"web.0","pid":7,"generation":2,"message":"web.0: ready"`,
		},
		{
			own(slog.LevelInfo, "fleet starts", "fleet", "edge", "pid", 1, "gen", 3, "err", "a\nb"), `prefork info    | fleet starts fleet=edge pid=1 gen=3 err="a; b"`,
			`"name":"prefork","level":"info","pid":1,"generation":3,"err":"a; b","message":"fleet starts"`,
		},
	} {
		if got, want := string(formatOf("name", "edge")(nil, c.m)), "2026-12-01T12:00:00.000000Z "+c.name+"\n"; got != want {
			t.Errorf("name: got\n%swant\n%s", got, want)
		}
		if got, want := string(formatOf("json", "edge")(nil, c.m)), `{"time":"2026-12-01T12:00:00.000000Z","fleet":"edge",`+c.object+"}\n"; got != want {
			t.Errorf("json: got\n%swant\n%s", got, want)
		}
	}
}

// Whatever is said, a line is one object, which has it, and steers no terminal.
func FuzzObjects(f *testing.F) {
	f.Add([]byte("<3>plain"), true)
	f.Add([]byte("\"}\n{\"a\":\xff\xed\xa0\x80\u2028\x1b\u009b\U0010ffff"), false)
	f.Fuzz(func(t *testing.T, text []byte, partial bool) {
		m := saidBy(string(text))
		m.partial, m.follows = partial, true
		line := formatOf("json", "edge")(nil, m)
		var o struct {
			Name, Slot, Message string
			Partial             bool
		}
		if err := json.Unmarshal(line, &o); err != nil || o.Name != "web.0" || o.Slot != "web.0" || o.Partial != partial {
			t.Fatalf("%v: %q", err, line)
		}
		if want := string([]rune(string(text))); o.Message != want {
			t.Errorf("got %q, want %q", o.Message, want)
		}
		if body := strings.TrimSuffix(string(line), "\n"); !utf8.ValidString(body) || strings.ContainsFunc(body, unicode.IsControl) ||
			strings.ContainsFunc(body, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }) {
			t.Errorf("it steers: %q", body)
		}
	})
}
