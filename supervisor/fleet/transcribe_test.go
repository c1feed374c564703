// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"fmt"
	"strings"

	"github.com/decnet/prefork/supervisor/policy"
)

var levels = map[Level]string{Err: "error", Warning: "warning", Notice: "notice", Info: "info", Debug: "debug"}

// transcribe tells actions as a story, one indented line each.
func transcribe(acts []Action) string {
	var b strings.Builder
	for _, a := range acts {
		fmt.Fprintf(&b, "\t%s\n", tellAction(a))
	}
	return b.String()
}

func tellAction(a Action) string {
	switch a := a.(type) {
	case LoadFloor:
		return fmt.Sprintf("load floor #%d as generation %d", a.Proc, a.Generation)
	case StopFloor:
		return fmt.Sprintf("close the socket of floor #%d", a.Proc)
	case Fork:
		text := fmt.Sprintf("ask floor #%d to fork #%d", a.Floor, a.Proc)
		if a.More {
			text += ", and"
		}
		return text
	case Abandon:
		return fmt.Sprintf("abandon #%d", a.Proc)
	case StartShim:
		return fmt.Sprintf("start shim #%d for slot %d", a.Proc, a.Slot)
	case Assign:
		return fmt.Sprintf("tell #%d: go, you are slot %d", a.Proc, a.Slot)
	case Probe:
		return fmt.Sprintf("tell #%d: list the objects of your floor", a.Proc)
	case Kill:
		if a.All {
			return fmt.Sprintf("%s to all of #%d", a.Signal, a.Proc)
		}
		return fmt.Sprintf("%s to #%d", a.Signal, a.Proc)
	case Watch:
		return fmt.Sprintf("watch the sockets of worker %d", a.Worker)
	case Unwatch:
		return fmt.Sprintf("do not watch the sockets of worker %d", a.Worker)
	case PollSockets:
		return fmt.Sprintf("does a connection wait for worker %d?", a.Worker)
	case Measure:
		return fmt.Sprintf("measure #%d", a.Proc)
	case Freeze:
		return fmt.Sprintf("freeze #%d: %t", a.Proc, a.Frozen)
	case TakeStacks:
		return fmt.Sprintf("where is #%d?", a.Proc)
	case OrderTask:
		return fmt.Sprintf("tell #%d: %s %s (%s)", a.Proc, a.Verb, a.Task, a.Why)
	case OpenSlot:
		return fmt.Sprintf("open slot %d: %s of revision %d", a.Info.ID, a.Info.Name, a.Info.Revision)
	case CloseSlot:
		return fmt.Sprintf("close slot %d", a.Slot)
	case LimitSlot:
		return fmt.Sprintf("set the limits of #%d to those of slot %d", a.Proc, a.Slot)
	case Commit:
		return fmt.Sprintf("commit revision %d with slots %v", a.Revision, a.Slots)
	case Discard:
		return fmt.Sprintf("discard revision %d", a.Revision)
	case Reloading:
		return "RELOADING=1"
	case Outcome:
		return fmt.Sprintf("outcome of %s %d: %s: %s", a.Kind, a.Change, a.Result, a.Text)
	case Ready:
		return "READY=1"
	case Draining:
		return "STOPPING=1, but it serves on"
	case Stopping:
		return "STOPPING=1"
	case Status:
		return "STATUS=" + a.Text
	case Extend:
		return "EXTEND_TIMEOUT of " + policy.Span(a.By)
	case Ping:
		return "WATCHDOG=1"
	case Report:
		return tellReport(a)
	case Answer:
		if a.Change != 0 {
			return fmt.Sprintf("answer #%d: change %d", a.ID, a.Change)
		}
		if a.PID != 0 {
			return fmt.Sprintf("answer #%d: pid %d", a.ID, a.PID)
		}
		return fmt.Sprintf("answer #%d: %q", a.ID, a.Refusal)
	case Show:
		return fmt.Sprintf("show %+v", a.Snapshot)
	case Quit:
		return fmt.Sprintf("quit with %d: %s", a.Code, a.Why)
	default:
		panic(fmt.Sprintf("unknown action %T", a))
	}
}

func tellReport(r Report) string {
	about := ""
	if r.Slot != "" {
		about += " " + r.Slot
	}
	if r.Task != "" {
		about += "/" + r.Task
	}
	if r.PID != 0 {
		about += fmt.Sprintf(" pid %d", r.PID)
	}
	if r.Generation != 0 {
		about += fmt.Sprintf(" gen %d", r.Generation)
	}
	if r.Kind != "" {
		about += " [" + string(r.Kind) + "]"
	}
	return fmt.Sprintf("%s%s: %s", levels[r.Level], about, r.Text)
}

// notified reads the words of sd_notify(3).
func (st *stage) notified(proc Proc, words []string) Event {
	st.t.Helper()
	ev := Notified{Proc: proc}
	for i, word := range words {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "READY":
			ev.Ready = true
		case "RELOADING":
			ev.Reloading = true
		case "STOPPING":
			ev.Stopping = true
		case "WATCHDOG":
			ev.Watchdog, ev.Trigger = value == "1", value == "trigger"
		case "CAUSE":
			ev.Cause = strings.ReplaceAll(value, "_", " ")
		case "WATCHDOG_USEC":
			ev.Interval = st.span(value)
		case "EXTEND_TIMEOUT_USEC":
			ev.Extend = st.span(value)
		case "X_PREFORK_RECYCLE":
			ev.Recycle = policy.RecycleReason(value)
		case "ERRNO":
			ev.Errno = value
		case "STATUS":
			ev.HasStatus, ev.Status = true, strings.TrimPrefix(strings.Join(words[i:], " "), "STATUS=")
			return ev
		default:
			st.t.Fatalf("unknown word %s", word)
		}
	}
	return ev
}

// exited reads "status 1" or "by SIGKILL", and after either "leaving 2" and
// "oom".
func (st *stage) exited(proc Proc, words []string) Event {
	st.t.Helper()
	ev := Exited{Proc: proc}
	if n := len(words) - 1; n >= 0 && words[n] == "oom" {
		ev.OOM, words = true, words[:n]
	}
	for i := 0; i+1 < len(words); i += 2 {
		switch value := words[i+1]; words[i] {
		case "status":
			ev.Exit.Code = st.number(value)
		case "leaving":
			ev.Left = st.number(value)
		case "by":
			for signal := policy.SIGHUP; signal < 32; signal++ {
				if signal.String() == value {
					ev.Exit.Signal = signal
				}
			}
		default:
			st.t.Fatalf("unknown end %s", words)
		}
	}
	return ev
}
