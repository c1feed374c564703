// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Infinity is a limit or a size that is none. It is also RLIM_INFINITY.
const Infinity uint64 = math.MaxUint64

var (
	// ErrNotSize is for a text that is no size at all.
	ErrNotSize  = errors.New("not a size; write a number and K, M, G, T, P or E, as in 200M")
	errSizeLong = errors.New("a size must be below 16E; write infinity for no limit")
)

// Units of sizes, largest first: in "1G 500M" they may only get smaller.
var sizeUnits = []unit{
	{"E", 1 << 60},
	{"P", 1 << 50},
	{"T", 1 << 40},
	{"G", 1 << 30},
	{"M", 1 << 20},
	{"K", 1 << 10},
	{"B", 1},
	{"", 1},
}

// ParseSize reads a size in bytes as systemd does: "200M", "1.5G", "4096", with
// a base of 1024, or [Infinity] for "infinity".
func ParseSize(s string) (uint64, error) {
	if s == "infinity" {
		return Infinity, nil
	}
	var total uint64
	units := sizeUnits
	s = strings.TrimLeft(s, blanks)
	for {
		whole, rest := cutDigits(s)
		n, err := strconv.ParseUint(whole, 10, 64)
		switch {
		case whole == "":
			return 0, ErrNotSize
		case err != nil:
			return 0, errSizeLong
		}
		fraction := ""
		if after, ok := strings.CutPrefix(rest, "."); ok {
			fraction, rest = cutDigits(after)
		}
		rest = strings.TrimLeft(rest, blanks)
		for len(units) > 0 && !strings.HasPrefix(rest, units[0].name) {
			units = units[1:]
		}
		if len(units) == 0 {
			return 0, ErrNotSize
		}
		part, ok := scaled(n, fraction, uint64(units[0].factor))
		if total += part; !ok || total < part {
			return 0, errSizeLong
		}
		s = strings.TrimLeft(rest[len(units[0].name):], blanks)
		units = units[1:]
		if s == "" {
			return total, nil
		}
	}
}

// scaled returns n.fraction times factor and whether that is below 16E.
func scaled(n uint64, fraction string, factor uint64) (uint64, bool) {
	f, err := strconv.ParseFloat("0."+fraction+"0", 64)
	part := uint64(f * float64(factor))
	if err != nil || n > (math.MaxUint64-part)/factor {
		return 0, false
	}
	total := n*factor + part
	return total, total != Infinity
}

// FormatSize writes a number of bytes so that ParseSize reads it back: with the
// largest unit that divides it, "1536M", or "infinity".
func FormatSize(n uint64) string {
	if n == Infinity {
		return "infinity"
	}
	for _, u := range sizeUnits {
		if f := uint64(u.factor); n >= f && n%f == 0 && f > 1 {
			return strconv.FormatUint(n/f, 10) + u.name
		}
	}
	return strconv.FormatUint(n, 10)
}
