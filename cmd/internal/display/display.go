// SPDX-License-Identifier: AGPL-3.0-or-later

// Package display is how slots are shown, wherever they are: what is worse than
// what, and what a slot does. What a fleet says of itself is printable: see package
// control.
package display

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// badness orders states, the worst first.
var badness = []string{"failed", "killing", "stopping", "waiting", "starting", "ready", "listening", "exited"}

// WorseFirst compares slots: those in trouble first, then by state.
func WorseFirst(a, b control.SlotStatus) int {
	rank := func(s *control.SlotStatus) int {
		n := slices.Index(badness, s.State)
		if !InTrouble(s) {
			n += len(badness)
		}
		return n
	}
	return cmp.Or(cmp.Compare(rank(&a), rank(&b)), -cmp.Compare(a.NextStartTimestamp, b.NextStartTimestamp))
}

// InTrouble reports whether a slot needs a look.
func InTrouble(s *control.SlotStatus) bool {
	switch s.State {
	case "failed", "killing", "stopping":
		return true
	case "waiting", "starting":
		return s.Failures > 0
	case "ready":
		return len(TasksInTrouble(s)) > 0
	default:
		return false
	}
}

// TasksInTrouble are the tasks of a slot that need a look, the worst first.
func TasksInTrouble(s *control.SlotStatus) (all []control.TaskStatus) {
	for _, t := range s.Tasks {
		if t.State == "failed" || t.Failures > 0 && (t.State == "waiting" || t.State == "starting") {
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(a, b control.TaskStatus) int {
		return cmp.Or(cmp.Compare(slices.Index(badness, a.State), slices.Index(badness, b.State)), -cmp.Compare(a.NextStartTimestamp, b.NextStartTimestamp))
	})
	return all
}

// DoingTask is what is next for a task or, if that is nothing, what it says of itself.
func DoingTask(t *control.TaskStatus, now time.Time) string {
	switch {
	case t.NextStartTimestamp > 0:
		return "starts in " + policy.Span(Time(t.NextStartTimestamp).Sub(now))
	case t.State == "failed":
		return "gave up"
	default:
		return t.StatusText
	}
}

// Tasks counts those of a slot: "3/10 tasks ready, 2 finished".
func Tasks(s *control.SlotStatus) string {
	n := map[string]int{}
	for i := range s.Tasks {
		n[s.Tasks[i].State]++
	}
	text := fmt.Sprintf("%d/%d tasks ready", n["ready"], len(s.Tasks))
	if n["exited"] > 0 {
		text += fmt.Sprintf(", %d finished", n["exited"])
	}
	return text
}

// Doing is what is next for a slot or, if that is nothing, what it says of itself.
func Doing(s *control.SlotStatus, now time.Time) string {
	switch {
	case s.FreezerState == "frozen":
		return "frozen: " + s.Reason
	case Beside(s) != "":
		return Beside(s)
	case s.NextStartTimestamp > 0:
		return "starts in " + policy.Span(Time(s.NextStartTimestamp).Sub(now))
	case s.State == "waiting" && strings.HasPrefix(s.Reason, "waits for "):
		return s.Reason // other workers are to be ready first
	case s.State == "waiting":
		return "waits for the floor"
	case s.StatusText == "" && s.MainPID > 0 && len(s.Tasks) > 0:
		return Tasks(s)
	default:
		return s.StatusText
	}
}

// Beside tells of the second process that a slot has while it is replaced, "" if it has
// none.
func Beside(s *control.SlotStatus) string {
	switch {
	case s.SuccessorState != "" && s.SuccessorPID == 0:
		return "is being replaced: " + s.SuccessorState
	case s.SuccessorState != "":
		return fmt.Sprintf("is being replaced: %s %d", s.SuccessorState, s.SuccessorPID)
	case s.PredecessorPID > 0:
		return fmt.Sprintf("has replaced %d, which ends", s.PredecessorPID)
	default:
		return ""
	}
}

// Waits says what waits at a socket, and what was turned away: "37 of 4096 connections wait,
// 12 dropped". It is "" if there is neither, or nobody knows.
func Waits(s *control.SocketStatus) string {
	var parts []string
	switch {
	case s.Queue <= 0:
	case s.Type == "datagram":
		parts = append(parts, Queue(s)+" wait")
	default:
		parts = append(parts, fmt.Sprintf("%d of %d connections wait", s.Queue, s.QueueLimit))
	}
	if s.Drops > 0 {
		parts = append(parts, fmt.Sprintf("%d dropped", s.Drops))
	}
	return strings.Join(parts, ", ")
}

// Queue is how much waits at a socket, and may: "37/4096", "2K/208K", or "-" if nobody knows.
func Queue(s *control.SocketStatus) string {
	switch {
	case s.Queue < 0 || s.QueueLimit < 0:
		return "-"
	case s.Type != "datagram":
		return fmt.Sprintf("%d/%d", s.Queue, s.QueueLimit)
	case s.Queue == 0:
		return "0/" + Size(uint64(s.QueueLimit))
	default:
		return Size(uint64(s.Queue)) + "/" + Size(uint64(s.QueueLimit))
	}
}

// Time is what a timestamp of a fleet stands for.
func Time(timestamp uint64) time.Time { return time.UnixMicro(int64(timestamp)) }

// Number is a number of which 0 means that there is none.
func Number(n uint32) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// Size is a number of bytes in few characters, "-" for 0.
func Size(bytes uint64) string {
	switch n := float64(bytes); {
	case bytes == 0:
		return "-"
	case n < 1<<20:
		return fmt.Sprintf("%.0fK", n/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1fM", n/(1<<20))
	default:
		return fmt.Sprintf("%.1fG", n/(1<<30))
	}
}

// CutTo shortens a line to a number of characters.
func CutTo(line string, width int) string {
	if runes := []rune(line); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return line
}

// Wrap breaks a text between words, where it can.
func Wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
