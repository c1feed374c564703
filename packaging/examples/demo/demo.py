# SPDX-License-Identifier: 0BSD
"""The web workers of the demo. The imports are paid for once, by the floor."""

import decimal  # noqa: F401
import email  # noqa: F401
import http.client  # noqa: F401
import json
import os
import select
import signal
import socket
import xml.dom.minidom  # noqa: F401

import prefork


def serve():
    """Answer every request with the process that serves it, until SIGTERM."""
    listener = prefork.sockets()["http"][0]
    print(f"pid {os.getpid()} serves on port {listener.getsockname()[1]}", flush=True)
    # A signal is read between two requests: no client that was accepted is cut
    # off. Those that wait in the socket are for the successor.
    asked, asking = socket.socketpair()
    asking.setblocking(False)
    signal.set_wakeup_fd(asking.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    listener.setblocking(False)
    while True:
        ready, _, _ = select.select([asked, listener], [], [])
        if asked in ready:
            return
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # another worker was faster
            continue
        with connection:
            answer(connection)


def answer(connection):
    """Serve one request; a client that hangs up is no reason to end."""
    try:
        connection.settimeout(5)
        connection.recv(65536)
        body = json.dumps({"worker": prefork.slot, "pid": os.getpid(), "generation": prefork.generation}) + "\n"
        kind = "Content-Type: application/json\r\nConnection: close"
        head = f"HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
    except OSError:
        pass
