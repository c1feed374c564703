// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"errors"
	"strconv"

	"github.com/decnet/prefork/supervisor/fleet"
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
		Name: "memory_high", Kind: KindSize, Class: fleet.Limit, Example: `"150M"`,
		Rule: `a size or "infinity"`,
		Only: "not above memory_max",
	}, memory(func(d *draft) *uint64 { return &d.MemoryHigh })},
	{Key{
		Name: "memory_max", Kind: KindSize, Class: fleet.Limit, Example: `"1.5G"`,
		Rule: `a size or "infinity"`,
	}, memory(func(d *draft) *uint64 { return &d.MemoryMax })},
	{Key{
		Name: "tasks_max", Kind: KindCount, Class: fleet.Limit, Example: `64`,
		Rule: `a whole number from 1 to 4194304 or "infinity"`,
	}, value[draft]{setTasksMax, showTasksMax}},
	{Key{
		Name: "cpu_weight", Kind: KindInteger, Class: fleet.Limit, Example: `200`,
		Rule: "a whole number from 1 to 10000",
	}, weight(func(d *draft) *int { return &d.CPUWeight })},
	{Key{
		Name: "cpu_quota", Kind: KindPercent, Class: fleet.Limit, Example: `"150%"`,
		Rule: "a percentage with at most two decimals",
	}, value[draft]{setCPUQuota, showCPUQuota}},
	{Key{
		Name: "io_weight", Kind: KindInteger, Class: fleet.Limit, Example: `50`,
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
