// SPDX-License-Identifier: AGPL-3.0-or-later

package supervisor

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleet"
	"github.com/decnet/prefork/supervisor/metrics"
	"github.com/decnet/prefork/supervisor/sockets"
)

// monitors are the clients of the metrics socket. They see what operators see.
type monitors struct{ *operators }

// probeTimeout is how long a probe waits for the loop. Who asks has a deadline of
// its own, and is to hear the reason before it.
const probeTimeout = 2 * time.Second

// Look implements [metrics.Backend].
func (o monitors) Look() (*control.Fleet, error) {
	type view struct {
		fleet *control.Fleet
		err   error
	}
	answer := make(chan view, 1)
	go func() {
		f, err := o.operators.Look()
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
func (o monitors) Sample() (*metrics.Sample, error) {
	seen, err := o.see()
	if err != nil {
		return nil, err
	}
	f := *seen.fleet // others see it, too
	o.Measure(&f)
	return &metrics.Sample{Fleet: &f, Spawns: histogram(&seen.spawns)}, nil
}

func histogram(h *fleet.Histogram) metrics.Histogram {
	out := metrics.Histogram{Counts: h.Counts[:], Sum: h.Sum.Seconds()}
	for _, bound := range fleet.SpawnBounds {
		out.Bounds = append(out.Bounds, bound.Seconds())
	}
	return out
}

// openMetrics answers monitoring, if the file has [metrics]. This socket is the
// master's own: it is not handed down, and so may be a net.Listener.
func (m *master) openMetrics() error {
	if m.file.Metrics == nil {
		return nil
	}
	listener, err := sockets.ListenMetrics(m.file.Metrics.Listen)
	if err != nil {
		return fmt.Errorf("%s: %w", m.file.Path, err)
	}
	m.metrics = metrics.Serve(listener, monitors{m.operators})
	return nil
}

// closeMetrics ends the clients. It comes after the end of the operators: until
// then they were told that the fleet stops, and none waits for an answer now.
func (m *master) closeMetrics() {
	if m.metrics == nil {
		return
	}
	m.metrics.Close()
	if path := m.file.Metrics.Listen.Unix; strings.HasPrefix(path, "/") {
		_ = unix.Unlink(path) // another fleet may have replaced it already
	}
}
