# SPDX-License-Identifier: AGPL-3.0-or-later
"""A supervisor as many have written one: imports everything once, forks, and polls.

A worker that has ended is started again after a second, and after twice as long
each time that follows.
"""

import importlib
import os
import signal
import socket
import sys
import time

POLL = 0.2
BACKOFF = float(os.environ.get("BENCH_BACKOFF", "1"))
LONGEST = 30.0
GRACE = 15.0


class Supervisor:
    def __init__(self, entry, count):
        self.entry = entry
        self.children = {}  # pid: index
        self.backoff = [BACKOFF] * count
        self.due = dict.fromkeys(range(count), 0.0)  # index: when to start it
        self.stopping = False

    def start(self, index):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = 1
            try:
                self.entry()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os._exit(code)
        self.children[pid] = index

    def stop(self, *_):
        self.stopping = True

    def reap(self):
        """Return whether a child has ended, and plan its successor."""
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not pid:
            return False
        index = self.children.pop(pid)
        self.due[index] = time.monotonic() + self.backoff[index]
        self.backoff[index] = min(2 * self.backoff[index], LONGEST)
        return True

    def run(self):
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        while not self.stopping:
            now = time.monotonic()
            for index in [index for index, due in self.due.items() if due <= now]:
                del self.due[index]
                self.start(index)
            if not self.reap():
                time.sleep(POLL)
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self.children and time.monotonic() < deadline:
            if not self.reap():
                time.sleep(0.05)
        self.signal(signal.SIGKILL)

    def signal(self, number):
        for pid in self.children:
            os.kill(pid, number)


def main():
    for name in os.environ["BENCH_MODULES"].split():
        importlib.import_module(name)
    import app

    listener = socket.create_server(("127.0.0.1", int(os.environ["BENCH_PORT"])), backlog=4096)
    entry = getattr(app, os.environ["BENCH_ENTRY"])
    Supervisor(lambda: entry(listener), int(os.environ["BENCH_COUNT"])).run()


if __name__ == "__main__":
    sys.exit(main())
