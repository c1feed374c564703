// SPDX-License-Identifier: AGPL-3.0-or-later

// Prefork is a prefork supervisor for Linux, made for systemd. See README.md.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/units"
)

// The main thread makes every fork: a parent-death signal belongs to the thread
// that was the parent (PR_SET_PDEATHSIG(2const)).
func init() { runtime.LockOSThread() }

func main() {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	if filepath.Base(os.Args[0]) == units.GeneratorName {
		os.Exit(units.RunGenerator(os.Args[1:]))
	}
	os.Exit(execute(os.Args[1:]))
}

// execute runs a command, and returns the exit status.
func execute(args []string) int {
	root := newRoot()
	err := unknownCommand(root, args)
	if err == nil {
		root.SetArgs(killOptions(args))
		err = root.Execute()
	}
	return exit.Tell(os.Stderr, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "prefork",
		Short: "Prefork supervisor for Linux, made for systemd",
		Long: `prefork loads an expensive floor once (a Python process with its modules
imported), forks each worker from it copy-on-write, hands it the sockets that
systemd passed, and restarts it with a backoff of its own.

FLEET is a name, for NAME.toml in /etc/prefork, /run/prefork or
/usr/lib/prefork, or the path of a fleet file. A fleet that you run from a file is
found by its name, too, unless there is a file of that name in those, or two run by it.`,
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return exit.Misused("a command is missing")
		},
	}
	root.Flags().BoolP("version", "V", false, "print the version")
	root.SetVersionTemplate("prefork {{.Version}}\n")
	root.AddCommand(newRun(), newStatus(), newIsActive(), newTop(), newMemory(), newWhy(), newLogs(),
		newStart(), newStop(), newReload(), newRestart(), newScale(), newCancel(), newReset(), newKill(), newFreeze(), newThaw(), newStacks(),
		newEnable(), newDisable(),
		newCheck(), newCheckZygote(), newInit(), newVersion())
	return root
}

// unknownCommand refuses a word that is none, also before --help and after help, and says
// which may have been meant.
func unknownCommand(root *cobra.Command, args []string) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	i := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "-") && arg != "help" })
	if i < 0 || strings.HasPrefix(args[i], cobra.ShellCompRequestCmd) {
		return nil
	}
	word := args[i]
	var names, begun []string
	for _, c := range root.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return nil
		}
		names = append(names, c.Name())
		if len(word) > 1 && strings.HasPrefix(c.Name(), word) {
			begun = append(begun, c.Name())
		}
	}
	near := fleetfile.Nearest(word, names)
	switch {
	case othersWords[word] != "":
		return exit.Misused("there is no command %q: %s", word, othersWords[word])
	case len(begun) > 0:
		return exit.Misused("there is no command %q; did you mean %s?", word, strings.Join(begun, " or "))
	case near != "":
		return exit.Misused("there is no command %q; did you mean %s?", word, near)
	}
	return exit.Misused("there is no command %q", word)
}

// othersWords are commands of systemctl, supervisorctl, docker and the like, with what is
// here for them.
var othersWords = map[string]string{
	"update": "prefork reload FLEET applies what the file says now", "reread": "prefork reload --dry-run FLEET tells what has changed in the file",
	"graceful": "prefork reload FLEET applies what the file says now", "configtest": "prefork check FLEET checks the file",
	"test": "prefork check FLEET checks the file", "validate": "prefork check FLEET checks the file", "verify": "prefork check FLEET checks the file",
	"force-reload": "prefork restart FLEET replaces all processes", "try-restart": "prefork restart FLEET replaces all processes",
	"deploy": "prefork restart FLEET loads new code", "rollback": "prefork cancel FLEET takes back the change that is under way",
	"shutdown": "prefork stop FLEET stops a fleet", "down": "prefork stop FLEET stops a fleet", "quit": "prefork stop FLEET stops a fleet",
	"up": "prefork start FLEET starts a fleet by systemd, prefork run FILE in a terminal", "serve": "prefork run FILE runs a fleet in a terminal",
	"tail": "prefork logs -f FLEET follows what is said", "log": "prefork logs FLEET shows what was said", "journal": "prefork logs FLEET shows what was said",
	"show": "prefork status --json FLEET has all of it", "inspect": "prefork status --json FLEET has all of it", "info": "prefork status FLEET tells how it is",
	"pid": "prefork status FLEET has the processes", "stats": "prefork top FLEET watches a fleet, prefork memory FLEET measures it",
	"monitor": "prefork top FLEET watches a fleet", "watch": "prefork top FLEET watches a fleet",
	"signal": "prefork kill --signal SIGNAL FLEET SLOT sends one", "clear": "prefork reset FLEET forgets failures", "reset-failed": "prefork reset FLEET forgets failures",
	"cat": "prefork check FLEET prints the file as it is understood", "new": "prefork init writes a fleet file", "pause": "prefork freeze FLEET SLOT keeps one from running",
	"unpause": "prefork thaw FLEET SLOT lets one run again", "resume": "prefork thaw FLEET SLOT lets one run again",
}

// killOptions writes the signals of prefork kill -9 and -HUP as options that can be parsed.
func killOptions(args []string) []string {
	if i := slices.IndexFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "-") }); i < 0 || args[i] != "kill" {
		return args
	}
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, ok := strings.CutPrefix(arg, "-")
		if _, known := fleetfile.ParseSignal(name); ok && known {
			args[i] = "--signal=" + name
		}
	}
	return args
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  nothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "prefork", buildVersion())
			return err
		},
	}
}

// version is set by the build of a package: -ldflags "-X main.version=1.2.3".
var version string

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
