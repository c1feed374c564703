// SPDX-License-Identifier: AGPL-3.0-or-later

package units

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
// for this run. A bad fleet file costs its own fleet the sockets and is logged:
// its service tells the rest when it is started. version is systemd's, 0 if it is
// not known. The error is about the units that could not be written.
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
	file, err := fleetfile.Load(f.Path)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			g.log(strings.TrimSuffix(line, "\n"))
		}
		if fleetfile.StartOf(f.Path) == fleetfile.StartBoot {
			return g.want("multi-user.target", service, g.template)
		}
		return nil
	}
	var sockets []string
	var errs []error
	for i := range file.Sockets {
		for _, u := range socketUnits(file, &file.Sockets[i]) {
			sockets = append(sockets, u.name)
			errs = append(errs, g.write(u.name, u.text))
			if file.Start != fleetfile.StartManual {
				errs = append(errs, g.want("sockets.target", u.name, "../"+u.name))
			}
		}
	}
	if len(sockets) > 0 {
		errs = append(errs, g.write(service+".d/50-sockets.conf",
			made(file)+"[Service]\nSockets="+strings.Join(sockets, " ")+"\n"))
	}
	if file.Start == fleetfile.StartBoot {
		errs = append(errs, g.want("multi-user.target", service, g.template))
	}
	return errors.Join(errs...)
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

func made(file *fleetfile.Fleet) string {
	return fmt.Sprintf("# Made by %s from %s.\n# Change that file, then: systemctl daemon-reload\n", GeneratorName, file.Path)
}

type unit struct{ name, text string }

// socketUnits are the units of one [socket.*] table: one, or two if its IPv6
// addresses are not all to be bound alike, which is a setting of the unit.
func socketUnits(file *fleetfile.Fleet, s *fleetfile.Socket) []unit {
	var first, only []fleetfile.Address
	for _, a := range s.Listen {
		if a.V6Only {
			only = append(only, a)
		} else {
			first = append(first, a)
		}
	}
	name := "prefork-" + file.Name + ":" + s.Name
	if len(only) == 0 || !bindsBoth(first) {
		return []unit{socketUnit(name, file, s, s.Listen, len(only) > 0)}
	}
	return []unit{socketUnit(name, file, s, first, false), socketUnit(name+":ipv6", file, s, only, true)}
}

// bindsBoth tells whether an address is to take IPv4 connections too.
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

func socketUnit(name string, file *fleetfile.Fleet, s *fleetfile.Socket, listen []fleetfile.Address, v6Only bool) unit {
	var b strings.Builder
	set := func(key, value string) { fmt.Fprintf(&b, "%s=%s\n", key, value) }
	b.WriteString(made(file))
	b.WriteString("[Unit]\n")
	set("Description", fmt.Sprintf("socket %s of prefork fleet %s", s.Name, file.Name))
	set("SourcePath", escape(file.Path))
	b.WriteString("\n[Socket]\n")
	set("Service", "prefork@"+file.Name+".service")
	set("FileDescriptorName", s.Name)
	files, addresses := false, false
	for _, a := range listen {
		set(listenSettings[s.Type], escape(address(a)))
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
		setIf(set, "SocketUser", s.User)
		setIf(set, "SocketGroup", s.Group)
		set("RemoveOnStop", "yes")
	}
	b.WriteString("# A fleet that does not start must not close its sockets: clients wait in them.\n")
	set("TriggerLimitIntervalSec", "0")
	return unit{name + ".socket", b.String()}
}

func setIf(set func(key, value string), key, value string) {
	if value != "" {
		set(key, escape(value))
	}
}

func address(a fleetfile.Address) string {
	if a.Unix != "" {
		return a.Unix
	}
	return a.IP.String()
}

// escape lets a text stand for itself in a unit: no specifier, and no second
// line, is made of it (systemd.unit(5)).
func escape(text string) string {
	text = strings.ReplaceAll(text, "%", "%%")
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, text)
}

// SystemdVersion is that of the systemd that is installed, 0 if it cannot be
// told. A generator is not told it and must not call systemctl; the name of
// systemd's own library has it.
func SystemdVersion() int {
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		file, err := elf.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0
		}
		libraries, _ := file.ImportedLibraries() // none: it is not known
		_ = file.Close()                         // read only
		return versionOf(libraries)
	}
	return 0
}

func versionOf(libraries []string) int {
	for _, name := range libraries {
		rest, ok := strings.CutPrefix(name, "libsystemd-shared-")
		if !ok {
			continue
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(rest)
		}
		version, _ := strconv.Atoi(rest[:end]) // 0: it is not known
		return version
	}
	return 0
}
