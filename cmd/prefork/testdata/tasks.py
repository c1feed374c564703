# SPDX-License-Identifier: 0BSD
"""Tasks of the end-to-end tests, which do all that a task can do wrong."""

import asyncio
import contextlib
import os
import socket
import sys
import time

import prefork

repository = None
runs: dict[str, int] = {}


def say(text):
    os.write(2, f"{text}\n".encode())


@contextlib.asynccontextmanager
async def lifespan():
    global repository
    say(f"opened in task {prefork.task}")
    repository = object()
    try:
        yield
    finally:
        repository = None
        say("closed")


def broken_lifespan():
    raise RuntimeError("no database")


async def reconcile(interval, name="reconcile"):
    assert repository is not None
    prefork.status(f"every {interval}s")
    try:
        while True:
            await asyncio.sleep(interval)
    finally:
        say(f"{name} has cleaned up: {repository is not None}")


async def enrich(failures):
    """Fails so many times, then works."""
    runs["enrich"] = runs.get("enrich", 0) + 1
    await asyncio.sleep(0)
    if runs["enrich"] <= failures:
        raise RuntimeError(f"no answer {runs['enrich']}")
    await asyncio.Event().wait()


async def returns():
    return 7


async def mutate():
    """Is ready when a child says so, from a thread."""

    async def child():
        await asyncio.to_thread(prefork.ready)
        say(f"ready in {prefork.task}")

    await asyncio.create_task(child())
    await asyncio.Event().wait()


async def never_ready():
    await asyncio.Event().wait()


async def exits(code):
    sys.exit(code)


async def interrupted():
    raise KeyboardInterrupt


async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


async def group():
    async def inner():
        raise ValueError("in a child")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(inner())
        tasks.create_task(asyncio.sleep(1000))


def not_awaitable():
    return 5


async def child_interrupted():
    async def inner():
        raise KeyboardInterrupt

    await asyncio.create_task(inner())


async def blocks():
    await asyncio.sleep(0)
    time.sleep(1000)


async def swallows():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            say("swallowed")


async def floods():
    """Says of tasks what is not so, as fast as it can."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(os.environ["NOTIFY_SOCKET"])
    for i in range(3000):
        state = "ready" if i % 2 else "failed"
        sock.send(f"X_PREFORK_TASK=calm\nX_PREFORK_TASK_STATE={state}\nX_PREFORK_TASK_REASON=\x1b[2J {i}".encode())
        sock.send(f"X_PREFORK_TASK=t{i}\nX_PREFORK_TASK_STATE=failed\nX_PREFORK_TASK_NEXT_USEC=99999999999999999999".encode())
        sock.send(f"X_PREFORK_TASK=t{i}\nX_PREFORK_FAULT=BLOCKS\nX_PREFORK_CODE_LINE=-1".encode())
    say("flooded")
    await asyncio.Event().wait()
