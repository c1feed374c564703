// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

func newInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented fleet file to start from",
		Long: `Write a fleet file in which every key is explained, to FILE or to standard
output. A file that exists is left alone.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit.Misused("init writes one FILE")
			}
			return nil
		},
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
		return exit.Failed("%s exists and is left as it is: name another file, or none for standard output", path)
	}
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return exit.Failed("%v", err)
	}
	return nil
}
