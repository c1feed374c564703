# SPDX-License-Identifier: 0BSD
"""Notes each hook of a fork, and has each worker say what it has drawn by chance.

A floor imports it first. The state directory then has: hooks, a line for each hook
that ran; draws, a line for each worker; and lives/SLOT, as long as the slot has had
workers.
"""

import ctypes
import json
import os
import random
import secrets
import signal
import ssl
import sys
import tempfile
import uuid

HERE = os.environ["STATE_DIRECTORY"]
NOTES = os.open(HERE + "/hooks", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def note(hook):
    return lambda: os.write(NOTES, f"{hook} {os.getpid()}\n".encode())


os.register_at_fork(before=note("before"), after_in_parent=note("parent"), after_in_child=note("child"))
if ctypes.CDLL("/opt/app/hooks.so").count(NOTES) != 0:
    raise OSError("pthread_atfork")


def draw():
    """Draws from each source of chance that the process has."""
    drawn = {
        "random": random.random(),
        "uuid": str(uuid.uuid4()),
        "urandom": os.urandom(8).hex(),
        "secrets": secrets.token_hex(8),
        "ssl": ssl.RAND_bytes(8).hex(),
        "tempfile": next(tempfile._get_candidate_names()),
    }
    numpy = sys.modules.get("numpy")
    if numpy:
        drawn["numpy"] = numpy.random.random()
        drawn["generator"] = numpy.random.default_rng().random()
    return drawn


def append(path, text):
    fd = os.open(f"{HERE}/{path}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.write(fd, text.encode())
    size = os.fstat(fd).st_size
    os.close(fd)
    return size


def serve(lives):
    """Uses what the floor has, and ends. The slot's first worker and its last wait
    for SIGUSR1, so that the fleet can be looked at while it is at rest."""
    import floor
    import prefork

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    floor.use()
    append("draws", json.dumps(draw()) + "\n")
    if append("lives." + prefork.slot, ".") in (1, lives):
        signal.sigwait({signal.SIGUSR1})
