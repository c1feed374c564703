# SPDX-License-Identifier: 0BSD
"""A worker, from its birth at the gate to its exit."""

from .base import (
    MAX_FDS,
    SMALL,
    TEXT,
    Failure,
    _socket,
    cause,
    one,
    os,
    receive,
    report,
    resolve,
    send,
    set_title,
    show,
    tell_handlers,
)
from .leave import attempt_all, leave
from .orders import find_entry, obey, read_orders
from .prepare import rehearse_orders


def worker(floor, ident, gate, middle, ends, others):
    """Waits at the gate, and becomes what it is told to. Never returns."""
    try:
        try:
            be_born(floor, ident, gate, middle, ends, others)
            settle(floor)
            data, fds, flags = receive(floor.sock, SMALL, MAX_FDS)
        except (OSError, KeyboardInterrupt):
            data = b""  # as if the master had gone: no user code has run
        if not data:
            os._exit(0)
        live(floor, data, fds, flags)
    except BaseException as error:
        show(error)
    finally:
        os._exit(1)


def be_born(floor, ident, gate, middle, ends, others):
    """Becomes a child of the master, and says so before any hook runs.

    The master then knows the process, and a hook that hangs costs this worker its
    start and not the floor its life. Until Python's own hooks have run, nothing
    may be called that gives the interpreter lock away.
    """
    c = floor.c
    c.close(ends[1])
    for fd in others:  # of those that are born after this one
        c.close(fd)
    c.read(ends[0], floor.byte, 1)  # ends when the zygote has reaped the middle process
    c.close(ends[0])
    patience = 1000  # if the zygote was killed meanwhile, the middle still ends
    while c.getppid() == middle and patience:
        patience -= 1
        c.usleep(1000)
    if c.getppid() != floor.master:
        c._exit(0)
    c.dup3(gate, floor.number, os.O_CLOEXEC)  # closes the command socket
    c.close(gate)
    c.setsid()
    hello = b"hello\0" + ident
    if c.send(floor.number, hello, len(hello), _socket.MSG_NOSIGNAL) < 0:
        c._exit(0)  # the master has gone
    c.PyOS_AfterFork_Child()


def settle(floor):
    """Does ahead what it will do again when it has its orders."""
    rehearse_orders(floor)
    set_title(floor, floor.spare, b"prefork-spare")
    for seed in floor.seeds:
        seed()


def live(floor, data, fds, flags):
    orders, slot = {}, "a spare"
    try:
        orders = read_orders(data, fds, flags)
        slot = one(orders, "slot")
        obey(floor, orders, fds)
    except Exception as error:
        status, text = error.args if isinstance(error, Failure) else (1, cause(error))
        tell_failure(floor, slot, status, text)
        os._exit(status)
    if "probe" in orders:  # what it calls is nothing of the user's
        exec(compile(one(orders, "probe"), "<prefork probe>", "exec"), {"floor": floor, "zygote": globals()})
        os._exit(0)
    run(floor, orders)


def tell_failure(floor, slot, status, text):
    try:
        os.write(2, os.fsencode(f"prefork: {slot}: {text}\n"))
    except OSError:
        pass  # the cause still reaches the operator by the gate
    fail(floor, status, text)


def fail(floor, status, text):
    try:
        send(floor.sock, b"failed", str(status), text)
    except OSError:
        pass  # the master has gone


def run(floor, orders):
    """Calls the user's code, and exits as python3 would. Never returns."""
    what = "after_fork " + one(orders, "after_fork")
    try:
        if one(orders, "after_fork"):
            resolve(one(orders, "after_fork"))()
        what = "tasks" if "tasks" in orders else "entry " + one(orders, "entry")
        entry, args, kwargs = find_entry(floor, orders)
    except BaseException as error:  # whatever it is, the entry cannot be called
        status = report(error) or 1
        fail(floor, status, f"{what}: {cause(error)}")
        leave(floor, status)
    floor.sock.close()
    own = os.getpid()
    try:
        result = entry(*args, **kwargs)
        if hasattr(result, "__await__") and hasattr(result, "send"):
            import asyncio

            asyncio.run(result)
        status = result if "tasks" in orders else 0
    except BaseException as error:
        if os.getpid() == own:
            tell_cause(floor, error)
        status = report(error)
        if status and os.getpid() == own:
            attempt_all(lambda error=error: tell_handlers(one(orders, "slot"), error))
    leave(floor, status)


def tell_cause(floor, error):
    """Tells the master in a line what ends the worker, unless a number says it all."""
    if isinstance(error, KeyboardInterrupt):
        return
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return
    floor.module.notify("X_PREFORK_CAUSE=" + cause(error)[:TEXT])
