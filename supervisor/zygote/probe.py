# SPDX-License-Identifier: 0BSD
"""Lists the objects of a floor, for prefork memory --why.

It runs in a process that was forked from the floor for this, is no worker, and ends
afterwards: it has the floor's addresses. Who asks takes descriptor 0 by pidfd_getfd(2),
writes the numbers of the first and of the last page of each run that it wants, in
hexadecimal, one run a line, and ends its side. The answer is drawn in the Go package
memory.

Nothing of the user's is called: type(o), never isinstance() or getattr(), which wake lazy
objects; and only descriptors of CPython's own types.
"""

import gc
import sys

gc.disable()
gc.unfreeze()
tracked = gc.get_objects()  # before there are any of this program's

floor, zygote = globals()["floor"], globals()["zygote"]
os, _socket = zygote["os"], zygote["_socket"]  # as they were before user code could replace anything

CODE, FUNCTION, MODULE = type(compile("0", "", "eval")), type(lambda: 0), type(sys)
flags_of, basic_size = type.__dict__["__flags__"].__get__, type.__dict__["__basicsize__"].__get__
module_of = type.__dict__["__module__"].__get__
MANAGED, HEAP, COLLECTED = 1 << 3 | 1 << 4, 1 << 9, 1 << 14  # of tp_flags
GC_HEADER = 16  # bytes before an object; what is managed for it stands before that
# Types that have a table elsewhere: where its address is in the object.
TABLES = ((list, 24), (dict, 32), (set, 40), (frozenset, 40), (bytearray, 32))
ASKED = 0  # standard input, which no process of a fleet has
LARGEST = 1 << 30
NAME = 128  # bytes
BUFFER = 1 << 16
PAGE = os.sysconf("SC_PAGE_SIZE").bit_length() - 1


def unable():
    """Says why objects cannot be told on this interpreter, or nothing."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is not CPython"
    if "t" in sys.abiflags:
        return "free-threaded CPython counts references in another way"
    if sys.version_info >= (3, 15) or sys.maxsize < 1 << 32:
        return "this version of CPython is not known"
    return ""


class Kind:
    """What is the same for all objects of a type."""

    def __init__(self, t):
        flags = flags_of(t)
        self.header = GC_HEADER if flags & COLLECTED else 0
        if flags & MANAGED:
            self.header += GC_HEADER
        self.metatype = issubclass(t, type)
        self.letter = "c" if t is CODE else "t" if self.metatype else "o"
        self.basic = basic_size(t)
        self.size = object.__sizeof__  # basic size, items, and values that stand behind
        if issubclass(t, (int, str)):
            self.size = int.__sizeof__ if issubclass(t, int) else str.__sizeof__
        self.table, self.whole = 0, None
        for base, offset in TABLES:
            if issubclass(t, base):
                self.table, self.whole = offset, base.__sizeof__


class Answer:
    def __init__(self, sock, pages):
        self.sock, self.pages = sock, pages
        self.lines, self.length = [], 0
        self.owners = {}
        try:
            self.memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.memory = -1  # tables are not told then

    def line(self, text):
        self.lines.append(text)
        self.length += len(text)
        if self.length > BUFFER:
            self.flush()

    def flush(self):
        self.sock.sendall("".join(self.lines).encode("ascii", "replace"))
        self.lines, self.length = [], 0

    def wanted(self, first, end):
        """Says whether something from one address to another is in a page that counts."""
        pages, first, last = self.pages, first >> PAGE, end - 1 >> PAGE
        if first in pages or last in pages:
            return True
        return last > first + 1 and any(page in pages for page in range(first + 1, last))

    def owner(self, name):
        number = self.owners.get(name)
        if number is None:
            number = self.owners[name] = len(self.owners)
            shown = name[:NAME].encode("ascii", "backslashreplace").decode().replace("\n", " ")
            self.line(f"m {shown}\n")
        return number

    def tell(self, o, kind, name):
        place, header = id(o), kind.header
        if kind.metatype and not flags_of(o) & HEAP:
            header = 0  # it is static
        size = kind.size(o)
        if size > LARGEST:
            size = kind.basic  # its type counts something else than what stands in it
        if self.wanted(place - header, place + size):
            self.line(f"o {place:x} {size} {header} {kind.letter} {self.owner(name)}\n")
        if kind.table:
            self.tell_table(o, place, kind, name)

    def tell_table(self, o, place, kind, name):
        size = kind.whole(o) - kind.basic
        if size <= 0 or self.memory < 0:
            return
        data = os.pread(self.memory, 16, place + kind.table)
        address, behind = int.from_bytes(data[:8], sys.byteorder), int.from_bytes(data[8:], sys.byteorder)
        if kind.table == 32 and kind.letter == "o" and issubclass(type(o), dict) and behind:
            return  # its keys are shared with other dicts
        if address and self.wanted(address, address + size):
            self.line(f"o {address:x} {size} 0 d {self.owner(name)}\n")


def name_of(o, t, kind, name):
    """Returns the module that an object says that it is of, else that of what leads to it."""
    if t is FUNCTION:
        said = o.__module__
    elif kind.metatype:
        said = module_of(o)
    else:
        return name
    return said if type(said) is str else name


def roots():
    modules = sys.modules
    for name, module in list(modules.items()) if type(modules) is dict else ():
        if type(name) is str and issubclass(type(module), MODULE):
            yield module, name
    yield zygote, "prefork"


def walk(answer):
    """Tells each object once, with the module from which it is reached first."""
    kinds, seen = {}, set()
    referents = gc.get_referents
    layer = []
    for o, name in roots():
        if id(o) not in seen:
            seen.add(id(o))
            layer.append((o, name))
    while layer:
        after = []
        for o, name in layer:
            t = type(o)
            kind = kinds.get(id(t))
            if kind is None:
                kind = kinds[id(t)] = Kind(t)
            name = name_of(o, t, kind, name)
            answer.tell(o, kind, name)
            for r in referents(o):
                if id(r) not in seen:
                    seen.add(id(r))
                    after.append((r, name))
        layer = after
        if not layer and tracked:  # what no module leads to
            layer = [(o, "(no module)") for o in tracked if id(o) not in seen]
            seen.update(id(o) for o, _ in layer)
            tracked.clear()


def main():
    here, there = _socket.socketpair()
    os.dup2(there.fileno(), ASKED)
    there.close()
    floor.sock.close()  # it can be asked from now on
    pages = set()
    asked = here.recv(BUFFER)
    os.close(ASKED)  # who has asked has it, and is missed now if it ends
    while more := here.recv(BUFFER):
        asked += more
    for run in asked.split(b"\n"):
        if run:
            first, last = run.split()
            pages.update(range(int(first, 16), int(last, 16) + 1))
    answer = Answer(here, pages)
    version = ".".join(map(str, sys.version_info[:3]))
    keys = {"immortal": floor.immortal, "gc_freeze": floor.freeze, "warm": floor.warm, "repack": floor.repack}
    answer.line(" ".join(["python", version, *(key for key, on in keys.items() if on)]) + "\n")
    why = unable()
    if why:
        answer.line(f"unable {why}\n")
    else:
        walk(answer)
        answer.line("end\n")
    answer.flush()


try:
    main()
except OSError:
    pass  # nobody waits for the answer any more
