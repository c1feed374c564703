// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"

	"github.com/decnet/prefork/supervisor/verb"
)

// verbs are what keys do to the selected slot, after a question.
var verbs = map[string]verb.Name{"r": verb.Restart, "x": verb.Stop, "S": verb.Start, "f": verb.Freeze, "t": verb.Thaw}

// want is what a key asks of the program.
type want struct {
	quit, suspend bool
	operate       *operation
}

// key takes a key by its name; text is what it types.
func (m *model) key(name, text string) (w want) {
	switch {
	case name == "ctrl+c":
		return want{quit: true}
	case name == "ctrl+z":
		return want{suspend: true}
	case m.help:
		m.help = false
	case m.asking != nil:
		return m.answered(name)
	case m.typing:
		m.typed(name, text)
	default:
		m.note = note{}
		return m.command(name)
	}
	return w
}

// answered takes the answer to a question. Whatever is not yes is no.
func (m *model) answered(name string) (w want) {
	if name == "y" || name == "Y" {
		w.operate = m.asking
	} else {
		m.say(m.asking.String()+": not done", false)
	}
	m.asking = nil
	return w
}

func (m *model) typed(name, text string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if runes := []rune(m.filter); len(runes) > 0 {
			m.filter = string(runes[:len(runes)-1])
		}
	default:
		m.filter += text
	}
}

func (m *model) command(name string) (w want) {
	switch name {
	case "q":
		w.quit = true
	case "?", "h":
		m.help = true
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.move(-m.plan().rows)
	case "pgdown":
		m.move(m.plan().rows)
	case "home", "g":
		m.selected = ""
	case "end", "G":
		m.move(len(m.rows()))
	case "s":
		m.order = (m.order + 1) % len(orders)
	case "/":
		m.typing, m.filter = true, ""
	case "esc":
		m.filter = ""
	case "enter":
		m.fold()
	default:
		m.ask(verbs[name])
	}
	return w
}

// ask asks whether to do something to the selected slot, which the question names:
// another may come first before the answer does.
func (m *model) ask(name verb.Name) {
	rows := m.rows()
	if name == "" || len(rows) == 0 {
		return
	}
	s := rows[m.cursor(rows)]
	if isTask(&s) && !name.TakesTask() {
		m.say(s.Name+" is a task: its slot can be frozen, with all that is in it", true)
		return
	}
	if (name == verb.Freeze || name == verb.Thaw) && s.FreezerState == "" {
		m.say(s.Name+" cannot be frozen: its master does not offer it", true)
		return
	}
	m.selected = s.Name
	m.asking = &operation{name, s.Name}
}

// did takes what came of an operation.
func (m *model) did(o operation, err error) {
	if err != nil {
		m.say(fmt.Sprintf("%s: %s", o, reason(err)), true)
		return
	}
	m.say(o.String()+": under way", false)
}

func (m *model) say(text string, bad bool) { m.note = note{text, bad, m.now.Add(noteTime)} }
