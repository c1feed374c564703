// SPDX-License-Identifier: AGPL-3.0-or-later

package report

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// WritePlots writes an SVG file into dir for each column that is to be plotted,
// and returns the names of the files by topic. Of a topic that compares
// numbers of workers, a plot has a line for each system; of others each sample is
// a dot.
func WritePlots(dir string, r *Run) (map[string][]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := map[string][]string{}
	for _, t := range r.Topics {
		for i, c := range t.Columns {
			if !c.Plot {
				continue
			}
			p, height, err := t.plot(c)
			if errors.Is(err, errNothing) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("plot %s, %s: %w", t.Name, c.Name, err)
			}
			name := fmt.Sprintf("%s-%d.svg", t.Name, i+1)
			if err := p.Save(7*vg.Inch, height, filepath.Join(dir, name)); err != nil {
				return nil, err
			}
			files[t.Name] = append(files[t.Name], name)
		}
	}
	return files, nil
}

var errNothing = errors.New("there is nothing to plot")

func (t *Topic) plot(c Column) (*plot.Plot, vg.Length, error) {
	p := plot.New()
	p.Title.Text = t.Title
	p.BackgroundColor = color.White
	p.Title.Padding = vg.Points(6)
	for _, style := range []*text.Style{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		style.Font.Variant = "Sans"
		style.Font.Size = min(style.Font.Size, vg.Points(11))
	}
	for _, r := range t.Rows {
		if r.Number > 0 {
			return t.lines(p, c)
		}
	}
	return t.dots(p, c)
}

var (
	ours   = color.RGBA{R: 0xc0, G: 0x39, B: 0x2b, A: 0xff}
	theirs = color.RGBA{R: 0x4a, G: 0x6f, B: 0x8a, A: 0xff}
)

func colourOf(row string) color.RGBA {
	if strings.HasPrefix(row, "prefork") {
		return ours
	}
	return theirs
}

// faint is a colour for what lies over each other.
func faint(c color.RGBA) color.Color { return color.NRGBA{R: c.R, G: c.G, B: c.B, A: 0x60} }

// dots has a line of dots for each row, the first on top, and a bar at the median.
func (t *Topic) dots(p *plot.Plot, c Column) (*plot.Plot, vg.Length, error) {
	var names []string
	var all Series
	for i := len(t.Rows) - 1; i >= 0; i-- {
		r := t.Rows[i]
		samples := r.Samples[c.Name]
		if len(samples) == 0 {
			continue
		}
		y := float64(len(names))
		names = append(names, r.Name)
		all = append(all, samples...)
		points := make(plotter.XYs, len(samples))
		for i, x := range samples {
			points[i] = plotter.XY{X: x, Y: y}
		}
		dots, err := plotter.NewScatter(points)
		if err != nil {
			return nil, 0, err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: faint(colourOf(r.Name)), Radius: vg.Points(2.5), Shape: draw.CircleGlyph{}}
		m := samples.Median()
		bar, err := plotter.NewLine(plotter.XYs{{X: m, Y: y - 0.3}, {X: m, Y: y + 0.3}})
		if err != nil {
			return nil, 0, err
		}
		bar.LineStyle = draw.LineStyle{Color: colourOf(r.Name), Width: vg.Points(2)}
		p.Add(dots, bar)
	}
	if len(names) == 0 {
		return nil, 0, errNothing
	}
	p.NominalY(names...)
	p.X.Label.Text = c.label()
	scale(&p.X, all)
	p.Add(verticals())
	p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
	return p, vg.Length(len(names))*0.3*vg.Inch + 1.1*vg.Inch, nil
}

// lines has a line for each system, over the number of workers.
func (t *Topic) lines(p *plot.Plot, c Column) (*plot.Plot, vg.Length, error) {
	var names []string
	points := map[string]plotter.XYs{}
	var numbers, all Series
	for _, r := range t.Rows {
		if len(r.Samples[c.Name]) == 0 {
			continue
		}
		if points[r.Name] == nil {
			names = append(names, r.Name)
		}
		y := r.Samples[c.Name].Median()
		points[r.Name] = append(points[r.Name], plotter.XY{X: float64(r.Number), Y: y})
		numbers, all = append(numbers, float64(r.Number)), append(all, y)
	}
	if len(names) == 0 {
		return nil, 0, errNothing
	}
	for i, name := range names {
		line, dots, err := plotter.NewLinePoints(points[name])
		if err != nil {
			return nil, 0, err
		}
		line.LineStyle = draw.LineStyle{Color: plotutil.DarkColors[i%len(plotutil.DarkColors)], Width: vg.Points(1.2)}
		if strings.HasPrefix(name, "prefork") {
			line.Width = vg.Points(2.5)
		}
		if i >= len(plotutil.DarkColors) {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(2)}
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: line.Color, Radius: vg.Points(2.5), Shape: plotutil.Shape(i)}
		p.Add(line, dots)
		p.Legend.Add(name, line, dots)
	}
	p.X.Label.Text, p.Y.Label.Text = "workers", c.label()
	scale(&p.Y, all)
	// The numbers are powers of each other; beside the last is room for the legend.
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ticks(numbers)
	low, high := numbers.Quantile(0), numbers.Quantile(1)
	p.X.Min, p.X.Max = low/1.2, high*math.Pow(high/low, 0.6)*1.5
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.XOffs, p.Legend.Padding = true, -vg.Points(6), vg.Points(2)
	return p, 4.5 * vg.Inch, nil
}

// ticks are marks at these numbers.
func ticks(numbers Series) (all plot.ConstantTicks) {
	for _, x := range slices.Compact(slices.Sorted(slices.Values(numbers))) {
		all = append(all, plot.Tick{Value: x, Label: short(x)})
	}
	return all
}

func verticals() *plotter.Grid {
	g := plotter.NewGrid()
	g.Horizontal.Color = nil
	return g
}

// scale makes an axis logarithmic if the values are far from each other, and
// else lets it begin at zero.
func scale(a *plot.Axis, values Series) {
	low, high := values.Quantile(0), values.Quantile(1)
	if low > 0 && high/low > 20 {
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		a.Min, a.Max = low/1.3, high*1.3
		return
	}
	a.Min, a.Max = min(low, 0), high*1.08
	if a.Max == a.Min {
		a.Max = a.Min + 1
	}
}
