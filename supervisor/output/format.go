// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/decnet/prefork/supervisor/fleet"
)

// format appends a message to text, as one line with its end. What is before what a worker
// has said is the master's own: no worker can say something in the name of another.
type format func(text []byte, m *message) []byte

// formats are the values of log.format.
func formatOf(name, fleet string) format {
	switch name {
	case "name":
		return new(named).append
	case "json":
		return objects{fleet}.append
	}
	return nil
}

// timeLayout is RFC 3339, of one width, in UTC.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// named are lines for people and for awk: the time, the name, the stream or the level, and
// what is said.
type named struct{ width int }

func (f *named) append(text []byte, m *message) []byte {
	f.width = max(f.width, len(m.author.Name), len(master.Name))
	what, mark := m.stream, '|'
	if what == "" {
		what = levelWord(priority(m.level))
	}
	if m.partial {
		mark = '+'
	}
	text = m.at.UTC().AppendFormat(text, timeLayout)
	text = fmt.Appendf(text, " %-*s %-7s %c ", f.width, m.author.Name, what, mark)
	return append(append(text, harmless(m.text)...), '\n')
}

// objects are lines for machines: one JSON object each (RFC 8259).
type objects struct{ fleet string }

func (f objects) append(text []byte, m *message) []byte {
	o := object(append(text, '{'))
	o.word("time", m.at.UTC().Format(timeLayout))
	o.word("fleet", f.fleet)
	o.word("name", m.author.Name)
	if m.author.Worker != "" {
		o.word("worker", m.author.Worker)
		o.word("slot", m.author.Name)
	}
	if m.author.PID != 0 {
		o.number("pid", strconv.Itoa(m.author.PID))
	}
	if m.stream == "" {
		o.own(m)
	} else {
		o.said(m)
	}
	return append(o, '}', '\n')
}

// object is a JSON object while it is written.
type object []byte

func (o *object) key(name string) {
	if (*o)[len(*o)-1] != '{' {
		*o = append(*o, ',')
	}
	*o = append(append(append(*o, '"'), name...), '"', ':')
}

func (o *object) word(key, value string) {
	o.key(key)
	*o = appendString(*o, []byte(value))
}

func (o *object) number(key, value string) {
	o.key(key)
	*o = append(*o, value...)
}

// said is what a process says.
func (o *object) said(m *message) {
	level, said := fleet.Info, m.text
	if !m.follows {
		level, said = levelOf(m.text)
	}
	o.word("stream", m.stream)
	o.word("level", levelWord(level))
	o.key("message")
	*o = appendString(*o, said)
	if m.partial {
		o.number("partial", "true")
	}
}

// levelOf takes the level from the begin of a line (sd-daemon(3)), as the journal does.
func levelOf(line []byte) (fleet.Level, []byte) {
	if len(line) >= 3 && line[0] == '<' && '0' <= line[1] && line[1] <= '7' && line[2] == '>' {
		return fleet.Level(line[1] - '0'), line[3:]
	}
	return fleet.Info, line
}

// own is what the master says: the fields of the journal's entry, in its words but in
// lower case; without one, what is beside the text.
func (o *object) own(m *message) {
	o.word("level", levelWord(priority(m.level)))
	for _, f := range m.entry {
		switch name := fieldName(f.Name); {
		case name == "fleet": // is there already
		case numeric[f.Name]:
			o.number(name, f.Value)
		default:
			o.word(name, f.Value)
		}
	}
	if m.entry == nil {
		for _, a := range m.fields {
			switch {
			case a.Key == "fleet":
			case a.Key == "gen":
				o.number("generation", a.Value.String())
			case a.Value.Kind() == slog.KindInt64:
				o.number(a.Key, a.Value.String())
			default:
				o.word(a.Key, flatten(a.Value.String()))
			}
		}
	}
	o.word("message", m.bare)
}

// fieldName is that of a field of the journal: slot of PREFORK_SLOT, pid of OBJECT_PID.
func fieldName(field string) string {
	field = strings.TrimPrefix(strings.TrimPrefix(field, "PREFORK_"), "OBJECT_")
	return strings.ToLower(field)
}

// numeric are the fields of the journal that have numbers.
var numeric = map[string]bool{
	"OBJECT_PID": true, "CODE_LINE": true, "EXIT_STATUS": true, "CPU_USAGE_NSEC": true, "MEMORY_PEAK": true,
	"PREFORK_GENERATION": true, "PREFORK_FAILURES": true, "PREFORK_DELAY_USEC": true,
}

// appendString appends text as a JSON string. What is no UTF-8 becomes U+FFFD; whatever
// would steer a terminal in which the line is looked at is escaped.
func appendString(to, text []byte) []byte {
	to = append(to, '"')
	for len(text) > 0 {
		n := 0
		for n < len(text) && text[n] >= ' ' && text[n] < 0x7f && text[n] != '"' && text[n] != '\\' {
			n++
		}
		to, text = append(to, text[:n]...), text[n:]
		if len(text) == 0 {
			break
		}
		r, size := utf8.DecodeRune(text)
		switch {
		case r == '"' || r == '\\':
			to = append(to, '\\', byte(r))
		case r == '\t':
			to = append(to, '\\', 't')
		case r == '\r':
			to = append(to, '\\', 'r')
		case r == utf8.RuneError && size == 1:
			to = append(to, "\ufffd"...)
		case r < ' ', r != utf8.RuneError && shown(r) != r: // all of these are below U+10000
			to = fmt.Appendf(to, "\\u%04x", r)
		default:
			to = append(to, text[:size]...)
		}
		text = text[size:]
	}
	return append(to, '"')
}

// warning is a message of the master's own.
func warning(text string) *message {
	return &message{at: time.Now(), author: master, level: slog.LevelWarn, text: []byte(text), bare: text}
}
