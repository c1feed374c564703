# SPDX-License-Identifier: 0BSD
"""The application of asgi.toml, and uvicorn without its command line."""

import uvicorn

import prefork


async def application(scope, receive, send):
    """Answer every request with the slot that serves it. Yours goes here."""
    body = f"{prefork.slot}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve():
    """Serve the socket http until SIGTERM, and finish the requests that have begun."""
    config = uvicorn.Config(application, lifespan="off", log_level="warning")
    uvicorn.Server(config).run(sockets=prefork.sockets()["http"])
