# SPDX-License-Identifier: 0BSD
"""What a process is to its interpreter, for watch.py: no fleet has this part."""

import gc
import sys

from .base import _signal, _socket, resource, slurp


def text(value):
    return None if value is None else str(value)


def signal_name(number):
    return SIGNALS.get(number) or f"SIGRTMIN+{number - 34}"


SIGNALS = {
    int(value): name
    for name, value in vars(_signal).items()
    if name.startswith("SIG") and not name.startswith(("SIG_", "SIGRT"))
}


def rss():
    return int(slurp("/proc/self/statm").split()[1]) * resource.getpagesize() // 1024


def full_name(thing):
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def of_python():
    """Returns what an import may change in the interpreter."""
    modules = sys.modules
    state = {
        "gc.isenabled": gc.isenabled(),
        "gc.get_threshold": gc.get_threshold(),
        "sys.getswitchinterval": sys.getswitchinterval(),
        "sys.getrecursionlimit": sys.getrecursionlimit(),
        "sys.excepthook": full_name(sys.excepthook),
        "sys.unraisablehook": full_name(sys.unraisablehook),
        "sys.settrace": sys.gettrace() and full_name(sys.gettrace()),
        "sys.setprofile": sys.getprofile() and full_name(sys.getprofile()),
        "sys.stdout": type(sys.stdout).__qualname__,
        "sys.stderr": type(sys.stderr).__qualname__,
        "socket.getdefaulttimeout": _socket.getdefaulttimeout(),
        "builtins.__import__": full_name(modules["builtins"].__import__),
        "os.fork": full_name(modules["os"].fork),
    }
    hook = getattr(modules.get("threading"), "excepthook", None)
    if hook is not None:
        state["threading.excepthook"] = full_name(hook) if hook is not modules["threading"].__excepthook__ else None
    policy = getattr(modules.get("asyncio.events"), "_event_loop_policy", None)
    state["asyncio policy"] = policy and full_name(type(policy))
    patched = getattr(modules.get("gevent.monkey"), "saved", None)
    state["gevent.monkey"] = ", ".join(sorted(patched)) if patched else None
    return state


def event_loops():
    """Returns the event loops that there are: class, whether it runs, whether it is
    closed, and the descriptor that it waits in."""
    base = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    found = []
    for thing in gc.get_objects() if base else ():
        if base in getattr(type(thing), "__mro__", ()):
            try:
                selector = getattr(thing, "_selector", None)
                number = selector.fileno() if selector is not None else -1
                found.append([full_name(type(thing)), thing.is_running(), thing.is_closed(), number])
            except Exception:
                found.append([full_name(type(thing)), False, False, -1])
    return found
