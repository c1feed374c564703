# SPDX-License-Identifier: 0BSD
"""Says as JSON what there is of the fleet NAME: look.py NAME."""

import collections
import json
import os
import re
import subprocess
import sys

fleet = sys.argv[1]
unit = f"prefork@{fleet}.service"
state = f"/var/lib/prefork/{fleet}"


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def same(name):
    """Returns a name without the numbers that differ each time."""
    return re.sub(r":\[\d+\]|(?<=/p-)\d+", "", name)


def descriptors(pid):
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(same(os.readlink(f"/proc/{pid}/fd/{fd}")))
        except OSError:
            pass  # the descriptor has been closed meanwhile
    return found


def processes():
    """Returns what runs in the unit, and what has ended there and is not reaped."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        if unit in read(f"/proc/{pid}/cgroup"):
            words = read(f"/proc/{pid}/cmdline").strip("\0").split("\0")
            found.append(" ".join(words) or "zombie " + read(f"/proc/{pid}/comm").strip())
    return found


def files(*roots):
    return [os.path.join(at, name) for root in roots for at, dirs, names in os.walk(root) for name in dirs + names]


def groups():
    top = "/sys/fs/cgroup" + os.path.dirname(read(master + "/cgroup").partition("::")[2].strip())
    return [same(at) for at, _, _ in os.walk(top)]


status = json.loads(subprocess.check_output(["prefork", "status", "--json", fleet]))
hooks = [line.rpartition(" ") for line in read(state + "/hooks").splitlines()]
draws = [json.loads(line) for line in read(state + "/draws").splitlines()]
master = f"/proc/{status['main_pid']}"
json.dump(
    {
        # A process was forked for each slot, for each restart and to be a spare.
        "forks": len(status["slots"]) + status["n_restarts"] + status["spares"],
        "spares": status["spares"],
        "ready": sum(slot["state"] == "ready" for slot in status["slots"]),
        "generation": status["generation"],
        "hooks": collections.Counter(hook for hook, _, _ in hooks),
        "born": len({pid for hook, _, pid in hooks if hook == "child"}),
        "draws": len(draws),
        "repeated": [source for source in (draws or [{}])[0] if len({d[source] for d in draws}) != len(draws)],
        "left": collections.Counter(
            processes()
            + ["master: " + name for name in descriptors(status["main_pid"])]
            + ["floor: " + name for name in descriptors(status["floor_pid"])]
            + files(master + "/root/tmp", master + "/root/var/tmp", master + "/root/dev/shm", "/run/prefork/" + fleet)
            + groups()
        ),
    },
    sys.stdout,
)
