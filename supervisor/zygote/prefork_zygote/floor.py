# SPDX-License-Identifier: 0BSD
"""The floor: what is loaded once, and looked at after each import."""

import gc
import sys

from .base import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    _socket,
    argv_memory,
    cause,
    ctypes,
    one,
    os,
    parse,
    receive,
    resolve,
    send,
    set_title,
    show,
)
from .cfunctions import c_functions
from .leave import flush
from .looks import REFUSE, WARN, describe, descriptors, extra_threads, sharing
from .memory import share
from .prepare import prepare
from .repack import repack_floor, watch

PROTOCOL = "1"  # the version that this zygote speaks
FORKS = 16  # workers that it can be asked for at a time
MESSAGE = 1 << 18  # larger than any message of the kernel's


class Broken(Exception):
    """The floor cannot be used; the text is the cause, in one line."""


class Floor:
    """What the zygote knows about its floor, and all that workers share."""

    def __init__(self, sock, fields):
        self.sock = sock  # the command socket; in a worker, its gate
        self.number = sock.fileno()
        self.pid = os.getpid()
        self.c = c_functions()
        self.byte = bytearray(1) if ctypes is None else ctypes.create_string_buffer(1)
        self.before = surroundings()
        self.fleet = one(fields, "fleet")
        self.generation = int(one(fields, "generation") or 0)
        self.reserve = self.number - 3
        self.refuse_threads = one(fields, "threads") != "allow"
        self.refuse_fds = one(fields, "fds") != "allow"
        self.freeze = one(fields, "gc_freeze") != "0"
        self.title = os.fsencode(one(fields, "title"))
        self.spare = os.fsencode(f"prefork: spare [{self.fleet}] gen {self.generation}")
        self.argv = argv_memory()
        self.preload = fields.get("preload", [])
        self.setup = one(fields, "setup")
        self.warm = one(fields, "warm")
        self.repack = one(fields, "repack") == "1"
        self.immortal = one(fields, "immortal") == "1"
        self.entries = fields.get("entry", [])
        self.calls = fields.get("calls", [])  # each with the place where it is named
        self.needs_prctl = one(fields, "prctl") == "1"
        self.prctl = None  # set if orders will need it
        self.capable = one(fields, "capabilities") == "1"  # it has some, for its workers alone
        if self.capable:
            self.c.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        self.path = fields.get("path", [])
        self.module = make_module(one(fields, "module"))
        self.has_tasks = one(fields, "has_tasks") == "1"
        self.tasks_source = one(fields, "tasks")  # for a worker that the file gets later
        self.tasks = None  # the program that runs tasks, see load_tasks
        self.orders = -1  # in a worker with tasks: where it hears what to do with them
        self.stacks = 0  # the signal that has a worker write where it is
        self.seeds = []  # what gives a worker random numbers of its own
        self.filling = []  # see fill_holes
        self.finalizers = []  # the floor's, of weakref
        self.finishers = []  # handlers of modules, for whoever uses them
        self.status = 0  # a worker's exit status
        self.opened = {}  # descriptor: what it is
        self.openers = {}  # descriptor: during what it appeared
        # The kernel keeps who made the socket pair. That is the master, and
        # the parent of every worker.
        peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        self.master = int.from_bytes(peer[:4], sys.byteorder)


def first_message(sock):
    data, _, flags = receive(sock, MESSAGE, 0)
    if not data:
        os._exit(0)
    name, fields = parse(data)
    if name != "floor" or flags & _socket.MSG_TRUNC:
        raise Broken(f"the first message was not floor but {name[:20]!r}")
    return fields


def make_module(source):
    module = type(sys)("prefork")
    exec(compile(source, "<prefork>", "exec"), module.__dict__)
    sys.modules["prefork"] = module
    return module


