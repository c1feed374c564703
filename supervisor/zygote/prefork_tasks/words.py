# SPDX-License-Identifier: 0BSD
"""What is said of tasks: to the master, and on standard error."""

import os
import sys
import sysconfig
import traceback

import prefork

NAME = "<prefork tasks>"  # this program's name in tracebacks
LONGEST = 512  # bytes of a text that the master keeps


def line(text):
    """Makes a text one line that can be printed."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").strip()


def assignments(**fields):
    """Says something to the master; returns whether it was sent."""
    return prefork.notify("\n".join(f"X_PREFORK_{name}={line(str(value))}" for name, value in fields.items()))


def cause(error):
    """Says in one line what an exception is."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = type(error).__qualname__
    return f"{name}: {text}" if text else name


def show(name, error):
    """Prints a traceback, without this program's frames and with the name of the task. An
    application that has a hook of its own (sys.excepthook) gets it as it is."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == NAME:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    try:
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(error), error, trace)
            return
        text = "".join(traceback.format_exception(error))
        say("".join(f"{name}: {row}\n" for row in text.splitlines()))
    except Exception as problem:
        say(f"{name}: {cause(error)}; and no traceback: {cause(problem)}\n")


def say(text):
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:
        pass  # there is nowhere left to say it


def span(ns):
    """Writes a time as the master does: "250ms", "1.5s", "8s", "2min 5s"."""
    seconds = ns / 1e9
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}min" + (f" {whole % 60}s" if whole % 60 else "")


def ordinal(n):
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


class Place:
    """A line of code that runs, or waits."""

    def __init__(self, frame):
        self.file, self.line, self.function = "?", 0, "?"
        if frame:
            code = frame.f_code
            self.file, self.line, self.function = code.co_filename, frame.f_lineno or 0, code.co_qualname

    def __str__(self):
        return f"{os.path.basename(self.file)}:{self.line} in {self.function}"

    def fields(self):
        return {"CODE_FILE": self.file, "CODE_LINE": self.line, "CODE_FUNC": self.function}


LIBRARY = tuple(os.path.join(path, "") for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})


def best(frames):
    """Chooses from frames, the innermost first: the application's, or a library's, or the
    standard library's own."""
    found = None
    for frame in frames:
        name = frame.f_code.co_filename
        package = "site-packages" in name or "dist-packages" in name
        if name == NAME or name.startswith("<frozen"):
            continue
        rank = 1 if package else 0 if name.startswith(LIBRARY) else 2
        if found is None or rank > found[0]:
            found = rank, frame
    return found and found[1]


def running(frame):
    """Returns the place where a thread is, of which frame is the innermost."""
    frames = []
    while frame and frame.f_code.co_filename != NAME:
        frames.append(frame)
        frame = frame.f_back
    return Place(best(frames))


def waiting(task):
    """Returns the place where an asyncio task waits."""
    frames, coroutine = [], task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        frames += [frame] if frame else []
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return Place(best(reversed(frames)))
