# SPDX-License-Identifier: 0BSD
"""The application of aiohttp.toml."""

import asyncio
import signal

from aiohttp import web

import prefork


async def index(request):
    """Answer every request with the slot that serves it."""
    return web.Response(text=f"{prefork.slot}\n")


app = web.Application()
app.add_routes([web.get("/", index)])


async def serve():
    """Serve the socket http until SIGTERM, and finish the requests that have begun."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    (listener,) = prefork.sockets()["http"]
    await web.SockSite(runner, listener).start()
    prefork.ready()
    await told.wait()
    await runner.cleanup()
