import asyncio
import signal
import prefork

async def serve():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    listener = prefork.sockets()["http"][0]
    async with await asyncio.start_server(answer, sock=listener):
        prefork.ready()
        while not stop.is_set():
            prefork.watchdog()
            try:
                await asyncio.wait_for(stop.wait(), (prefork.watchdog_sec or 60) / 2)
            except asyncio.TimeoutError:
                pass

async def answer(reader, writer):
    writer.write(f"{prefork.slot} at your service\n".encode())
    await writer.drain()
    writer.close()
