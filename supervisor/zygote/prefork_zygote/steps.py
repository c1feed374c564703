# SPDX-License-Identifier: 0BSD
"""What a worker of prefork check does, instead of its entry: one step after the other,
as it is told, so that its memory can be looked at between them. No fleet has this part.
"""

import gc
import itertools
import sys

from .base import SMALL, cause, command_socket, os, parse, resolve, show, time
from .looks import extra_threads

FIRST = 3  # the descriptor of the socket over which steps are asked for
NAMES = 60_000  # bytes of names of modules in an answer


def take_steps():
    """Is the entry of such a worker."""
    sock = command_socket(FIRST)
    while data := sock.recv(SMALL):
        name, fields = parse(data)
        try:
            answer = STEPS[name](*fields.get("name", ()))  # type: ignore[operator]
            said = [b"done", *map(os.fsencode, answer)]
        except BaseException as error:
            show(error)
            said = [b"failed", os.fsencode(cause(error))[:SMALL]]
        sock.send(b"\0".join(said))


def resolve_all(*names):
    """Imports what an entry needs, and calls nothing. Answers with the seconds, the
    threads that it started, how many modules are new, and their names."""
    known, before = len(sys.modules), time.perf_counter()
    for name in names:
        resolve(name)
    seconds = time.perf_counter() - before
    new = list(itertools.islice(sys.modules, known, None))  # in the order of their import
    said, size = [f"{seconds:.6f}", str(len(extra_threads())), str(len(new))], 0
    for name in new:
        size += len(name) + 1
        if size < NAMES:
            said.append(name)
    return said


def call(name):
    resolve(name)()
    return ()


def collect():
    gc.collect()
    return ()


STEPS: dict[str, object] = {"resolve": resolve_all, "call": call, "collect": collect}

if __name__ == "prefork zygote":
    module = type(sys)("prefork check")
    module.__dict__["take_steps"] = take_steps
    sys.modules["prefork check"] = module
