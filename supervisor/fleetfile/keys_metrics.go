// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

// metricsDraft is a Metrics while it is read.
type metricsDraft struct {
	Metrics
	given
}

var metricsTable = table[metricsDraft]{
	header: "[metrics]",
	fields: []field[metricsDraft]{
		{Key{
			Name: "listen", Kind: KindString, Example: `"127.0.0.1:9090"`,
			Rule: "an address",
			Only: "is needed; an address can be listed once in a file",
		}, value[metricsDraft]{setMetricsListen, func(m *metricsDraft) string { return quote(m.Listen.Text) }}},
	},
}

func setMetricsListen(c *cell, m *metricsDraft) {
	text, ok := c.v.(string)
	if !ok {
		c.refuse()
		return
	}
	a, rule, remedy := parseAddress(text)
	if rule != "" {
		c.fail(c.path, rule, remedy)
		return
	}
	m.Listen = a
}

// metrics reads [metrics]. It comes after the sockets, whose addresses are taken.
func (l *loader) metrics(f *File, v any) {
	m := &metricsDraft{given: newGiven()}
	table, ok := l.table("metrics", v)
	if !ok {
		return
	}
	walk(l, "metrics", table, &metricsTable, m, m.given, false)
	switch {
	case m.from["listen"] == "":
		l.errorf("metrics", "must have listen; write listen = \"127.0.0.1:9090\", for example")
	case !m.bad["listen"]:
		l.claim(m.Listen, Stream, "metrics.listen")
		f.Metrics = &m.Metrics
	}
}
