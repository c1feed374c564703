// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	_ "embed" // for the Python programs
)

//go:embed worker.py
var workerSource string

//go:embed prepare.py
var prepareSource string

//go:embed zygote.py
var zygoteSource string

// Source is the zygote's program. It belongs into the memfd at [SourceFD]. The
// three files are one program: see the first lines of each.
var Source = workerSource + prepareSource + zygoteSource

// Module is the source of the module prefork that workers import. It travels
// in the floor message, see [Floor.Encode].
//
//go:embed prefork.py
var Module string

// The descriptors that a zygote finds when it starts.
const (
	CommandFD = 3 // its end of the SOCK_SEQPACKET pair; the master must have made the pair itself
	SourceFD  = 4 // the memfd with Source
)

// Boot is the argument of python3 -c. It must parse on every Python from 2.7
// on, so that a wrong floor.python is told as such and not as a syntax error.
// Its length is the room for process titles: they overwrite the arguments.
const Boot = `# A prefork zygote: it loads a floor once, and forks workers from it.
import sys
sys.path[:] = [p for p in sys.path if p]  # not the working directory
import os
if sys.version_info < (3, 11):
    text = "broken\0floor.python is Python %s at %s; prefork needs 3.11 or later: set floor.python" % (
        sys.version.split()[0], sys.executable)
    os.write(3, text if str is bytes else text.encode("utf-8", "surrogateescape"))
    os._exit(1)
os.lseek(4, 0, 0)
source = os.read(4, os.fstat(4).st_size)
os.close(4)
exec(compile(source, "<prefork zygote>", "exec"), {"__name__": "prefork zygote"})
`