def load(floor):
    set_title(floor, floor.title, b"prefork-floor")
    sys.argv = [""]
    # A floor stays with the release that it has loaded: what a worker imports later is
    # not that of where a link leads by then.
    sys.path[:] = map(os.path.realpath, floor.path + sys.path)
    given = range(floor.number + 1)
    floor.opened = {number: target for number, target in descriptors().items() if number in given}
    check(floor, "starting python")
    try:
        # A line is seen when it is printed, also in a journal.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        pass  # there is none, or a .pth file has replaced it
    gc.enable()  # as in any python3; an application that turns it off is asked below
    for i, name in enumerate(floor.preload, 1):
        send(floor.sock, b"progress", f"importing {name} ({i} of {len(floor.preload)})")
        attempt(floor, "importing " + name, __import__, name)
    check_calls(floor, (floor.setup, floor.warm))
    if floor.setup:
        send(floor.sock, b"progress", "calling " + floor.setup)
        attempt(floor, "setup " + floor.setup, lambda: resolve(floor.setup)())
    if floor.warm:
        warm_up(floor)
    check_calls(floor)
    check_descriptors(floor)
    collects = gc.isenabled()
    gc.disable()
    give_back(floor.before)
    prepare(floor)
    why = share(floor)
    if why:
        raise Broken(f"floor.immortal: {why}; remove the key")
    if collects:
        gc.enable()  # for the workers; here nothing is left to collect
    send(floor.sock, b"loaded", PROTOCOL, str(FORKS), str(floor.stacks))


def warm_up(floor):
    """Uses the floor. To have the code that runs side by side takes another time: copies
    are cold."""
    send(floor.sock, b"progress", "warming up: " + floor.warm)
    if floor.repack:
        hot: dict[int, object] = {}
        attempt(floor, "warm " + floor.warm, lambda: hot.update(watch(resolve(floor.warm))))
        repack_floor(hot)
        send(floor.sock, b"progress", "warming up once more: " + floor.warm)
    attempt(floor, "warm " + floor.warm, lambda: resolve(floor.warm)())
    gc.collect()


def surroundings():
    """Returns what an import may change in the process and workers shall not see."""
    mask = os.umask(0o077)
    os.umask(mask)
    try:
        here = os.getcwd()
    except OSError:
        here = None  # it has been taken away
    return mask, here, os.getpriority(os.PRIO_PROCESS, 0)


def give_back(before):
    """Takes back what an import did to umask, working directory and nice."""
    mask, here, nice = before
    os.umask(mask)
    try:
        if here and os.getcwd() != here:
            os.chdir(here)
    except OSError:
        pass  # it has been taken away meanwhile; there is no way back
    if os.getpriority(os.PRIO_PROCESS, 0) != nice:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError:
            print(
                f"prefork: an import changed nice from {nice}, and there is no right to change it back", file=sys.stderr
            )


def attempt(floor, what, call, *args):
    try:
        call(*args)
    except BaseException as error:  # also SystemExit: the floor is not complete
        if os.getpid() == floor.pid:
            flush()
            show(error)
            raise Broken(f"{what}: {cause(error)}") from None
    if os.getpid() != floor.pid:
        os._exit(1)  # a copy that the module forked must not become a zygote
    check(floor, what)


def check(floor, what):
    """Looks at what an import left behind."""
    now = descriptors()
    for number, target in now.items():
        if floor.opened.get(number) != target:
            floor.openers[number] = what
    floor.opened = now
    if floor.refuse_threads:
        extra = extra_threads()
        if extra:
            plural = "s" * (len(extra) > 1)
            raise Broken(
                f"{what} started {len(extra)} thread{plural}: {describe(extra)}; "
                f'set floor.threads = "allow" or start them in floor.after_fork'
            )


def check_calls(floor, only=()):
    """Refuses what workers could not call, of the modules that the floor has. What a module
    says of a name by an error of its own is for the worker that asks for it."""
    wrong = []
    for call in floor.calls:
        place, _, name = call.rpartition(" ")
        if (only and name not in only) or name.partition(":")[0] not in sys.modules:
            continue
        try:
            resolve(name)
        except (AttributeError, TypeError) as error:
            wrong.append(f"{place}: {name}: {' '.join(str(error).split())}")
        except Exception:
            pass
    if wrong:
        raise Broken("; ".join(wrong))
    check(floor, "resolving entries")


def check_descriptors(floor):
    """Refuses what workers cannot share, and warns of files that they could spoil."""
    if not floor.refuse_fds:
        return
    found = {
        f"fd {number} ({target}), opened while {floor.openers[number]}": sharing(number, target)
        for number, target in sorted(floor.opened.items())
        if number in floor.openers
    }
    bad = [text for text, answer in found.items() if answer == REFUSE]
    if bad:
        raise Broken(
            "workers would share " + "; ".join(bad) + '; set floor.fds = "allow" or open it in floor.after_fork'
        )
    for text, answer in found.items():
        if answer == WARN:
            print(
                f"prefork: workers share {text}, and its position: what they write goes over each other's; "
                'open it in floor.after_fork or for appending, or set floor.fds = "allow"',
                file=sys.stderr,
            )
