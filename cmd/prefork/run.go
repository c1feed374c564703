// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/cmd/internal/reach"
	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/output"
)

func newRun() *cobra.Command {
	var stopAfter string
	var debugLog bool
	cmd := &cobra.Command{
		Use:   "run FLEET",
		Short: "Run a fleet in the foreground",
		Long: `Run a fleet until it is told to stop (SIGTERM or SIGINT; a second one kills; with
stop_delay_sec the second ends the delay, and a third kills), or
until every slot has finished. prefork@NAME.service runs this command.

Exit status: 0 stopped or finished; 1 failed; 2 wrong usage; 78 bad fleet file; 6,
under systemd, there is no file by that name, and no socket that was passed.`,
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
	cmd.Flags().StringVar(&stopAfter, "stop-after", "", "stop by itself after this `DURATION`, such as 5s or 1min 30s; exit 1 if no slot was ready")
	cmd.Flags().BoolVar(&debugLog, "debug", false, "log every step")
	return cmd
}

func run(fleet string, stopAfter time.Duration, debugLog bool) error {
	env := sdnotify.TakeEnvironment()
	log := output.NewLog(env, debugLog)
	defer log.Close()
	file, err := reach.File(fleet)
	if err != nil {
		code := exit.Status(err)
		managed, waitedFor := env.NotifySocket != "", env.ListenFDs != ""
		if managed && !waitedFor && !fleetfile.IsPath(fleet) && errors.Is(err, fs.ErrNotExist) {
			code = exit.NoFleet
		}
		supervisor.Reject(env, log, err.Error(), code)
		return exit.Silent(code)
	}
	code := supervisor.Run(supervisor.Options{File: file, Env: env, Log: log, StopAfter: stopAfter})
	if code != 0 {
		return exit.Silent(code)
	}
	return nil
}
