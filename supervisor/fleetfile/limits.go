// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/quantity"
)

// limit is one limit_* key: how its numbers are read and printed.
type limit struct {
	name     string
	resource int
	parse    func(string) (uint64, bool)
	format   func(uint64) string
	example  string
}

// limits has every resource of setrlimit(2), by systemd's names.
var limits = []limit{
	{"cpu", unix.RLIMIT_CPU, parseSeconds, formatSeconds, `"1h"`},
	{"fsize", unix.RLIMIT_FSIZE, parseBytes, quantity.FormatSize, `"1G"`},
	{"data", unix.RLIMIT_DATA, parseBytes, quantity.FormatSize, `"2G"`},
	{"stack", unix.RLIMIT_STACK, parseBytes, quantity.FormatSize, `"8M"`},
	{"core", unix.RLIMIT_CORE, parseBytes, quantity.FormatSize, `"0:infinity"`},
	{"rss", unix.RLIMIT_RSS, parseBytes, quantity.FormatSize, `"1G"`},
	{"nofile", unix.RLIMIT_NOFILE, parseCount, formatCount, `"1024:65536"`},
	{"as", unix.RLIMIT_AS, parseBytes, quantity.FormatSize, `"4G"`},
	{"nproc", unix.RLIMIT_NPROC, parseCount, formatCount, `512`},
	{"memlock", unix.RLIMIT_MEMLOCK, parseBytes, quantity.FormatSize, `"64M"`},
	{"locks", unix.RLIMIT_LOCKS, parseCount, formatCount, `100`},
	{"sigpending", unix.RLIMIT_SIGPENDING, parseCount, formatCount, `1000`},
	{"msgqueue", unix.RLIMIT_MSGQUEUE, parseBytes, quantity.FormatSize, `"800K"`},
	{"nice", unix.RLIMIT_NICE, parseNiceLimit, formatCount, `"-5"`},
	{"rtprio", unix.RLIMIT_RTPRIO, parseCount, formatCount, `10`},
	{"rttime", unix.RLIMIT_RTTIME, parseMicroseconds, formatMicroseconds, `"200ms"`},
}

func limitFields() []field[draft] {
	fields := make([]field[draft], len(limits))
	for i, lim := range limits {
		fields[i] = field[draft]{Key{
			Name: "limit_" + lim.name, Kind: KindLimit, Class: fleet.Birth, Example: lim.example,
			Rule: `a limit, "infinity" or "soft:hard" with soft not above hard`,
		}, value[draft]{lim.set, lim.show}}
	}
	return fields
}

func (lim limit) set(c *cell, d *draft) {
	text, ok := number(c.v)
	softText, hardText, pair := strings.Cut(text, ":")
	if !pair {
		hardText = softText
	}
	soft, softOK := lim.number(softText)
	hard, hardOK := lim.number(hardText)
	if !ok || !softOK || !hardOK || soft > hard {
		c.refuse()
		return
	}
	// The list may be that of [defaults]: it is replaced, never changed.
	list := slices.DeleteFunc(slices.Clone(d.Limits), func(l Limit) bool { return l.Name == lim.name })
	d.Limits = append(list, Limit{lim.resource, lim.name, soft, hard})
	slices.SortFunc(d.Limits, func(a, b Limit) int { return cmp.Compare(a.Resource, b.Resource) })
}

func (lim limit) show(d *draft) string {
	for _, l := range d.Limits {
		if l.Name == lim.name {
			return quote(lim.text(l.Soft) + ":" + lim.text(l.Hard))
		}
	}
	return ""
}

func (lim limit) number(s string) (uint64, bool) {
	if s == "infinity" {
		return quantity.Infinity, true
	}
	return lim.parse(s)
}

func (lim limit) text(n uint64) string {
	if n == quantity.Infinity {
		return "infinity"
	}
	return lim.format(n)
}

func parseCount(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n != quantity.Infinity
}

func formatCount(n uint64) string { return strconv.FormatUint(n, 10) }

func parseBytes(s string) (uint64, bool) {
	n, err := quantity.ParseSize(s)
	return n, err == nil
}

// parseSeconds rounds up, as systemd does: RLIMIT_CPU is in seconds.
func parseSeconds(s string) (uint64, bool) {
	d, err := quantity.ParseTimeSpan(s)
	if err != nil || d == fleet.Forever {
		return quantity.Infinity, err == nil
	}
	n := uint64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return n, true
}

func formatSeconds(n uint64) string { return quantity.FormatTimeSpan(time.Duration(n) * time.Second) }

func parseMicroseconds(s string) (uint64, bool) {
	d, err := quantity.ParseSpanIn(s, 1)
	if err != nil || d == fleet.Forever {
		return quantity.Infinity, err == nil
	}
	return uint64(d / time.Microsecond), true
}

func formatMicroseconds(n uint64) string {
	return quantity.FormatTimeSpan(time.Duration(n) * time.Microsecond)
}

// parseNiceLimit reads a level with a sign, or the number that the kernel
// wants: 20 minus the level.
func parseNiceLimit(s string) (uint64, bool) {
	if s == "" || s[0] != '+' && s[0] != '-' {
		n, ok := parseCount(s)
		return n, ok && n <= 40
	}
	n, err := strconv.ParseInt(s, 10, 8)
	return uint64(20 - n), err == nil && n >= -20 && n <= 19
}
