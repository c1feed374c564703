# SPDX-License-Identifier: 0BSD
"""The web workers of `make run`. The imports are paid for once, by the floor."""

import decimal
import email
import http.client
import json
import os
import xml.dom.minidom

import prefork


def serve():
    """Answer every request with the process that serves it."""
    listener = prefork.sockets()["http"][0]
    print(f"pid {os.getpid()} serves on port {listener.getsockname()[1]}", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            answer(connection)


def answer(connection):
    """Serve one request; a client that hangs up is no reason to end."""
    try:
        connection.recv(65536)
        body = json.dumps({"worker": prefork.slot, "pid": os.getpid(), "generation": prefork.generation}) + "\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + body).encode())
    except ConnectionError:
        pass
