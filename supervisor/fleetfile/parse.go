// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/decnet/prefork/supervisor/policy"
)

// Parse checks the text of a fleet file, and says what it means on a host. The path is for
// errors and for relative paths in the file; nothing is read. Errors are of type [Errors].
func Parse(name, path string, data []byte, host Host) (*File, error) {
	l := newLoader(path, data)
	l.name, l.host = name, host
	if !isName(name) {
		l.errs = append(l.errs, misnamed(path, name))
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		l.errorf("", "relative paths cannot be resolved: %v; name the file by an absolute path", err)
	}
	l.dir = dir
	f := &File{Name: name, Path: path, Start: StartManual, TimeoutStart: 5 * time.Minute}
	if root, ok := l.decode(); ok {
		l.fleet(f, root)
	}
	if len(l.errs) > 0 {
		return nil, l.errs.tidy()
	}
	f.lines = map[string]int{}
	for _, call := range f.Calls() {
		f.lines[call.Key] = l.index.line(call.Key)
	}
	return f, nil
}

func newLoader(path string, data []byte) *loader {
	return &loader{
		path: path, src: strings.TrimPrefix(string(data), "\ufeff"), schema: Schema(),
		index: &index{}, addresses: map[string]int{}, listed: map[string]string{}, overridden: map[string]string{},
	}
}

// decode returns the keys and values of the text, or reports why there are
// none.
func (l *loader) decode() (root map[string]any, ok bool) {
	if line, rule := checkText(l.src); line > 0 {
		l.errs = append(l.errs, &Error{File: l.path, Line: line, Text: rule})
		return nil, false
	}
	l.index = scan(l.src)
	if l.index.deep > 0 {
		l.errs = append(l.errs, &Error{
			File: l.path, Line: l.index.deep,
			Text: fmt.Sprintf("tables, lists and dotted keys can be nested at most %d deep; write it flatter", maxDepth),
		})
		return nil, false
	}
	if _, err := toml.Decode(l.src, &root); err != nil {
		l.errs = append(l.errs, l.syntax(err))
		return nil, false
	}
	return root, true
}

// checkText finds bytes that TOML never has.
func checkText(src string) (line int, rule string) {
	for i, r := range src {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(src[i:], "\ufffd"):
			rule = "a fleet file must be UTF-8; save it in that encoding"
		case r == '\r' && !strings.HasPrefix(src[i:], "\r\n"):
			rule = "a line must not end in a carriage return alone; save the file with Unix line ends"
		case r == '\ufeff' && i == 0:
			// The decoder would drop it, and be out of step with the index.
			rule = "a fleet file can have one byte order mark at most; remove the second"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f:
			rule = fmt.Sprintf("a control character (0x%02x) must be escaped; write \\u%04X in a string, or remove it", r, r)
		default:
			continue
		}
		return 1 + strings.Count(src[:i], "\n"), rule
	}
	return 0, ""
}

// syntax puts an error of the decoder into our form.
func (l *loader) syntax(err error) *Error {
	e := &Error{File: l.path, Line: 1, Text: err.Error()}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return e
	}
	// The offset is right where the line that the decoder counts may be one off.
	start := min(max(pe.Position.Start, 0), len(l.src))
	e.Line = 1 + strings.Count(l.src[:start], "\n")
	e.Key = pe.LastKey
	remedy := "mend the TOML of this line"
	line, _, _ := strings.Cut(l.src[strings.LastIndexByte(l.src[:start], '\n')+1:], "\n")
	if others := sectionOfOthers(line); others != "" {
		remedy = others
	}
	for i, at := range l.index.entries {
		if at.line != e.Line {
			continue
		}
		e.Key = at.path
		if first := l.index.first[at.path]; first < i && l.index.entries[first].line < e.Line {
			remedy = fmt.Sprintf("it is first in line %d, remove one of them", l.index.entries[first].line)
		}
	}
	text := strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(strings.TrimSuffix(pe.Message, "."))
	e.Text = strings.ToLower(text[:1]) + text[1:] + "; " + remedy
	return e
}

