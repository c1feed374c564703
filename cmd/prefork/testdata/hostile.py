"""Workers that mean no good, and one that suffers from them."""

import encodings.idna  # which the user of the worker may not be able to read
import errno
import os
import signal
import socket
import struct
import threading
import time

import prefork

DONE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pub", "done")


def calm():
    """Pets its watchdog, and does nothing else."""
    prefork.ready()
    while True:
        prefork.watchdog()
        time.sleep(0.2)


def lingering(address):
    """Returns a socket of which the last close blocks for an hour."""
    s = socket.create_connection(address)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    s.setblocking(False)
    try:
        while True:
            s.send(bytes(1 << 16))
    except BlockingIOError:
        return s


def attack():
    """Sends lingering sockets in whatever may carry one, and says what came of it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect(os.environ["NOTIFY_SOCKET"])
    prefork.ready()
    for text in [b"", b"READY=1\0", b"STATUS=x", b"BARRIER=1", b"FDSTORE=1\nFDNAME=x", b"FDSTOREREMOVE=1\nFDNAME=x"] * 2:
        s = lingering(listener.getsockname())
        socket.send_fds(notify, [text], [s.fileno()])
        # If the master was faster, this is the last close, and blocks.
        threading.Thread(target=s.close, daemon=True).start()
    ours, theirs = os.pipe()
    socket.send_fds(notify, [b"BARRIER=1"], [theirs])
    os.close(theirs)
    os.read(ours, 1)  # until all of it has been dealt with
    said = [refused(os.path.join(os.path.dirname(os.environ["NOTIFY_SOCKET"]), name)) for name in ("calm.0", "attack.0")]
    with open(DONE + ".new", "w") as file:
        file.write(" ".join(said))
    os.rename(DONE + ".new", DONE)
    signal.pause()


def refused(path):
    """Says why nothing can be sent to a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        try:
            s.connect(path)
            return "open"
        except OSError as error:
            return errno.errorcode[error.errno]
