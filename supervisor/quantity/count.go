// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity

import (
	"errors"
	"strconv"
	"strings"
)

// ErrNotCount is for a text that is no number of processes.
var ErrNotCount = errors.New(`not a count; write a whole number, "cpu" or "2*cpu+1"`)

// maxFactor keeps each part of a count, and what comes of it, far from an overflow.
const maxFactor = 1_000_000

// Count is a number of processes: so many for each processor, and so many more.
type Count struct{ PerCPU, More int }

// ParseCount reads "4", "cpu", "2*cpu", "cpu+1" and "2*cpu+1", with blanks between the
// parts or without.
func ParseCount(s string) (Count, error) {
	product, more, hasMore := strings.Cut(s, "+")
	if !strings.Contains(s, "cpu") {
		n, ok := factor(s)
		return Count{More: n}, notCount(ok)
	}
	times, cpu, isProduct := strings.Cut(product, "*")
	c, ok := Count{PerCPU: 1}, true
	if isProduct {
		c.PerCPU, ok = factor(strings.TrimSpace(times))
		product = cpu
	}
	if hasMore && ok {
		c.More, ok = factor(strings.TrimSpace(more))
	}
	return c, notCount(ok && strings.TrimSpace(product) == "cpu" && c.PerCPU > 0)
}

func notCount(ok bool) error {
	if !ok {
		return ErrNotCount
	}
	return nil
}

func factor(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && isDigits(s) && n <= maxFactor
}

// Of is the number on a machine with so many processors.
func (c Count) Of(processors int) int { return c.PerCPU*processors + c.More }

// String writes a Count so that ParseCount reads it back: "2*cpu+1".
func (c Count) String() string {
	var b strings.Builder
	switch {
	case c.PerCPU == 0:
		return strconv.Itoa(c.More)
	case c.PerCPU > 1:
		b.WriteString(strconv.Itoa(c.PerCPU) + "*")
	}
	b.WriteString("cpu")
	if c.More > 0 {
		b.WriteString("+" + strconv.Itoa(c.More))
	}
	return b.String()
}
