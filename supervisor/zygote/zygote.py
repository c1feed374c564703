# SPDX-License-Identifier: 0BSD
"""The zygote: loads a floor once, and forks workers from it on request.

This is the last part of the program; worker.py and prepare.py stand before it
in the same namespace, and what is not defined here is defined there.

It has one thread, and blocks in recvmsg(2) when it neither loads nor forks. It
keeps no state but the floor. Whatever a worker will need is imported, computed
and set here, before gc.freeze(): what a worker does not write, it shares.
The protocol is drawn in the package comment of the Go package zygote.
"""

import errno
import stat

MESSAGE = 1 << 18  # larger than any message of the kernel's
PATIENCE = 0.2  # seconds for a thread that has been joined to leave /proc
CGROUP = 128  # added to the errno, the exit status of a middle process that could not enter its cgroup

# Thread pools of C libraries, and the variables that keep them from starting.
POOLS = (
    ("openblas", "OPENBLAS_NUM_THREADS"),
    ("libgomp", "OMP_NUM_THREADS"),
    ("libiomp", "OMP_NUM_THREADS"),
    ("libmkl", "MKL_NUM_THREADS"),
)

# Character devices that have no state a worker could disturb: null, zero, full,
# random and urandom.
HARMLESS = {os.makedev(1, minor) for minor in (3, 5, 7, 8, 9)}

FINE, WARN, REFUSE = range(3)  # what is said of a descriptor that workers would share

# Files that are mapped.
MEMORY = ("/memfd:", "/dev/shm/", "/dev/zero")


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
        self.entries = fields.get("entry", [])
        self.needs_prctl = one(fields, "prctl") == "1"
        self.prctl = None  # set if orders will need it
        self.path = fields.get("path", [])
        self.module = make_module(one(fields, "module"))
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


def main():
    number = int(sys.argv[1])
    for held in range(3, number + 1):
        os.set_inheritable(held, False)
    sock = command_socket(number)
    try:
        floor = Floor(sock, first_message(sock))
        load(floor)
        serve(floor)
    except Broken as error:
        broken(sock, str(error))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the master has gone
    except KeyboardInterrupt:
        os._exit(1)
    except BaseException as error:
        show(error)
        broken(sock, "the zygote: " + cause(error))


def command_socket(fd):
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)


def broken(sock, text):
    send(sock, b"broken", text)
    os._exit(1)


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
    sys.path[:0] = floor.path
    given = range(floor.number + 1)
    floor.opened = {number: target for number, target in descriptors().items() if number in given}
    check(floor, "starting python")
    try:
        sys.stdout.reconfigure(line_buffering=True)  # a line is seen when it is printed, also in a journal
    except (AttributeError, ValueError):
        pass  # there is none, or a .pth file has replaced it
    gc.enable()  # as in any python3; an application that turns it off is asked below
    for i, name in enumerate(floor.preload, 1):
        send(floor.sock, b"progress", f"importing {name} ({i} of {len(floor.preload)})")
        attempt(floor, "importing " + name, __import__, name)
    if floor.setup:
        send(floor.sock, b"progress", "calling " + floor.setup)
        attempt(floor, "setup " + floor.setup, lambda: resolve(floor.setup)())
    check_descriptors(floor)
    collects = gc.isenabled()
    gc.disable()
    give_back(floor.before)
    prepare(floor)
    share(floor)
    if collects:
        gc.enable()  # for the workers; here nothing is left to collect
    send(floor.sock, b"loaded")


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
            print(f"prefork: an import changed nice from {nice}, and there is no right to change it back", file=sys.stderr)


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


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass  # the descriptor that read the directory
    return found


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


def sharing(number, target):
    """Says whether workers may share it: a file, a directory, or the like."""
    try:
        info = os.fstat(number)
    except OSError:
        return FINE
    mode = info.st_mode
    if not stat.S_ISREG(mode):
        return FINE if stat.S_ISDIR(mode) or (stat.S_ISCHR(mode) and info.st_rdev in HARMLESS) else REFUSE
    about = slurp(f"/proc/self/fdinfo/{number}").splitlines()  # proc_pid_fdinfo(5)
    fields = dict(line.partition(":")[::2] for line in about)
    if "lock" in fields:
        return REFUSE  # the lock is of all who share it, and the next floor would meet it
    if target.startswith(MEMORY):
        return FINE  # it has no position that counts
    flags = int(fields.get("flags", "0"), 8)
    return WARN if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND else FINE


def alone():
    """Says whether this thread is the only one: each is a directory (proc(5))."""
    return os.stat("/proc/self/task").st_nlink == 3


