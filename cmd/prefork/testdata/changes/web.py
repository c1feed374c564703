# SPDX-License-Identifier: 0BSD
"""An HTTP server that drains: who has been told to close has nothing to lose."""

import asyncio
import os
import signal
import time

import prefork

DRAIN = 5  # seconds that a client may take for its next request


class Client(asyncio.Protocol):
    """One connection, kept alive until the server drains."""

    all = set()
    draining = False

    def connection_made(self, transport):
        self.transport, self.received = transport, b""
        self.all.add(self)

    def connection_lost(self, exc):
        self.all.discard(self)

    def data_received(self, data):
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            body = f"{os.getpid()} {prefork.generation} {os.environ.get('RELEASE', '')}\n".encode()
            close = self.draining or b"connection: close" in head.lower()
            how = b"close" if close else b"keep-alive"
            prefork.done()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s" % (len(body), how, body))
            if close:
                self.transport.close()
                return


async def main():
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    servers = [await loop.create_server(Client, sock=sock) for sock in prefork.sockets()["http"]]
    prefork.ready()
    await stop.wait()
    Client.draining = True
    for server in servers:  # not closed: what asyncio has accepted already would be reset
        for sock in server.sockets:
            loop.remove_reader(sock.fileno())
    await asyncio.sleep(0.05)  # and becomes a client meanwhile
    for _ in range(DRAIN * 100):
        if not Client.all:
            return
        await asyncio.sleep(0.01)


def serve():
    asyncio.run(main())


def fail():
    """Serve for a moment, and give up, with an answer to whoever has come."""

    async def short():
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
        await main()

    asyncio.run(short())
    raise SystemExit(3)


def mute():
    """Never become ready."""
    signal.pause()


def grow():
    """Have much memory."""
    kept = bytearray(b"x") * (64 << 20)
    signal.pause()
    del kept


def insist():
    """Ask to be replaced, all the time, in every way there is."""
    broken = os.environ["BROKEN"]
    if os.path.exists(broken):
        raise SystemExit(3)
    while True:
        prefork.recycle()
        prefork.done(1 << 40)
        prefork.notify("X_PREFORK_RECYCLE=requests")
        time.sleep(0.005)
