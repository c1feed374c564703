# SPDX-License-Identifier: 0BSD
"""A worker, from its birth at the gate to its exit.

This is the first part of the zygote's program; prepare.py and zygote.py follow
it in the same namespace, so that all of it is loaded once and shared. It writes
as little as it can: each page that is written costs the worker 4 kB of its own.
The gate and the fields of its orders are drawn in the Go package gate.
"""

import gc

gc.disable()  # a collection writes to every object, and so unshares its page

import atexit
import os
import sys
import time

import _signal
import _socket

known = set(sys.modules)
import grp
import pwd
import resource

try:
    import ctypes
except ImportError:
    ctypes = None  # python3-minimal: see Plain


def own(module):
    """Returns a copy of a module as it is now. User code may replace what it finds in
    the module itself: with gevent's os.close a descriptor is not closed at once."""
    copy = type(sys)(module.__name__)
    copy.__dict__.update(module.__dict__)
    return copy


os, time, _signal, _socket = map(own, (os, time, _signal, _socket))

# An application may have modules of these names, and python3 would find those.
for name in set(sys.modules) - known:
    if not name.startswith(("_", "ctypes")):
        del sys.modules[name]

NAME = "<prefork zygote>"  # this program's name in tracebacks
SMALL = 4096  # size of a buffer for the messages to workers and of fork requests
TEXT = 512  # bytes of a text that the master shows
MOST_FDS = 253  # as many descriptors as one message can carry: SCM_MAX_FD

# Exit statuses of a worker that could not become what was ordered: those of
# systemd.exec(5).
CHDIR, NICE, FDS, LIMITS, OOM_ADJUST, GROUP, USER, NO_NEW_PRIVS = 200, 201, 202, 205, 206, 216, 217, 227

# Variables that are about one process: what the floor has of them is not the
# worker's.
PER_PROCESS = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID")

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


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
    fields = (os.fsencode(field.replace("\0", " "))[:TEXT] for field in fields)
    sock.send(b"\0".join([name, *fields]))


def parse(data):
    """Returns a message's name, and its fields as {key: [value, ...]}."""
    name, *parts = os.fsdecode(data).split("\0")
    return name, parse_fields(parts)


def parse_fields(parts):
    fields = {}
    for part in parts:
        key, _, value = part.partition("=")
        fields.setdefault(key, []).append(value)
    return fields


def one(fields, key):
    return fields.get(key, ("",))[-1]


def resolve(name):
    """Imports "module:callable" and returns the callable."""
    module, _, path = name.partition(":")
    __import__(module)
    found = sys.modules[module]
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found


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


def worker(floor, ident, gate, middle, ends):
    """Waits at the gate, and becomes what it is told to. Never returns."""
    try:
        try:
            be_born(floor, ident, gate, middle, ends)
            settle(floor)
            data, fds, flags = receive(floor.sock, SMALL, MOST_FDS)
        except (OSError, KeyboardInterrupt):
            data = b""  # as if the master had gone: no user code has run
        if not data:
            os._exit(0)
        live(floor, data, fds, flags)
    except BaseException as error:
        show(error)
    finally:
        os._exit(1)


def be_born(floor, ident, gate, middle, ends):
    """Becomes a child of the master, and says so before any hook runs.

    The master then knows the process, and a hook that hangs costs this worker its
    start and not the floor its life. Until Python's own hooks have run, nothing
    may be called that gives the interpreter lock away.
    """
    c = floor.c
    c.close(ends[1])
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


def attempt_step(status, what, call, *args):
    try:
        return call(*args)
    except (OSError, ValueError, OverflowError) as error:
        raise Failure(status, f"{what}: {getattr(error, 'strerror', None) or error}") from None


