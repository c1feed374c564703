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
MADV_COLLAPSE, HUGE = 25, 2 << 20
FILLING = 8 << 20  # bytes at most


def prepare(floor):
    """Does once, here, what each worker would have to do for itself."""
    reset_signals()
    guard_atexit(floor)
    if any(map(is_coroutine_function, floor.entries)):
        import asyncio  # noqa: F401
    if floor.needs_prctl:
        floor.prctl = find_prctl()
    seed = numpy_seed()
    floor.seeds = [seed] if seed else []
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
    find_memory(found, lib)
    return found


def find_memory(found, lib):
    """Adds what share needs, as far as this C library has it."""
    size, place = ctypes.c_size_t, ctypes.c_void_p

    class Info(ctypes.Structure):
        _fields_ = [(name, size) for name in ("arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())]

    for name, result, *arguments in (
        ("madvise", ctypes.c_int, place, size, ctypes.c_int),
        ("malloc_trim", ctypes.c_int, size),
        ("malloc", place, size),
        ("free", None, place),
        ("sbrk", place, ctypes.c_ssize_t),
        ("mallinfo2", Info),
    ):
        call = getattr(lib, name, None)
        if call is None:
            return
        call.restype, call.argtypes = result, arguments
        setattr(found, name, call)


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
    here.send(b"go\0slot=a.0\0title=a\0env=PREFORK_REHEARSAL=1\0listen=a\0stored=a\0watchdog=1")
    orders = parse(receive(there, SMALL, MOST_FDS)[0])[1]
    obey(floor, orders, None)
    resolve("sys:getrecursionlimit")()
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


def share(floor):
    """Leaves memory so that workers write to as little of it as can be.

    The order matters: a collection empties the lists of free objects, which workers
    would else write to when they collect; then the free places that it has left are
    filled, those of the interpreter and those of C; what is made now lies side by
    side; and because it is cold, all is run once more.
    """
    rehearse(floor, REHEARSALS)
    flush()
    if floor.freeze:
        gc.freeze()
        gc.collect()  # examines nothing
    huge = huge_pages(floor.c)
    floor.filling = fill_holes()
    fill_heap(floor.c)
    floor.filling.append(repack())
    floor.c = c_functions()
    rehearse(floor, REHEARSALS)
    if floor.freeze:
        gc.freeze()
    for place in huge:
        floor.c.madvise(place, HUGE, MADV_COLLAPSE)  # as many as the kernel has


def repack():
    """Puts the code of this program side by side: the interpreter writes to code as
    it runs, and so unshares its page."""
    old = []
    for namespace in (globals(), sys.modules["prefork"].__dict__):
        for found in list(namespace.values()):
            if type(found) is type(repack) and found.__globals__ is namespace:
                old.append(found.__code__)
                found.__code__ = found.__code__.replace()
    return old


def fill_heap(c):
    """Takes the free places of malloc(3), for the reason that fill_holes has.

    What comes from the top of the heap was not in a hole. With another allocator, or
    before glibc 2.33, nothing is done.
    """
    if c is Plain or not hasattr(c, "mallinfo2"):
        return
    c.malloc_trim(0)
    taken = 0
    for size in [*range(100_000, 1024, -512), *range(1024, 16, -16)]:
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
    found = []
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