def extra_threads():
    """Returns the ids of all threads but this one.

    A thread that has been joined may be in /proc for a moment longer.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        extra = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
        if not extra or time.monotonic() > deadline:
            return sorted(extra, key=int)
        time.sleep(0.002)


def describe(threads):
    names = {}
    if "threading" in sys.modules:
        names = {str(t.native_id): t.name for t in sys.modules["threading"].enumerate()}
    texts = [f"{names[t]} (threading)" if t in names else "comm " + comm(t) for t in threads]
    texts = list(dict.fromkeys(texts))  # a pool's threads all have one name
    maps = slurp("/proc/self/maps")
    pools = {variable for library, variable in POOLS if library in maps}
    if pools and len(threads) > sum(t in names for t in threads):
        texts.append("perhaps a pool that floor.env can prevent with " + ", ".join(f"{v}=1" for v in sorted(pools)))
    return ", ".join(texts)


def comm(thread):
    return slurp(f"/proc/self/task/{thread}/comm").strip() or "?"


def slurp(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def serve(floor):
    while True:
        data, fds, _ = receive(floor.sock, SMALL, 8)
        if not data:
            end(floor)  # the master has closed its end
        name, _, ident = data.partition(b"\0")
        if name != b"fork" or not ident.isdigit():
            raise Broken("unknown message: " + repr(data[:40]))
        refusal = fork(floor, ident, fds)
        if refusal:
            number, text = refusal
            send(floor.sock, b"refused", ident.decode(), str(number), text)
        for fd in fds:
            os.close(fd)


def end(floor):
    """Ends the floor as python3 ends: its exit handlers run, here and only here."""
    if os.getpid() == floor.pid:
        try:
            atexit._run_exitfuncs()
        except BaseException as error:
            show(error)
        flush_files()
        flush()
        floor.c.fflush(None)
    os._exit(0)


def fork(floor, ident, fds):
    """Forks a worker. Returns an errno and a text if there will be none."""
    if len(fds) not in (1, 2):
        return errno.EBADF, f"the request has {len(fds)} descriptors, not 1 or 2"
    if floor.refuse_threads and not alone():
        extra = extra_threads()
        if extra:
            return errno.EBUSY, f"the floor has {len(extra) + 1} threads: {describe(extra)}"
    flush()
    c = floor.c
    c.fflush(None)  # nothing is written twice
    ends = ()
    try:
        ends = os.pipe()
        sys.audit("os.fork")
        # A thread is not in the middle process: C's hooks, which may wait for one,
        # must then run here. Looked at before Python's hooks take its locks.
        call = c._Fork if floor.refuse_threads or alone() else c.fork
        c.PyOS_BeforeFork()
        if floor.refuse_threads and not alone():
            c.PyOS_AfterFork_Parent()
            extra = extra_threads()
            return errno.EBUSY, f"the floor has {len(extra) + 1} threads: {describe(extra)}"
        child = call()
        if child == 0:
            middle(floor, ident, ends, *fds)
        failure = c_errno()
        c.PyOS_AfterFork_Parent()
        if child < 0:
            return failure, "fork: " + os.strerror(failure)
        status = os.waitpid(child, 0)[1]
    except OSError as error:
        return error.errno, "fork: " + error.strerror
    finally:
        for end in ends:
            os.close(end)  # the worker reads end of file, and goes on
    if os.WIFEXITED(status) and status:
        number = os.WEXITSTATUS(status)
        what = "cgroup" if number >= CGROUP else "fork"
        number %= CGROUP
        return number, f"{what}: {os.strerror(number)}"
    # A middle process that was killed may have forked: the gate will tell.
    return None


def middle(floor, ident, ends, gate, procs=None):
    """Is the process between zygote and worker: forks, and ends. Never returns.

    Its exit gives the worker to the master, the nearest child subreaper. It goes
    first into the worker's cgroup: a child is born in that of its parent.
    """
    c = floor.c
    status = errno.ECHILD
    try:
        own = c.getpid()
        if procs is not None:
            status = enter(c, procs)
            if status:
                return
        pid = c.fork()
        if pid == 0:
            worker(floor, ident, gate, own, ends)
        status = 0 if pid > 0 else c_errno()
    except OSError as error:  # of Plain
        status = error.errno
    finally:
        c._exit(status)


def enter(c, procs):
    """Moves this process into a cgroup, and closes its cgroup.procs.

    Returns 0, or the exit status that tells the zygote why not.
    """
    try:
        number = 0 if c.write(procs, b"0", 1) > 0 else c_errno()  # 0 is the writer (cgroups(7))
    except OSError as error:  # of Plain
        number = error.errno
    finally:
        c.close(procs)
    return number and CGROUP + (number if number < CGROUP else errno.EIO)


main()
