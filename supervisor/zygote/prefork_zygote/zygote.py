# SPDX-License-Identifier: 0BSD
"""The zygote: loads a floor once, and forks workers from it on request.

It has one thread, and blocks in recvmsg(2) when it neither loads nor forks. It
keeps no state but the floor. Whatever a worker will need is imported, computed
and set here, before gc.freeze(): what a worker does not write, it shares.
The protocol is drawn in the package comment of the Go package zygote.
"""

import atexit
import errno
import sys

from .base import SMALL, TEXT, _socket, cause, command_socket, os, receive, send, show
from .cfunctions import c_errno
from .floor import FORKS, Broken, Floor, first_message, load
from .leave import flush, flush_files
from .looks import alone, describe, extra_threads
from .worker import worker


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


def broken(sock, text):
    send(sock, b"broken", text)
    os._exit(1)


def serve(floor):
    while True:
        data, fds, _ = receive(floor.sock, SMALL, 2 * FORKS)
        if not data:
            end(floor)  # the master has closed its end
        name, *idents = data.split(b"\0")
        if name != b"fork" or not all(map(bytes.isdigit, idents)):
            raise Broken("unknown message: " + repr(data[:40]))
        refusal = fork(floor, idents, fds)
        if refusal:
            refuse(floor, idents, *refusal)
        for fd in fds:
            os.close(fd)


def refuse(floor, idents, number, text):
    """Says, also in a middle process, that there will be no workers."""
    for ident in idents:
        message = b"refused\0%s\0%d\0%s" % (ident, number, os.fsencode(text)[:TEXT])
        floor.c.send(floor.number, message, len(message), _socket.MSG_NOSIGNAL)


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


def fork(floor, idents, fds):
    """Forks workers. Returns an errno and a text if there will be none."""
    count = len(idents)
    if not count or len(fds) not in (count, 2 * count):
        return errno.EBADF, f"the request has {len(fds)} descriptors for {count} workers, not one or two for each"
    if floor.refuse_threads and not alone():
        extra = extra_threads()
        if extra:
            return errno.EBUSY, f"the floor has {len(extra) + 1} threads: {describe(extra)}"
    flush()
    c = floor.c
    c.fflush(None)  # nothing is written twice
    ends: tuple[int, ...] = ()
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
            middle(floor, idents, ends, fds[:count], fds[count:])
        failure = c_errno()
        c.PyOS_AfterFork_Parent()
        if child < 0:
            return failure, "fork: " + os.strerror(failure)
        os.waitpid(child, 0)
    except OSError as error:
        return error.errno, f"fork: {error.strerror}"
    finally:
        for end in ends:
            os.close(end)  # the workers read end of file, and go on
    # A middle process that was killed may have forked: the gates will tell.
    return None


def middle(floor, idents, ends, gates, groups):
    """Is the process between zygote and workers: forks, and ends. Never returns.

    Its exit gives the workers to the master, the nearest child subreaper. It goes
    first into the cgroup of each: a child is born in that of its parent.
    """
    c = floor.c
    try:
        own = c.getpid()
        for i in range(len(idents)):
            what, failure = "cgroup", enter(c, groups[i]) if groups else 0
            if not failure:
                what, pid = "fork", c.fork()
                if pid == 0:
                    worker(floor, idents[i], gates[i], own, ends, gates[i + 1 :] + groups[i + 1 :])
                failure = 0 if pid > 0 else c_errno()
            if failure:
                refuse(floor, idents[i:], failure, f"{what}: {os.strerror(failure)}")
                return
            c.close(gates[i])
    except OSError as error:  # of Plain
        refuse(floor, idents[i:], error.errno, f"{what}: {error.strerror}")
    finally:
        c._exit(0)


def enter(c, procs):
    """Moves this process into a cgroup, and closes its cgroup.procs. Returns an errno."""
    try:
        return 0 if c.write(procs, b"0", 1) > 0 else c_errno()  # 0 is the writer (cgroups(7))
    except OSError as error:  # of Plain
        return error.errno or errno.EIO
    finally:
        c.close(procs)


if __name__ == "prefork zygote":
    main()
