# SPDX-License-Identifier: 0BSD
"""What a worker can ask about itself, and what it can tell its supervisor.

The module needs no installation: it is part of every floor. Use it in the entry,
in a task or in after_fork, and not when a module is imported: until the process has
become a worker all attributes are None, there are no sockets, and nobody is told
anything.

What tells the supervisor something returns whether the message was sent. It never
blocks, and it raises nothing if nobody listens, if the supervisor is too busy or if
there is none: then it returns False, and the program can go on. Any thread may call
it. A child of a worker, too, is heard only where notify_access is "all".
"""

import _socket
import os
import sys
import time

fleet = None  # name of the fleet
worker = None  # name of the worker, "web"
slot = None  # name of the slot, "web.0"
index = None  # number of the slot among those of its worker, 0
generation = None  # number of the floor that this process was forked from

_tasks = None  # what runs the tasks of a worker that has some

_listen = ()  # type: tuple[tuple[str, int], ...]  # (name, descriptor), in the order of the descriptors
_stored = ()  # type: tuple[tuple[str, int], ...]  # the same for what was stored; it comes after the sockets
_sockets = None  # what sockets() has made
_done = 0  # what done() has counted
_enough = 0  # when it is enough; 0: never, or that was told

_LONGEST = 4095  # bytes of a message: a longer one would be dropped by who reads it


def sockets():
    """Returns the sockets that were handed down: {name: [socket, ...]}.

    The names are those of the fleet file; a list has a socket for each address, in
    the order of the file. Every call returns the same socket objects. The sockets are
    shared with other processes and so is their blocking mode: it is left as it is. A
    socket that is set to non-blocking here is non-blocking in all of them. In a
    process that is no worker there are none: {}.
    """
    global _sockets
    if _sockets is None:
        _sockets = _make()
    return {name: list(made) for name, made in _sockets.items()}


def _make():
    import socket

    # With a default timeout set, a new socket object makes its descriptor
    # non-blocking, under every process that shares it.
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)
    try:
        made: dict[str, list[socket.socket]] = {}
        for name, descriptor in _listen:
            made.setdefault(name, []).append(socket.socket(fileno=descriptor))
        return made
    finally:
        socket.setdefaulttimeout(timeout)


def stored():
    """Returns what this slot's processes before this one have stored: {name: [descriptor, ...]}.

    The descriptors are open and belong to the caller; see store(). What is closed
    here stays in the store, and the next process gets it again. In a process that is
    no worker there are none: {}.
    """
    found: dict[str, list[int]] = {}
    for name, descriptor in _stored:
        found.setdefault(name, []).append(descriptor)
    return found


def ready():
    """Says that start-up is complete, or a reload.

    A worker with type = "notify" counts as started from here on. In a worker with
    tasks it is the task that is ready, which calls this, or which has made what does.
    """
    task = _tasks and _tasks.current()
    return task.ready() if task else _send_ready()


def _send_ready():
    return notify("READY=1")


