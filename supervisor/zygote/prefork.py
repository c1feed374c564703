# SPDX-License-Identifier: 0BSD
"""What a worker can ask about itself.

The module needs no installation: it is part of every floor. All attributes are
None, and there are no sockets, until the process has become a worker; so read
them in the entry or in after_fork, not when a module is imported.
"""

fleet = None  # name of the fleet
worker = None  # name of the worker, "web"
slot = None  # name of the slot, "web.0"
index = None  # index of the slot, 0
generation = None  # number of the floor that this process was forked from

_listen = ()  # (name, descriptor), in the order of the descriptors
_sockets = None  # what sockets() has made


def sockets():
    """Returns the sockets that were handed down: {name: [socket, ...]}.

    Every call returns the same socket objects. The sockets are shared with other
    processes and so is their blocking mode: it is left as it is. A socket that is
    set to non-blocking here is non-blocking in all of them.
    """
    global _sockets
    if _sockets is None:
        _sockets = _make()
    return {name: list(made) for name, made in _sockets.items()}


def _make():
    import socket

    # With a default timeout set, a new socket object makes its descriptor
    # non-blocking, under every process that shares it.
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)
    try:
        made = {}
        for name, descriptor in _listen:
            made.setdefault(name, []).append(socket.socket(fileno=descriptor))
        return made
    finally:
        socket.setdefaulttimeout(timeout)
