// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"bytes"
	"embed"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

//go:embed prefork_zygote/*.py prefork_tasks/*.py
var modules embed.FS

// parts are the modules of the zygote's program: each imports from those before it.
var parts = []string{
	"base", "cfunctions", "leave", "accounts", "orders", "looks", "stacks", "prepare", "immortal", "repack", "memory", "worker", "floor", "zygote",
}

// taskParts are those of the program that runs the tasks of a worker.
var taskParts = []string{"policy", "words", "task", "group"}

// Source is the zygote's program: all modules of prefork_zygote in one namespace, which
// is loaded once and shared. It belongs into a memfd, see [Argv]. It is made anew at each
// call: floors are few, and this program starts again as each shim.
func Source() []byte { return pack("prefork_zygote", parts) }

// The parts that only scratch zygotes have: what their workers do, and what watches the
// floor while it is loaded.
var (
	stepsParts = []string{"steps"}
	watchParts = []string{"interpreter", "watch"}
)

// Steps is what the worker of a scratch zygote has as its entry: it does one step after
// the other, as it is told at its fd 3 by [Step].
const Steps = "prefork check:take_steps"

// ScratchSource is the program of a zygote that is no fleet's: its workers know [Steps].
// With watch it writes what the floor does, as it does it, to the descriptor after that of
// the program, one object of JSON to a line.
func ScratchSource(watch bool) []byte {
	last := len(parts) - 1
	added := stepsParts
	if watch {
		added = slices.Concat(stepsParts, watchParts)
	}
	return pack("prefork_zygote", slices.Concat(parts[:last], added, parts[last:]))
}

// StackSignal has a worker write where its threads and tasks are, to its standard error;
// a zygote that watches, where its threads are, to where it writes all else. It is the last
// real-time signal but one: the C library has the first two, and who takes one of these
// takes the first or the last.
const StackSignal = unix.Signal(63)

// Step is a request to a worker of a scratch zygote. Its answer is "done", with fields, or
// "failed" and why, separated by NUL.
func Step(name string, modules ...string) []byte {
	b := []byte(name)
	for _, module := range modules {
		b = appendField(b, "name", module)
	}
	return b
}

// Tasks is the program that runs the tasks of a worker, put together in the same way. It
// travels in the floor message: a floor that has such a worker loads it once, for all of
// them.
func Tasks() string { return string(pack("prefork_tasks", taskParts)) }

func pack(program string, parts []string) []byte {
	var all bytes.Buffer
	for _, name := range parts {
		text, err := modules.ReadFile(program + "/" + name + ".py")
		if err != nil {
			panic(err) // it is embedded
		}
		writeModule(&all, text)
	}
	return all.Bytes()
}

// writeModule leaves out what a module imports from another: it is there already.
func writeModule(to *bytes.Buffer, text []byte) {
	imports := false // in parentheses
	for line := range bytes.Lines(text) {
		switch {
		case imports:
			imports = line[0] != ')'
		case bytes.HasPrefix(line, []byte("from .")):
			imports = bytes.HasSuffix(line, []byte("(\n"))
		default:
			to.Write(line)
		}
	}
}

// Module is the source of the module prefork that workers import. It travels
// in the floor message, see [LoadRequest.Encode].
//
//go:embed prefork.py
var Module string

// Probe is the program of a process that lists its floor's objects. It travels in the
// orders of that process alone, so that no other has it in memory.
//
//go:embed probe.py
var Probe string

// Argv is the command line of a zygote. It must have been given, from fd 3 on, what
// holds the numbers of reserve descriptors, then its end of the SOCK_SEQPACKET pair,
// which the master must have made itself, and the memfd with [Source].
func Argv(python string, reserve int) []string {
	return []string{python, "-c", boot, strconv.Itoa(firstFD + reserve)}
}

// Environment is what another program that is a zygote is told, by which it finds its end
// of the pair: that has the same number, and nothing comes after it.
func Environment(reserve int) []string {
	return []string{
		ProtocolVariable + "=" + strconv.Itoa(Protocol),
		SocketVariable + "=" + strconv.Itoa(firstFD+reserve),
	}
}

// The variables of [Environment].
const (
	ProtocolVariable = "PREFORK_ZYGOTE_PROTOCOL"
	SocketVariable   = "PREFORK_ZYGOTE_FD"
)

const firstFD = 3 // SD_LISTEN_FDS_START (sd_listen_fds(3))

// boot must parse on every Python from 2.7 on, so that a wrong floor.python is told
// as such and not as a syntax error. Its length is the room for process titles: they
// overwrite the arguments.
const boot = `# A prefork zygote: it loads a floor once, and forks workers from it.
import sys
sys.path[:] = [p for p in sys.path if p]  # not the working directory
import os
command = int(sys.argv[1])
if sys.version_info < (3, 11):
    text = "broken\0floor.python is Python %s at %s; prefork needs 3.11 or later: set floor.python" % (
        sys.version.split()[0], sys.executable)
    os.write(command, text if str is bytes else text.encode("utf-8", "surrogateescape"))
    os._exit(1)
os.lseek(command + 1, 0, 0)
source = os.read(command + 1, os.fstat(command + 1).st_size)
os.close(command + 1)
exec(compile(source, "<prefork zygote>", "exec"), {"__name__": "prefork zygote"})
`
