// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/policy"
)

// socketDraft is a Socket while it is read.
type socketDraft struct {
	Socket
	given
	paths []string // of the entries of Listen
}

var socketTable = table[socketDraft]{
	header: "[socket.NAME]",
	fields: []field[socketDraft]{
		{Key{
			Name: "listen", Kind: KindOneOrAll, Class: policy.Birth, Example: `["0.0.0.0:8080", "[::]:8080"]`,
			Rule: "an address or a list of them",
			Only: "is needed; an address can be listed once in a file",
		}, value[socketDraft]{setListen, showListen}},
		{Key{
			Name: "type", Kind: KindChoice, Class: policy.Birth, Default: `"stream"`, Example: `"datagram"`,
			Rule: `"stream", "datagram" or "seqpacket"`,
			Only: "seqpacket is for Unix sockets",
		}, choice(func(s *socketDraft) *SocketType { return &s.Type }, Stream, Datagram, Seqpacket)},
		{Key{
			Name: "backlog", Kind: KindInteger, Class: policy.Live, Default: `4096`, Example: `128`,
			Rule: "a whole number from 1 to 2147483647",
			Only: "not with type = \"datagram\"",
		}, backlog()},
		{Key{
			Name: "reuse_port", Kind: KindBool, Class: policy.Birth, Default: `false`, Example: `true`,
			Rule: "true or false",
			Only: "with an IP address in listen",
		}, truth(func(s *socketDraft) *bool { return &s.ReusePort })},
		{Key{
			Name: "free_bind", Kind: KindBool, Class: policy.Birth, Default: `false`, Example: `true`,
			Rule: "true or false",
			Only: "with an IP address in listen",
		}, truth(func(s *socketDraft) *bool { return &s.FreeBind })},
		{Key{
			Name: "mode", Kind: KindMode, Class: policy.Live, Default: `"0666"`, Example: `"0660"`,
			Rule: "an octal number from 0000 to 0777",
			Only: "with a path in listen",
		}, value[socketDraft]{setSocketMode, showSocketMode}},
		{Key{
			Name: "user", Kind: KindID, Class: policy.Live, Example: `"root"`,
			Rule: "the name or the number of a user",
			Only: "with a path in listen",
		}, identity(func(s *socketDraft) *string { return &s.User })},
		{Key{
			Name: "group", Kind: KindID, Class: policy.Live, Example: `"www-data"`,
			Rule: "the name or the number of a group",
			Only: "with a path in listen",
		}, identity(func(s *socketDraft) *string { return &s.Group })},
	},
}

func setListen(c *cell, s *socketDraft) {
	items := c.items(true)
	if len(items) == 0 && !c.bad {
		c.refuse()
	}
	for _, it := range items {
		text, ok := it.v.(string)
		if !ok {
			c.refuseItem(it.path, it.v)
			continue
		}
		if !c.specifiers(it.path, text, fileSpecifiers) {
			continue
		}
		a, rule, remedy := parseAddress(c.fill(text))
		if rule != "" {
			c.fail(it.path, rule, remedy)
			continue
		}
		s.Listen = append(s.Listen, a)
		s.paths = append(s.paths, it.path)
	}
}

func showListen(s *socketDraft) string {
	var list []string
	for _, a := range s.Listen {
		list = append(list, escape(a.Text))
	}
	return showTexts(list)
}

func backlog() value[socketDraft] {
	v := whole(func(s *socketDraft) *int { return &s.Backlog }, 1, math.MaxInt32)
	show := v.show
	v.show = func(s *socketDraft) string {
		if s.Type == Datagram {
			return ""
		}
		return show(s)
	}
	return v
}

func setSocketMode(c *cell, s *socketDraft) {
	if n, ok := mode(c); ok {
		s.Mode = n
	}
}

func showSocketMode(s *socketDraft) string {
	if !s.hasFile() {
		return ""
	}
	return showMode(s.Mode)
}

// hasFile reports whether one of the addresses is a path.
func (s *socketDraft) hasFile() bool {
	for _, a := range s.Listen {
		if strings.HasPrefix(a.Unix, "/") {
			return true
		}
	}
	return false
}

// hasIP reports whether one of the addresses is an IP address.
func (s *socketDraft) hasIP() bool {
	return slices.ContainsFunc(s.Listen, func(a Address) bool { return a.IP.IsValid() })
}

