// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/output"
	"github.com/decnet/prefork/supervisor/quantity"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "prefork",
		Short: "Prefork supervisor for Linux, made for systemd",
		Long: `prefork loads an expensive floor once (a Python process with its modules
imported), forks each worker from it copy-on-write, hands it the sockets that
systemd passed, and restarts it with a backoff of its own.

FLEET is a name, for NAME.toml in /etc/prefork, /run/prefork or
/usr/lib/prefork, or the path of a fleet file.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return &status{exitUsage, "a command is missing"}
		},
	}
	root.AddCommand(newRun(), newStatus(), newTop(), newWhy(), newLogs(),
		newStart(), newStop(), newRestart(), newReset(), newKill(), newFreeze(), newThaw(), newEnable(), newDisable(),
		newCheck(), newInit(), newVersion())
	return root
}

func newRun() *cobra.Command {
	var stopAfter string
	var debugLog bool
	cmd := &cobra.Command{
		Use:   "run FLEET",
		Short: "Run a fleet in the foreground",
		Long: `Run a fleet until it is told to stop (SIGTERM or SIGINT; a second one kills), or
until every slot has finished. prefork@NAME.service runs this command.

Exit status: 0 stopped or finished; 1 failed; 2 wrong usage; 78 bad fleet file.`,
		Example:           "  prefork run ./fleet.toml\n  prefork run fleet --stop-after 5s",
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(_ *cobra.Command, args []string) error {
			after, err := span("--stop-after", stopAfter)
			if err != nil {
				return err
			}
			return run(args[0], after, debugLog)
		},
	}
	cmd.Flags().StringVar(&stopAfter, "stop-after", "", "stop by itself after this `DURATION`, such as 5s or 1min 30s")
	cmd.Flags().BoolVar(&debugLog, "debug", false, "log every step")
	return cmd
}

func oneFleet(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &status{exitUsage, fmt.Sprintf("%s takes one FLEET: a name, or the path of a fleet file", cmd.Name())}
	}
	return nil
}

func span(flag, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := quantity.ParseTimeSpan(text)
	if err != nil || d <= 0 {
		return 0, &status{exitUsage, fmt.Sprintf(`%s %q: must be a time span above 0, such as "5s" or "1min 30s"`, flag, text)}
	}
	return d, nil
}

func run(fleet string, stopAfter time.Duration, debugLog bool) error {
	env := sdnotify.TakeEnvironment()
	log := output.NewLog(env, debugLog)
	defer log.Close()
	file, err := load(fleet)
	if err != nil {
		code := exitOf(err)
		supervisor.Reject(env, log, err.Error(), code)
		return &status{code: code}
	}
	code := supervisor.Run(supervisor.Options{File: file, Env: env, Log: log, StopAfter: stopAfter})
	if code != 0 {
		return &status{code: code}
	}
	return nil
}

func exitOf(err error) int {
	if s := (*status)(nil); errors.As(err, &s) {
		return s.code
	}
	return exitFailed
}

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FLEET",
		Short: "Check a fleet file and print what it means",
		Long: `Check a fleet file. All errors are reported at once, each with file, line and
key. A good file is printed as it was understood, with every default filled in.

Nothing is started and nothing is changed. Exit status: 0 good; 78 bad.`,
		Args:              oneFleet,
		ValidArgsFunction: completeFleet,
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := load(args[0])
			if err != nil {
				return err
			}
			_, err = file.WriteTo(cmd.OutOrStdout())
			return err
		},
	}
}

func newInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented fleet file to start from",
		Long: `Write a fleet file in which every key is explained, to FILE or to standard
output. A file that exists is left alone.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := fmt.Fprint(cmd.OutOrStdout(), fleetfile.Template())
				return err
			}
			return writeNew(args[0], fleetfile.Template())
		},
	}
}

// writeNew writes a file that must not exist yet.
func writeNew(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return &status{exitFailed, fmt.Sprintf("prefork: %s exists and is left as it is: name another file, or none for standard output", path)}
	}
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return &status{exitFailed, "prefork: " + err.Error()}
	}
	return nil
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
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
