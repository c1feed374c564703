# SPDX-License-Identifier: 0BSD
"""What a floor does while it is loaded, for prefork check --floor. No fleet has this part.

Everything is a difference: at each border between two modules, when an import begins or
ends, what the process is then is compared with what it was at the border before. What
has changed is the doing of the module that ran in between. Each border is one line of
JSON, and is written at once: a floor that hangs or crashes has told all but the end.
"""

import _locale
import faulthandler
import sys

from .base import NAME, _signal, ctypes, os, resource, slurp, time
from .floor import surroundings
from .interpreter import event_loops, full_name, of_python, rss, signal_name, text
from .looks import alone, descriptors, extra_threads, name_threads, pool_variables, sharing
from .orders import limit_name
from .prepare import HOOKS
from .stacks import STACKS
from .steps import STEPS

# Libraries and devices whose state no fork(2) survives.
DEVICES = ("libcuda.so", "libcudart", "libamdhip64", "libhsa-runtime64", "libze_loader", "/dev/nvidia", "/dev/kfd")
LIMIT_NAMES = ["limit " + limit_name(number) for number in range(16)]  # RLIM_NLIMITS
# prctl(2)
PRCTLS = ((3, "dumpable"), (7, "keepcaps"), (30, "timer slack"), (39, "no_new_privs"), (42, "no huge pages"))


