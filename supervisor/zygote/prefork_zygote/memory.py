# SPDX-License-Identifier: 0BSD
"""How memory is left so that workers write to as little of it as can be."""

import gc

from .base import slurp
from .cfunctions import Plain, c_functions
from .immortal import make_immortal
from .leave import flush
from .prepare import REHEARSALS, rehearse
from .repack import repack_own

# The pools of CPython's allocator for small objects. With another allocator no
# pool is ever found, and the filling ends at its limit.
POOL, POOL_HEADER = 1 << 14, 48
MADV_COLLAPSE, HUGE = 25, 2 << 20
FILLING = 8 << 20  # bytes at most


def share(floor):
    """Leaves memory so that workers write to as little of it as can be. Returns why its
    objects cannot be immortal, if they were to be; else "".

    The order matters: a collection empties the lists of free objects, which workers
    would else write to when they collect; then the free places that it has left are
    filled, those of the interpreter and those of C; what is made now lies side by
    side; and because it is cold, all is run once more.
    """
    rehearse(floor, REHEARSALS)
    flush()
    why = make_immortal() if floor.immortal else ""
    if floor.freeze:
        gc.freeze()
        gc.collect()  # examines nothing
    huge = huge_pages(floor.c)
    floor.filling = fill_holes()
    fill_heap(floor.c)
    old, new = repack_own()
    floor.filling.append(old)
    floor.c = c_functions()
    rehearse(floor, REHEARSALS)
    if floor.immortal and not why:
        make_immortal([*new, floor.c])
    if floor.freeze:
        gc.freeze()
    for place in huge:
        floor.c.madvise(place, HUGE, MADV_COLLAPSE)  # as many as the kernel has
    return why


def fill_heap(c):
    """Takes the free places of malloc(3), for the reason that fill_holes has.

    What comes from the top of the heap was not in a hole. With another allocator, or
    before glibc 2.33, nothing is done.
    """
    if c is Plain or not hasattr(c, "mallinfo2"):
        return
    c.malloc_trim(0)
    taken = 0
    for size in [*range(100_000, 1024, -512), *range(1016, 8, -16)]:
        while taken < FILLING:
            top = c.sbrk(0) - c.mallinfo2().keepcost
            place = c.malloc(size)
            if not place:
                return
            if place >= top:
                c.free(place)
                break
            taken += size


def huge_pages(c):
    """Returns where there can be huge pages under the floor: a fork copies fewer
    entries of its table, and the end of a worker frees fewer (MADV_COLLAPSE,
    Linux 6.1; madvise(2))."""
    found: list[int] = []
    for line in slurp("/proc/self/maps").splitlines() if hasattr(c, "madvise") else ():
        fields = line.split()
        if fields[1] == "rw-p" and (len(fields) == 5 or fields[5] == "[heap]"):
            first, end = (int(text, 16) for text in fields[0].split("-"))
            found += range(-(-first // HUGE) * HUGE, end // HUGE * HUGE, HUGE)
    return found


def fill_holes():
    """Takes the free places between the floor's objects; returns what took them.

    Else the objects that a worker makes go into these places, here and there, and
    each makes a page the worker's own. Afterwards the allocator has a fresh pool
    for each size, and its lists of free objects, which a collection would write
    to, are empty.
    """
    filling: list[object] = [(None,) * n for n in range(1, 21) for _ in range(100)]
    for i in range(100):
        filling += [], {i: i}, 1.5 * i, 10**11 + i
    taken = 0
    for size in range(16, 513, 16):
        last = neighbours = 0
        while taken < FILLING:
            new: object = bytes(size - 33) if size > 32 else 1.5 * taken if size == 32 else object()
            filling.append(new)
            taken += size
            neighbours = neighbours + 1 if id(new) - last == size else 0
            last = id(new)
            if neighbours >= 2 and last % POOL == POOL_HEADER + 2 * size:
                break  # the first three places of a pool, one after the other
    return filling
