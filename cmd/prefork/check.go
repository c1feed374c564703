// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"github.com/spf13/cobra"
)

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
