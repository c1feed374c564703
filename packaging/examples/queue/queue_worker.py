# SPDX-License-Identifier: 0BSD
"""The workers of queue.toml. A job is done at least once, by whoever has locked it."""

import fcntl
import os
import pathlib
import signal
import threading
import time

import prefork


def work(text):
    """Do the job. One that takes long calls prefork.watchdog() now and then."""
    print("begins", text, flush=True)
    time.sleep(1)
    print("has done", text, flush=True)


def serve():
    """Do one job after the other, until SIGTERM."""
    jobs = pathlib.Path(os.environ["STATE_DIRECTORY"])
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    prefork.ready()
    while not told.is_set():
        prefork.watchdog()
        prefork.status("waits")
        if not do_one(jobs):
            told.wait(1)


def do_one(jobs):
    """Do the first job that nobody has locked; return whether there was one."""
    for path in sorted(jobs.glob("*.job")):
        try:
            with path.open() as job:
                fcntl.flock(job, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel unlocks it for the dead
                if os.fstat(job.fileno()).st_nlink == 0:
                    continue  # done, between the opening and the lock
                prefork.status(f"works on {path.name}")
                work(job.read().strip())
                path.unlink()
                return True
        except (BlockingIOError, FileNotFoundError):
            pass  # another has it, or has done it
    return False
