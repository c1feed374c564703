// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"hash/fnv"

	"github.com/decnet/prefork/supervisor/fleet"
)

// Config is what the file means for the state machine, without what is of the host. For a
// key of a worker whose value is the name of a file, content has what that file holds:
// what has changed there has changed.
func (f *File) Config(content map[string]string) fleet.Config {
	c := fleet.Config{
		ReadyWhen:    f.ReadyWhen,
		TimeoutStart: f.TimeoutStart,
		Keys:         append(sums(&topTable, &fleetDraft{File: f}), f.metricsKeys()...),
	}
	if f.Floor != nil {
		c.Spares = f.Floor.Spares
		c.FloorKeys = sums(&floorTable, f.Floor)
	}
	for _, s := range f.Sockets {
		c.Sockets = append(c.Sockets, fleet.Socket{Name: s.Name, Keys: sums(&socketTable, &socketDraft{Socket: s})})
	}
	for _, w := range f.Workers {
		worker := fleet.Worker{
			Name: w.Name, Count: w.Count, Entry: w.Entry != "", OnDemand: w.OnDemand, Sockets: w.Sockets,
			Policy: w.Policy, Roll: w.Roll, Keys: sums(&workerTable, &draft{Worker: w}),
		}
		for i, k := range worker.Keys {
			if k.Name == "environment_file" {
				worker.Keys[i].Sum ^= sum(content[w.Name])
			}
		}
		c.Workers = append(c.Workers, worker)
	}
	return c
}

// metricsKeys are those of [metrics], by the names of the top of the file.
func (f *File) metricsKeys() (keys []fleet.Key) {
	if f.Metrics == nil {
		return nil
	}
	for _, k := range sums(&metricsTable, &metricsDraft{Metrics: *f.Metrics}) {
		k.Name = join("metrics", k.Name)
		keys = append(keys, k)
	}
	return keys
}

// sums are those of the keys of a table, as they would be printed.
func sums[T any](schema *table[T], t *T) (keys []fleet.Key) {
	for i := range schema.fields {
		f := &schema.fields[i]
		if f.show == nil {
			continue
		}
		if text := f.show(t); text != "" {
			keys = append(keys, fleet.Key{Name: f.Name, Class: f.Class, Sum: sum(text)})
		}
	}
	return keys
}

func sum(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum64()
}
