// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
)

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadTakesTheNameFromTheFile(t *testing.T) {
	path := write(t, "edge-eu.toml", []byte("description = \"x\"\n[floor]\npath = [\"lib\"]\n"))
	f, err := fleetfile.Load(path, fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "lib"); f.Name != "edge-eu" || f.Path != path || f.Floor.Path[0] != want {
		t.Errorf("got %+v", f)
	}
}

// A path that is named relatively still gives absolute paths.
func TestRelativePathsStartAtTheFile(t *testing.T) {
	path := write(t, "x.toml", []byte("[worker.a]\nexec = [\"a\"]\nenvironment_file = \"-../env\"\n"))
	t.Chdir(filepath.Dir(filepath.Dir(path)))
	f, err := fleetfile.Load(filepath.Join(filepath.Base(filepath.Dir(path)), "x.toml"), fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	want := envfile.File{Path: filepath.Join(filepath.Dir(filepath.Dir(path)), "env"), Optional: true}
	if got := f.Workers[0].EnvironmentFiles[0]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUnreadableFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.toml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/none.toml": "there is no such file; prefork init writes one to begin with",
		dir:                "must be a regular file, not a directory; name the fleet file",
		pipe:               "must be a regular file, not a pipe, socket or device; name the fleet file",
		write(t, "big.toml", bytes.Repeat([]byte("#"), 1<<20+1)): "a fleet file must be at most 1 MiB long; make several fleets",
		write(t, "-a.toml", nil):                                 "the name of a fleet must begin with a letter, a digit or _, have only these and -, and be at most 64 bytes long, not \"-a\"; rename the file",
	} {
		if _, err := fleetfile.Load(path, fleetfile.Host{}); err == nil || err.Error() != path+": "+want {
			t.Errorf("got  %v\nwant %s: %s", err, path, want)
		}
	}
	if _, err := fleetfile.Load(write(t, "full.toml", bytes.Repeat([]byte("#"), 1<<20)), fleetfile.Host{}); err != nil {
		t.Errorf("a file of 1 MiB: %v", err)
	}
	if _, err := fleetfile.Load(write(t, "latin.toml", []byte("# \xe4")), fleetfile.Host{}); err == nil || !strings.Contains(err.Error(), "must be UTF-8") {
		t.Errorf("got %v", err)
	}
}

func TestCauseOfAnUnreadableFileIsKept(t *testing.T) {
	if _, err := fleetfile.Load(t.TempDir()+"/none.toml", fleetfile.Host{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist in it", err)
	}
	if os.Geteuid() == 0 {
		t.Log("root may read every file")
		return
	}
	path := write(t, "x.toml", nil)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := fleetfile.Load(path, fleetfile.Host{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want fs.ErrPermission in it", err)
	}
}

// The file that prefork init writes is good as it is, and with each of its keys
// brought to life; and no key is missing.
func TestTemplateNamesEveryKey(t *testing.T) {
	f, err := fleetfile.Load(write(t, "init.toml", []byte(fleetfile.Template())), fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	wantRoundTrip(t, f)
	all := regexp.MustCompile(`(?m)^#(\[|[a-z_]+ =)`).ReplaceAllString(fleetfile.Template(), "$1")
	all = strings.Replace(all, "\nzygote = ", "\n#zygote = ", 1) // it excludes others
	if f, err = fleetfile.Load(write(t, "init.toml", []byte(all)), fleetfile.Host{}); err != nil {
		t.Fatal(err)
	}
	wantRoundTrip(t, f)
	eachKey(t, func(t *testing.T, header string, k fleetfile.Key) {
		want := `\b` + k.Name + ` = `
		if k.Kind == fleetfile.KindTable && header == "" {
			want = `\[` + k.Name + `[].]`
		}
		if !regexp.MustCompile(want).MatchString(section(all, header)) {
			t.Errorf("not in %s:\n%s", header, section(all, header))
		}
	})
}

// section returns the part of a file that starts at the first table of a kind.
func section(text, header string) string {
	if header == "" {
		return text
	}
	kind := strings.Split(strings.Trim(header, "[]"), ".")[0]
	text = text[strings.Index(text, "\n["+kind)+1:]
	if next := regexp.MustCompile(`(?m)^\[[^` + kind[:1] + `]`).FindStringIndex(text); next != nil {
		text = text[:next[0]]
	}
	return text
}
