// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/conformance"
)

func newCheckZygote() *cobra.Command {
	o := conformance.Options{}
	var only []string
	var list bool
	cmd := &cobra.Command{
		Use:   "check-zygote [ZYGOTE [ARGUMENT]...]",
		Short: "Check a program that is to be a zygote",
		Long: `Check whether a program keeps to prefork-zygote(7), so that it can stand in
floor.zygote. This command plays the master: it starts the program, has it load
and fork, and looks at what comes of it. Without ZYGOTE it is prefork's own that
is checked. Options for the program stand after --.

ENTRY is called in workers with one word as its argument. With "state" it writes
"random N", where N is from the language's own generator, each environment
variable as NAME=VALUE, and "ready", a line each, flushes that, and waits for
ever; with "return" it returns; with "exit" it writes "bye" without a line feed,
flushes nothing, and exits with status 7; with "raise" it ends by an error that
nobody handles. /usr/share/prefork/conformance has it for Python and for Ruby.

It is TAP that is printed: a line for each check, and after one that failed what
was found, and what the program wrote.

Exit status: 0 no check has failed; 1 one has.`,
		Example: `  prefork check-zygote --path /usr/share/prefork/conformance \
    --preload conformance --entry conformance:entry
  prefork check-zygote --path /usr/share/prefork/conformance \
    --preload conformance --entry Conformance.entry \
    --thread Conformance.thread --socket Conformance.socket_left_open \
    -- ruby /usr/share/prefork/zygote.rb`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if list {
				for _, c := range conformance.Checks() {
					fmt.Fprintf(out, "%-20s %s\n", c[0], c[1])
				}
				return nil
			}
			if o.Entry == "" {
				return exit.Misused("the entry to be called is missing: --entry ENTRY; see prefork check-zygote --help")
			}
			for _, name := range only {
				if !conformance.Known(name) {
					return exit.Misused("there is no check %q; --list prints all of them", name)
				}
			}
			if len(args) > 0 {
				o.Zygote = args
			}
			return checkZygote(out, o, only)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Entry, "entry", "", "`ENTRY` that workers are to call")
	flags.StringArrayVar(&o.Preload, "preload", nil, "what is to be loaded, as in floor.preload, such as `MODULE`; can be given more than once")
	flags.StringArrayVar(&o.Path, "path", nil, "`FOLDER` in which that lies, as in floor.path; can be given more than once")
	flags.StringVar(&o.Setup, "setup", "", "what is to be called after that, as `SETUP` in floor.setup")
	flags.StringVar(&o.Thread, "thread", "", "`SETUP` that starts a thread, which the zygote must refuse")
	flags.StringVar(&o.Socket, "socket", "", "`SETUP` that leaves a socket open, which the zygote must refuse")
	flags.StringVar(&o.Python, "python", "python3", "interpreter of prefork's own zygote, `PROGRAM`")
	flags.StringSliceVar(&only, "only", nil, "run `CHECK`, and what it needs; can be given more than once")
	flags.BoolVar(&list, "list", false, "print the names of all checks and what they are about")
	flags.DurationVar(&o.Patience, "timeout", 10*time.Second, "`TIME` for each answer")
	return cmd
}

// checkZygote prints results as TAP, version 13.
func checkZygote(out io.Writer, o conformance.Options, only []string) error {
	fmt.Fprintln(out, "TAP version 13")
	n, bad := 0, 0
	_, err := conformance.Run(o, only, func(r conformance.Result) {
		n++
		switch r.Outcome {
		case conformance.Passed:
			fmt.Fprintf(out, "ok %d - %s: %s\n", n, r.Check, r.Duty)
		case conformance.NotRun:
			fmt.Fprintf(out, "ok %d - %s # SKIP %s\n", n, r.Check, r.Why)
		case conformance.Failed:
			bad++
			fmt.Fprintf(out, "not ok %d - %s: %s\n# %s\n", n, r.Check, r.Duty, r.Why)
			for line := range strings.Lines(r.Output) {
				fmt.Fprintf(out, "#   it wrote: %s\n", strings.TrimSuffix(line, "\n"))
			}
		}
	})
	if err != nil {
		return exit.Failed("check the zygote: %v", err)
	}
	fmt.Fprintf(out, "1..%d\n", n)
	if bad > 0 {
		return exit.Failed("%d of %d checks failed; prefork-zygote(7) has the duties", bad, n)
	}
	return nil
}
