# SPDX-License-Identifier: AGPL-3.0-or-later
import asyncio
import os
import signal
import socket
import sys


async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def work():
    loop = asyncio.get_running_loop()
    print(await asyncio.to_thread(lambda: "in a thread"), await asyncio.gather(*(asyncio.sleep(0.001, i) for i in range(3))))
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        print(await reader.readline())
        writer.close()
    child = await asyncio.create_subprocess_exec("sh", "-c", "echo child; exit 4", stdout=asyncio.subprocess.PIPE)
    print((await child.communicate())[0], child.returncode)
    got = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, got.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await got.wait()
    loop.remove_signal_handler(signal.SIGUSR1)
    a, b = socket.socketpair()
    a.setblocking(False)
    b.send(b"x")
    print(await loop.sock_recv(a, 1))
    try:
        await asyncio.wait_for(asyncio.sleep(1000), 0.01)
    except asyncio.TimeoutError:
        print("timeout")
    print((await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))[0][4])


def main():
    asyncio.run(work())
    asyncio.run(work())
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        print(error, sys.version_info >= (3, 11))


if __name__ == "__main__":
    main()
