# SPDX-License-Identifier: 0BSD
"""Where a worker is, in its own log, however it hangs.

C's handler writes the stacks of all threads at once, whoever holds the interpreter
lock. Python's comes after it, as soon as the main thread can run it: an event loop
that waits is woken by the signal, and says where its tasks are. Both are inherited from
the floor, and cost a worker nothing until they are used.
"""

import sys

from .base import _signal, os

STACKS = 63  # the signal: the last but one that there is
MOST_TASKS = 100  # as many as faulthandler writes threads
MOST_FRAMES = 20  # of a task
KINDS = {"cr": "cr_await", "gi": "gi_yieldfrom", "ag": "ag_await"}  # what a coroutine can be


def arm():
    """Returns the signal, or 0: this interpreter cannot do it."""
    try:
        import faulthandler

        _signal.signal(STACKS, write_tasks)
        faulthandler.register(STACKS, 2, all_threads=True, chain=True)
    except (ImportError, AttributeError):
        return 0
    return STACKS


def write_tasks(_number, _frame):
    """Is called in the main thread, between two steps of whatever it does: nothing of this
    may reach that."""
    asyncio = sys.modules.get("asyncio")
    try:
        for loop in running_loops(asyncio) if asyncio else ():
            write_tasks_of(loop, asyncio)
    except Exception:
        pass  # the stacks of the threads are written already


def running_loops(asyncio):
    """Returns the loops that run, in whatever thread. That of another thread is known only
    to the frames there."""
    found = [asyncio._get_running_loop()]
    for innermost in sys._current_frames().values():
        for frame in outward(innermost):
            if frame.f_code.co_name == "run_forever":
                found.append(frame.f_locals.get("self"))
    return [loop for i, loop in enumerate(found) if loop is not None and loop not in found[:i]]


def outward(frame):
    while frame:
        yield frame
        frame = frame.f_back


def write_tasks_of(loop, asyncio):
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))
    for task in tasks[:MOST_TASKS]:
        os.write(2, describe_task(task).encode("utf-8", "backslashreplace"))
    if len(tasks) > MOST_TASKS:
        os.write(2, b"... and %d more tasks\n" % (len(tasks) - MOST_TASKS))


def describe_task(task):
    """Says what a task waits for, and where, in faulthandler's words. traceback would read
    the source, and keep it."""
    lines: list[str] = []
    awaited = task.get_coro()
    while awaited is not None and len(lines) < MOST_FRAMES:
        kind = next((kind for kind in KINDS if getattr(awaited, kind + "_frame", None)), None)
        if not kind:
            break
        frame = getattr(awaited, kind + "_frame")
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n')
        awaited = getattr(awaited, KINDS[kind], None)
    waits = getattr(task, "_fut_waiter", None)
    what = "runs" if waits is None else "waits for " + describe_future(waits)
    return f"Task {task.get_name()[:100]!r} {what} (most recent call first):\n" + "".join(reversed(lines))


def describe_future(future):
    name = getattr(future, "get_name", None)
    return f"{type(future).__name__} {name()[:100]!r}" if name else type(future).__name__
