# SPDX-License-Identifier: 0BSD
"""Objects of the floor whose reference counts nobody writes any more (PEP 683).

A worker that only looks at an object writes to it, for the count, and so unshares its
page. CPython leaves the count of an immortal object alone.
"""

import gc
import sys

from .base import ctypes

# What the interpreter takes for immortal: from 3.14 on there is more to it than the count,
# and a function that knows.
COUNT = 0xFFFFFFFF  # the lower half of ob_refcnt in 3.12 and 3.13
SETTERS = ("_Py_SetImmortalUntracked", "PyUnstable_SetImmortal")


def make_immortal():
    """Makes all that the garbage collector can reach immortal. Returns why it cannot be
    done; "" if it was."""
    setter = find_setter()
    if isinstance(setter, str):
        return setter
    if not lasts(setter):
        return "this interpreter does not leave the counts of immortal objects alone"
    for address in reachable():
        setter(address)
    return ""


def find_setter():
    """Returns what makes the object at an address immortal, or why nothing does."""
    if sys.implementation.name != "cpython" or sys.version_info < (3, 12):
        return f"it needs CPython 3.12 or later, not {sys.version.split()[0]}"
    if "t" in sys.abiflags:
        return "it needs a CPython with a global interpreter lock"
    if ctypes is None:
        return "it needs the module ctypes"
    if sys.version_info < (3, 14):

        def set_count(address, at=ctypes.c_uint32.from_address):
            at(address).value = COUNT

        return set_count
    for name in SETTERS:
        call = getattr(ctypes.pythonapi, name, None)
        if call is not None:
            call.restype, call.argtypes = None, [ctypes.c_void_p]
            return call
    return f"CPython {sys.version.split()[0]} has no function for it"


def lasts(setter):
    """Reports whether an object is as it was after it has been used a lot."""
    scratch = object()
    setter(id(scratch))
    head = (ctypes.c_char * 8).from_address(id(scratch))
    before = head.raw

    def passed(it):
        return it

    for _ in range(1000):
        held = [scratch] * 10
        passed(held.pop())
        del held[:]
    return head.raw == before


def reachable():
    """Returns the addresses of the objects that the garbage collector knows, and of what
    they refer to. Code tells nobody what it refers to."""
    frame, code = type(sys._getframe()), type(reachable.__code__)
    seen: set[int] = set()
    todo = gc.get_objects()
    own = {id(seen), id(todo)}
    while todo:
        found = todo.pop()
        address, kind = id(found), type(found)
        if address in seen or address in own or kind is frame:
            continue
        seen.add(address)
        if kind is code:
            todo += (found.co_consts, found.co_names, found.co_filename, found.co_name)
            todo += (found.co_qualname, found.co_linetable, found.co_exceptiontable)
        todo += gc.get_referents(found)
    return seen