def reloading():
    """Says that this process reloads its configuration; ready() must follow."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping():
    """Says that this process is on its way out. It cannot be taken back."""
    return notify("STOPPING=1")


def status(text):
    """Says in one line what this process does, for whoever asks for the status.

    Line breaks and control characters become spaces, and what is too long is cut.
    An empty text takes the last one back. In a task it is the status of the task.
    """
    task = _tasks and _tasks.current()
    return task.status(text) if task else _send_status(text)


def _send_status(text):
    line = "".join(c if c.isprintable() else " " for c in text)
    cut = ("STATUS=" + line).encode()[:_LONGEST]
    return _send(cut.decode("utf-8", "ignore").encode())  # the cut may have split a character


def watchdog():
    """Says that this process is well, which watchdog_sec of the fleet file waits for.

    Half of the attribute watchdog_sec is a good interval. A worker that has nothing to
    do must say so, too. It does no harm where there is no watchdog.
    """
    return notify("WATCHDOG=1")


def extend_timeout(seconds):
    """Asks for so many seconds more, from now, to start or to stop.

    Call it before the time is over, and again before what it gave is over.
    """
    return notify(f"EXTEND_TIMEOUT_USEC={int(max(0, min(seconds, 1e12)) * 1e6)}")


def store(fd, name):
    """Gives a descriptor to the supervisor, which gives it to the slot's next process.

    fd is a number or an object with fileno(), and stays open here. The supervisor
    keeps at most file_descriptor_store_max of them and lets go of one whose other
    end was closed. name is for stored(); several descriptors may have the same.
    ValueError: name is not one to 255 printable ASCII characters without ":".
    """
    number = fd if isinstance(fd, int) else fd.fileno()
    return _send(b"FDSTORE=1\nFDNAME=" + _name(name), number)


def unstore(name):
    """Makes the supervisor close all descriptors that are stored by this name."""
    return _send(b"FDSTOREREMOVE=1\nFDNAME=" + _name(name))


def _name(name):
    if not (0 < len(name) <= 255 and name.isascii() and name.isprintable() and ":" not in name):
        raise ValueError(f"not a name for a descriptor: {name!r}")
    return name.encode()


def warm_wsgi(app, paths=("/",), times=100):
    """Has a WSGI application answer GET requests for paths, each so many times.

    It is for a floor's warm function: what the first requests of a worker would write,
    and make, is then there for all of them. Nothing of the network is used, and no
    supervisor: it does the same in any process. RuntimeError: an answer is 500 or
    above, or none.
    """
    import io

    for path in paths:
        target, _, query = path.partition("?")
        for _ in range(times):
            said: list[str] = []

            def start_response(status, headers, exc_info=None, said=said):
                said.append(status)
                return lambda data: None

            environ = {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": target,
                "QUERY_STRING": query,
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "127.0.0.1",
                "HTTP_HOST": "localhost",
                "wsgi.version": (1, 0),
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": sys.stderr,
                "wsgi.multithread": False,
                "wsgi.multiprocess": True,
                "wsgi.run_once": False,
            }
            answer = app(environ, start_response)
            try:
                for _ in answer:
                    pass
            finally:
                getattr(answer, "close", int)()
            _check_answer(path, said[-1][:3] if said else "")


def warm_asgi(app, paths=("/",), times=100):
    """The same for an ASGI application, in an event loop that ends with it.

    Its lifespan is not run: that is for the worker.
    """
    import asyncio

    asyncio.run(_ask(app, paths, times))


async def _ask(app, paths, times):
    for path in paths:
        target, _, query = path.partition("?")
        for _ in range(times):
            said: list[int] = []
            asked = [{"type": "http.request", "body": b"", "more_body": False}]

            async def receive(asked=asked):
                return asked.pop() if asked else {"type": "http.disconnect"}

            async def send(message, said=said):
                if message["type"] == "http.response.start":
                    said.append(message["status"])

            scope = {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": target,
                "raw_path": target.encode(),
                "query_string": query.encode(),
                "root_path": "",
                "headers": [(b"host", b"localhost")],
                "client": ("127.0.0.1", 1),
                "server": ("localhost", 80),
            }
            await app(scope, receive, send)
            _check_answer(path, str(said[-1]) if said else "")


def _check_answer(path, status):
    if not status or status >= "500":
        raise RuntimeError(f"GET {path}: the answer is {status or 'none'}")


def recycle():
    """Asks for another process in the place of this one.

    It goes on: when a successor is ready, or has waited for the end of this one
    (roll), it is stopped as for a restart. That may take a while: the supervisor
    replaces one process of the fleet after the other, and none that has been ready
    for less than ten seconds.
    """
    return notify("X_PREFORK_RECYCLE=asked")


def done(n=1):
    """Counts n requests that this process has answered, for recycle_requests.

    It costs an addition, in any thread or coroutine. When they are enough, the
    supervisor is told, once, and replaces the process as for recycle(). Without
    recycle_requests, and in a process that is no worker, nothing comes of it. It
    returns None.
    """
    global _done, _enough
    _done += n
    if _done >= _enough > 0 and notify("X_PREFORK_RECYCLE=requests"):
        _enough = 0


def count_wsgi(app):
    """Returns a WSGI application that calls done() for each request to app.

    It counts when app has returned, and hands its answer on as it is. A body that
    is sent after that is not cut off: to be replaced is to be stopped in order.
    """

    def counted(environ, start_response):
        try:
            return app(environ, start_response)
        finally:
            done()

    return counted


def count_asgi(app):
    """The same for an ASGI application: when a request or a websocket has ended."""

    async def counted(scope, receive, send):
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                done()

    return counted


def notify(text):
    """Sends assignments as they are, one to a line; sd_notify(3) lists them.

    The others are made of this. A text of more than 4095 bytes is not sent.
    """
    return _send(text.encode("utf-8", "replace"))


def _send(message, descriptor=None):
    # Everything is looked up and made anew: the environment of the floor is not
    # the worker's, and a child of the worker must not share its socket.
    address = os.fsencode(os.environ.get("NOTIFY_SOCKET", ""))
    if not address.startswith((b"/", b"@")) or not 0 < len(message) <= _LONGEST:
        return False
    if address.startswith(b"@"):
        address = b"\0" + address[1:]
    sock = None
    try:
        rights = []
        if descriptor is not None:
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder, signed=True))]
        # Non-blocking from the start, so that no default timeout counts.
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        sock = _socket.socket(_socket.AF_UNIX, kind)
        sock.sendmsg([message], rights, _socket.MSG_NOSIGNAL, address)
        return True
    except (OSError, OverflowError):
        return False
    finally:
        if sock:
            sock.close()


def __getattr__(name):
    if name == "watchdog_sec":  # computed when asked for: a child of the worker has none
        return _watchdog_sec()
    if name == "task":  # the same: of who asks
        return _task()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _task():
    """name of the task that asks, "poller"; None outside of one"""
    found = _tasks and _tasks.current()
    return found.name if found else None


def _watchdog_sec():
    """how often, in seconds, the supervisor must hear watchdog(): a float; None without a watchdog"""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval = int(os.environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError, OverflowError):
        return None
    return interval if interval > 0 else None
