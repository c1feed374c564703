# SPDX-License-Identifier: 0BSD
"""C's functions, for what must not give the interpreter lock away."""

from .base import NO_NEW_PRIVS, Failure, ctypes, os, time


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
        for name in (
            "_Fork",
            "fork",
            "prctl",
            "getpid",
            "getppid",
            "setsid",
            "close",
            "_exit",
            "read",
            "write",
            "usleep",
            "dup3",
            "send",
            "fflush",
        ):
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
        _fields_ = [
            (name, size)
            for name in ("arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())
        ]

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
