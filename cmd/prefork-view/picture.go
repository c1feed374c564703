// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"
	"time"

	weights "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/memory"
)

// A picture has the shape of a slide.
const (
	pictureWidth, pictureHeight = 12.8 * vg.Inch, 7.2 * vg.Inch

	margin    = 0.3 * vg.Inch
	headline  = 1.35 * vg.Inch // room for title and legend
	pngDPI    = 150
	timeShare = 0.42 // of the width, for what is over time
)

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// part is a kind of memory, as it is drawn. The colours can be told apart by who does not
// see all of them (Okabe and Ito).
type part struct {
	name   string
	colour color.Color
	of     func(s *memory.SlotReport) uint64
}

var parts = []part{
	{"shared with the floor", color.RGBA{0xc6, 0xdb, 0xef, 0xff}, func(s *memory.SlotReport) uint64 { return s.Shared }},
	{"shared, of a former floor", color.RGBA{0x99, 0x99, 0x99, 0xff}, func(s *memory.SlotReport) uint64 { return s.Former }},
	{"written since the fork", color.RGBA{0xe6, 0x9f, 0x00, 0xff}, func(s *memory.SlotReport) uint64 { return s.Written }},
	{"own", color.RGBA{0x00, 0x72, 0xb2, 0xff}, func(s *memory.SlotReport) uint64 { return s.Own }},
}

var (
	ink   = color.RGBA{0x22, 0x22, 0x22, 0xff}
	pale  = color.RGBA{0xdd, 0xdd, 0xdd, 0xff}
	heavy = color.RGBA{0xd5, 0x5e, 0x00, 0xff} // what separate processes would hold
	light = color.RGBA{0x00, 0x9e, 0x73, 0xff} // what there is
)

func isPNG(file string) bool { return strings.HasSuffix(file, ".png") }

// picture draws the last report by slot and, if there are more, sums over time.
func picture(past []memory.Report, png bool) ([]byte, error) {
	now := &past[len(past)-1]
	slots := drawable(now)
	if len(slots) == 0 {
		return nil, fmt.Errorf("there is no slot to draw")
	}
	var c interface {
		vg.CanvasWriterTo
		vg.CanvasSizer
	}
	if png {
		c = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(pictureWidth, pictureHeight), vgimg.UseDPI(pngDPI))}
	} else {
		c = vgsvg.NewWith(vgsvg.UseWH(pictureWidth, pictureHeight), vgsvg.EmbedFonts(true))
	}
	whole := draw.New(c)
	whole.FillPolygon(color.White, corners(whole.Rectangle))
	inner := draw.Crop(whole, margin, -margin, margin, -margin)
	writeHead(inner, now, slots)
	below := draw.Crop(inner, 0, 0, 0, -headline)
	if len(past) > 1 {
		width := below.Max.X - below.Min.X
		drawPlot(overTime(past), draw.Crop(below, width*(1-timeShare), 0, 0, 0))
		below = draw.Crop(below, 0, -width*timeShare-margin, 0, 0)
	}
	drawPlot(bySlot(slots, below.Max.X-below.Min.X), below)
	var b bytes.Buffer
	_, err := c.WriteTo(&b)
	return b.Bytes(), err
}

func drawPlot(p *plot.Plot, c draw.Canvas) { p.Draw(c) }

func corners(r vg.Rectangle) []vg.Point {
	return []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}

// drawable are those that were measured.
func drawable(r *memory.Report) (slots []memory.SlotReport) {
	for _, s := range r.Slots {
		if s.PID != 0 && s.Problem == "" {
			slots = append(slots, s)
		}
	}
	return slots
}

func lettering(size float64, colour color.Color) text.Style {
	return text.Style{Color: colour, Font: font.From(sans, vg.Points(size)), Handler: plot.DefaultTextHandler, YAlign: draw.YTop}
}