// check looks at what keys say together.
func (s *socketDraft) check(l *loader, path string) {
	if s.from["listen"] == "" {
		l.errorf(path, "must have listen; write listen = \"0.0.0.0:8080\", for example")
		return
	}
	for i, a := range s.Listen {
		if s.Type == Seqpacket && a.IP.IsValid() {
			l.errorf(s.paths[i], "a seqpacket socket must be a Unix socket; write a path, or another type")
		}
		l.claim(a, s.Type, s.paths[i])
	}
	if s.bad["listen"] || s.bad["type"] {
		return
	}
	if s.from["backlog"] != "" && s.Type == Datagram {
		l.errorf(s.from["backlog"], "a datagram socket has no backlog; remove it")
	}
	for _, key := range []string{"mode", "user", "group"} {
		if s.from[key] != "" && !s.hasFile() {
			l.errorf(s.from[key], "only a Unix socket with a path has a file to own; remove %s or add a path to listen", key)
		}
	}
	for key, set := range map[string]bool{"reuse_port": s.ReusePort, "free_bind": s.FreeBind} {
		if set && !s.hasIP() {
			l.errorf(s.from[key], "is for IP addresses only; remove %s or add an IP address to listen", key)
		}
	}
}

// claim notes that the entry at path occupies an address, or reports that another
// does so already.
func (l *loader) claim(a Address, t SocketType, path string) {
	if first, ok := l.listed[a.key(t)]; ok {
		l.errorf(path, "%s is listed already in line %d by %s; remove one of them", a.Text, l.index.line(first), first)
		return
	}
	l.listed[a.key(t)] = path
}

// metricsDraft is a Metrics while it is read.
type metricsDraft struct {
	Metrics
	given
}

var metricsTable = table[metricsDraft]{
	header: "[metrics]",
	fields: []field[metricsDraft]{
		{Key{
			Name: "listen", Kind: KindString, Class: policy.Start, Example: `"127.0.0.1:9090"`,
			Rule: "an address",
			Only: "is needed; an address can be listed once in a file",
		}, value[metricsDraft]{setMetricsListen, func(m *metricsDraft) string { return quote(escape(m.Listen.Text)) }}},
		{Key{
			Name: "ready", Kind: KindStrings, Class: policy.Live, Example: `["w"]`,
			Rule: "a list of names of workers",
			Only: "there must be such workers",
		}, texts(func(m *metricsDraft) *[]string { return &m.Ready }, isName)},
	},
}

func setMetricsListen(c *cell, m *metricsDraft) {
	text, ok := c.v.(string)
	if !ok {
		c.refuse()
		return
	}
	if !c.specifiers(c.path, text, fileSpecifiers) {
		return
	}
	a, rule, remedy := parseAddress(c.fill(text))
	if rule != "" {
		c.fail(c.path, rule, remedy)
		return
	}
	m.Listen = a
}

// metrics reads [metrics]. It comes after the sockets, whose addresses are taken.
func (l *loader) metrics(f *File, v, workers any) {
	m := &metricsDraft{given: newGiven()}
	table, ok := l.table("metrics", v)
	if !ok {
		return
	}
	walk(l, "metrics", table, &metricsTable, m, m.given, false)
	if m.from["ready"] != "" && !m.bad["ready"] {
		l.checkReady(m.Ready, workers)
	}
	switch {
	case m.from["listen"] == "":
		l.errorf("metrics", "must have listen; write listen = \"127.0.0.1:9090\", for example")
	case !m.bad["listen"]:
		l.claim(m.Listen, Stream, "metrics.listen")
		f.Metrics = &m.Metrics
	}
}

// checkReady looks for the workers that the fleet is ready by.
func (l *loader) checkReady(names []string, workers any) {
	const key = "metrics.ready"
	if len(names) == 0 {
		l.errorf(key, "must name a worker; remove it, and each worker with sockets is needed")
	}
	declared, ok := workers.(map[string]any)
	for i, name := range names {
		switch near := Nearest(name, slices.Sorted(maps.Keys(declared))); {
		case slices.Contains(names[:i], name):
			l.errorf(elem(key, i), "the worker %s is listed twice; remove one of them", name)
		case !ok && workers != nil, declared[name] != nil: // the first is reported as what it is
		case near != "":
			l.errorf(elem(key, i), "there is no worker %s; did you mean %s?", name, near)
		default:
			l.errorf(elem(key, i), "there is no worker %s; add [worker.%s], or remove it", name, name)
		}
	}
}

