# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the workers of the benchmarks run, under whatever supervisor."""

import _socket
import gc
import os
import signal
import time


def first():
    """Tell the benchmark who is here, and since when."""
    now = time.monotonic_ns()
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    sock.connect(os.environ["BENCH_SOCKET"])
    slot = os.environ.get("PREFORK_SLOT", "-")
    sock.send(b"%s %d %d" % (slot.encode(), os.getpid(), now))
    sock.close()


def serve():
    """Answer one connection after the other on the socket http."""
    first()
    import prefork

    answer_all(prefork.sockets()["http"][0])


def alone(port):
    """Do the same without a supervisor."""
    import socket

    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    first()
    answer_all(listener)


def answer_all(listener):
    while True:
        connection, _ = listener.accept()
        request = connection.recv(1000)
        if b"/gc" in request:
            gc.collect()
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n%d\n" % os.getpid())
        if b"hold" in request:
            connection.recv(1)
        connection.close()


def wsgi(environ, start_response):
    """The same for gunicorn."""
    path = environ["PATH_INFO"]
    if "/gc" in path:
        gc.collect()
    start_response("200 OK", [])
    yield b"%d\n" % os.getpid()
    if "hold" in path:
        environ["gunicorn.socket"].recv(1)


def wait():
    """Do nothing. SIGINT asks for a collection, and the answer is a birth."""
    first()
    while True:
        try:
            signal.pause()
        except KeyboardInterrupt:
            gc.collect()
            first()


def crash():
    first()
    raise SystemExit(1)