def obey(floor, orders, fds):
    """Becomes the slot. The order matters: rights are given up last."""
    if fds is not None:  # None is a rehearsal
        attempt_step(FDS, "placing the descriptors", place, floor, orders, fds)
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
    change_user(floor, orders, account)
    if one(orders, "dir"):  # as the user that it is for, like systemd
        attempt_step(CHDIR, f"working directory {one(orders, 'dir')!r}", os.chdir, one(orders, "dir"))
    restrict(prctl, orders)
    name_module(floor.module, orders)


def place(floor, orders, fds):
    """Puts the output at 1 and 2, sockets and stored at 3 and up; closes the rest."""
    for number in outputs(orders):
        if not fds:
            raise Failure(FDS, "output without a descriptor")
        output = fds.pop(0)
        os.dup2(output, number)
        os.close(output)
    names = handed_down(orders)
    if len(fds) != len(names):
        raise Failure(FDS, f"{len(fds)} descriptors came for {len(names)} names")
    kept = 3 + floor.reserve
    end = 3 + len(fds)
    if end > kept:
        fds = make_room(floor, fds, kept, end)
    for number, fd in enumerate(fds, 3):
        os.dup2(fd, number)
        os.close(fd)
    if end < kept:
        os.closerange(end, kept)


def outputs(orders):
    """Returns which standard descriptors the worker does not inherit."""
    return [number for number, key in ((1, "stdout"), (2, "stderr")) if key in orders]


def handed_down(orders):
    """Returns the names of what is at 3 and up: the sockets, then what was stored."""
    return [*orders.get("listen", ()), *orders.get("stored", ())]


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


def find_user(orders):
    """Returns the passwd entry of user=; None without one."""
    user = one(orders, "user")
    if not user:
        return None
    if user.isdecimal():
        try:
            return pwd.getpwuid(int(user))
        except (KeyError, OverflowError):
            # As with systemd, a number needs no entry.
            return pwd.struct_passwd((user, "x", int(user), int(user), "", "/", "/bin/sh"))
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise Failure(USER, f"user {user!r} does not exist") from None


def find_group(group):
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise Failure(GROUP, f"group {group!r} does not exist") from None


def change_user(floor, orders, account):
    group = one(orders, "group")
    extra = [find_group(name) for name in orders.get("extra_group", ())]
    if not (account or group or extra):
        return
    uid = account.pw_uid if account else os.getuid()
    gid = find_group(group) if group else account.pw_gid if account else os.getgid()
    if account and one(orders, "notify"):
        attempt_step(USER, f"giving the notify socket to user {uid}", give_socket, one(orders, "notify"), uid)
    groups = set(extra)
    # Without a user they are added to those that the process has.
    groups.update(os.getgrouplist(account.pw_name, gid) if account else os.getgroups())
    # An unprivileged process cannot call setgroups, even to change nothing.
    if groups - {gid} != set(os.getgroups()) - {gid}:
        attempt_step(GROUP, "supplementary groups", os.setgroups, sorted(groups))
    if account:
        give_output(orders, uid)
    attempt_step(GROUP, f"group {gid}", os.setresgid, gid, gid, gid)
    attempt_step(USER, f"user {uid}", os.setresuid, uid, uid, uid)
    if os.getresgid() != (gid,) * 3 or groups - {gid} != set(os.getgroups()) - {gid}:
        raise Failure(GROUP, "the groups did not change")
    if os.getresuid() != (uid,) * 3:
        raise Failure(USER, "the user did not change")
    floor.c.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as execve(2) does: /proc/self is its own


def give_output(orders, uid):
    """Gives the pipes that were made for this worker to its user: see the shim."""
    for fd in outputs(orders):
        try:
            if os.fstat(fd).st_mode & 0o170000 == 0o010000:  # S_IFIFO
                os.fchown(fd, uid, -1)
        except OSError:
            pass  # without the right it can still be written to


