# SPDX-License-Identifier: 0BSD
"""What everything else here needs: the modules of the standard library as they were
before user code could replace anything in them, messages, and words for errors.

All of this package is one program for the zygote: package zygote puts its modules
together, in the order of their imports, so that each worker shares one namespace
that is loaded once. It writes as little as it can: each page that is written costs
the worker 4 kB of its own. The gate and the fields of its orders are drawn in the Go
package gate.
"""

import gc

gc.disable()  # a collection writes to every object, and so unshares its page

import _signal
import _socket
import os
import sys
import time

known = set(sys.modules)

import grp as grp  # for accounts.py
import pwd as pwd
import resource as resource  # for orders.py

try:
    import ctypes
except ImportError:
    ctypes = None  # type: ignore[assignment]  # python3-minimal: see Plain


def own(module):
    """Returns a copy of a module as it is now. User code may replace what it finds in
    the module itself: with gevent's os.close a descriptor is not closed at once."""
    copy = type(sys)(module.__name__)
    copy.__dict__.update(module.__dict__)
    return copy


os, time, _signal, _socket = map(own, (os, time, _signal, _socket))

# An application may have modules of these names, and python3 would find those. It
# cannot have a threading, which ctypes loads from 3.14 on: a second one would be there
# for each fork, with hooks and a main thread of its own.
for name in set(sys.modules) - known:
    if not name.startswith(("_", "ctypes", "threading")):
        del sys.modules[name]

NAME = "<prefork zygote>"  # this program's name in tracebacks
SMALL = 4096  # size of a buffer for the messages to workers and of fork requests
TEXT = 512  # bytes of a text that the master shows
MAX_FDS = 253  # as many descriptors as one message can carry: SCM_MAX_FD

# Exit statuses of a worker that could not become what was ordered: those of
# systemd.exec(5).
CHDIR, NICE, FDS, LIMITS, OOM_ADJUST = 200, 201, 202, 205, 206
GROUP, USER, CAPABILITIES, NO_NEW_PRIVS = 216, 217, 218, 227

# Variables that are about one process: what the floor has of them is not the
# worker's.
PER_PROCESS = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID")

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 7, 8, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4


class Failure(Exception):
    """The worker cannot become what was ordered: exit status and cause."""


def receive(sock, size, most):
    """Blocks for one message; returns it, its descriptors and its flags."""
    space = _socket.CMSG_SPACE(4 * most) if most else 0
    data, controls, flags, _ = sock.recvmsg(size, space, _socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, body in controls:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(body) - len(body) % 4
            fds += [int.from_bytes(body[i : i + 4], sys.byteorder) for i in range(0, whole, 4)]
    return data, fds, flags


def send(sock, name, *fields):
    texts = (os.fsencode(field.replace("\0", " "))[:TEXT] for field in fields)
    sock.send(b"\0".join([name, *texts]))


def parse(data):
    """Returns a message's name, and its fields as {key: [value, ...]}."""
    name, *parts = os.fsdecode(data).split("\0")
    return name, parse_fields(parts)


def parse_fields(parts):
    fields: dict[str, list[str]] = {}
    for part in parts:
        key, _, value = part.partition("=")
        fields.setdefault(key, []).append(value)
    return fields


def one(fields, key):
    return fields.get(key, ("",))[-1]


def outputs(orders):
    """Returns which standard descriptors the worker does not inherit."""
    return [number for number, key in ((1, "stdout"), (2, "stderr")) if key in orders]


def handed_down(orders):
    """Returns the names of what is at 3 and up: the sockets, then what was stored."""
    return [*orders.get("listen", ()), *orders.get("stored", ())]


def attempt_step(status, what, call, *args):
    try:
        return call(*args)
    except (OSError, ValueError, OverflowError) as error:
        raise Failure(status, f"{what}: {getattr(error, 'strerror', None) or error}") from None


def resolve(name):
    """Imports "module:callable" and returns the callable."""
    module, _, path = name.partition(":")
    __import__(module)
    found = sys.modules[module]
    for attribute in path.split("."):
        found = getattr(found, attribute)
    if not callable(found):
        raise TypeError(f"{name} is of type {type(found).__name__}, which cannot be called")
    return found


def command_socket(fd):
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)


def argv_memory():
    """Returns where the kernel reads /proc/PID/cmdline from: address and size."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        first, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: proc(5)
        return first, end - first
    except (OSError, IndexError, ValueError):
        return 0, 0


def set_title(floor, title, comm):
    """Overwrites the arguments, which ps shows. A title is not worth a failure."""
    address, size = floor.argv
    if size > 1:
        overwrite("/proc/self/mem", address, title[: size - 1].ljust(size, b"\0"))
    if comm:
        overwrite("/proc/self/comm", 0, comm[:15])


def overwrite(path, offset, data):
    try:
        write(path, offset, data)
    except OSError:
        pass


def write(path, offset, data):
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, data)  # comm takes no pwrite(2)
    finally:
        os.close(fd)


def slurp(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def show(error):
    """Prints a traceback without the frames of this program."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == NAME:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException:
        sys.__excepthook__(type(error), error, trace)


def cause(error):
    """Says in one line what an exception is."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = type(error).__qualname__
    return f"{name}: {text}" if text else name


def tell_handlers(slot, error):
    """Hands what ended the user's code to the handlers of logging, but for those that write
    to where show() has written it."""
    if "logging" not in sys.modules or isinstance(error, SystemExit):
        return
    import logging

    logger = logging.getLogger("prefork")
    if not logger.isEnabledFor(logging.CRITICAL):
        return
    told = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    about = type(error), error, error.__traceback__
    record = logger.makeRecord(logger.name, logging.CRITICAL, NAME, 0, "%s: uncaught exception", (slot,), about)
    above: logging.Logger | None = logger
    while above:
        for handler in above.handlers:
            if record.levelno >= handler.level and getattr(handler, "stream", None) not in told:
                handler.handle(record)
        above = above.parent if above.propagate else None


def report(error):
    """Says what ended the user's code, as python3 does; returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        return 0
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        try:
            print(error.code, file=sys.stderr)
        except Exception:
            pass  # there is nowhere left to say it
        return 1
    show(error)
    return 1
