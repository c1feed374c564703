// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/decnet/prefork/cmd/internal/display"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// style is how a text looks. Colours are the sixteen that a terminal's owner has
// chosen; what matters can be told without any.
type style = ansi.Style

var (
	normal  style
	bold    = normal.Bold()
	faint   = normal.Faint()
	chosen  = normal.Reverse(true)
	good    = normal.ForegroundColor(ansi.Green)
	between = normal.ForegroundColor(ansi.Yellow)
	bad     = normal.ForegroundColor(ansi.Red).Bold()
	cold    = normal.ForegroundColor(ansi.Cyan)
)

// colourOf is that of a state.
func colourOf(state string) style {
	switch state {
	case "ready", "listening", "active":
		return good
	case "starting", "waiting", "stopping", "activating", "deactivating":
		return between
	case "failed", "killing":
		return bad
	case frozen:
		return cold
	case "exited":
		return faint
	default:
		return normal
	}
}

// fit makes a text printable, and cuts it to a number of cells.
func fit(text string, width int) string {
	return ansi.Truncate(control.Printable(text), max(width, 0), "…")
}

// pad gives a text exactly this many cells.
func pad(text string, width int, right bool) string {
	text = fit(text, width)
	space := strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
	if right {
		return space + text
	}
	return text + space
}

// fold breaks a text into lines, and cuts what is more than they hold.
func fold(text string, width, most int) []string {
	if most <= 0 || width <= 0 {
		return nil
	}
	lines := strings.Split(ansi.Wrap(control.Printable(text), width, ""), "\n")
	if len(lines) > most {
		lines[most-1] = ansi.Truncate(strings.Join(lines[most-1:], " "), width, "…")
		lines = lines[:most]
	}
	return lines
}

// join puts as many parts into a line as fit.
func join(parts []string, between string, width int) string {
	line := ""
	for i, part := range parts {
		next := line + between + part
		if i == 0 {
			next = part
		}
		if i > 0 && ansi.StringWidth(next) > width {
			break
		}
		line = next
	}
	return ansi.Truncate(line, max(width, 0), "…")
}

// rule is a line with a title and, if there is room, something at its right end.
func rule(title, right string, width int) string {
	title = fit(title, width-6)
	used := ansi.StringWidth(title) + 4
	if width < 8 || title == "" {
		return faint.Styled(strings.Repeat("─", max(width, 0)))
	}
	if space := ansi.StringWidth(right) + 4; right != "" && used+space < width {
		return faint.Styled("── ") + title + faint.Styled(" "+strings.Repeat("─", width-used-space)) +
			" " + right + " " + faint.Styled("──")
	}
	return faint.Styled("── ") + title + faint.Styled(" "+strings.Repeat("─", width-used))
}

// middle shortens a name so that its number can still be read.
func middle(name string, width int) string {
	name = control.Printable(name)
	if tail := 5; ansi.StringWidth(name) > width && width > 2*tail {
		return ansi.Truncate(name, width-tail-1, "") + "…" + ansi.TruncateLeft(name, ansi.StringWidth(name)-tail, "")
	}
	return fit(name, width)
}

// short is a time span in one unit, rounded down.
func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(d, 0)/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dmin", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// long is a time span in two units, without what a view that is drawn each second
// cannot tell.
func long(d time.Duration) string {
	if d < time.Second {
		return "0s"
	}
	return policy.Span(d.Truncate(time.Second))
}

// until is how long it is to a point in time, rounded up: what is due in 0.4s is
// not due yet.
func until(due, now time.Time) string {
	if !due.After(now) {
		return "now"
	}
	return "in " + long(due.Sub(now)+time.Second-1)
}

// size is a number of bytes; 0: not known.
func size(bytes uint64) string { return display.Size(bytes) }

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ascii is a frame for a terminal that shows nothing else. Each character stands
// for one of the same width.
func ascii(frame string) string {
	instead := map[rune]rune{'─': '-', '█': '#', '░': '.', '►': '>', '→': '>', '·': ',', '…': '~', '↑': '^', '↓': 'v'}
	return strings.Map(func(r rune) rune {
		if r <= 0x7e {
			return r
		}
		if other, ok := instead[r]; ok {
			return other
		}
		return '?'
	}, frame)
}

// isUTF8 reports whether the locale that is set says so; see locale(7).
func isUTF8(getenv func(string) string) bool {
	names := []string{"LC_ALL", "LC_CTYPE", "LANG"}
	i := slices.IndexFunc(names, func(name string) bool { return getenv(name) != "" })
	if i < 0 {
		return false
	}
	locale := strings.ToLower(getenv(names[i]))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}