def encode(value):
    """Writes JSON. The module json would then be no work for the floor any more."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        return '"' + "".join(c if c >= " " and c not in '"\\' else f"\\u{ord(c):04x}" for c in value) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode(str(k))}:{encode(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(map(encode, value)) + "]"


class Watch:
    """Looks at the process at each border, and writes what is new."""

    def __init__(self, out, given):
        self.out = out  # the descriptor that it is written to
        self.pid = os.getpid()
        self.main = sys.modules["_thread"].get_ident()
        self.bare = sys.modules["os"].path.dirname(os.__file__) + "/"  # of the standard library
        # [module, kind, where, seconds] of each hook of a fork; those of before are not timed
        self.hooks = [[name, "after_in_child", "", 0.0] for name, _ in HOOKS if name in sys.modules]
        self.events = {}  # since the last border: kind, and of what: where
        self.places = {}  # what a descriptor is of: where it was bound, locked or opened
        self.prctl = ctypes.PyDLL(None).prctl if ctypes else None
        self.fds = {number: target for number, target in self.descriptors().items() if number <= given}
        self.known, self.threads = self.state() | {"gc.isenabled": True}, set()  # by then it is
        self.mapped = set()
        self.since, self.resident = 0.0, 0
        self.mark("begin", "starting python")

    def mark(self, do, name=""):
        """Is a border: what came before it is told."""
        now = time.perf_counter()
        if os.getpid() != self.pid:
            return  # a worker
        resident = rss()
        line = {"do": do, "name": name}
        if do != "begin":
            line |= {"s": now - self.since, "kB": resident - self.resident}
        line |= self.changes()
        self.write(line)
        self.events = {}
        self.resident = rss()
        self.since = time.perf_counter()

    def write(self, line):
        text = (encode(line) + "\n").encode("utf-8", "backslashreplace")
        while text:
            text = text[os.write(self.out, text) :]

    def changes(self):
        """Returns what is not as it was at the border before."""
        found = {}
        state, fds = self.state(), self.descriptors()
        changed = [
            [key, text(self.known.get(key)), text(state.get(key)), self.place(key)]
            for key in {**self.known, **state}
            if self.known.get(key) != state.get(key)
        ]
        opened = [
            [number, target, *self.sharing(number, target), self.place_of(target)]
            for number, target in fds.items()
            if self.fds.get(number) != target
        ]
        threads = set() if alone() else set(os.listdir("/proc/self/task")) - {str(self.pid)}
        new = sorted(threads - self.threads, key=int)
        if new:
            places = self.events.get("thread", [])
            places = places if len(places) == len(new) else [""] * len(new)
            names = name_threads(new)
            found["threads"] = [[int(new[i]), names[i], places[i]] for i in range(len(new))]
        if changed:
            found["changed"] = changed
        if opened:
            found["opened"] = opened
        if "process" in self.events:
            found["started"] = self.events["process"]
        self.known, self.fds, self.threads = state, fds, threads
        return found

    def descriptors(self):
        return {number: target for number, target in descriptors().items() if number != self.out}

    def sharing(self, number, target):
        """Returns what is said of a descriptor, and whether it is locked."""
        locked = any(line.startswith("lock:") for line in slurp(f"/proc/self/fdinfo/{number}").splitlines())
        return sharing(number, target), locked

    def place(self, key):
        """Says where something was done since the last border, if it was in one place."""
        found = set(self.events.get(key, ()))
        return found.pop() if len(found) == 1 else ""

    def place_of(self, target):
        return self.places.get(target) or (self.place("socket") if target.startswith("socket:") else "")

    def state(self):
        """Returns what an import may change in the process, as {what: value}."""
        mask, here, nice = surroundings()
        state = {"umask": f"{mask:04o}", "working directory": here, "nice": nice}
        status = dict(line.partition(":")[::2] for line in slurp("/proc/self/status").splitlines())
        bits = {name: int(status.get(name, "0"), 16) for name in ("SigBlk", "SigIgn", "SigCgt")}
        for number in range(1, 65):
            at, handler = 1 << number - 1, None
            if number in (STACKS, 32, 33):  # the C library has two for itself
                continue
            name = signal_name(number)
            if bits["SigCgt"] & at:
                handler = _signal.getsignal(number)
                state["signal " + name] = "handled by " + full_name(handler) if callable(handler) else "handled in C"
            else:
                state["signal " + name] = "ignored" if bits["SigIgn"] & at else "default"
            if bits["SigBlk"] & at:
                state["blocked signal " + name] = "blocked"
        for number in range(len(LIMIT_NAMES)):
            state[LIMIT_NAMES[number]] = resource.getrlimit(number)
        for name, number in (("real", 0), ("virtual", 1), ("prof", 2)):
            state["timer " + name] = "armed" if _signal.getitimer(number)[0] else None
        for name, value in os.environb.items():  # not what it is: it may be a secret
            state["environment " + os.fsdecode(name)] = hash(value)
        state["locale"] = _locale.setlocale(_locale.LC_ALL)
        state["user"] = (os.getresuid(), os.getresgid(), os.getgroups())
        state["session"] = (os.getsid(0), os.getpgid(0))
        state["processors"] = sorted(os.sched_getaffinity(0))
        if self.prctl is not None:
            for number, name in PRCTLS:
                state["prctl " + name] = self.prctl(number, 0, 0, 0, 0)
        return state | of_python()

    def end(self):
        """Tells what is there when all has been loaded, or will not be."""
        maps = slurp("/proc/self/maps")
        self.mark("end")
        self.write(
            {
                "do": "left",
                "python": sys.version.split()[0],
                "threads": list(map(int, extra_threads())),
                "descriptors": list(self.fds),
                "children": slurp(f"/proc/self/task/{self.pid}/children").split(),
                "hooks": self.hooks,
                "pools": sorted(pool_variables(maps)) if not alone() else [],
                "loops": event_loops(),
                "modules": len(sys.modules),
            }
        )

    def device(self):
        """Tells what is mapped that no fork survives."""
        found = {
            name for line in slurp("/proc/self/maps").splitlines() for name in line.split()[5:6] if name.startswith("/")
        }
        found = {name for name in found | set(self.fds.values()) if any(d in name for d in DEVICES)}
        for name in sorted(found - self.mapped):
            self.write({"do": "device", "name": name})
        self.mapped |= found

    def attempt(self, usual):
        def attempt(floor, what, call, *args):
            self.mark("enter", what)
            try:
                usual(floor, what, call, *args)
            except BaseException:
                self.device()
                self.end()
                raise
            self.device()
            self.mark("leave")

        return attempt

    def loaded(self, usual):
        """Is told when all has been loaded, before anything is taken back."""

        def check_descriptors(floor):
            self.end()
            usual(floor)

        return check_descriptors

    def imports(self):
        """Has each import be a border. The interpreter looks the function up by its name."""
        bootstrap = sys.modules["_frozen_importlib"].__dict__
        usual, thread = bootstrap["_find_and_load"], sys.modules["_thread"].get_ident

        def _find_and_load(name, import_):
            if thread() != self.main:
                return usual(name, import_)
            self.mark("enter", name)
            try:
                return usual(name, import_)
            finally:
                self.mark("leave")

        # Python leaves out of a traceback what stands in this file.
        code = _find_and_load.__code__.replace(co_filename=usual.__code__.co_filename)
        _find_and_load.__code__ = code
        bootstrap["_find_and_load"] = _find_and_load

    def forks(self):
        """Has each hook of a fork be known, with who registered it and how long it takes."""
        real, low = sys.modules["os"].__dict__, sys.modules["posix"].__dict__
        usual = real["register_at_fork"]

        def register_at_fork(**hooks):
            module = sys._getframe(1).f_globals.get("__name__", "?")
            at = where()
            usual(**{kind: self.timed([module, kind, at, 0.0], hook) for kind, hook in hooks.items()})

        real["register_at_fork"] = low["register_at_fork"] = register_at_fork

    def starts(self):
        """Has it be known where a thread is started: only later versions audit that."""
        low, high = sys.modules["_thread"], sys.modules.get("threading")
        for name in ("start_new_thread", "start_joinable_thread"):
            usual = getattr(low, name, None)
            if usual is None:
                continue

            def start(*args, usual=usual, **more):
                self.events.setdefault("thread", []).append(where())
                return usual(*args, **more)

            setattr(low, name, start)
            if high and hasattr(high, "_" + name):
                setattr(high, "_" + name, start)

    def timed(self, record, hook):
        if not callable(hook):
            return hook  # the real one refuses it
        self.hooks.append(record)

        def timed():
            before = time.perf_counter()
            try:
                return hook()
            finally:
                record[3] = time.perf_counter() - before

        return timed

    def audit(self, event, args):
        kind = AUDITED.get(event)
        if kind is None or os.getpid() != self.pid:
            return
        try:
            self.note(kind, event, args)
        except Exception:
            pass  # it would fail what user code does

    def note(self, kind, event, args):
        """Keeps where something is done that is seen at the next border."""
        if kind == "path":
            path = os.fsdecode(args[0])
            if not path.startswith(("/proc/", "<")) and not path.endswith((".py", ".pyc", ".so")):
                self.places[os.path.realpath(path)] = where()
        elif kind == "descriptor":
            number = args[0] if isinstance(args[0], int) else args[0].fileno()
            self.places[os.readlink(f"/proc/self/fd/{number}")] = where()
        elif kind == "process":
            self.events.setdefault(kind, []).append([str(args[0]) if args else event, where()])
        else:
            self.events.setdefault(kind, []).append(where())


AUDITED = {
    "open": "path",
    "socket.bind": "descriptor",
    "socket.connect": "descriptor",
    "fcntl.flock": "descriptor",
    "fcntl.lockf": "descriptor",
    "socket.__new__": "socket",
    "subprocess.Popen": "process",
    "os.posix_spawn": "process",
    "os.system": "process",
    "os.fork": "process",
    "os.chdir": "working directory",
}


def where():
    """Says in which line of user code this is, else in which of the standard library."""
    inner, frame = "", sys._getframe(1).f_back
    while frame:
        name = frame.f_code.co_filename
        if name != NAME and not name.startswith("<"):
            at = f"{name}:{frame.f_lineno}"
            if not name.startswith(watcher.bare) or "/site-packages/" in name or "/dist-packages/" in name:
                return at
            inner = inner or at
        frame = frame.f_back
    return inner


def hook_times():
    """Is a step: a worker knows what the hooks before its fork and in it took."""
    return [encode(hook) for hook in watcher.hooks]


if __name__ == "prefork zygote":
    given = int(sys.argv[1])  # the command socket; then comes the program, then this
    out = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024) - 1  # imports get the numbers that they would get
    os.dup2(given + 2, out, False)
    os.close(given + 2)
    watcher = Watch(out, given)
    faulthandler.register(STACKS, out, all_threads=True)
    watcher.imports()
    watcher.forks()
    watcher.starts()
    sys.addaudithook(watcher.audit)
    STEPS["hooks"] = hook_times
    globals()["attempt"] = watcher.attempt(globals()["attempt"])  # of floor.py: all is one namespace
    globals()["check_descriptors"] = watcher.loaded(globals()["check_descriptors"])
