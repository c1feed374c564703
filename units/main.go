// SPDX-License-Identifier: AGPL-3.0-or-later

package units

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// RunGenerator is the generator: args are what systemd calls it with, the
// directories to write to. It returns the exit status. A fault of a fleet file is
// not one of the generator's.
func RunGenerator(args []string) int {
	if len(args) == 0 {
		fmt.Fprintf(os.Stderr, "%s is called by systemd, with the directories to write to (systemd.generator(7))\n", GeneratorName)
		return 2
	}
	log := openLog()
	if err := Generate(args[0], fleetfile.Dirs, SystemdVersion(), log); err != nil {
		log(err.Error())
		return 1
	}
	return 0
}

// openLog writes to the journal, to the kernel's log while that does not run, or
// to standard error if there is neither: systemd connects that to nothing.
func openLog() func(text string) {
	const journalDir = "/run/systemd/journal"
	journal, err := sdnotify.OpenJournal(journalDir)
	return func(text string) {
		if err == nil && journal.Send(
			sdnotify.EntryField{Name: "MESSAGE", Value: text},
			sdnotify.EntryField{Name: "PRIORITY", Value: "3"},
			sdnotify.EntryField{Name: "SYSLOG_IDENTIFIER", Value: GeneratorName},
		) == nil {
			return
		}
		line := fmt.Appendf(nil, "<3>%s: %s\n", GeneratorName, text)
		kmsg, err := unix.Open("/dev/kmsg", unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			kmsg = 2
		}
		_, _ = unix.Write(kmsg, line) // there is nowhere to say so
	}
}
