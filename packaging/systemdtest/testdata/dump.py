# SPDX-License-Identifier: 0BSD
"""Write down which descriptors and which environment this process was given."""

import json
import os
import sys
import time


def descriptors():
    """Map each open descriptor to what it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass  # the descriptor of the listing itself
    return found


def dump(path):
    """Write it to path, which appears when it is complete."""
    stderr = os.fstat(2)
    facts = {
        "pid": os.getpid(),
        "fds": descriptors(),
        "environ": dict(os.environ),
        "stderr": "%d:%d" % (stderr.st_dev, stderr.st_ino),
    }
    with open(path + ".part", "w") as file:
        json.dump(facts, file)
    os.rename(path + ".part", path)


if __name__ == "__main__":
    dump(sys.argv[1])
    time.sleep(1000)
