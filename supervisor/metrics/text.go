// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/control"
)

// Sample is a fleet at one time.
type Sample struct {
	Fleet  *control.Status
	Spawns Histogram
}

// Histogram counts durations in seconds. Counts has one more than Bounds: each is
// of those that are at most its bound and above the one before, the last of those
// above all bounds.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// Format is one of the two ways in which the same is written.
type Format int

// The formats.
const (
	OpenMetrics Format = iota // version 1.0.0
	Text                      // Prometheus's own, version 0.0.4
)

// contentType is what the format is called in HTTP.
func (f Format) contentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// kind is the type of a family, in the words of OpenMetrics.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
	info      kind = "info"
)

// suffix is what the name of each sample of the family ends in.
func (k kind) suffix() string {
	switch k {
	case counter:
		return "_total"
	case info:
		return "_info"
	default:
		return ""
	}
}

// Write writes a sample. It makes one call of w.Write for each 4 kB or so.
func Write(w io.Writer, s *Sample, f Format) error {
	p := newPrinter(w, f)
	for i := range families {
		p.family(&families[i], s)
	}
	if f == OpenMetrics {
		p.text("# EOF\n")
	}
	return p.Flush()
}

// printer writes lines. An error of the writer stays with it until Flush.
type printer struct {
	*bufio.Writer
	format Format
	name   string // of the samples that follow
}

func newPrinter(w io.Writer, f Format) *printer {
	return &printer{Writer: bufio.NewWriter(w), format: f}
}

func (p *printer) text(s string) { _, _ = p.WriteString(s) } // Flush has the error

func (p *printer) family(f *family, s *Sample) {
	p.name = f.name + f.kind.suffix()
	described, kind := f.name, f.kind
	if p.format == Text {
		described = p.name
		if kind == info { // unknown there
			kind = gauge
		}
	}
	p.text("# TYPE " + described + " " + string(kind) + "\n")
	if f.unit != "" && p.format == OpenMetrics {
		p.text("# UNIT " + described + " " + f.unit + "\n")
	}
	p.text("# HELP " + described + " " + f.help + "\n")
	f.write(p, s)
}

// sample writes one line: the name with a suffix, labels as pairs of a name and a
// value, and the value.
func (p *printer) sample(suffix string, value float64, labels ...string) {
	p.text(p.name + suffix)
	before := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		_ = p.WriteByte(before)
		p.text(labels[i] + `="` + escape.Replace(labels[i+1]) + `"`)
		before = ','
	}
	if before == ',' {
		_ = p.WriteByte('}')
	}
	p.text(" " + strconv.FormatFloat(value, 'f', -1, 64) + "\n")
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// histogram writes cumulative buckets, as both formats want them.
func (p *printer) histogram(h *Histogram) {
	var n uint64
	for i, count := range h.Counts {
		n += count
		if i < len(h.Bounds) {
			p.sample("_bucket", float64(n), "le", boundText(h.Bounds[i]))
		}
	}
	p.sample("_bucket", float64(n), "le", "+Inf")
	p.sample("_sum", h.Sum)
	p.sample("_count", float64(n))
}

// boundText is a bound as OpenMetrics wants it: 1.0, and never 1.
func boundText(f float64) string {
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
