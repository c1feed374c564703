# SPDX-License-Identifier: 0BSD
"""Entries that tell what a worker is, and entries that end in every way."""

import asyncio
import atexit
import fcntl
import gc
import json
import logging
import os
import random
import resource
import socket
import sys
import tempfile
import threading
import time
import weakref

import prefork

pid_at_import = os.getpid()
slot_at_import = prefork.slot
log_file = open(__file__, "rb")  # a regular file stays open in the workers
loaded = []
early = []


def early_exit():
    sys.stdout.write("the floor's exit handler\n")


class Thing:
    pass


thing = Thing()
finalizer = weakref.finalize(thing, early_exit)
atexit.register(early_exit)
sys.stdout.write("unflushed text of the floor\n")


def load():
    loaded.append(os.getpid())


def after_fork():
    early.append(prefork.slot)


def status(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":", 1) for line in file)


def fds():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return found


def facts(*args, **kwargs):
    found = {"fds": fds()}  # first: nothing below must open a descriptor before
    state = status()
    found |= {
        "signals": {k: state[k].strip() for k in ("SigIgn", "SigCgt", "SigBlk")},
        "env": dict(os.environ),
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "sid": os.getsid(0),
        "pgid": os.getpgid(0),
        "cmdline": open("/proc/self/cmdline").read().rstrip("\0"),
        "comm": open("/proc/self/comm").read().strip(),
        "ids": [*os.getresuid(), *os.getresgid()],
        "groups": sorted(os.getgroups()),
        "capeff": state["CapEff"].strip(),
        "no_new_privs": state["NoNewPrivs"].strip(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "umask": os.umask(0o22),
        "cwd": os.getcwd(),
        "random": random.random(),
        "gc": gc.isenabled(),
        "frozen": gc.get_freeze_count(),
        "argv": sys.argv,
        "path": sys.path,
        "loaded": loaded == [pid_at_import],
        "early": early,
        "slot_at_import": slot_at_import,
        "args": repr((args, kwargs)),
        "numpy": None,
    }
    for name in ("fleet", "worker", "slot", "index", "generation"):
        found["prefork_" + name] = getattr(prefork, name)
    if "numpy" in sys.modules:
        found["numpy"] = sys.modules["numpy"].random.random()
    print(json.dumps(found))


def inherited():
    """What an executed program finds at 3 and up."""
    os.execv("/bin/sh", ["sh", "-c", "echo $LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID $$; ls /proc/self/fd | tr '\\n' ' '"])


def sockets():
    result = {}
    for name, made in prefork.sockets().items():
        result[name] = [
            {
                "family": int(s.family),
                "type": int(s.type),
                "fd": s.fileno(),
                "nonblock": bool(fcntl.fcntl(s.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK),
            }
            for s in made
        ]
    same = prefork.sockets()["http"][0] is prefork.sockets()["http"][0]
    print(json.dumps({"sockets": result, "same": same}))


def regain():
    for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
        try:
            call()
            print("regained")
        except PermissionError:
            print("refused")


async def coroutine():
    await asyncio.sleep(0)
    print("in the loop")
    return 7


def unfinished():
    sys.stdout.write("no end of a line")


def makes_coroutine():
    return coroutine()


def returns():
    return 5


def exits_with(code):
    raise SystemExit(code)


def interrupted():
    os.kill(os.getpid(), 2)
    time.sleep(10)


def raises():
    raise ValueError("from the entry")


def terminated():
    os.kill(os.getpid(), 15)
    time.sleep(10)


def child_of_pipe():
    os.kill(os.getpid(), 13)
    print("alive")


def leaves_things():
    def work():
        time.sleep(0.2)
        print("thread done")

    class Noisy(logging.handlers.MemoryHandler if hasattr(logging, "handlers") else logging.Handler):
        def emit(self, record):
            pass

        def flush(self):
            sys.stdout.write("logging flushed\n")

    handler = Noisy()
    logging.getLogger().addHandler(handler)
    own = Thing()
    early.append(own)
    weakref.finalize(own, sys.stdout.write, "own finalizer\n")
    atexit.register(sys.stdout.write, "own handler\n")
    directory = tempfile.TemporaryDirectory()
    early.append(directory)
    threading.Thread(target=work).start()
    sys.stdout.write(directory.name + "\n")


def memory():
    """Private memory in kB, idle and after a collection, without allocating much."""
    idle = private()
    gc.collect()
    print(idle, private())


def private():
    total = 0
    with open("/proc/self/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith((b"Private_Dirty", b"Private_Clean")):
                total += int(line.split()[1])
    return total


def waits():
    print("waiting", flush=True)
    time.sleep(60)


def handed():
    """What was handed down beside the orders of facts()."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(prefork.watchdog_sec).encode())
        os._exit(0)
    os.wait()
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    found = {
        "sockets": {name: [s.fileno() for s in made] for name, made in prefork.sockets().items()},
        "stored": prefork.stored(),
        "watchdog_sec": prefork.watchdog_sec,
        "of_child": json.loads(os.read(read, 100)),
        "oom_score_adj": score,
        "env": dict(os.environ),
        "pid": os.getpid(),
    }
    print(json.dumps(found))


def writes():
    print(str(sys.stdout.isatty()).lower())
    print("out")
    print("err", os.environ["JOURNAL_STREAM"], file=sys.stderr)
    sys.stdout.flush()
    os.system("echo child")


def notifies(first, last):
    """Says some of all that there is to say, and what came of it."""
    mine = fds()
    calls = [
        lambda: prefork.ready(),
        lambda: prefork.status("one\nREADY=1\0\u2028\ud800ä"),
        lambda: prefork.status("ä" * 5000),
        lambda: prefork.status(""),
        lambda: prefork.watchdog(),
        lambda: prefork.reloading(),
        lambda: prefork.extend_timeout(1.5),
        lambda: prefork.extend_timeout(-1),
        lambda: prefork.extend_timeout(float("inf")),
        lambda: prefork.stopping(),
        lambda: prefork.notify("X_APP=ä\nERRNO=5"),
        lambda: prefork.store(0, "cache"),
        lambda: prefork.store(log_file, "x" * 255),
        lambda: prefork.unstore("cache"),
    ]
    result = [call() for call in calls[first:last]]
    print(json.dumps({"sent": result, "same": fds() == mine}))


def notifies_nobody():
    refused = [prefork.notify(""), prefork.notify("X" * 4096), prefork.store(999, "a"), prefork.store(1 << 40, "a")]
    os.environ.pop("NOTIFY_SOCKET", None)
    for address in (None, "", "/none/such", "@prefork-none", "@", "relative", "vsock:2:1", "/" + "x" * 200, __file__):
        if address is not None:
            os.environ["NOTIFY_SOCKET"] = address
        refused += [prefork.ready(), prefork.store(0, "a"), prefork.unstore("a"), prefork.watchdog()]
    for name in ("", "a:b", "a\n", "a\0", "ä", "x" * 256):
        for call in (lambda: prefork.store(0, name), lambda: prefork.unstore(name)):
            try:
                refused.append(call())
            except ValueError:
                refused.append(False)
    print(sorted(set(refused)), hasattr(prefork, "nonsense"))


def floods():
    """Notifies until there is no room, also with a default timeout."""
    socket.setdefaulttimeout(1000)
    count = 0
    while prefork.watchdog():
        count += 1
    print(count, prefork.ready(), prefork.store(0, "a"))
