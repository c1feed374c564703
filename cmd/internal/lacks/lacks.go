// SPDX-License-Identifier: AGPL-3.0-or-later

// Package lacks tells what a fleet file names that this machine does not have: users,
// programs, directories and files. The file may be for another machine, so that these are
// warnings; and so is a socket that nothing in the file serves.
package lacks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Warning is one of them.
type Warning struct {
	Key  string `json:"key"` // such as worker.web.exec
	Text string `json:"text"`
}

// Of looks for all that the file names, which is good. It blocks while it looks.
func Of(file *fleetfile.File) (all []Warning) {
	add := func(key, text string) {
		if text != "" {
			all = append(all, Warning{key, text})
		}
	}
	if f := file.Floor; f != nil {
		add("floor.user", noUser(f.User))
		for _, path := range f.Path {
			add("floor.path", noDirectory(path))
		}
		if len(f.Zygote) > 0 {
			add("floor.zygote", noProgram(f.Zygote[0]))
		} else {
			add("floor.python", noProgram(f.Python))
		}
	}
	listed := map[string]bool{}
	for i := range file.Workers {
		w := file.Workers[i].Of(0, file.Workers[i].Count) // one of its slots is an example
		key := "worker." + w.Name
		if len(w.Exec) > 0 {
			add(key+".exec", noProgram(w.Exec[0]))
		}
		add(key+".user", noUser(w.User))
		add(key+".group", noGroup(w.Group))
		for _, group := range w.SupplementaryGroups {
			add(key+".supplementary_groups", noGroup(group))
		}
		if w.WorkingDirectory != "" {
			add(key+".working_directory", noDirectory(w.WorkingDirectory))
		}
		for _, f := range w.EnvironmentFiles {
			if _, err := os.Stat(f.Path); errors.Is(err, fs.ErrNotExist) && !f.Optional {
				add(key+".environment_file", fmt.Sprintf("there is no %s here; a leading - makes it optional", f.Path))
			}
		}
		for _, name := range w.Sockets {
			listed[name] = true
		}
	}
	for i := range file.Sockets {
		s := &file.Sockets[i]
		key := "socket." + s.Name
		add(key+".user", noUser(s.User))
		add(key+".group", noGroup(s.Group))
		if !listed[s.Name] {
			add(key, fmt.Sprintf(`no worker has it: clients that connect wait for ever; write sockets = [%q] in the worker that serves it`, s.Name))
		}
	}
	return tidy(all)
}

// tidy drops repetitions: what [defaults] has is found in each worker.
func tidy(all []Warning) (kept []Warning) {
	said := map[string]bool{}
	for _, w := range all {
		parts := strings.SplitN(w.Key, ".", 3)
		if about := parts[len(parts)-1] + ": " + w.Text; len(parts) < 3 || !said[about] {
			said[about], kept = true, append(kept, w)
		}
	}
	return kept
}

// noProgram says why a program cannot be executed, "" if it can. One without a slash is
// looked for in PATH, which may be another one where the fleet runs.
func noProgram(path string) string {
	if !strings.Contains(path, "/") {
		if _, err := exec.LookPath(path); err != nil {
			return fmt.Sprintf("there is no program %s in PATH here", path)
		}
		return ""
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("there is no %s here", path)
	case err != nil:
		return ""
	case !info.Mode().IsRegular():
		return path + " is no program"
	case info.Mode().Perm()&0o111 == 0:
		return fmt.Sprintf("%s is not executable: chmod +x %s", path, path)
	}
	return ""
}

func noDirectory(path string) string {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("there is no directory %s here", path)
	case err == nil && !info.IsDir() && !strings.HasSuffix(path, ".zip") && !strings.HasSuffix(path, ".egg"): // python imports from these, too
		return path + " is no directory"
	}
	return ""
}

// noUser and noGroup take numbers for such, as those who change users do.
func noUser(name string) string {
	if _, err := strconv.Atoi(name); name == "" || err == nil {
		return ""
	}
	if _, err := user.Lookup(name); errors.As(err, new(user.UnknownUserError)) {
		return fmt.Sprintf("there is no user %s here", name)
	}
	return ""
}

func noGroup(name string) string {
	if _, err := strconv.Atoi(name); name == "" || err == nil {
		return ""
	}
	if _, err := user.LookupGroup(name); errors.As(err, new(user.UnknownGroupError)) {
		return fmt.Sprintf("there is no group %s here", name)
	}
	return ""
}
