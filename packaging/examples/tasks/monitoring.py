# SPDX-License-Identifier: 0BSD
"""The workers of tasks.toml. What they do stands for what such workers do."""

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import sqlite3
import time

import prefork


class Repository:
    """Where all workers keep what they have found. It must not be shared across a fork."""

    def __init__(self):
        path = os.path.join(os.environ.get("STATE_DIRECTORY", ""), "monitoring.db")
        self.pid = os.getpid()
        self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.connection.execute("CREATE TABLE IF NOT EXISTS found (worker TEXT, pid INTEGER, result INTEGER)")

    def save(self, result):
        """Keep a result, by the name of who has found it."""
        assert self.pid == os.getpid()
        worker = prefork.task or prefork.worker
        self.connection.execute("INSERT INTO found VALUES (?, ?, ?)", (worker, self.pid, result))


shared: Repository  # of the tasks of this process
pool: concurrent.futures.ProcessPoolExecutor  # the same


def compute(n):
    """Is the work that keeps a processor busy."""
    return sum(i * i for i in range(n))


# Workers with an entry: a process each, for work that wants a processor for itself.


def profiler():
    """Compute for ever."""
    found = Repository()
    while True:
        found.save(compute(10000))
        time.sleep(10)


def ttp():
    """Do the same with other numbers."""
    found = Repository()
    while True:
        found.save(compute(20000))
        time.sleep(10)


# The tasks of batch: they share one repository.


@contextlib.asynccontextmanager
async def repository():
    """Is entered once, before the tasks."""
    global shared
    shared = Repository()
    try:
        yield
    finally:
        shared.connection.close()


async def repeat(interval, result=1):
    """Save a result again and again."""
    while True:
        shared.save(result)
        await asyncio.sleep(interval)


async def reconcile(interval):
    """Compare what there is with what should be."""
    await repeat(interval)


async def enrich(ttl_hours):
    """Ask others about what was found."""
    prefork.status(f"results are kept for {ttl_hours} hours")
    await repeat(60)


async def orchestrate(interval):
    """Tell others what to do."""
    await repeat(interval)


async def mutate():
    """Is ready when it says so."""
    await asyncio.sleep(0.1)
    prefork.ready()
    await repeat(60)


# The tasks of cpu: they share a pool of processes, too.


@contextlib.asynccontextmanager
async def repository_and_pool():
    """Make the pool while this process has one thread: then it can be forked."""
    global pool
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        pool.submit(abs, 1).result()
        async with repository():
            yield


async def repeat_in_pool(n):
    """Compute in the pool, and save what comes of it."""
    loop = asyncio.get_running_loop()
    while True:
        shared.save(await loop.run_in_executor(pool, compute, n))
        await asyncio.sleep(10)


async def clusterer():
    """Put together what belongs together."""
    await repeat_in_pool(30000)


async def campaign_clusterer():
    """Do the same with campaigns."""
    await repeat_in_pool(40000)


async def attribution():
    """Say who it was."""
    await repeat_in_pool(50000)


async def reuse_correlate():
    """Find what was used twice."""
    await repeat_in_pool(60000)
