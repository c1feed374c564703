# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the workers of the benchmarks run, under whatever supervisor."""

import _socket
import gc
import os
import select
import signal
import socket
import sys
import time


def first():
    """Tell the benchmark who is here, and since when."""
    now = time.monotonic_ns()
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    sock.connect(os.environ["BENCH_SOCKET"])
    slot = os.environ.get("PREFORK_SLOT", "-")
    sock.send(b"%s %d %d" % (slot.encode(), os.getpid(), now))
    sock.close()


def serve(listener=None):
    """Answer one connection after the other on the socket http."""
    first()
    listener = listener or handed_down()
    while True:
        answer(listener.accept()[0])


def graceful(listener=None):
    """The same, and SIGTERM ends it between two requests."""
    listener = listener or handed_down()
    listener.setblocking(False)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGTERM, lambda *_: None)
    ready = select.poll()
    ready.register(listener, select.POLLIN)
    ready.register(reader, select.POLLIN)
    first()
    while reader not in dict(ready.poll()):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # another one has it
        connection.setblocking(True)
        answer(connection)


def handed_down():
    import prefork

    return prefork.sockets()["http"][0]


def answer(connection):
    request = connection.recv(1000)
    work(request)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n%d\n" % os.getpid())
    if b"hold" in request:
        connection.recv(1)
    connection.close()


def work(request):
    if b"/gc" in request:
        gc.collect()
    if b"/shop" in request:
        shop(300)


def shop(times):
    """Answer requests with the application of shop.py, without a network."""
    import io

    import shop

    for _ in range(times):
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/orders",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        status = []
        response = shop.application(environ, lambda line, headers, exc_info=None, status=status: status.append(line))
        size = sum(len(part) for part in response)
        response.close()
        if status != ["200 OK"] or not size:
            raise SystemExit(f"shop: {status}, {size} bytes")


def wsgi(environ, start_response):
    """The same for gunicorn and uwsgi."""
    path = environ["PATH_INFO"].encode()
    work(path)
    start_response("200 OK", [])
    yield b"%d\n" % os.getpid()
    if b"hold" not in path:
        return
    if "gunicorn.socket" in environ:
        environ["gunicorn.socket"].recv(1)
    else:
        import uwsgi

        fd = uwsgi.connection_fd()
        select.select([fd], [], [])  # it does not block by itself
        os.read(fd, 1)


def wait(listener=None):
    """Do nothing. SIGINT asks for a collection, and the answer is a birth."""
    first()
    while True:
        try:
            signal.pause()
        except KeyboardInterrupt:
            gc.collect()
            first()


def crash(listener=None):
    first()
    raise SystemExit(1)


def inherited(fd):
    """The listening socket that is this descriptor."""
    return socket.socket(fileno=fd)
