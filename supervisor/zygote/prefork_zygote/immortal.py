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
IMMORTAL = 1 << 30  # no count of a mortal object is that high
SETTERS = ("_Py_SetImmortalUntracked", "PyUnstable_SetImmortal")


def make_immortal(more=()):
    """Makes all that the garbage collector can reach immortal, and more, which it cannot.
    Returns why it cannot be done; "" if it was.

    What is frozen has been reached before, and is not looked at again.
    """
    setter = find_setter()
    if isinstance(setter, str):
        return setter
    if not lasts(setter):
        return "this interpreter does not leave the counts of immortal objects alone"
    found, codes = reachable([*gc.get_objects(), *more])
    for address in found:
        setter(address)
    settle_constants(codes)
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
    """Reports whether objects are as they were after they have been used a lot, also
    one that code has loaded as a constant before."""

    def use(it):
        kept: list[tuple[object, ...]] = []
        for _ in range(100):
            kept.append((it, "scratch"))
            kept.append(("s", "c", "r"))
            kept.clear()

    def passed(it):
        return it

    scratch = object()
    for _ in range(20):
        use(scratch)
    constant = next(c for c in use.__code__.co_consts if type(c) is tuple)
    heads = [(ctypes.c_char * 8).from_address(id(it)) for it in (scratch, constant)]
    setter(id(scratch))
    setter(id(constant))
    settle_constants([use.__code__])
    before = [head.raw for head in heads]
    for _ in range(20):
        use(scratch)
        held = [scratch] * 10
        passed(held.pop())
        del held[:]
    return [head.raw for head in heads] == before


def settle_constants(codes):
    """Has code load each constant as what it is now.

    From 3.14 on an instruction that has met a mortal constant counts its references
    ever after, without a look: it would write to what shall not be written to, and
    what it puts into a list would be counted up and never down.
    """
    import opcode

    try:
        import _opcode_metadata as metadata  # type: ignore[import-not-found]

        mortal, immortal = (metadata._specialized_opmap["LOAD_CONST_" + kind] for kind in ("MORTAL", "IMMORTAL"))
    except (ImportError, KeyError):
        return  # 3.12 and 3.13 look
    caches = {opcode.opmap[name]: count for name, count in vars(opcode)["_inline_cache_entries"].items()}
    byte, first = ctypes.c_ubyte.from_address, type(settle_constants.__code__).__basicsize__
    for code in codes:
        now = code._co_code_adaptive
        if mortal not in now[::2]:
            continue
        text, here = code.co_code, 0
        while here < len(text):
            if now[here] == mortal:
                byte(id(code) + first + here).value = immortal
            here += 2 + 2 * caches.get(text[here], 0)


def reachable(todo):
    """Returns the addresses of objects and of all that they refer to, and the code among
    them. Code tells nobody what it refers to. What is immortal already is left out."""
    frame, code = type(sys._getframe()), type(reachable.__code__)
    seen: set[int] = set()
    codes: list[object] = []
    own = {id(seen), id(todo), id(codes)}
    while todo:
        found = todo.pop()
        address, kind = id(found), type(found)
        if address in seen or address in own or kind is frame or sys.getrefcount(found) >= IMMORTAL:
            continue
        seen.add(address)
        if kind is code:
            codes.append(found)
            todo += (found.co_consts, found.co_names, found.co_filename, found.co_name)
            todo += (found.co_qualname, found.co_linetable, found.co_exceptiontable)
        todo += gc.get_referents(found)
    return seen, codes