// fleet walks the tables in the order in which they refer to each other.
func (l *loader) fleet(f *File, root map[string]any) {
	d := &fleetDraft{File: f, tables: map[string]any{}}
	g := newGiven()
	walk(l, "", root, &topTable, d, g, false)
	if v, ok := d.tables["floor"]; ok {
		f.Floor = &Floor{Python: "python3", Threads: Refuse, FDs: Refuse, GCFreeze: true, Spares: 1}
		m, _ := v.(map[string]any)
		_, l.otherZygote = m["zygote"]
		g := newGiven()
		walk(l, "floor", v, &floorTable, f.Floor, g, false)
		switch {
		case l.otherZygote:
			l.otherFloor = "floor.zygote"
		case g.from["user"] != "":
			l.otherFloor = "floor.user"
		}
		f.Floor.checkZygote(l, g)
		if _, ok := g.from["warm"]; f.Floor.Repack && !ok {
			l.errorf("floor.repack", "has no effect without floor.warm, which tells what code runs; write warm = \"module:callable\", or remove it")
		}
	}
	l.sockets(f, d.tables["socket"])
	if v, ok := d.tables["log"]; ok {
		l.log(f, v)
	}
	if v, ok := d.tables["metrics"]; ok {
		l.metrics(f, v, d.tables["worker"])
	}
	shareV6(f)
	if f.Start == StartConnection && l.declared != nil && len(l.declared) == 0 {
		l.errorf("start", "a connection needs a socket; add [socket.NAME] with listen, or write start = \"boot\"")
	}
	countsSound := l.workers(f, d.tables["defaults"], d.tables["worker"])
	slots := 0
	for i := range f.Workers {
		slots += f.Workers[i].Count
	}
	if f.ReadyWhen.N > slots && countsSound {
		l.errorf("ready_when", "cannot be more than the %d slots that there are; write \"all\", or a smaller number", slots)
	}
}

// named returns the names of a table of tables in the order of the text. Names
// that break the rule are reported, and returned all the same.
func (l *loader) named(path string, v any) (names []string, m map[string]any, ok bool) {
	if v == nil {
		return nil, nil, true
	}
	if m, ok = l.table(path, v); !ok {
		return nil, nil, false
	}
	for name := range m {
		names = append(names, name)
		if !isName(name) {
			l.errorf(join(path, name), "a name %s; rename it", nameRule)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Compare(l.index.order(join(path, a)), l.index.order(join(path, b)))
	})
	return names, m, true
}

func (l *loader) sockets(f *File, v any) {
	names, m, ok := l.named("socket", v)
	if !ok {
		return
	}
	l.declared = map[string]bool{}
	for _, name := range names {
		s := &socketDraft{given: newGiven(), Socket: Socket{Name: name, Type: Stream, Backlog: 4096, Mode: 0o666}}
		l.declared[name] = true
		path := join("socket", name)
		if _, ok := m[name].(map[string]any); !ok {
			l.table(path, m[name])
			continue
		}
		walk(l, path, m[name], &socketTable, s, s.given, false)
		s.check(l, path)
		l.addresses[name] = len(s.Listen)
		f.Sockets = append(f.Sockets, s.Socket)
	}
}

// shareV6 leaves IPv4 to the addresses that name it.
func shareV6(f *File) {
	ipv4 := map[string]bool{}
	each := func(do func(t SocketType, a *Address)) {
		for i := range f.Sockets {
			for j := range f.Sockets[i].Listen {
				do(f.Sockets[i].Type, &f.Sockets[i].Listen[j])
			}
		}
		if f.Metrics != nil {
			do(Stream, &f.Metrics.Listen)
		}
	}
	each(func(t SocketType, a *Address) {
		if a.IP.Addr().Is4() {
			ipv4[a.port(t)] = true
		}
	})
	each(func(t SocketType, a *Address) { a.V6Only = a.IP.Addr().Is6() && ipv4[a.port(t)] })
}

// workers reports whether the numbers of slots are sound.
func (l *loader) workers(f *File, defaults, v any) (countsSound bool) {
	base := newDraft()
	if defaults != nil {
		walk(l, "defaults", defaults, &workerTable, base, base.given, true)
	}
	names, m, ok := l.named("worker", v)
	countsSound, total := ok, 0
	var drafts []*draft
	for _, name := range names {
		path := join("worker", name)
		if _, ok := m[name].(map[string]any); !ok {
			l.table(path, m[name])
			countsSound = false
			continue
		}
		d := base.clone()
		d.Name = name
		walk(l, path, m[name], &workerTable, d, d.given, false)
		d.notAfterItself()
		d.overrideCount(l, path)
		d.check(l, path, f.Floor)
		d.specify(l)
		d.defaultRoll(f)
		countsSound = countsSound && !d.bad["count"]
		before := total
		if total += d.Count; total > policy.MaxSlots && before <= policy.MaxSlots {
			l.errorf(cmp.Or(d.from["count"], path), "a fleet can have at most %d slots, this is number %d; lower count", policy.MaxSlots, total)
		}
		f.Workers = append(f.Workers, d.Worker)
		drafts = append(drafts, d)
	}
	l.checkOrder(names, drafts)
	for _, variable := range slices.Sorted(maps.Keys(l.host.Counts)) {
		if l.host.Counts[variable] != "" && l.overridden[variable] == "" {
			f.Strays = append(f.Strays, variable)
		}
	}
	return countsSound
}
