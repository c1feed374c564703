# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fork the floor once for each line of input.

Prints the nanoseconds until the child's first instruction.
"""

import gc
import os
import sys
import time

import floor  # noqa: F401

gc.collect()
gc.freeze()
print("ready", flush=True)
for _ in sys.stdin:
    reader, writer = os.pipe()
    start = time.monotonic_ns()
    child = os.fork()
    if child == 0:
        os.write(writer, b"%d" % (time.monotonic_ns() - start))
        os._exit(0)
    print(os.read(reader, 40).decode(), flush=True)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
