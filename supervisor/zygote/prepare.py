# SPDX-License-Identifier: 0BSD
"""What the zygote does once, before the freeze, so that no worker has to.

This is the second part of the zygote's program: worker.py stands before it in
the same namespace and zygote.py after it.
"""

# What the standard library runs in a child after fork(2).
HOOKS = (
    ("threading", "_after_fork"),
    ("logging", "_after_at_fork_child_reinit_locks"),
    ("random", "seed"),
)
REHEARSALS = 20  # more make no difference

# The pools of CPython's allocator for small objects. With another allocator no
# pool is ever found, and the filling ends at its limit.
POOL, POOL_HEADER = 1 << 14, 48
FILLING = 8 << 20  # bytes at most


def prepare(floor):
    """Does once, here, what each worker would have to do for itself."""
    reset_signals()
    if any(map(is_coroutine_function, floor.entries)):
        import asyncio  # noqa: F401
    if floor.needs_prctl:
        floor.prctl = find_prctl()
    floor.seeds = [seed for seed in (numpy_seed(), ssl_seed()) if seed]
    if not floor.refuse_threads:
        import warnings

        # Python warns of a fork with threads. The operator has allowed it.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__)


class Plain:
    """Stands for C's functions where there is no ctypes: hooks then run twice."""

    PyOS_BeforeFork = PyOS_AfterFork_Parent = PyOS_AfterFork_Child = staticmethod(lambda: None)
    _Fork = fork = staticmethod(os.fork)
    getpid, getppid, setsid = staticmethod(os.getpid), staticmethod(os.getppid), staticmethod(os.setsid)
    close, _exit = staticmethod(os.close), staticmethod(os._exit)
    read = staticmethod(lambda fd, into, size, read=os.read: len(read(fd, size)))
    write = staticmethod(lambda fd, data, size, write=os.write: write(fd, data))
    usleep = staticmethod(lambda micro, sleep=time.sleep: sleep(micro / 1e6))
    dup3 = staticmethod(lambda old, new, flags, dup2=os.dup2: dup2(old, new, False))
    send = staticmethod(lambda fd, data, size, flags, write=os.write: write(fd, data))
    fflush = staticmethod(lambda stream: 0)
    prctl = staticmethod(lambda *_: -1)


def find_ctypes():
    """Imports ctypes, once the numbers of the workers' sockets are taken: libffi may
    open its own file, and needs it for as long as the process lives."""
    global ctypes
    try:
        import ctypes
    except ImportError:
        pass  # python3-minimal: see Plain
    give_names_back()


def c_functions():
    """Returns C's functions, looked up now, that keep the interpreter lock.

    fork(2) without C's hooks is _Fork (glibc 2.34). Where it is not known, Python's
    os.fork has to do.
    """
    if ctypes is None:
        return Plain
    found = type("C", (), {})()
    lib = ctypes.PyDLL(None, use_errno=True)
    try:
        for name in ("PyOS_BeforeFork", "PyOS_AfterFork_Parent", "PyOS_AfterFork_Child"):
            call = getattr(ctypes.pythonapi, name)
            call.restype = None
            setattr(found, name, call)
        for name in ("_Fork", "fork", "prctl", "getpid", "getppid", "setsid", "close", "_exit", "read", "write", "usleep", "dup3", "send", "fflush"):
            setattr(found, name, getattr(lib, name))
    except AttributeError:
        return Plain
    found.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return found


def c_errno():
    return ctypes.get_errno() if ctypes else 0


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


def ssl_seed():
    module = sys.modules.get("_ssl")
    return module and (lambda: module.RAND_add(os.urandom(32), 32.0))


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


def reset_atexit():
    """Forgets the floor's exit handlers: a worker runs only its own.

    Those of logging and multiprocessing serve whoever uses the module, and they
    are registered only when it is imported. So is that of weakref.finalize.
    """
    atexit._clear()
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    if finalize and finalize._registered_with_atexit:
        for info in list(finalize._registry.values()):
            info.atexit = False
        finalize._registered_with_atexit = False
    for module, handler in (("logging", "shutdown"), ("multiprocessing.util", "_exit_function")):
        if module in sys.modules:
            atexit.register(getattr(sys.modules[module], handler))


def find_prctl():
    if ctypes is None:
        raise Failure(NO_NEW_PRIVS, "python3 has no module ctypes, which prctl(2) needs")
    call = ctypes.PyDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    call(39, 0, 0, 0, 0)  # PR_GET_NO_NEW_PRIVS: the first call allocates

    def prctl(option, value):
        if call(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return prctl


def rehearse(floor):
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
    for _ in range(REHEARSALS):
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
    here.send(b"go\0slot=a.0\0title=a\0env=PREFORK_REHEARSAL=1\0listen=a\0stored=a\0watchdog=1")
    orders = parse(receive(there, SMALL, MOST_FDS)[0])[1]
    obey(floor, orders, None)
    resolve("os:getpid")()
    del os.environ["PREFORK_REHEARSAL"]
    set_environment({}, None)
    here.close()
    there.close()
    for name in ("fleet", "worker", "slot", "index", "generation"):
        setattr(floor.module, name, None)
    floor.module._listen = floor.module._stored = ()


def fill_holes():
    """Takes the free places between the floor's objects; returns what took them.

    Else the objects that a worker makes go into these places, here and there, and
    each makes a page the worker's own. Afterwards the allocator has a fresh pool
    for each size, and its lists of free objects, which a collection would write
    to, are empty.
    """
    filling = [(None,) * n for n in range(1, 21) for _ in range(100)]
    for i in range(100):
        filling += [], {i: i}, 1.5 * i, 10**11 + i
    taken = 0
    for size in range(16, 513, 16):
        last = neighbours = 0
        while taken < FILLING:
            new = bytes(size - 33) if size > 32 else 1.5 * taken if size == 32 else object()
            filling.append(new)
            taken += size
            neighbours = neighbours + 1 if id(new) - last == size else 0
            last = id(new)
            if neighbours >= 2 and last % POOL == POOL_HEADER + 2 * size:
                break  # the first three places of a pool, one after the other
    return filling
