// SPDX-License-Identifier: AGPL-3.0-or-later

package quantity

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrNotQuota is for a text that is no percentage at all.
	ErrNotQuota  = errors.New(`not a percentage; write a number with at most two decimals and %, as in 150%`)
	errQuotaNone = errors.New(`a quota must be above 0%; write 0.01% or more, or remove it for no quota`)
	errQuotaLong = errors.New(`a quota must be at most 21474836.47%; remove it for no quota`)
)

// quotaUnit is the processor time per second that 0.01% is.
const quotaUnit = time.Second / 10000

// ParseCPUQuota reads a percentage of one processor as CPUQuota= takes it:
// "20%", "150%", "12.34%". The result is processor time per second, a multiple
// of 100 microseconds.
func ParseCPUQuota(s string) (time.Duration, error) {
	number, ok := strings.CutSuffix(s, "%")
	whole, fraction, dotted := strings.Cut(number, ".")
	if !ok || !isDigits(whole) || dotted && !isDigits(fraction) || len(fraction) > 2 {
		return 0, ErrNotQuota
	}
	// systemd keeps hundredths of a percent in an int.
	n, err := strconv.ParseUint(whole+(fraction + "00")[:2], 10, 31)
	switch {
	case err != nil:
		return 0, errQuotaLong
	case n == 0:
		return 0, errQuotaNone
	}
	return time.Duration(n) * quotaUnit, nil
}

// FormatCPUQuota writes processor time per second so that ParseCPUQuota reads
// it back: "150%", "12.5%". Parts of 100 microseconds are cut off.
func FormatCPUQuota(d time.Duration) string {
	n := int64(min(d/quotaUnit, math.MaxInt32))
	text := strconv.FormatInt(n/100, 10)
	if hundredths := n % 100; hundredths > 0 {
		text += "." + strings.TrimRight(strconv.FormatInt(100+hundredths, 10)[1:], "0")
	}
	return text + "%"
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, digits) == "" }
