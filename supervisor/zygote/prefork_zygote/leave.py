# SPDX-License-Identifier: 0BSD
"""The end of a worker, as python3 ends, but for what is the floor's."""

import atexit
import gc
import sys

from .base import os, report


def leave(floor, status):
    """Ends the worker as the interpreter would, but for what is the floor's."""
    floor.status = status
    threading = sys.modules.get("threading")
    attempt_all(threading and threading._shutdown, atexit._run_exitfuncs)
    finish(floor)  # the handler that would have done it was taken away


def attempt_all(*calls):
    for call in calls:
        try:
            if call:
                call()
        except BaseException as error:
            report(error)


def finish(floor):
    """Is called after a worker's own exit handlers. Never returns."""
    for info in floor.finalizers:
        info.atexit = False
    attempt_all(*floor.finishers)
    if floor.freeze:  # else what is the floor's would be looked at, too
        destroy()
    status = floor.status
    lost = flush_files() | flush() | (floor.c.fflush(None) != 0)
    os._exit(120 if lost and status == 0 else status)  # 120: as python3 does


def destroy():
    """Does what destructors do at the end of python3: of garbage, and of what is
    still there, the youngest first. The floor is frozen, and not looked at.

    All of it is held until the end, so that no destructor runs twice.
    """
    gc.collect()
    held = [(type(o).__del__, o) for o in gc.get_objects() if type(getattr(type(o), "__del__", None)) is type(destroy)]
    for call, thing in reversed(held):
        attempt_all(lambda call=call, thing=thing: call(thing))


def flush_files():
    """Flushes every open file of the worker. Says whether output was lost.

    python3 does it by destroying them. Those of the floor are frozen, and so not
    among the objects that are looked at: what is in their buffers is the floor's.
    """
    import io

    lost, below = False, set()
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair)
    objects = [o for o in gc.get_objects() if issubclass(type(o), io.IOBase)]
    # A text goes to the buffer below it first, and a compressed file to its own.
    objects.sort(key=lambda o: (issubclass(type(o), io.TextIOWrapper), not issubclass(type(o), kinds)), reverse=True)
    for file in objects:
        try:
            if id(file) in below:
                continue  # it has been told of
            if issubclass(type(file), kinds):
                file.closed or file.flush()
            elif file.writable() and type(file).__module__ in ("gzip", "bz2", "lzma"):
                file.close()
        except BrokenPipeError:
            pass
        except Exception as error:
            if not getattr(file, "closed", False):
                report(error)
                below.add(id(getattr(file, "buffer", None)))
                lost = True
    return lost


def flush():
    """Flushes the standard streams. Says whether output was lost.

    A reader that has closed its end is no loss.
    """
    lost = False
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BrokenPipeError:
            pass
        except Exception:
            lost = True
    return lost