// writeHead writes the title, the sentence that it is about, and the legend.
func writeHead(c draw.Canvas, r *memory.Report, slots []memory.SlotReport) {
	at := vg.Point{X: c.Min.X, Y: c.Max.Y}
	title := lettering(22, ink)
	title.Font.Weight = weights.WeightBold
	writeLine(c, title, at, control.Printable(fmt.Sprintf("%s: memory of %s", r.Fleet, counted(len(slots), "process"))))
	at.Y -= 0.42 * vg.Inch
	writeLine(c, lettering(14, ink), at, caption(&r.Total))
	at.Y -= 0.42 * vg.Inch
	for _, p := range parts {
		if !has(slots, p) {
			continue
		}
		box := vg.Rectangle{Min: vg.Point{X: at.X, Y: at.Y - vg.Points(14)}, Max: vg.Point{X: at.X + vg.Points(18), Y: at.Y - vg.Points(2)}}
		c.FillPolygon(p.colour, corners(box))
		label := lettering(13, ink)
		c.FillText(label, vg.Point{X: box.Max.X + vg.Points(6), Y: at.Y}, p.name)
		at.X = box.Max.X + vg.Points(6) + label.Width(p.name) + vg.Points(24)
	}
}

// writeLine writes smaller what would be too long.
func writeLine(c draw.Canvas, s text.Style, at vg.Point, line string) {
	if width, room := s.Width(line), c.Max.X-at.X; width > room {
		s.Font.Size *= font.Length(room / width)
	}
	c.FillText(s, at, line)
}

func caption(t *memory.Total) string {
	switch {
	case t.Forked == 0:
		return "nothing is forked from a floor that could be measured"
	case t.Slots < 2:
		return fmt.Sprintf("floor: %s; written since the fork: %s", mib(t.Once), mib(t.Written))
	}
	return fmt.Sprintf("%d slots share %s once; separate processes would hold that once each, %s; written since the fork: %s",
		t.Slots, mib(t.Once), mib(t.Separate), mib(t.Written))
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ses", n, what)
}

func mib(n uint64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func has(slots []memory.SlotReport, p part) bool {
	for i := range slots {
		if p.of(&slots[i]) > 0 {
			return true
		}
	}
	return false
}

// newPlot has axes of MiB, and lines to measure by.
func newPlot() *plot.Plot {
	p := plot.New()
	p.Y.Label.Text = "MiB"
	p.Y.Min = 0
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = font.From(sans, 13)
		axis.Tick.Label.Font = font.From(sans, 12)
		axis.Label.TextStyle.Color, axis.Tick.Label.Color = ink, ink
	}
	p.X.Padding, p.Y.Padding = 0, 0
	p.Y.Tick.Marker = plot.TickerFunc(roundTicks)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, pale
	p.Add(grid)
	return p
}

// roundTicks are some five round numbers.
func roundTicks(least, most float64) (ticks []plot.Tick) {
	if most <= least {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10((most-least)/5)))
	for _, times := range []float64{1, 2, 2.5, 5, 10} {
		if (most-least)/(step*times) <= 6 {
			step *= times
			break
		}
	}
	for i := math.Ceil(least / step); i*step <= most; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'f', -1, 64)})
	}
	return ticks
}

// bars are those of all slots, side by side.
type bars []memory.SlotReport

const barWidth = 0.72 // of the room for one

// Plot implements [plot.Plotter].
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i := range b {
		at := 0.0
		for _, part := range parts {
			size := float64(part.of(&b[i])) / (1 << 20)
			box := vg.Rectangle{
				Min: vg.Point{X: x(float64(i) - barWidth/2), Y: y(at)},
				Max: vg.Point{X: x(float64(i) + barWidth/2), Y: y(at + size)},
			}
			c.FillPolygon(part.colour, corners(box))
			at += size
		}
	}
}

func (b bars) highest() (most float64) {
	for i := range b {
		sum := uint64(0)
		for _, part := range parts {
			sum += part.of(&b[i])
		}
		most = max(most, float64(sum)/(1<<20))
	}
	return most
}

