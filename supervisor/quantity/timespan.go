// SPDX-License-Identifier: AGPL-3.0-or-later

// Package quantity reads and writes quantities as systemd does: time spans
// (systemd.time(7)), sizes, and shares of a processor (systemd.resource-control(5)).
package quantity

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/decnet/prefork/supervisor/policy"
)

var (
	// ErrNotSpan is for a text that is no time span at all.
	ErrNotSpan  = errors.New("not a time span; write a number and a unit, as in 1min 30s")
	errNegative = errors.New("a time span cannot be negative; write a number from 0 up")
	errSpanLong = errors.New("a time span must be shorter than 292 years; write infinity for no end")
)

// unit is a suffix of a time span or a size and its factor.
type unit struct {
	name   string
	factor int64
}

// Units of systemd.time(7) in microseconds. A name stands before its own
// prefixes, so that the first match is the longest.
var spanUnits = []unit{
	{"seconds", 1e6},
	{"second", 1e6},
	{"sec", 1e6},
	{"s", 1e6},
	{"minutes", 60e6},
	{"minute", 60e6},
	{"min", 60e6},
	{"months", 2629800e6},
	{"month", 2629800e6},
	{"M", 2629800e6},
	{"msec", 1e3},
	{"ms", 1e3},
	{"m", 60e6},
	{"hours", 3600e6},
	{"hour", 3600e6},
	{"hr", 3600e6},
	{"h", 3600e6},
	{"days", 86400e6},
	{"day", 86400e6},
	{"d", 86400e6},
	{"weeks", 604800e6},
	{"week", 604800e6},
	{"w", 604800e6},
	{"years", 31557600e6},
	{"year", 31557600e6},
	{"y", 31557600e6},
	{"usec", 1},
	{"us", 1},
	{"μs", 1}, // Greek mu
	{"µs", 1}, // micro sign
}

// Blank and digits as systemd's parser sees them.
const (
	blanks = " \t\n\r"
	digits = "0123456789"
)

// ParseTimeSpan reads a systemd time span: "1min 30s", "500ms", "1.5h"; a bare
// number is seconds. The result is a multiple of a microsecond, as in systemd,
// or policy.Forever for "infinity".
func ParseTimeSpan(s string) (time.Duration, error) {
	return ParseSpanIn(s, int64(time.Second/time.Microsecond))
}

// ParseSpanIn is ParseTimeSpan with the unit of a bare number in microseconds.
func ParseSpanIn(s string, bare int64) (time.Duration, error) {
	const limit = math.MaxInt64 / int64(time.Microsecond)
	s = strings.TrimLeft(s, blanks)
	if rest, ok := strings.CutPrefix(s, "infinity"); ok {
		if strings.TrimLeft(rest, blanks) != "" {
			return 0, ErrNotSpan
		}
		return policy.Forever, nil
	}
	if s == "" {
		return 0, ErrNotSpan
	}
	var total int64
	for s != "" {
		part, rest, err := spanPart(s, bare, limit)
		if err != nil {
			return 0, err
		}
		if total += part; total >= limit {
			return 0, errSpanLong
		}
		s = strings.TrimLeft(rest, blanks)
	}
	return time.Duration(total) * time.Microsecond, nil
}

// spanPart reads one number and its unit, and returns what follows.
func spanPart(s string, bare, limit int64) (usec int64, rest string, err error) {
	if s[0] == '-' {
		return 0, "", errNegative
	}
	whole, fraction, rest := spanNumber(s)
	if whole == "" {
		return 0, "", ErrNotSpan
	}
	factor := bare
	trimmed := strings.TrimLeft(rest, blanks)
	spaced := len(trimmed) < len(rest)
	rest = trimmed
	if u := findUnit(spanUnits, rest); u.name != "" {
		factor, rest = u.factor, rest[len(u.name):]
	} else if rest != "" && !spaced {
		return 0, "", ErrNotSpan // 12.34.56, 5x
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n >= limit/factor {
		return 0, "", errSpanLong
	}
	usec = n * factor
	for _, digit := range fraction {
		factor /= 10
		usec += int64(digit-'0') * factor
	}
	return usec, rest, nil
}

// spanNumber cuts a number from the front of s; whole is "" if there is none.
func spanNumber(s string) (whole, fraction, rest string) {
	whole, rest = cutDigits(strings.TrimPrefix(s, "+"))
	after, dotted := strings.CutPrefix(rest, ".")
	if !dotted {
		return whole, "", rest
	}
	if whole == "" && s[0] == '.' {
		whole = "0"
	}
	if fraction, rest = cutDigits(after); fraction == "" {
		return "", "", rest
	}
	return whole, fraction, rest
}

func cutDigits(s string) (number, rest string) {
	rest = strings.TrimLeft(s, digits)
	return s[:len(s)-len(rest)], rest
}

func findUnit(units []unit, s string) unit {
	for _, u := range units {
		if strings.HasPrefix(s, u.name) {
			return u
		}
	}
	return unit{}
}

// FormatTimeSpan writes a duration so that ParseTimeSpan reads it back:
// "1min 30s", "infinity" for policy.Forever. Parts of a microsecond are cut off.
// A negative duration is written as "0".
func FormatTimeSpan(d time.Duration) string {
	if d == policy.Forever {
		return "infinity"
	}
	var parts []string
	for _, u := range []struct {
		name string
		unit time.Duration
	}{
		{"w", 7 * 24 * time.Hour},
		{"d", 24 * time.Hour},
		{"h", time.Hour},
		{"min", time.Minute},
		{"s", time.Second},
		{"ms", time.Millisecond},
		{"us", time.Microsecond},
	} {
		if n := d / u.unit; n > 0 {
			parts = append(parts, strconv.FormatInt(int64(n), 10)+u.name)
			d %= u.unit
		}
	}
	if parts == nil {
		return "0"
	}
	return strings.Join(parts, " ")
}
