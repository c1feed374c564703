// SPDX-License-Identifier: AGPL-3.0-or-later

package units

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// generate runs the generator and returns what it wrote, by path, and logged.
// A link is what it leads to.
func generate(t testing.TB, version int, dirs ...string) (files map[string]string, logged []string) {
	t.Helper()
	out := t.TempDir()
	err := Generate(out, dirs, version, func(text string) { logged = append(logged, text) })
	if err != nil {
		t.Fatal(err)
	}
	files = make(map[string]string)
	err = filepath.WalkDir(out, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(out, path) // path is below out
		if e.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			// Where the template is depends on the machine.
			files[name] = "-> " + strings.Replace(target, template(), "TEMPLATE", 1) + "\n"
			return err
		}
		text, err := os.ReadFile(path)
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, logged
}

// TestGenerate compares all that is made of three directories with a golden
// file: precedence, masks, each key of a socket, each start, and broken files.
func TestGenerate(t *testing.T) {
	golden, err := filepath.Abs("testdata/full/units.txt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/full")); err != nil {
		t.Fatal(err)
	}
	// The paths of the fleet files are in what is made.
	t.Chdir(dir)
	if err := os.Symlink(os.DevNull, "etc/null.toml"); err != nil {
		t.Fatal(err)
	}
	if err := os.Link("run/manual.toml", "run/not a name.toml"); err != nil {
		t.Fatal(err)
	}
	files, logged := generate(t, 254, "etc", "run", "lib", "none")
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "== %s\n%s", name, files[name])
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s\n(-update accepts it)", got, want)
	}
	var about []string
	for _, line := range logged {
		file, _, _ := strings.Cut(line, ":")
		about = append(about, file)
	}
	if want := []string{"etc/broken-boot.toml", "etc/broken-connection.toml", "run/not a name.toml"}; !slices.Equal(about, want) {
		t.Errorf("logged %q, want a line about each of %q", logged, want)
	}
}

// Documentation= of each unit names pages that there are, and one of them names
// each drop-in.
func TestUnitsAreDocumented(t *testing.T) {
	files, _ := generate(t, 252, "testdata/full/etc")
	service, err := os.ReadFile("prefork@.service")
	if err != nil {
		t.Fatal(err)
	}
	files["prefork@.service"] = string(service)
	for name, text := range files {
		if strings.Contains(name, "/") { // a drop-in or a link
			continue
		}
		_, rest, _ := strings.Cut(text, "\nDocumentation=")
		line, _, _ := strings.Cut(rest, "\n")
		if line == "" {
			t.Errorf("%s has no documentation", name)
		}
		for uri := range strings.FieldsSeq(line) {
			page := strings.NewReplacer("man:", "../packaging/man/", "(", ".", ")", "").Replace(uri)
			if _, err := os.Stat(page); err != nil {
				t.Errorf("%s: %s: %v", name, uri, err)
			}
		}
	}
	page, err := os.ReadFile("../packaging/man/prefork@.service.8")
	if err != nil {
		t.Fatal(err)
	}
	dropIns, err := filepath.Glob("drop-ins/*.conf")
	if err != nil || len(dropIns) == 0 {
		t.Fatalf("the drop-ins are %q, %v", dropIns, err)
	}
	for _, path := range dropIns {
		if want := "/usr/share/prefork/" + filepath.Base(path); !strings.Contains(string(page), ".It Pa "+strings.ReplaceAll(want, "-", `\-`)+"\n") {
			t.Errorf("the page does not explain %s", want)
		}
	}
}

func TestGenerateForOldSystemd(t *testing.T) {
	for version, want := range map[int]int{0: 0, 252: 0, 253: 0, 254: 1, 262: 1} {
		if files, _ := generate(t, version); len(files) != want {
			t.Errorf("systemd %d: got %v, want %d file", version, files, want)
		}
	}
}

// TestGenerateWithoutDirectory has nowhere to write: that is an error, and
// systemd boots on.
func TestGenerateWithoutDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Generate(file, []string{"testdata/full/etc"}, 254, func(string) {}); err == nil {
		t.Error("no error")
	}
}

