// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// threeDirs makes the directories of fleets with these files: DIR/NAME to text,
// or to the target of a link if the text begins with "->".
func threeDirs(t *testing.T, files map[string]string) (root string, dirs []string) {
	t.Helper()
	root = t.TempDir()
	for _, dir := range []string{"etc", "run", "usr"} {
		dirs = append(dirs, filepath.Join(root, dir))
		if err := os.Mkdir(dirs[len(dirs)-1], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, filepath.Join(root, name))
		} else {
			err = os.WriteFile(filepath.Join(root, name), []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root, dirs
}

var fleetsOfThreeDirs = map[string]string{
	"etc/a.toml": "# etc", "run/a.toml": "# run", "usr/a.toml": "# usr",
	"run/b.toml": "# run", "usr/b.toml": "# usr",
	"usr/c.toml":    "# usr",
	"etc/null.toml": "->/dev/null", "usr/null.toml": "# usr",
	"run/empty.toml": "", "usr/empty.toml": "# usr", "usr/far.toml": "->../etc/null.toml",
	"run/link.toml": "->../usr/c.toml", "etc/dangling.toml": "->nowhere", "usr/dangling.toml": "# usr",
	"etc/a b.toml": "# bad", "usr/-x.toml": "", "usr/a b.toml": "# hidden by etc",
	"etc/.toml": "# hidden", "etc/.#a.toml": "# of an editor", "etc/a.toml~": "# a backup", "etc/d.conf": "# no fleet",
}

func setDirs(t *testing.T, dirs []string) {
	before := fleetfile.Dirs
	t.Cleanup(func() { fleetfile.Dirs = before })
	fleetfile.Dirs = dirs
}

func TestResolveTakesTheFirstDirectory(t *testing.T) {
	if want := []string{"/etc/prefork", "/run/prefork", "/usr/lib/prefork"}; !slices.Equal(fleetfile.Dirs, want) {
		t.Errorf("got %v, want %v", fleetfile.Dirs, want)
	}
	root, dirs := threeDirs(t, fleetsOfThreeDirs)
	setDirs(t, dirs)
	for arg, want := range map[string]string{
		"a": "etc/a.toml", "b": "run/b.toml", "c": "usr/c.toml", "link": "run/link.toml", "dangling": "etc/dangling.toml",
	} {
		if got, err := fleetfile.Resolve(arg); err != nil || got != filepath.Join(root, want) {
			t.Errorf("Resolve(%q) = %q, %v, want %q", arg, got, err, want)
		}
	}
	for _, arg := range []string{"./fleet", "fleet.toml", "/a/b", "a/"} {
		if got, err := fleetfile.Resolve(arg); err != nil || got != arg {
			t.Errorf("Resolve(%q) = %q, %v, want the same", arg, got, err)
		}
	}
}

// A wrong argument is the caller's fault, a missing or masked fleet is one of
// the files.
func TestResolveSaysWhyThereIsNoFleet(t *testing.T) {
	root, dirs := threeDirs(t, fleetsOfThreeDirs)
	setDirs(t, dirs)
	for arg, want := range map[string]string{
		"none": "fleet none: there is no none.toml in " + dirs[0] + ", " + dirs[1] + " or " + dirs[2] +
			"; prefork init writes one to begin with",
		"null":  "fleet null is masked by " + root + "/etc/null.toml; write a fleet into that file, or remove it",
		"empty": "fleet empty is masked by " + root + "/run/empty.toml; write a fleet into that file, or remove it",
		"far":   "fleet far is masked by " + root + "/usr/far.toml; write a fleet into that file, or remove it",
	} {
		_, err := fleetfile.Resolve(arg)
		var list fleetfile.Errors
		if !errors.As(err, &list) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if got := errors.Is(err, fs.ErrNotExist); got != (arg == "none") {
			t.Errorf("%s: fs.ErrNotExist in it: %v", arg, got)
		}
	}
	for _, arg := range []string{"", "-a", "a b", "a.conf", "ä", strings.Repeat("a", 65)} {
		_, err := fleetfile.Resolve(arg)
		var list fleetfile.Errors
		if err == nil || errors.As(err, &list) || !strings.Contains(err.Error(), "must begin with") {
			t.Errorf("Resolve(%q): got %v, want an error about the name", arg, err)
		}
	}
}

func TestFindListsWhatResolveTakes(t *testing.T) {
	root, dirs := threeDirs(t, fleetsOfThreeDirs)
	setDirs(t, dirs)
	list, err := fleetfile.Find(append(dirs, filepath.Join(root, "none")))
	if err != nil {
		t.Fatal(err)
	}
	var got []fleetfile.Found
	for _, f := range list {
		path, err := fleetfile.Resolve(f.Name)
		if (err == nil) != (f.Err == nil && !f.Masked) || err == nil && path != f.Path {
			t.Errorf("%+v, but Resolve says %q, %v", f, path, err)
		}
		if bad := f.Err != nil; bad != strings.ContainsAny(f.Name, "- ") || bad && !strings.Contains(f.Err.Error(), f.Path+": the name of a fleet must") {
			t.Errorf("%s: got %v", f.Name, f.Err)
		}
		f.Path, f.Err = strings.TrimPrefix(f.Path, root+"/"), nil
		got = append(got, f)
	}
	want := []fleetfile.Found{
		{Name: "-x", Path: "usr/-x.toml", Masked: true},
		{Name: "a", Path: "etc/a.toml"},
		{Name: "a b", Path: "etc/a b.toml"},
		{Name: "b", Path: "run/b.toml"},
		{Name: "c", Path: "usr/c.toml"},
		{Name: "dangling", Path: "etc/dangling.toml"},
		{Name: "empty", Path: "run/empty.toml", Masked: true},
		{Name: "far", Path: "usr/far.toml", Masked: true},
		{Name: "link", Path: "run/link.toml"},
		{Name: "null", Path: "etc/null.toml", Masked: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// One directory that cannot be read does not hide the fleets of the others.
func TestFindGoesOnAfterADirectoryThatCannotBeRead(t *testing.T) {
	_, dirs := threeDirs(t, map[string]string{"usr/a.toml": "# usr", "etc/file": "x"})
	list, err := fleetfile.Find([]string{filepath.Join(dirs[0], "file"), dirs[2]})
	if err == nil || !strings.Contains(err.Error(), dirs[0]+"/file") || len(list) != 1 || list[0].Name != "a" {
		t.Errorf("got %+v, %v", list, err)
	}
}

// start is also found where the rest of the file is wrong, but never guessed.
func TestStartOfABrokenFile(t *testing.T) {
	for text, want := range map[string]fleetfile.Start{
		"":                                  fleetfile.StartManual,
		"start = \"boot\"":                  fleetfile.StartBoot,
		"\ufeffstart = 'boot' # x\r\n[":     fleetfile.StartBoot,
		"start = \"connection\"\ncount = 3": fleetfile.StartConnection,
		"\"start\" = \"boot\"\n[worker.a]\nexec = [\"a\nb = 1\n": fleetfile.StartBoot,
		"start = \"boot\"\n# \xff":                               fleetfile.StartBoot,
		"start = \"boot\"\n# \x01":                               fleetfile.StartBoot,
		"start = \"boot\"\na = " + strings.Repeat("[", 100):      fleetfile.StartBoot,

		"start = \"boot\"\n=\nstart = \"connection\"": fleetfile.StartBoot,

		"start = \"boots\"":                             fleetfile.StartManual,
		"start = true":                                  fleetfile.StartManual,
		"start.a = \"boot\"\n[":                         fleetfile.StartManual,
		"[floor]\nstart = \"boot\"\n[":                  fleetfile.StartManual,
		"[\nstart = \"boot\"":                           fleetfile.StartManual,
		"description = \"x\nstart = \"boot\"":           fleetfile.StartManual,
		"description = \"\"\"\nstart = \"boot\"\n[":     fleetfile.StartManual,
		"start = \"boot\"\nstart = \"connection\"":      fleetfile.StartManual,
		"start = \"boot\nx = 1":                         fleetfile.StartManual,
		"a = 1\na = 2\nstart = \"boot\" # out of sight": fleetfile.StartManual,
	} {
		if got := fleetfile.StartOf(write(t, "x.toml", []byte(text))); got != want {
			t.Errorf("got %s, want %s, of\n%s", got, want, text)
		}
	}
	for _, path := range []string{t.TempDir(), t.TempDir() + "/none.toml", "/dev/null"} {
		if got := fleetfile.StartOf(path); got != fleetfile.StartManual {
			t.Errorf("%s: got %s, want %s", path, got, fleetfile.StartManual)
		}
	}
}