def give_socket(path, uid):
    """Makes a user the owner of a socket of this one's. No link is followed."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_mode & 0o170000 != 0o140000 or found.st_uid not in (os.geteuid(), uid):
            raise ValueError(f"{path} is not a socket of uid {os.geteuid()}")
        if found.st_uid != uid:
            os.chown(f"/proc/self/fd/{fd}", uid, -1)
    finally:
        os.close(fd)


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


def run(floor, orders):
    """Calls the user's code, and exits as python3 would. Never returns."""
    what = one(orders, "after_fork")
    try:
        if what:
            what = "after_fork " + what
            resolve(one(orders, "after_fork"))()
        what = "entry " + one(orders, "entry")
        entry = resolve(one(orders, "entry"))
        args, kwargs = literal(one(orders, "args"), ()), literal(one(orders, "kwargs"), {})
    except BaseException as error:  # whatever it is, the entry cannot be called
        status = report(error) or 1
        fail(floor, status, f"{what}: {cause(error)}")
        leave(floor, status)
    floor.sock.close()
    try:
        result = entry(*args, **kwargs)
        if hasattr(result, "__await__") and hasattr(result, "send"):
            import asyncio

            asyncio.run(result)
        status = 0
    except BaseException as error:
        status = report(error)
    leave(floor, status)


def literal(text, default):
    """Evaluates a Python literal, without the memory that module ast takes."""
    if not text:
        return default  # compile, too, takes memory
    code = compile(text, "<prefork args>", "eval")
    if code.co_names:  # a literal has no names, so it can call and read nothing
        raise ValueError("args and kwargs must be literals")
    return eval(code, {"__builtins__": {}})


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


def leave(floor, status):
    """Ends the worker as the interpreter would, but for what is the floor's."""
    floor.status = status
    threading = sys.modules.get("threading")
    attempt_all(threading and threading._shutdown, atexit._run_exitfuncs)
    finish(floor)  # the handler that would have done it was taken away


def attempt_all(*calls):
    for call in calls:
        try:
            if call:
                call()
        except BaseException as error:
            report(error)


def finish(floor):
    """Is called after a worker's own exit handlers. Never returns."""
    for info in floor.finalizers:
        info.atexit = False
    attempt_all(*floor.finishers)
    if floor.freeze:  # else what is the floor's would be looked at, too
        destroy()
    status = floor.status
    lost = flush_files() | flush() | (floor.c.fflush(None) != 0)
    os._exit(120 if lost and status == 0 else status)  # 120: as python3 does


def destroy():
    """Does what destructors do at the end of python3: of garbage, and of what is
    still there, the youngest first. The floor is frozen, and not looked at.

    All of it is held until the end, so that no destructor runs twice.
    """
    gc.collect()
    held = [(type(o).__del__, o) for o in gc.get_objects() if type(getattr(type(o), "__del__", None)) is type(destroy)]
    for call, thing in reversed(held):
        attempt_all(lambda: call(thing))


def flush_files():
    """Flushes every open file of the worker. Says whether output was lost.

    python3 does it by destroying them. Those of the floor are frozen, and so not
    among the objects that are looked at: what is in their buffers is the floor's.
    """
    import io

    lost, below = False, set()
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair)
    objects = [o for o in gc.get_objects() if issubclass(type(o), io.IOBase)]
    # A text goes to the buffer below it first, and a compressed file to its own.
    objects.sort(key=lambda o: (issubclass(type(o), io.TextIOWrapper), not issubclass(type(o), kinds)), reverse=True)
    for file in objects:
        try:
            if id(file) in below:
                continue  # it has been told of
            if issubclass(type(file), kinds):
                file.closed or file.flush()
            elif file.writable() and type(file).__module__ in ("gzip", "bz2", "lzma"):
                file.close()
        except BrokenPipeError:
            pass
        except Exception as error:
            if not getattr(file, "closed", False):
                report(error)
                below.add(id(getattr(file, "buffer", None)))
                lost = True
    return lost


def flush():
    """Flushes the standard streams. Says whether output was lost.

    A reader that has closed its end is no loss.
    """
    lost = False
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BrokenPipeError:
            pass
        except Exception:
            lost = True
    return lost
