# SPDX-License-Identifier: 0BSD
"""The workers of the end-to-end tests."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import prefork


def note(**facts):
    """Append what this process sees to the file that the test reads."""
    with open(os.environ["OUT"], "a") as out:
        out.write(json.dumps({"slot": prefork.slot, "pid": os.getpid(), **facts}) + "\n")


def serve():
    """Answer each connection with the pid."""
    listener = prefork.sockets()["http"][0]
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            body = b"%d\n" % os.getpid()
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def hold():
    """Make socket objects of the descriptors, and use none."""
    sockets = prefork.sockets()
    note(kwargs={name: len(of) for name, of in sockets.items()})
    signal.pause()


def idle():
    """Do nothing until told to end."""
    signal.pause()


def trivial():
    """Say that this slot runs, and idle without a thread or an import."""
    os.write(3, b"%s %d\n" % (prefork.slot.encode(), os.getpid()))
    signal.pause()


def crash():
    """Fail at once."""
    sys.exit(1)


def stubborn():
    """Ignore the request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note()
    while True:
        time.sleep(1000)


def orphans():
    """Leave three kinds of descendants behind: in the session, in a session of
    its own, and executed in a session of its own."""
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "987650"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(987651)
        os._exit(0)
    subprocess.Popen(["sh", "-c", "sleep 987652 & sleep 987653"], start_new_session=True)
    note()
    signal.pause()


def look(*args, **kwargs):
    """Tell what this process was given."""
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink("/proc/self/fd/" + fd)
        except FileNotFoundError:
            pass  # the listing itself
    status = {}
    with open("/proc/self/status") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            status[key] = value.strip()
    note(args=args, kwargs=kwargs, fds=fds, environ=dict(os.environ), status=status, cwd=os.getcwd(),
         sid=os.getsid(0), uid=os.getuid(), gid=os.getgid(), nice=os.nice(0),
         cmdline=open("/proc/self/cmdline").read().rstrip("\0"), generation=prefork.generation)
    signal.pause()


async def coroutine():
    """Run as a coroutine."""
    await asyncio.sleep(0)
    note(loop=type(asyncio.get_running_loop()).__name__)


def finish():
    """End well."""


def say():
    """Write to both outputs, with an unfinished line at the end."""
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr)
    os.write(1, b"unfinished")
    signal.pause()
