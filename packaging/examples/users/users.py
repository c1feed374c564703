# SPDX-License-Identifier: 0BSD
"""The web worker of users.toml."""

import grp
import os
import pwd

import prefork


def serve():
    """Answer every request with the user and the groups of this process."""
    user = pwd.getpwuid(os.getuid()).pw_name
    groups = " ".join(grp.getgrgid(gid).gr_name for gid in {os.getgid(), *os.getgroups()})
    body = f"{prefork.slot} is {user}, in {groups}\n".encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    (listener,) = prefork.sockets()["http"]
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(head + body)
            except ConnectionError:
                pass  # a client that hangs up is no reason to end