// bySlot has a bar for each slot. Names stand upright if there is no room for them beside
// each other, and only every so many has one if there is none for all.
func bySlot(slots bars, width vg.Length) *plot.Plot {
	p := newPlot()
	p.Add(slots)
	few := max(0, 5-float64(len(slots))) / 2 // one bar is none across the whole picture
	p.X.Min, p.X.Max = -0.6-few, float64(len(slots))-0.4+few
	p.Y.Max = 1.05 * max(slots.highest(), 1)
	longest := 0
	for _, s := range slots {
		longest = max(longest, len(s.Name))
	}
	room := float64((width-0.8*vg.Inch)/vg.Points(1)) / float64(len(slots)) // points for each
	every := 1
	label := &p.X.Tick.Label
	if room < 7*float64(longest)+8 {
		label.Rotation, label.XAlign, label.YAlign = math.Pi/2, draw.XRight, draw.YCenter
		size := min(12, max(8, room-2))
		label.Font.Size = vg.Points(size)
		every = max(1, int(math.Ceil((size+2)/room)))
	}
	var ticks []plot.Tick
	for i, s := range slots {
		if i%every == 0 {
			ticks = append(ticks, plot.Tick{Value: float64(i), Label: control.Printable(s.Name)})
		}
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.X.Tick.Color, p.X.Tick.Length = color.Transparent, vg.Points(5) // room between bars and names
	if every > 1 {
		p.X.Label.Text = fmt.Sprintf("%d processes; every %s is named", len(slots), ordinal(every))
	}
	return p
}

func ordinal(n int) string {
	switch n {
	case 2:
		return "other"
	case 3:
		return "third"
	default:
		return fmt.Sprintf("%dth", n)
	}
}

// overTime has lines of sums: what there is, against what separate processes would hold.
func overTime(past []memory.Report) *plot.Plot {
	p := newPlot()
	began := time.UnixMicro(int64(past[0].Timestamp))
	lasted := time.UnixMicro(int64(past[len(past)-1].Timestamp)).Sub(began)
	unit, name := time.Second, "seconds"
	switch {
	case lasted > 48*time.Hour:
		unit, name = 24*time.Hour, "days"
	case lasted > 2*time.Hour:
		unit, name = time.Hour, "hours"
	case lasted > 2*time.Minute:
		unit, name = time.Minute, "minutes"
	}
	p.X.Label.Text = name + " since " + began.Format("15:04:05")
	most := 1.0
	for _, l := range []struct {
		name   string
		colour color.Color
		dashes []vg.Length
		of     func(t *memory.Total) uint64
	}{
		{"separate processes", heavy, []vg.Length{vg.Points(6), vg.Points(4)}, func(t *memory.Total) uint64 { return t.Separate + t.Own }},
		{"this fleet", light, nil, func(t *memory.Total) uint64 { return t.Once + t.Written + t.Own }},
		{"of it written", parts[2].colour, nil, func(t *memory.Total) uint64 { return t.Written }},
		{"of it own", parts[3].colour, nil, func(t *memory.Total) uint64 { return t.Own }},
	} {
		points := make(plotter.XYs, len(past))
		for i := range past {
			points[i].X = float64(time.UnixMicro(int64(past[i].Timestamp)).Sub(began)) / float64(unit)
			points[i].Y = float64(l.of(&past[i].Total)) / (1 << 20)
			most = max(most, points[i].Y)
		}
		line := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: l.colour, Width: vg.Points(2.5), Dashes: l.dashes}}
		p.Add(line)
		p.Legend.Add(l.name, line)
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.TextStyle.Font = font.From(sans, 12)
	p.Legend.ThumbnailWidth = vg.Points(28)
	p.Legend.Padding = vg.Points(3)
	p.Legend.XOffs = vg.Points(8)
	p.Y.Max = 1.45 * most // the legend is above the lines
	p.X.Min, p.X.Max = 0, max(float64(lasted)/float64(unit), 1e-3)
	p.X.Tick.Marker = plot.TickerFunc(roundTicks)
	return p
}
