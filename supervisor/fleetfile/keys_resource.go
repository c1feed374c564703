// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/quantity"
)

const (
	// minMemory is the smallest page: the kernel counts whole pages, so that
	// less than one is 0, and 0 kills whatever is started.
	minMemory = 4096

	// maxTasks is PID_MAX_LIMIT: pids.max takes no more.
	maxTasks = 1 << 22
)

// resourceFields are the keys of a slot's cgroup, see systemd.resource-control(5).
var resourceFields = []field[draft]{
	{Key{
		Name: "memory_high", Kind: KindSize, Class: policy.Limit, Example: `"150M"`,
		Rule: `a size or "infinity"`,
		Only: "not above memory_max",
	}, memory(func(d *draft) *uint64 { return &d.MemoryHigh })},
	{Key{
		Name: "memory_max", Kind: KindSize, Class: policy.Limit, Example: `"1.5G"`,
		Rule: `a size or "infinity"`,
	}, memory(func(d *draft) *uint64 { return &d.MemoryMax })},
	{Key{
		Name: "tasks_max", Kind: KindCount, Class: policy.Limit, Example: `64`,
		Rule: `a whole number from 1 to 4194304 or "infinity"`,
	}, value[draft]{setTasksMax, showTasksMax}},
	{Key{
		Name: "cpu_weight", Kind: KindInteger, Class: policy.Limit, Example: `200`,
		Rule: "a whole number from 1 to 10000",
	}, weight(func(d *draft) *int { return &d.CPUWeight })},
	{Key{
		Name: "cpu_quota", Kind: KindPercent, Class: policy.Limit, Example: `"150%"`,
		Rule: "a percentage with at most two decimals",
	}, value[draft]{setCPUQuota, showCPUQuota}},
	{Key{
		Name: "io_weight", Kind: KindInteger, Class: policy.Limit, Example: `50`,
		Rule: "a whole number from 1 to 10000",
	}, weight(func(d *draft) *int { return &d.IOWeight })},
}

// Limited returns the keys of the worker that only a cgroup of each slot can
// keep, in the order of the manual. An infinity, which takes back what
// [defaults] has, is not among them.
func (w *Worker) Limited() []string {
	var keys []string
	for _, k := range []struct {
		name    string
		limited bool
	}{
		{"memory_high", w.MemoryHigh != 0 && w.MemoryHigh != quantity.Infinity},
		{"memory_max", w.MemoryMax != 0 && w.MemoryMax != quantity.Infinity},
		{"tasks_max", w.TasksMax != 0 && w.TasksMax != quantity.Infinity},
		{"cpu_weight", w.CPUWeight != 0},
		{"cpu_quota", w.CPUQuota != 0},
		{"io_weight", w.IOWeight != 0},
	} {
		if k.limited {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// memory is a size in bytes; 0 is that it was not given.
func memory(dst func(*draft) *uint64) value[draft] {
	return value[draft]{
		set: func(c *cell, d *draft) {
			s, ok := number(c.v)
			n, err := quantity.ParseSize(s)
			switch {
			case !ok, errors.Is(err, quantity.ErrNotSize):
				if near := nearSize(s); near != "" {
					c.fail(c.path, fmt.Sprintf("must be %s, not %s", c.key.Rule, describe(c.v)), fmt.Sprintf("write %s = %q", c.key.Name, near))
					return
				}
				c.refuse()
			case err != nil:
				c.errorf(c.path, "%v", err)
			case n < minMemory:
				c.fail(c.path, "must be at least 4K: less is no memory at all, which kills every start",
					c.key.Name+` = "infinity" is no limit, count = 0 no process`)
			default:
				*dst(d) = n
			}
		},
		show: func(d *draft) string {
			if *dst(d) == 0 {
				return ""
			}
			return quote(quantity.FormatSize(*dst(d)))
		},
	}
}

// nearSize is the size that was meant by 200 MB, 200mb or 200MiB, "" if none was.
func nearSize(s string) string {
	near := strings.ToUpper(strings.ReplaceAll(s, " ", ""))
	near = strings.TrimSuffix(strings.TrimSuffix(near, "B"), "I")
	if _, err := quantity.ParseSize(near); err != nil || near == "" {
		return ""
	}
	return near
}

// weight is a whole number; 0 is that it was not given.
func weight(dst func(*draft) *int) value[draft] {
	v := whole(dst, 1, 10000)
	show := v.show
	v.show = func(d *draft) string {
		if *dst(d) == 0 {
			return ""
		}
		return show(d)
	}
	return v
}

func setTasksMax(c *cell, d *draft) {
	s, ok := number(c.v)
	n, valid := parseCount(s)
	switch {
	case s == "infinity":
		d.TasksMax = quantity.Infinity
	case !ok || !valid || n < 1 || n > maxTasks:
		c.refuse()
	default:
		d.TasksMax = n
	}
}

func showTasksMax(d *draft) string {
	switch d.TasksMax {
	case 0:
		return ""
	case quantity.Infinity:
		return `"infinity"`
	}
	return strconv.FormatUint(d.TasksMax, 10)
}

func setCPUQuota(c *cell, d *draft) {
	s, ok := c.v.(string)
	quota, err := quantity.ParseCPUQuota(s)
	switch {
	case !ok, errors.Is(err, quantity.ErrNotQuota):
		c.refuse()
	case err != nil:
		c.errorf(c.path, "%v", err)
	default:
		d.CPUQuota = quota
	}
}

func showCPUQuota(d *draft) string {
	if d.CPUQuota == 0 {
		return ""
	}
	return quote(quantity.FormatCPUQuota(d.CPUQuota))
}

// checkMemory: an infinity in memory_high is no limit and so above nothing.
func (d *draft) checkMemory(l *loader) {
	high, most, private := d.from["memory_high"], d.from["memory_max"], d.from["recycle_private"]
	if n := d.Recycle.Private; d.MemoryMax != 0 && n >= d.MemoryMax && !d.bad["recycle_private"] && !d.bad["memory_max"] {
		l.errorf(ofWorker(private, most), "recycle_private (%s) must be below memory_max (%s), which kills the slot before; lower it, or raise memory_max",
			quantity.FormatSize(n), quantity.FormatSize(d.MemoryMax))
	}
	if d.MemoryMax == 0 || d.MemoryHigh == quantity.Infinity || d.MemoryHigh <= d.MemoryMax ||
		d.bad["memory_high"] || d.bad["memory_max"] {
		return
	}
	l.errorf(ofWorker(high, most), "memory_high (%s) must not be more than memory_max (%s); lower it, or raise memory_max",
		quantity.FormatSize(d.MemoryHigh), quantity.FormatSize(d.MemoryMax))
}

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
			Name: "limit_" + lim.name, Kind: KindLimit, Class: policy.Birth, Example: lim.example,
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
	if err != nil || d == policy.Forever {
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
	if err != nil || d == policy.Forever {
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
