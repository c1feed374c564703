# SPDX-License-Identifier: 0BSD
"""The web workers of the container: asyncio, with a clean end."""

import asyncio
import signal

import prefork

answers = set()


async def serve():
    """Answer every request with the slot that serves it, until SIGTERM."""
    server = await asyncio.start_server(answer, sock=prefork.sockets()["http"][0])
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()
    server.close()  # accept nothing more
    await asyncio.gather(*answers, return_exceptions=True)  # finish what was accepted


async def answer(reader, writer):
    """Serve one request; one for /slow takes a while."""
    answers.add(task := asyncio.current_task())
    task.add_done_callback(answers.discard)
    try:
        request = await reader.readline()
        if b" /slow" in request:
            await asyncio.sleep(3)
        body = f"{prefork.slot}\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
    except ConnectionError:
        pass  # a client that hangs up is no reason to end
    finally:
        writer.close()
