// SPDX-License-Identifier: AGPL-3.0-or-later

package units

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// GeneratorName is the name that this program is called by as a generator.
const GeneratorName = "prefork-generator"

// generator writes the units of one run.
type generator struct {
	dir      string // where they go
	template string // the prefork@.service that fleets are instances of
	log      func(text string)
}

// Generate writes the units of all fleets in dirs into dir, which systemd made
// for this run. What is wrong with a fleet file is logged, and is what its service
// fails with; the sockets that can be read from it are made all the same, see
// [salvage]. version is systemd's, 0 if it is not known. The error is about the
// units that could not be written.
func Generate(dir string, dirs []string, version int, log func(text string)) error {
	g := &generator{dir: dir, template: template(), log: log}
	errs := []error{g.newer(version)}
	found, err := fleetfile.Find(dirs)
	if err != nil {
		log(err.Error())
	}
	for _, f := range found {
		switch {
		case f.Masked:
		case f.Err != nil:
			log(f.Err.Error())
		default:
			errs = append(errs, g.fleet(f))
		}
	}
	return errors.Join(errs...)
}

// template finds the unit that a link must lead to.
func template() string {
	const name = "prefork@.service"
	for _, dir := range []string{"/etc/systemd/system", "/usr/local/lib/systemd/system"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	return filepath.Join("/usr/lib/systemd/system", name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// newer has the settings of systemd 254. DelegateSubgroup= puts the master into
// its leaf before it runs; an older systemd lets it do so itself.
func (g *generator) newer(version int) error {
	if version < 254 {
		return nil
	}
	return g.write("prefork@.service.d/10-systemd-254.conf", `# Since systemd 254.
[Service]
DelegateSubgroup=supervisor
RestartSteps=8
RestartMaxDelaySec=30s
`)
}

func (g *generator) fleet(f fleetfile.Found) error {
	service := "prefork@" + f.Name + ".service"
	file, err := fleetfile.Load(f.Path, fleetfile.Host{}) // of systemd: what else a host has is nothing that it needs
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			g.log(strings.TrimSuffix(line, "\n"))
		}
		var all bool
		if file, all = salvage(f); !all {
			g.log(fmt.Sprintf("%s: not all of its sockets can be read, and systemd closes those that cannot; when the file is mended: "+
				"systemctl daemon-reload && systemctl restart 'prefork-%s:*.socket' %s", f.Path, f.Name, service))
		}
	}
	sockets, err := g.sockets(f, file)
	errs := []error{err}
	if len(sockets) > 0 {
		errs = append(errs, g.write(service+".d/50-sockets.conf",
			made(file)+"[Service]\nSockets="+strings.Join(sockets, " ")+"\n"))
	}
	if file.Start == fleetfile.StartBoot {
		errs = append(errs, g.want("multi-user.target", service, g.template))
	}
	return errors.Join(errs...)
}

// sockets writes the socket units of a fleet and returns their names.
func (g *generator) sockets(f fleetfile.Found, file *fleetfile.File) (names []string, err error) {
	var errs []error
	for i := range file.Sockets {
		list, err := socketUnits(file, &file.Sockets[i])
		if err != nil {
			g.log(fmt.Sprintf("%s: socket.%s: %v", f.Path, file.Sockets[i].Name, err))
			continue
		}
		for _, u := range list {
			names = append(names, u.name)
			errs = append(errs, g.write(u.name, u.text))
			if file.Start != fleetfile.StartManual {
				errs = append(errs, g.want("sockets.target", u.name, "../"+u.name))
			}
		}
	}
	return names, errors.Join(errs...)
}

// want makes a unit part of a target: what is generated cannot be enabled.
func (g *generator) want(target, unit, path string) error {
	link := filepath.Join(g.dir, target+".wants", unit)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.Symlink(path, link)
}

func (g *generator) write(name, text string) error {
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func made(file *fleetfile.File) string {
	return fmt.Sprintf("# Made by %s from %s.\n# Change that file, then: systemctl daemon-reload\n", GeneratorName, file.Path)
}

type unit struct{ name, text string }

// socketUnits are the units of one [socket.*] table: one, or two if its IPv6
// addresses are not all to be bound alike, which is a setting of the unit. The
// error says why systemd cannot hold the socket: the master binds it then, as it
// does without systemd.
func socketUnits(file *fleetfile.File, s *fleetfile.Socket) ([]unit, error) {
	var first, only []fleetfile.Address
	for _, a := range s.Listen {
		if reason := unfit(file, a); reason != "" {
			return nil, fmt.Errorf("systemd cannot listen on %q: %s; connections are refused while the service restarts", a.Text, reason)
		}
		if a.V6Only {
			only = append(only, a)
		} else {
			first = append(first, a)
		}
	}
	name := "prefork-" + file.Name + ":" + s.Name
	if len(only) == 0 || !bindsBoth(first) {
		return []unit{socketUnit(name, file, s, s.Listen, len(only) > 0)}, nil
	}
	return []unit{socketUnit(name, file, s, first, false), socketUnit(name+":ipv6", file, s, only, true)}, nil
}

// unfit says why an address cannot be given to systemd, with the remedy.
func unfit(file *fleetfile.File, a fleetfile.Address) string {
	text := address(a)
	switch {
	case strings.ContainsFunc(text, unicode.IsControl):
		return "a unit cannot have a control character; choose another name"
	case strings.TrimRight(text, " \\") != text:
		return "a unit cannot have a value that ends in a blank or a backslash; choose another name"
	case !strings.HasPrefix(a.Unix, "/"):
		return ""
	case slices.Contains(strings.Split(text, "/"), ".."):
		return "a unit cannot have a path with ..; write it without"
	}
	// RuntimeDirectory= of the unit.
	if own := "/run/prefork/" + file.Name; within(own, text) {
		return fmt.Sprintf("%s goes when the service stops; write /run/prefork/%s, for example", own, file.Name+".sock")
	}
	return ""
}

// within reports whether a path is that of a directory or below it.
func within(dir, path string) bool {
	path = filepath.Clean(path)
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// bindsBoth reports whether an address is to take IPv4 connections too.
func bindsBoth(addresses []fleetfile.Address) bool {
	for _, a := range addresses {
		if a.Unix == "" && a.IP.Addr().Is6() && a.IP.Addr().IsUnspecified() {
			return true
		}
	}
	return false
}

var listenSettings = map[fleetfile.SocketType]string{
	fleetfile.Stream: "ListenStream", fleetfile.Datagram: "ListenDatagram", fleetfile.Seqpacket: "ListenSequentialPacket",
}

func socketUnit(name string, file *fleetfile.File, s *fleetfile.Socket, listen []fleetfile.Address, v6Only bool) unit {
	var b strings.Builder
	set := func(key, value string) { fmt.Fprintf(&b, "%s=%s\n", key, escape(value)) }
	b.WriteString(made(file))
	b.WriteString("[Unit]\n")
	set("Description", fmt.Sprintf("socket %s of prefork fleet %s", s.Name, file.Name))
	set("Documentation", "man:prefork@.service(8) man:prefork.toml(5)")
	set("SourcePath", file.Path)
	b.WriteString("\n[Socket]\n")
	set("Service", "prefork@"+file.Name+".service")
	set("FileDescriptorName", s.Name)
	files, addresses := false, false
	for _, a := range listen {
		set(listenSettings[s.Type], address(a))
		files, addresses = files || strings.HasPrefix(a.Unix, "/"), addresses || a.Unix == ""
	}
	if v6Only {
		set("BindIPv6Only", "ipv6-only")
	} else if bindsBoth(listen) {
		set("BindIPv6Only", "both")
	}
	if s.Type != fleetfile.Datagram {
		set("Backlog", strconv.Itoa(s.Backlog))
	}
	if addresses && s.ReusePort {
		set("ReusePort", "yes")
	}
	if addresses && s.FreeBind {
		set("FreeBind", "yes")
	}
	if files {
		set("SocketMode", fmt.Sprintf("%04o", s.Mode))
		if s.User != "" {
			set("SocketUser", s.User)
		}
		if s.Group != "" {
			set("SocketGroup", s.Group)
		}
		set("RemoveOnStop", "yes")
	}
	b.WriteString("# A fleet that does not start must not close its sockets: clients wait in them.\n")
	set("TriggerLimitIntervalSec", "0")
	return unit{name + ".socket", b.String()}
}

// address is in the form of systemd.socket(5), which has the interface at the
// end. /run is what systemd would make of /var/run, with a warning about a unit
// that nobody can edit.
func address(a fleetfile.Address) string {
	switch rest, legacy := strings.CutPrefix(a.Unix, "/var/run/"); {
	case legacy:
		return "/run/" + rest
	case a.Unix != "":
		return a.Unix
	}
	if a.IsPort() && !a.V6Only {
		return strconv.Itoa(int(a.IP.Port())) // systemd, too, takes IPv4 where there is no IPv6
	}
	ip := a.IP.Addr()
	text := netip.AddrPortFrom(ip.WithZone(""), a.IP.Port()).String()
	if zone := ip.Zone(); zone != "" {
		text += "%" + zone
	}
	return text
}

// escape lets a text stand for itself: systemd makes a specifier of a percent
// sign, and of nothing else in these settings (systemd.unit(5)).
func escape(text string) string { return strings.ReplaceAll(text, "%", "%%") }

// SystemdVersion is that of the systemd that is installed, 0 if it cannot be
// told. A generator is not told it and must not call systemctl; systemd's binary
// has it in the name of the library that it is linked with.
func SystemdVersion() int {
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		binary, err := os.ReadFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return versionIn(binary) // of what cannot be read it is not known
		}
	}
	return 0
}

// versionIn finds the first libsystemd-shared-NUMBER.
func versionIn(binary []byte) int {
	for {
		_, rest, ok := bytes.Cut(binary, []byte("libsystemd-shared-"))
		if !ok {
			return 0
		}
		end := 0
		for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' {
			end++
		}
		if version, err := strconv.Atoi(string(rest[:end])); err == nil {
			return version
		}
		binary = rest
	}
}
