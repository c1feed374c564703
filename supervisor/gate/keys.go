// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// key is one key of orders.
type key struct {
	name   string
	reader reader
	field  func(o *Orders) any // a pointer to it: its type says how it is written
}

// reader is who reads a key.
type reader int

const (
	byAll     reader = iota
	byShim           // a program, or the interpreter of a floor
	byWorker         // one that was forked, by whatever zygote: prefork-zygote(7)
	byPython         // one that was forked by prefork's own (prefork_zygote)
	byPrefork        // that, and the shim
)

// keys are all keys, in the order in which they are sent.
var keys = []key{
	{"fleet", byAll, func(o *Orders) any { return &o.Fleet }},
	{"worker", byAll, func(o *Orders) any { return &o.Worker }},
	{"slot", byAll, func(o *Orders) any { return &o.Slot }},
	{"index", byAll, func(o *Orders) any { return &o.Index }},
	{"generation", byAll, func(o *Orders) any { return &o.Generation }},
	{"title", byAll, func(o *Orders) any { return &o.Title }},
	{"comm", byAll, func(o *Orders) any { return &o.Comm }},
	{"dir", byAll, func(o *Orders) any { return &o.Dir }},
	{"user", byAll, func(o *Orders) any { return &o.User }},
	{"group", byAll, func(o *Orders) any { return &o.Group }},
	{"extra_group", byAll, func(o *Orders) any { return &o.ExtraGroups }},
	{"umask", byAll, func(o *Orders) any { return &o.Umask }},
	{"nice", byAll, func(o *Orders) any { return &o.Nice }},
	{"limit", byAll, func(o *Orders) any { return &o.Limits }},
	{"no_new_privileges", byAll, func(o *Orders) any { return &o.NoNewPrivs }},
	{"ignore_sigpipe", byShim, func(o *Orders) any { return &o.IgnoreSIGPIPE }},
	{"death_signal", byAll, func(o *Orders) any { return &o.DeathSignal }},
	{"master", byAll, func(o *Orders) any { return &o.Master }},
	{"base", byShim, func(o *Orders) any { return &o.Base }},
	{"env", byAll, func(o *Orders) any { return &o.Env }},
	{"listen", byAll, func(o *Orders) any { return &o.Listen }},
	{"stored", byAll, func(o *Orders) any { return &o.Stored }},
	{"reserve", byShim, func(o *Orders) any { return &o.Reserve }},
	{"stdout", byAll, func(o *Orders) any { return &o.Stdout }},
	{"stderr", byAll, func(o *Orders) any { return &o.Stderr }},
	{"watchdog", byAll, func(o *Orders) any { return &o.Watchdog }},
	{"oom_score_adjust", byAll, func(o *Orders) any { return &o.OOMScoreAdjust }},
	{"argv", byShim, func(o *Orders) any { return &o.Argv }},
	{"ambient", byPrefork, func(o *Orders) any { return &o.Ambient }},
	{"notify", byAll, func(o *Orders) any { return &o.Notify }},
	{"entry", byWorker, func(o *Orders) any { return &o.Entry }},
	{"after_fork", byWorker, func(o *Orders) any { return &o.AfterFork }},
	{"args", byWorker, func(o *Orders) any { return &o.Args }},
	{"kwargs", byWorker, func(o *Orders) any { return &o.Kwargs }},
	{"probe", byPython, func(o *Orders) any { return &o.Probe }},
	{"tasks", byPython, func(o *Orders) any { return &o.Tasks }},
	{"lifespan", byPython, func(o *Orders) any { return &o.Lifespan }},
}

// WorkerKeys are the keys that a worker reads that was forked by prefork's own zygote.
func WorkerKeys() []string { return keysOf(byAll, byWorker, byPython, byPrefork) }

// ProtocolKeys are the keys that a worker reads whatever its zygote is.
func ProtocolKeys() []string { return keysOf(byAll, byWorker) }

func keysOf(readers ...reader) (names []string) {
	for _, k := range keys {
		if slices.Contains(readers, k.reader) {
			names = append(names, k.name)
		}
	}
	return names
}

// values are those of a field that are sent, one for each time that its key is. A text
// that is empty and a flag that is not set are not sent.
func values(field any) (all []string) {
	switch v := field.(type) {
	case *string:
		if *v != "" {
			all = append(all, *v)
		}
	case *[]string:
		all = *v // an empty argument is an argument
	case *int:
		all = append(all, strconv.Itoa(*v))
	case **int:
		if *v != nil {
			all = append(all, strconv.Itoa(**v))
		}
	case *[]int:
		for _, n := range *v {
			all = append(all, strconv.Itoa(n))
		}
	case **uint32: // a mask: octal
		if *v != nil {
			all = append(all, strconv.FormatUint(uint64(**v), 8))
		}
	case *bool:
		if *v {
			all = append(all, "1")
		}
	case *[]Limit:
		for _, l := range *v {
			all = append(all, fmt.Sprintf("%d:%s:%s", l.Resource, formatLimit(l.Soft), formatLimit(l.Hard)))
		}
	case *time.Duration:
		if *v > 0 {
			all = append(all, microseconds(*v))
		}
	default:
		panic(fmt.Sprintf("gate: no orders are of type %T", field))
	}
	return all
}

// set is the inverse of values, for one of them.
func set(field any, value string) (err error) {
	switch v := field.(type) {
	case *string:
		*v = value
	case *[]string:
		*v = append(*v, value)
	case *int:
		*v, err = strconv.Atoi(value)
	case **int:
		var n int
		n, err = strconv.Atoi(value)
		*v = &n
	case *[]int:
		var n uint64
		n, err = strconv.ParseUint(value, 10, 6) // capabilities: the kernel's sets have 64 bits
		*v = append(*v, int(n))
	case **uint32:
		var n uint64
		n, err = strconv.ParseUint(value, 8, 32)
		*v = new(uint32(n))
	case *bool:
		*v = value == "1"
	case *[]Limit:
		var l Limit
		l, err = parseLimit(value)
		*v = append(*v, l)
	case *time.Duration:
		*v, err = parseMicroseconds(value)
	default:
		panic(fmt.Sprintf("gate: no orders are of type %T", field))
	}
	return err
}

const infinity = "infinity"

func formatLimit(n uint64) string {
	if n == ^uint64(0) {
		return infinity
	}
	return strconv.FormatUint(n, 10)
}

// microseconds rounds up: what is more than nothing must not become zero, which
// stands for no watchdog.
func microseconds(d time.Duration) string {
	n := d / time.Microsecond
	if d%time.Microsecond > 0 {
		n++
	}
	return strconv.FormatInt(int64(n), 10)
}

func parseMicroseconds(text string) (time.Duration, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64/uint64(time.Microsecond) {
		return 0, errors.New("out of range")
	}
	return time.Duration(n) * time.Microsecond, nil
}

func parseLimit(text string) (Limit, error) {
	part := strings.Split(text, ":")
	if len(part) != 3 {
		return Limit{}, errors.New("must be RESOURCE:SOFT:HARD")
	}
	resource, err := strconv.Atoi(part[0])
	if err != nil {
		return Limit{}, err
	}
	var l Limit
	l.Resource = resource
	for i, to := range []*uint64{&l.Soft, &l.Hard} {
		if part[i+1] == infinity {
			*to = ^uint64(0)
			continue
		}
		if *to, err = strconv.ParseUint(part[i+1], 10, 64); err != nil {
			return Limit{}, err
		}
	}
	return l, nil
}