// fleetWith writes a fleet whose socket s listens on each address, none of which has a
// specifier.
func fleetWith(t testing.TB, addresses ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var b strings.Builder
	b.WriteString("start = \"connection\"\n[worker.w]\nexec = [\"true\"]\nsockets = [\"s\"]\n[socket.s]\nlisten = [")
	for _, a := range addresses {
		b.WriteByte('"')
		for _, r := range strings.ReplaceAll(a, "%", "%%") {
			fmt.Fprintf(&b, "\\U%08X", r)
		}
		b.WriteString(`", `)
	}
	b.WriteString("]\n")
	if err := os.WriteFile(filepath.Join(dir, "x.toml"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// settings reads a unit as systemd does: a backslash at the end of a line joins
// it with the next, and "%%" is a percent sign.
func settings(t testing.TB, text string) map[string][]string {
	t.Helper()
	got := make(map[string][]string)
	text = strings.NewReplacer("\\\n", " ", "\r", "\n", "\x00", "\n").Replace(text)
	for line := range strings.Lines(text) {
		line = strings.Trim(line, " \t\n\r")
		if line == "" || strings.ContainsRune("#;[", rune(line[0])) {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		if strings.ContainsRune(strings.ReplaceAll(value, "%%", ""), '%') {
			t.Errorf("%s=%s has a specifier", key, value)
		}
		got[key] = append(got[key], strings.ReplaceAll(strings.Trim(value, " \t"), "%%", "%"))
	}
	return got
}

const socketName = "prefork-x:s.socket"

var socketKeys = []string{
	"Backlog", "Description", "Documentation", "FileDescriptorName", "ListenStream", "RemoveOnStop", "Service", "SocketMode", "SourcePath",
	"TriggerLimitIntervalSec",
}

// TestHostileAddresses are what they are in the unit too, or not in it at all.
func TestHostileAddresses(t *testing.T) {
	for _, tt := range []struct {
		address string
		want    string // "" if systemd cannot have it
	}{
		{"/run/plain.sock", "/run/plain.sock"},
		{"/run/%n %% %", "/run/%n %% %"},
		{"/run/$HOME ${HOME} \"a' ; # b = [c]", "/run/$HOME ${HOME} \"a' ; # b = [c]"},
		{`/run/a\b\n`, `/run/a\b\n`},
		{"/run/é\u2028x", "/run/é\u2028x"},
		{"/var/run/x", "/run/x"},
		{"/run/prefork/xy", "/run/prefork/xy"},
		{"@ab%c d", "@ab%c d"},
		{"@../x", "@../x"},
		{"@prefork/x", "@prefork/x"},
		{"/run/a\nExecStartPre=/bin/evil", ""},
		{"/run/a\rExecStartPre=/bin/evil", ""},
		{"/run/a\tb", ""},
		{"/run/a\u0085b", ""},
		{`/run/a\`, ""},
		{`/run/a\ `, ""},
		{"/run/a ", ""},
		{"/run/../a", ""},
		{"@a\nb", ""},
		{"@a\\", ""},
		{"/run/prefork/x", ""},
		{"/run/prefork/x/app.sock", ""},
		{"/run/./prefork//x/app.sock", ""},
		{"/var/run/prefork/x/app.sock", ""},
	} {
		files, logged := generate(t, 0, fleetWith(t, tt.address))
		unit, ok := files[socketName]
		if tt.want == "" {
			if len(files) != 0 || len(logged) != 1 || !strings.Contains(logged[0], "x.toml: socket.s: ") {
				t.Errorf("%q: got %v, log %q; want nothing but a line in the log", tt.address, files, logged)
			}
			continue
		}
		if !ok || len(logged) != 0 {
			t.Errorf("%q: got %v, log %q", tt.address, files, logged)
			continue
		}
		got := settings(t, unit)
		if !slices.Equal(got["ListenStream"], []string{tt.want}) {
			t.Errorf("%q: systemd would listen on %q, want %q", tt.address, got["ListenStream"], tt.want)
		}
		for key := range got {
			if !slices.Contains(socketKeys, key) {
				t.Errorf("%q has made a setting %s", tt.address, key)
			}
		}
	}
}

// A socket of systemd's lies where the file says, which is where the master would bind it.
func TestSpecifiersOfAddresses(t *testing.T) {
	dir := t.TempDir()
	text := "[worker.w]\nexec = [\"true\"]\nsockets = [\"s\"]\n[socket.s]\nlisten = [\"%t/%p-100%%.sock\", \"@%p\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "x.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	files, logged := generate(t, 0, dir)
	if got := settings(t, files[socketName])["ListenStream"]; !slices.Equal(got, []string{"/run/x-100%.sock", "@x"}) || len(logged) > 0 {
		t.Errorf("got %q, log %q", got, logged)
	}
}

// A port alone stays one: systemd, too, takes IPv4 where the kernel has no IPv6.
// If its IPv4 is another's, it is IPv6 that is meant.
func TestPortAlone(t *testing.T) {
	for _, tt := range []struct {
		listen       []string
		want, v6Only []string
	}{
		{[]string{"8080"}, []string{"8080"}, []string{"both"}},
		{[]string{"08080"}, []string{"8080"}, []string{"both"}},
		{[]string{"127.0.0.1:8080", "8080"}, []string{"127.0.0.1:8080", "[::]:8080"}, []string{"ipv6-only"}},
		{[]string{"[::]:8080"}, []string{"[::]:8080"}, []string{"both"}},
	} {
		files, logged := generate(t, 0, fleetWith(t, tt.listen...))
		got := settings(t, files[socketName])
		if !slices.Equal(got["ListenStream"], tt.want) || !slices.Equal(got["BindIPv6Only"], tt.v6Only) || len(logged) > 0 {
			t.Errorf("%q: got %q and BindIPv6Only=%q, want %q and %q; log %q", tt.listen, got["ListenStream"], got["BindIPv6Only"], tt.want, tt.v6Only, logged)
		}
	}
}

// FuzzAddress looks for an address that becomes anything but itself.
func FuzzAddress(f *testing.F) {
	for _, address := range []string{"/run/x", "@a", "8080", "[::]:1", "[fe80::1%eth0]:1", "0.0.0.0:1", "/a\\", "/a\nb=c", "/%i"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		dir := fleetWith(t, address)
		file, err := fleetfile.Load(filepath.Join(dir, "x.toml"), fleetfile.Host{})
		if err != nil {
			return // it is not an address
		}
		files, logged := generate(t, 0, dir)
		unit, ok := files[socketName]
		if !ok {
			if len(logged) != 1 || len(files) != 0 {
				t.Errorf("%q: no unit; log %q, files %v", address, logged, files)
			}
			return
		}
		got := settings(t, unit)["ListenStream"]
		if len(got) != 1 {
			t.Fatalf("%q: systemd would listen on %q", address, got)
		}
		a := file.Sockets[0].Listen[0]
		switch {
		case a.IsPort():
			if port, err := strconv.ParseUint(got[0], 10, 16); err != nil || uint16(port) != a.IP.Port() {
				t.Errorf("%q: systemd would listen on %q: %v", address, got[0], err)
			}
		case a.Unix == "":
			// systemd.socket(5) has the interface at the end.
			text, zone, _ := strings.Cut(got[0], "%")
			ip, err := netip.ParseAddrPort(text)
			if err != nil || ip.Addr().WithZone(zone) != a.IP.Addr() || ip.Port() != a.IP.Port() {
				t.Errorf("%q: systemd would listen on %q: %v", address, got[0], err)
			}
		case got[0] != a.Unix && got[0] != strings.TrimPrefix(a.Unix, "/var"):
			t.Errorf("%q: systemd would listen on %q", address, got[0])
		}
	})
}

func TestVersionIn(t *testing.T) {
	for binary, want := range map[string]int{
		"\x00libc.so.6\x00libsystemd-core-252.so\x00libsystemd-shared-252.so\x00": 252,
		"libsystemd-shared-257.13-1~deb13u1.so":                                   257,
		"libsystemd-shared-%s\x00libsystemd-shared-262.so":                        262,
		"libsystemd-shared-.so":                                                   0,
		"libsystemd.so.0":                                                         0,
		"libsystemd-shared-":                                                      0,
		"":                                                                        0,
	} {
		if got := versionIn([]byte(binary)); got != want {
			t.Errorf("%q: got %d, want %d", binary, got, want)
		}
	}
}