// needs reports whether the fleet is ready only while a slot of a worker serves.
func (f *File) needs(w *Worker) bool {
	if f.Metrics != nil && f.Metrics.Ready != nil {
		return slices.Contains(f.Metrics.Ready, w.Name)
	}
	return len(w.Sockets) > 0
}

// maxUnixPath is what fits into sun_path with its closing NUL, see unix(7).
const maxUnixPath = 107

// parseAddress reads one entry of listen=. If it is wrong it returns the rule
// and the remedy.
func parseAddress(text string) (a Address, rule, remedy string) {
	a.Text = text
	switch {
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "@"):
		a.Unix = text
		rule, remedy = checkUnix(text)
	case a.IsPort():
		// systemd.socket(5): a bare port is [::] for IPv6 and IPv4.
		port, err := parsePort(text)
		if err != nil {
			return a, "a port must be a number from 1 to 65535", `write "8080", for example`
		}
		a.IP = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	default:
		a.IP, rule, remedy = parseIP(text)
	}
	return a, rule, remedy
}

func checkUnix(path string) (rule, remedy string) {
	switch {
	case len(path) > maxUnixPath:
		return fmt.Sprintf("the path of a Unix socket must be at most %d bytes long, this has %d", maxUnixPath, len(path)),
			`write a shorter one, such as "/run/prefork/app.sock"`
	case strings.ContainsRune(path, 0):
		return "an address cannot hold a NUL byte", "remove it"
	case path == "@":
		return "an abstract socket must have a name", `write "@app", for example`
	case strings.HasSuffix(path, "/") && path[0] == '/':
		return "the path of a Unix socket must name a file", `write "/run/prefork/app.sock", for example`
	}
	return "", ""
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

func parseIP(text string) (ip netip.AddrPort, rule, remedy string) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return ip, "must be IP:PORT, [IPv6]:PORT, PORT, /path or @name, not " + strconv.Quote(text), `write "0.0.0.0:8080", for example`
	}
	host := strings.TrimSuffix(strings.TrimPrefix(text[:colon], "["), "]")
	addr, err := netip.ParseAddr(host)
	switch {
	case Address{Text: text[1:]}.IsPort() && text[0] == ':':
		return ip, "a port alone, of any address, has no colon", `write "` + text[1:] + `", for example`
	case err != nil:
		return ip, "must name an IP address, not " + strconv.Quote(host), `write "127.0.0.1:8080" or "[::1]:8080", for example`
	case addr.Is4In6():
		return ip, "an IPv4 address must be written as one", fmt.Sprintf("write %q", addr.Unmap().String()+text[colon:])
	case addr.Is6() != strings.HasPrefix(text, "["), addr.Is6() != strings.HasSuffix(text[:colon], "]"):
		return ip, "an IPv6 address, and no other, must stand in brackets", `write "[::1]:8080" or "127.0.0.1:8080", for example`
	}
	port, err := parsePort(text[colon+1:])
	if err != nil {
		return ip, "a port must be a number from 1 to 65535", `write "` + text[:colon] + `:8080", for example`
	}
	return netip.AddrPortFrom(addr, port), "", ""
}

// IsPort reports whether the address is a port alone: any address of this machine,
// IPv6 and IPv4, or IPv4 where the kernel has no other (systemd.socket(5)).
func (a Address) IsPort() bool { return a.Text != "" && strings.Trim(a.Text, digits) == "" }

// key names what the address occupies: two sockets cannot have the same one.
// A path is a file, whatever the type of the socket.
func (a Address) key(t SocketType) string {
	if a.IP.IsValid() {
		return string(t) + " " + a.IP.String()
	}
	if a.Unix[0] == '@' {
		return string(t) + " " + a.Unix
	}
	return filepath.Clean(a.Unix)
}

// port names what an IPv4 address and [::] would both want.
func (a Address) port(t SocketType) string {
	return string(t) + " " + strconv.Itoa(int(a.IP.Port()))
}
