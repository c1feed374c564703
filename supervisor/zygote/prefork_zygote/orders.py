# SPDX-License-Identifier: 0BSD
"""Orders, and how a worker obeys them."""

import sys

from .accounts import change_user, find_user, keep_capabilities, set_capabilities
from .base import (
    CHDIR,
    FDS,
    LIMITS,
    NICE,
    NO_NEW_PRIVS,
    OOM_ADJUST,
    PER_PROCESS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    Failure,
    _signal,
    _socket,
    attempt_step,
    command_socket,
    handed_down,
    one,
    os,
    outputs,
    parse,
    parse_fields,
    resolve,
    resource,
    set_title,
    time,
    write,
)
from .cfunctions import find_prctl


def read_orders(data, fds, flags):
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        raise Failure(FDS, "the orders did not arrive whole")
    name, orders = parse(data)
    if name != "go":
        raise Failure(1, "unknown message at the gate: " + repr(name[:20]))
    if "memfd" in orders:
        if not fds:
            raise Failure(FDS, "the orders came without their memfd")
        memfd = fds.pop(0)
        text = attempt_step(FDS, "reading the orders", read_all, memfd)
        os.close(memfd)
        orders = parse_fields(os.fsdecode(text).split("\0"))
    return orders


def read_all(fd):
    text = b""
    while more := os.pread(fd, 1 << 16, len(text)):
        text += more
    return text


def obey(floor, orders, fds):
    """Becomes the slot. The order matters: rights are given up last."""
    if fds is not None:  # None is a rehearsal
        attempt_step(FDS, "placing the descriptors", place, floor, orders, fds, 3, 3 + floor.reserve)
    account = find_user(orders)
    set_environment(orders, account)
    set_title(floor, os.fsencode(one(orders, "title")), os.fsencode(one(orders, "comm")))
    adjust = one(orders, "oom_score_adjust")
    if adjust:  # before the limits, which may leave no descriptor to open
        attempt_step(OOM_ADJUST, f"oom_score_adjust {adjust}", write, "/proc/self/oom_score_adj", 0, adjust.encode())
    set_limits(orders)
    if one(orders, "nice"):
        nice = int(one(orders, "nice"))
        attempt_step(NICE, f"nice {nice}", os.setpriority, os.PRIO_PROCESS, 0, nice)
    if one(orders, "umask"):
        os.umask(int(one(orders, "umask"), 8))
    prctl = floor.prctl
    if prctl is None and ("no_new_privileges" in orders or "death_signal" in orders):
        prctl = find_prctl()  # the new user may not be able to read its module
    keep_capabilities(floor, orders)
    change_user(floor, orders, account)
    if one(orders, "dir"):  # as the user that it is for, like systemd
        attempt_step(CHDIR, f"working directory {one(orders, 'dir')!r}", os.chdir, one(orders, "dir"))
    if fds is not None:
        set_capabilities(floor, orders)
    restrict(prctl, orders)
    name_module(floor.module, orders)


def place(floor, orders, fds, first, kept):
    """Puts the output at 1 and 2, sockets and stored at first and up; closes the rest,
    which is kept free. The socket of tasks stays where it is, and closes when the worker
    executes something."""
    for number in outputs(orders):
        if not fds:
            raise Failure(FDS, "output without a descriptor")
        output = fds.pop(0)
        os.dup2(output, number)
        os.close(output)
    names = handed_down(orders)
    extra = "tasks" in orders
    if len(fds) != len(names) + extra:
        raise Failure(FDS, f"{len(fds)} descriptors came for {len(names)} names")
    end = first + len(names)
    if end > kept:
        fds = make_room(floor, fds, kept, end)
    if extra:
        floor.orders = fds.pop()
    for number, fd in enumerate(fds, first):
        os.dup2(fd, number)
        os.close(fd)
    if end < kept:
        os.closerange(end, kept)


