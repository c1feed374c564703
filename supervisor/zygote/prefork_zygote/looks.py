# SPDX-License-Identifier: 0BSD
"""What there is in the process: descriptors and threads."""

import stat
import sys

from .base import os, slurp, time

PATIENCE = 0.2  # seconds for a thread that has been joined to leave /proc
# Thread pools of C libraries, and the variables that keep them from starting.
POOLS = (
    ("openblas", "OPENBLAS_NUM_THREADS"),
    ("libgomp", "OMP_NUM_THREADS"),
    ("libiomp", "OMP_NUM_THREADS"),
    ("libmkl", "MKL_NUM_THREADS"),
)


# Character devices that have no state a worker could disturb: null, zero, full,
# random and urandom.
HARMLESS = {os.makedev(1, minor) for minor in (3, 5, 7, 8, 9)}
FINE, WARN, REFUSE = range(3)  # what is said of a descriptor that workers would share
# Files that are mapped.
MEMORY = ("/memfd:", "/dev/shm/", "/dev/zero")


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass  # the descriptor that read the directory
    return found


def sharing(number, target):
    """Says whether workers may share it: a file, a directory, or the like."""
    try:
        info = os.fstat(number)
    except OSError:
        return FINE
    mode = info.st_mode
    if not stat.S_ISREG(mode):
        return FINE if stat.S_ISDIR(mode) or (stat.S_ISCHR(mode) and info.st_rdev in HARMLESS) else REFUSE
    about = slurp(f"/proc/self/fdinfo/{number}").splitlines()  # proc_pid_fdinfo(5)
    fields = dict(line.partition(":")[::2] for line in about)
    if "lock" in fields:
        return REFUSE  # the lock is of all who share it, and the next floor would meet it
    if target.startswith(MEMORY):
        return FINE  # it has no position that counts
    flags = int(fields.get("flags", "0"), 8)
    return WARN if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND else FINE


def alone():
    """Says whether this thread is the only one: each is a directory (proc(5))."""
    return os.stat("/proc/self/task").st_nlink == 3


def extra_threads():
    """Returns the ids of all threads but this one.

    A thread that has been joined may be in /proc for a moment longer.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        extra = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
        if not extra or time.monotonic() > deadline:
            return sorted(extra, key=int)
        time.sleep(0.002)


def describe(threads):
    texts = name_threads(threads)
    unknown = sum(text.startswith("comm ") for text in texts)
    texts = list(dict.fromkeys(texts))  # a pool's threads all have one name
    pools = pool_variables(slurp("/proc/self/maps"))
    if pools and unknown:
        texts.append("perhaps a pool that floor.env can prevent with " + ", ".join(f"{v}=1" for v in sorted(pools)))
    return ", ".join(texts)


def name_threads(threads):
    names = {}
    if "threading" in sys.modules:
        names = {str(t.native_id): t.name for t in sys.modules["threading"].enumerate()}
    return [f"{names[t]} (threading)" if t in names else "comm " + comm(t) for t in threads]


def pool_variables(maps):
    """Returns the variables that keep the pools of libraries that are mapped from starting."""
    return {variable for library, variable in POOLS if library in maps}


def comm(thread):
    return slurp(f"/proc/self/task/{thread}/comm").strip() or "?"
