# SPDX-License-Identifier: 0BSD
"""Connect again and again until /run/client.stop exists, and count."""

import collections
import json
import os
import socket

outcomes = collections.Counter()
while not os.path.exists("/run/client.stop"):
    try:
        with socket.create_connection(("127.0.0.1", 8080), timeout=60) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            reply = b"".join(iter(lambda: connection.recv(4096), b""))
        outcomes["served" if b'"pid"' in reply else "lost"] += 1
    except ConnectionRefusedError:
        outcomes["refused"] += 1
    except ConnectionError:
        outcomes["lost"] += 1
    with open("/run/client.json.part", "w") as file:
        json.dump(outcomes, file)
    os.rename("/run/client.json.part", "/run/client.json")
