# SPDX-License-Identifier: 0BSD
"""What the fleets of the tests run."""

import json
import os
import signal
import sys
import threading
import time

FLOOR = ["numpy", "django", "sqlalchemy", "aiohttp", "requests", "cryptography"]


def answer(connection):
    """Read a request's head and say who answers it."""
    import prefork

    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(4096)
        if not data:
            return
        head += data
    body = json.dumps(
        {
            "pid": os.getpid(),
            "slot": prefork.slot,
            "generation": prefork.generation,
            "floor": [name for name in FLOOR if name in sys.modules],
        }
    ).encode()
    connection.sendall(
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def serve():
    """Answer one connection after the other on the socket http."""
    import prefork

    (listener,) = prefork.sockets()["http"]
    while True:
        connection, _ = listener.accept()
        with connection:
            answer(connection)


def crash():
    """Note the time and fail."""
    with open("/var/lib/prefork/fleet/crash.times", "a") as times:
        print(time.monotonic(), file=times)
    sys.exit(1)


def stubborn():
    """Ignore the request to stop, and prove it."""
    signal.signal(signal.SIGTERM, lambda *_: open("/var/lib/prefork/fleet/stubborn.asked", "w").close())
    open("/var/lib/prefork/fleet/stubborn.ready", "w").close()
    while True:
        time.sleep(1000)


def dump():
    """Write down what this process was given."""
    import dump as program

    program.dump("/var/lib/prefork/fleet/dump.entry")
    threading.Event().wait()


async def asgi(scope, receive, send):
    """An application for uvicorn, without a lifespan."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"uvicorn"})


async def uvicorn():
    """Serve on the first socket that was handed down."""
    import uvicorn as server

    config = server.Config(asgi, fd=3, lifespan="off")
    await server.Server(config).serve()


def wsgi(environ, start_response):
    """An application for gunicorn."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"gunicorn"]
