# SPDX-License-Identifier: AGPL-3.0-or-later
"""Connect again and again, as four clients, until SIGTERM; then say how it went.

Each connection must be accepted and answered in full. The last line is
"N served", with what went wrong before it.
"""

import collections
import signal
import socket
import threading

outcomes = collections.Counter()
end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())


def request():
    with socket.create_connection(("127.0.0.1", 8080), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        reply = b"".join(iter(lambda: connection.recv(4096), b""))
    return "served" if reply.endswith(b"}\n") else f"cut off: {reply!r}"


def client():
    while not end.is_set():
        try:
            outcomes[request()] += 1
        except OSError as error:
            outcomes[repr(error)] += 1
        end.wait(0.001)


clients = [threading.Thread(target=client) for _ in range(4)]
for thread in clients:
    thread.start()
while not end.wait(0.1):
    pass
for thread in clients:
    thread.join()
served = outcomes.pop("served", 0)
for what, count in outcomes.items():
    print(f"{count} times {what}")
print(f"{served} served")
