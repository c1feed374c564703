# SPDX-License-Identifier: 0BSD
"""The workers of the stories: each does what a file of its own allows."""

import os
import select
import signal
import socket
import sys
import time

STATE = os.environ.get("STATE_DIRECTORY", "/tmp")


def told(name):
    """Whether the test has written a file of that name."""
    return os.path.exists(os.path.join("/run/told", name))


def note(name, text=""):
    """Tell the test something."""
    with open(os.path.join(STATE, name), "a") as file:
        print(text, file=file)


def wait(name):
    while not told(name):
        time.sleep(0.05)


def slow():
    """Be ready when the test says so, and say a line."""
    import prefork

    prefork.status("warming up")
    wait("ready")
    print("slow speaks, as", os.getpid(), flush=True)
    prefork.ready()
    prefork.status("at work")
    signal.pause()


def beating():
    """Send keep-alives until the test wants a stuck worker."""
    import prefork

    prefork.ready()
    note("beating", os.getpid())
    while not told("stuck"):
        prefork.watchdog()
        time.sleep(prefork.watchdog_sec / 4)
    if os.path.exists(os.path.join(STATE, "unstuck")):
        while True:
            prefork.watchdog()
            time.sleep(prefork.watchdog_sec / 4)
    note("unstuck")
    prefork.status("about to hang")
    signal.signal(signal.SIGABRT, signal.SIG_IGN)  # not even that
    while True:
        time.sleep(1000)


def crash():
    print("crash speaks", flush=True)
    sys.exit(3)


def parent():
    """Ignore SIGTERM, and leave a daemon that nothing but its cgroup betrays."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            os.execve("/bin/sleep", ["sleep", "54321"], {})
        os._exit(0)
    os.wait()
    note("daemon")
    while True:
        time.sleep(1000)


def greet():
    """Answer one connection after the other, and send keep-alives between."""
    import prefork

    (listener,) = prefork.sockets()["http"]
    prefork.ready()
    while True:
        if prefork.watchdog_sec:
            prefork.watchdog()
            if not select.select([listener], [], [], prefork.watchdog_sec / 4)[0]:
                continue
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n%d" % os.getpid())


def calm():
    """Say a line, be ready and send keep-alives, if some are wanted."""
    import prefork

    print("calm speaks", flush=True)
    prefork.ready()
    while True:
        prefork.watchdog()
        time.sleep((prefork.watchdog_sec or 40) / 4)


def keeper():
    """Keep a text in the supervisor; say what an earlier process has kept."""
    import prefork

    stored = prefork.stored()
    if "text" in stored:
        note("kept", os.pread(stored["text"][0], 100, 0).decode())
    else:
        fd = os.memfd_create("text")
        os.write(fd, b"of process %d" % os.getpid())
        prefork.store(fd, "text")
        note("stored", os.getpid())
    signal.pause()


def flood():
    """Write lines without end."""
    line = b"x" * 100 + b"\n"
    for n in range(60_000):
        os.write(1, line)
        if n == 20_000:
            note("flooded")
    signal.pause()


def hostile():
    """Send what nobody should, as fast as the queue takes it."""
    wait("attack")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect(os.environ["NOTIFY_SOCKET"])
    null = os.open("/dev/null", os.O_RDONLY)
    many = [null] * 253
    texts = [
        (b"", []),
        (b"READY=1\0STOPPING=1", [null]),
        (b"X" * 5000, many),
        (b"FDSTORE=1\nFDNAME=x", many),
        (b"BARRIER=1", many),
        (b"BARRIER=1", []),
        (b"STATUS=" + b"\xff" * 4000, []),
        (b"MAINPID=1\nWATCHDOG_USEC=18446744073709551616", [null]),
        (b"STATUS=%n%s\x1b[31m", []),
        (b"EXTEND_TIMEOUT_USEC=-1\nERRNO=99999999999999999999", []),
        (b"READY=1\nRELOADING=1\n" * 100, []),
    ]
    sent = 0
    for n in range(100_000):
        text, fds = texts[n % len(texts)] if n % 10 else (b"WATCHDOG=1", [])
        try:
            if n % 100 < 11:
                socket.send_fds(notify, [text], fds, socket.MSG_DONTWAIT)
            else:
                notify.send(text[:4000], socket.MSG_DONTWAIT)
            sent += 1
        except (BlockingIOError, OSError):
            time.sleep(0.0005)
        if n == 1000 or n % 20_000 == 19_999:
            note("sent", n)
    note("done", f"{sent} of 100000")
    signal.pause()
