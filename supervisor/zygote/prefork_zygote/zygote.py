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

from .base import SMALL, cause, command_socket, os, receive, send, show
from .cfunctions import c_errno
from .floor import Broken, Floor, first_message, load
from .leave import flush, flush_files
from .looks import alone, describe, extra_threads
from .worker import worker

CGROUP = 128  # added to the errno, the exit status of a middle process that could not enter its cgroup


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
            middle(floor, ident, ends, *fds)
        failure = c_errno()
        c.PyOS_AfterFork_Parent()
        if child < 0:
            return failure, "fork: " + os.strerror(failure)
        status = os.waitpid(child, 0)[1]
    except OSError as error:
        return error.errno, f"fork: {error.strerror}"
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
    status: int | None = errno.ECHILD
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


if __name__ == "prefork zygote":
    main()
