# SPDX-License-Identifier: 0BSD
"""The workers of the tests of limits. The floor holds 64 MB."""

import os
import signal
import time

STATE = os.environ.get("STATE_DIRECTORY", "/tmp")
BALLAST = b""


def load():
    """Fill the floor with pages that are its own."""
    global BALLAST
    BALLAST = os.urandom(1 << 20) * 64


def told(name):
    return os.path.exists("/run/told/" + name)


def wait(name):
    while not told(name):
        time.sleep(0.1)


def note(name, text):
    path = os.path.join(STATE, name)
    with open(path + ".part", "w") as file:
        file.write(str(text))
    os.rename(path + ".part", path)


def calm():
    """Read all of the floor, and count."""
    n, total = 0, sum(BALLAST[:: 4096])
    while True:
        n += 1
        note("calm", n)
        time.sleep(0.2 if total else 0.3)


def hungry():
    """Take more memory than is allowed, once."""
    note("hungry", os.getpid())
    wait("eat")
    if os.path.exists(os.path.join(STATE, "eaten")):
        signal.pause()
    note("eaten", "")
    if os.fork() == 0:  # a child goes too
        signal.pause()
    meals = []
    while True:
        meals.append(bytearray(os.urandom(1 << 20)))


def leak():
    """Keep memory, once, a half of it in a child."""
    note("leak", os.getpid())
    wait("leak")
    if os.path.exists(os.path.join(STATE, "leaked")):
        signal.pause()
    note("leaked", "")
    parent = os.fork() > 0
    kept = os.urandom(16 << 20)
    if parent:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pause()
    del kept


def bomb():
    """Fork without end."""
    wait("fork")
    made = 0
    while True:
        try:
            if os.fork() == 0:
                signal.pause()
            made += 1
        except OSError as error:
            note("bomb", f"{made} {error.errno}")
            signal.pause()


def busy():
    """Use the processor without end."""
    wait("run")
    while True:
        pass