def make_room(floor, fds, first, end):
    """Frees first to end-1: there are more sockets than the floor kept room for."""
    spent = []

    def lift(fd):
        while fd < end:
            spent.append(fd)
            fd = os.dup(fd)
        return fd

    gate = floor.sock.fileno()
    lifted = lift(gate)
    fds = [lift(fd) for fd in fds]
    if lifted != gate:
        floor.sock.detach()
        floor.sock = command_socket(lifted)
    for fd in spent:
        os.close(fd)
    for number in range(first, end):
        try:
            os.fstat(number)
        except OSError:
            continue  # free
        raise ValueError(f"the floor uses fd {number}; a reload makes room")
    return fds


def set_environment(orders, account):
    names = handed_down(orders)
    new = {}
    if account:
        new = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        new["SHELL"] = account.pw_shell or "/bin/sh"
    for text in orders.get("env", ()):
        name, _, value = text.partition("=")
        new[name] = value
    if names:
        new["LISTEN_FDS"] = str(len(names))
        new["LISTEN_FDNAMES"] = ":".join(names)
        new["LISTEN_PID"] = str(os.getpid())
    if one(orders, "watchdog"):
        new["WATCHDOG_USEC"] = one(orders, "watchdog")
        new["WATCHDOG_PID"] = str(os.getpid())
    for name in PER_PROCESS:
        if name not in new and name in os.environ:
            del os.environ[name]
    zone = os.environ.get("TZ")
    for name, value in new.items():
        if os.environ.get(name) != value:  # each change costs memory
            os.environ[name] = value
    if os.environ.get("TZ") != zone:
        time.tzset()  # C has read it already


def set_limits(orders):
    for text in orders.get("limit", ()):
        number, *values = text.split(":")
        soft, hard = (resource.RLIM_INFINITY if v == "infinity" else int(v) for v in values)
        attempt_step(LIMITS, limit_name(int(number)), resource.setrlimit, int(number), (soft, hard))


def limit_name(number):
    for name in dir(resource):
        if name.startswith("RLIMIT_") and getattr(resource, name) == number:
            return name
    return f"resource limit {number}"


def restrict(prctl, orders):
    if "no_new_privileges" in orders:
        attempt_step(NO_NEW_PRIVS, "no_new_privileges", prctl, PR_SET_NO_NEW_PRIVS, 1)
    if "death_signal" in orders:
        # A change of user clears it, so it comes after that.
        attempt_step(1, "death_signal", prctl, PR_SET_PDEATHSIG, _signal.SIGKILL)
        if os.getppid() != int(one(orders, "master")):
            os._exit(0)  # the master ended before the signal was armed


def name_module(module, orders):
    module.fleet = one(orders, "fleet")
    module.worker = one(orders, "worker")
    module.slot = one(orders, "slot")
    module.index = int(one(orders, "index") or 0)
    module.generation = int(one(orders, "generation") or 0)
    handed = tuple((name, fd) for fd, name in enumerate(handed_down(orders), 3))
    sockets = len(orders.get("listen", ()))
    module._listen, module._stored = handed[:sockets], handed[sockets:]
    module._sockets = None  # an import or a hook has asked too early
    module._done, module._enough = 0, int(os.environ.get("PREFORK_RECYCLE_REQUESTS", 0))


def find_entry(floor, orders):
    """Returns what the worker calls, and with what."""
    if "tasks" in orders:
        tables = literal(one(orders, "tasks"), [])
        entry = load_tasks(floor).prepare(tables, one(orders, "lifespan"), floor.orders)
    else:
        entry = resolve(one(orders, "entry"))
    return entry, literal(one(orders, "args"), ()), literal(one(orders, "kwargs"), {})


def load_tasks(floor):
    """Makes the program that runs the tasks of a worker, with all that it imports."""
    if not floor.tasks:
        floor.tasks = type(sys)("prefork_tasks")
        exec(compile(floor.tasks_source, "<prefork tasks>", "exec"), floor.tasks.__dict__)
    return floor.tasks


def literal(text, default):
    """Evaluates JSON, which is a Python literal but for two words, without the memory that module ast takes."""
    if not text:
        return default  # compile, too, takes memory
    code = compile(os.fsencode(text), "<prefork args>", "eval")  # UTF-8, whatever the locale is
    words = {"true": True, "false": False}
    if not words.keys() >= {*code.co_names}:  # no other names, so it can call and read nothing
        raise ValueError("args and kwargs must be JSON")
    return eval(code, {"__builtins__": {}, **words})
