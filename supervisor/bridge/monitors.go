// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"fmt"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/metrics"
)

// monitors are the clients of the metrics socket. They see what operators see.
type monitors struct{ *clients }

// probeTimeout is how long a probe waits for the loop. Who asks has a deadline of
// its own, and is to hear the reason before it.
const probeTimeout = 2 * time.Second

// Look implements [metrics.Backend].
func (m monitors) Look() (*control.Status, error) {
	type view struct {
		fleet *control.Status
		err   error
	}
	answer := make(chan view, 1)
	go func() {
		f, err := m.clients.Look()
		answer <- view{f, err}
	}()
	timer := time.NewTimer(probeTimeout)
	defer timer.Stop()
	select {
	case v := <-answer:
		return v.fleet, v.err
	case <-timer.C:
		return nil, fmt.Errorf("the master did not answer within %s: it is stuck", probeTimeout)
	}
}

// Sample implements [metrics.Backend].
func (m monitors) Sample() (*metrics.Sample, error) {
	seen, err := m.queue.look()
	if err != nil {
		return nil, err
	}
	f := *seen.Fleet // others see it, too
	m.Measure(&f)
	return &metrics.Sample{Fleet: &f, Spawns: histogram(&seen.Spawns)}, nil
}

func histogram(h *fleet.Histogram) metrics.Histogram {
	out := metrics.Histogram{Counts: h.Counts[:], Sum: h.Sum.Seconds()}
	for _, bound := range fleet.SpawnBounds {
		out.Bounds = append(out.Bounds, bound.Seconds())
	}
	return out
}
