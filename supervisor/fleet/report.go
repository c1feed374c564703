// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import "fmt"

// endOf is the end of the process that a change of the state is about.
func (s *slot) endOf(from State) End {
	switch {
	case s.state.live():
		return End{Result: s.result}
	case s.state == StateFailed && !from.live(): // it was not started again
		return End{Result: s.result, Exit: noExit, Failures: s.failures}
	case from.live():
		end := End{Result: s.result, Exit: s.exit, Usage: s.usage, Failures: s.failures}
		if s.state == StateWaiting {
			end.Delay = s.waits
		}
		return end
	default:
		return End{}
	}
}

// describe says how the slot's process ended.
func (s *slot) describe() string {
	p := s.policy()
	text := fmt.Sprintf("exited with status %d", s.exit.Code)
	if s.exit.Signal != 0 {
		text = fmt.Sprintf("killed by %s", s.exit.Signal)
		if s.exit.Core {
			text += " (core dumped)"
		}
	}
	switch {
	case s.result == OOMKill:
		text += " (out of memory)"
	case s.result == Protocol:
		text += " before it sent READY=1"
	case s.result == "" && p.clean(s.exit) && s.exit != (Exit{}):
		text += " (a clean exit)"
	}
	return text
}

// times counts things: "1 process", "3 processes".
func times(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "process":
		return fmt.Sprintf("%d processes", n)
	default:
		return fmt.Sprintf("%d %ss", n, what)
	}
}
