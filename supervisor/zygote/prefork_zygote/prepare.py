# SPDX-License-Identifier: 0BSD
"""What the zygote does once, before the freeze, so that no worker has to."""

import atexit
import sys

from .base import (
    MAX_FDS,
    PR_GET_KEEPCAPS,
    SMALL,
    Failure,
    _signal,
    _socket,
    attempt_step,
    one,
    os,
    receive,
    set_title,
)
from .cfunctions import find_prctl
from .leave import finish
from .looks import extra_threads
from .orders import find_entry, load_tasks, obey, place, read_orders, set_environment
from .stacks import arm

# What the standard library runs in a child after fork(2).
HOOKS = (
    ("threading", "_after_fork"),
    ("logging", "_after_at_fork_child_reinit_locks"),
    ("random", "seed"),
)


REHEARSALS = 20  # more make no difference

# As long as those of a worker usually are.
REHEARSAL = (
    b"go\0fleet=rehearsal\0slot=worker.0\0worker=worker\0title=prefork: rehearsal"
    b"\0index=0\0generation=1\0entry=sys:getrecursionlimit\0listen=a\0watchdog=1\0master=1"
    b"\0env=PREFORK_REHEARSAL=1234567890abcdef1234567890abcdef"
)


def prepare(floor):
    """Does once, here, what each worker would have to do for itself."""
    reset_signals()
    floor.stacks = arm()
    guard_atexit(floor)
    if any(map(is_coroutine_function, floor.entries)):
        import asyncio  # noqa: F401
    if floor.has_tasks:
        load_tasks(floor)
    if floor.needs_prctl:
        floor.prctl = find_prctl()
    seed = numpy_seed()
    floor.seeds = [seed] if seed else []
    if not floor.refuse_threads:
        import warnings

        # Python warns of a fork with threads. The operator has allowed it.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__)


def is_coroutine_function(entry):
    module, _, path = entry.partition(":")
    found = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    code = getattr(found, "__code__", None)
    return bool(getattr(code, "co_flags", 0) & 0x80)  # inspect.CO_COROUTINE


def numpy_seed():
    """Returns what reseeds numpy's global generator, the cheap way.

    numpy takes one number of 32 bits, or else writes to 60 pages more. The
    lower 22 hold the pid, the largest there is, so that no two workers that run
    at the same time have the same; chance fills the rest.
    """
    seed = getattr(sys.modules.get("numpy.random"), "seed", None)
    salt = int.from_bytes(os.urandom(4), sys.byteorder) & 0x3FFFFF
    return seed and (lambda: seed(os.getpid() ^ salt | (int.from_bytes(os.urandom(2), sys.byteorder) & 0x3FF) << 22))


def reset_signals():
    """Sets what a fresh python3 has. The workers inherit it."""
    wanted = {
        _signal.SIGINT: _signal.default_int_handler,
        _signal.SIGPIPE: _signal.SIG_IGN,
        _signal.SIGXFSZ: _signal.SIG_IGN,
    }
    keep = {_signal.SIGKILL, _signal.SIGSTOP}
    fatal = {getattr(_signal, "SIG" + n) for n in ("SEGV", "FPE", "ABRT", "BUS", "ILL")}
    handler = sys.modules.get("faulthandler")
    if handler and handler.is_enabled():
        keep |= fatal
    for number in set(_signal.valid_signals()) - keep:
        if handler and number not in fatal:
            handler.unregister(number)  # else it would not set the signal again
        _signal.signal(number, wanted.get(number, _signal.SIG_DFL))
    for timer in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
        _signal.setitimer(timer, 0)  # of an import; no worker would inherit it
    _signal.set_wakeup_fd(-1)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def guard_atexit(floor):
    """Keeps the floor's exit handlers from running in workers.

    Handlers run in the reverse order of their registration: those of a worker, then
    this one, which ends the worker. The floor's own are below, and nothing is written
    to them meanwhile. weakref.finalize has one for all, and those of logging and
    multiprocessing serve whoever uses the module: a worker calls these itself.
    """
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    floor.finalizers = list(finalize._registry.values()) if finalize else []
    for module, handler in (("multiprocessing.util", "_exit_function"), ("logging", "shutdown")):
        found = getattr(sys.modules.get(module), handler, None)
        floor.finishers += [found] if found else []
    if finalize and finalize._registered_with_atexit:
        floor.finishers.insert(0, finalize._exitfunc)

    def stop_here():
        if os.getpid() != floor.pid:
            finish(floor)

    atexit.register(stop_here)


def rehearse(floor, times):
    """Runs what workers will run, so that their pages stay shared.

    The interpreter counts how often code has run, and rewrites it in place until
    it is warm; the first use of much else allocates. Here that is done once. The
    hooks are those of the standard library; with one thread they change nothing.
    """
    hooks = []
    if not (extra_threads() or "gevent" in sys.modules or "eventlet" in sys.modules):
        for module, name in HOOKS:
            hook = getattr(sys.modules.get(module), name, None)
            hooks += [hook] if hook else []
    for _ in range(times):
        for call in hooks + floor.seeds:
            call()
        rehearse_orders(floor)
    set_title(floor, floor.title, b"prefork-floor")


def rehearse_orders(floor):
    """Receives orders, obeys them and takes it all back.

    A spare does it once more, at its gate: the pages that this writes are then
    its own before it is needed, and not on the way to its entry.
    """
    here, there = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    passed = here.fileno().to_bytes(4, sys.byteorder)
    here.sendmsg([REHEARSAL], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
    data, fds, flags = receive(there, SMALL, MAX_FDS)
    orders = read_orders(data, fds, flags)
    number = fds[0]
    place(floor, orders, fds, number, number + 1)
    obey(floor, orders, None)
    if floor.prctl:  # as restrict calls it
        try:
            attempt_step(1, "a rehearsal", floor.prctl, PR_GET_KEEPCAPS, os.getppid() == int(one(orders, "master")))
        except Failure:
            pass  # it is set
    entry, args, kwargs = find_entry(floor, orders)
    entry(*args, **kwargs)
    del os.environ["PREFORK_REHEARSAL"]
    set_environment({}, None)
    if "socket" in sys.modules:
        floor.module._listen, floor.module._sockets = [("a", here.fileno())], None
        floor.module.sockets()["a"][0].detach()
        floor.module._sockets = None
    here.close()
    there.close()
    for name in ("fleet", "worker", "slot", "index", "generation"):
        setattr(floor.module, name, None)
    floor.module._listen = floor.module._stored = ()
