# SPDX-License-Identifier: 0BSD
"""Code that runs, side by side.

The interpreter writes to code as it runs it: it counts, and rewrites in place. A page that
has one function which workers call among others which they do not is a worker's own all
the same. Code cannot be moved, but a function can be given a copy of its code.
"""

import gc
import sys


def watch(call):
    """Calls it, and returns the code that ran meanwhile, by address, as it first ran."""
    hot: dict[int, object] = {}

    def note(frame, event, _):
        if event == "call":
            hot.setdefault(id(frame.f_code), frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return hot


def repack(functions, hot):
    """Gives functions copies of the code that is hot, made one after the other. Returns
    the copies."""
    code, copies = type(repack.__code__), {}

    def copy(found):
        if id(found) not in copies:
            inner = (copy(c) if type(c) is code and id(c) in hot else c for c in found.co_consts)
            copies[id(found)] = found.replace(co_consts=tuple(inner))
        return copies[id(found)]

    for found in hot.values():
        copy(found)
    for function in functions:
        function.__code__ = copies.get(id(function.__code__), function.__code__)
    return list(copies.values())


def repack_floor(hot):
    """Does it for all functions that there are."""
    repack([found for found in gc.get_objects() if type(found) is type(repack)], hot)


def repack_own():
    """Does it for this program and for what workers import of it. Returns the old code,
    whose places are to stay taken, and the new."""
    own = []
    for namespace in (globals(), sys.modules["prefork"].__dict__):
        own += [f for f in namespace.values() if type(f) is type(repack) and f.__globals__ is namespace]
    old = {id(f.__code__): f.__code__ for f in own}
    return old, repack(own, old)
