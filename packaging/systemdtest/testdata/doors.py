# SPDX-License-Identifier: 0BSD
"""Who means no good to a fleet: a worker with a user of its own, and strangers."""

import errno
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

TEXTS = [b"", b"READY=1\0", b"STATUS=x", b"BARRIER=1", b"FDSTORE=1\nFDNAME=x", b"FDSTOREREMOVE=1\nFDNAME=x"]
LINGERING = 3 * len(TEXTS)  # so many sockets, among


def lingering(listener):
    """Return a socket of which the last close blocks for an hour."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    s.connect(listener.getsockname())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    s.setblocking(False)
    try:
        while True:
            s.send(bytes(1 << 16))
    except BlockingIOError:
        return s


def bother(path):
    """Fill a notify socket, and put lingering sockets in between."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(LINGERING)
    outcome = {"sent": 0, "lingering": 0}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.connect(path)
        except OSError as error:
            return errno.errorcode[error.errno]
        notify.setblocking(False)
        held = None
        while not os.path.exists("/run/told/enough"):
            n = outcome["lingering"]
            try:
                if n < LINGERING and outcome["sent"] % 20 == 0:
                    held = held or lingering(listener)
                    socket.send_fds(notify, [TEXTS[n % len(TEXTS)]], [held.fileno()])
                    # If the master was faster, this is the last close, and blocks.
                    threading.Thread(target=held.close, daemon=True).start()
                    held = None
                    outcome["lingering"] += 1
                else:
                    notify.send(b"WATCHDOG=1\nSTATUS=\x1b]0;x\a\x1b[2J")
                outcome["sent"] += 1
            except BlockingIOError:
                time.sleep(0.001)
    if held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    return outcome


def bother_all(folder):
    """Bother every slot, and say what came of it."""
    outcomes = {}

    def one(name):
        outcomes[name] = bother(os.path.join(folder, name))

    threads = [threading.Thread(target=one, args=(name,)) for name in sorted(os.listdir(folder))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return outcomes


def worker():
    """Do so as the main process of a slot, which is heard."""
    import prefork

    prefork.ready()
    # In a journal nothing steers a terminal that reads it.
    print("\rprefork | \x1b]0;owned\a\x1b[2J", flush=True)
    outcomes = bother_all(os.path.dirname(os.environ["NOTIFY_SOCKET"]))
    with open("/opt/app/pub/worker", "w") as file:
        json.dump(outcomes, file)
    signal.pause()


def takeover(control, what):
    """Put something in the place of a control socket, and say what came of it."""
    os.unlink(control)
    if what == "own":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(control)
        listener.listen(100)
        while not os.path.exists("/run/told/enough"):
            time.sleep(0.05)  # never a word
        return
    kind, _, target = what.partition(":")
    {"symlink": os.symlink, "hardlink": os.link}[kind](target, control)


if __name__ == "__main__":
    if sys.argv[1] == "bother":
        json.dump(bother_all(sys.argv[2]), sys.stdout)
    else:
        takeover(*sys.argv[2:])
