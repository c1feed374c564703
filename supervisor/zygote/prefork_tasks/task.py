# SPDX-License-Identifier: 0BSD
"""One task: started, ready, ended, and started again for itself."""

import asyncio
import contextvars
import inspect
import random
import sys
import time

from .policy import EXIT_CODE, FOREVER, START_LIMIT, SUCCESS, TIMEOUT, Record
from .words import assignments, cause, ordinal, show, span, waiting

LATE = 2.0  # seconds: who goes on for so long after its cancellation is named, and again

current: contextvars.ContextVar["Task | None"] = contextvars.ContextVar("prefork_task", default=None)


def resolve(name):
    """Imports "module:callable" and returns the callable."""
    module, _, path = name.partition(":")
    __import__(module)
    found = sys.modules[module]
    for attribute in path.split("."):
        found = getattr(found, attribute)
    if not callable(found):
        raise TypeError(f"{name} is of type {type(found).__name__}, which cannot be called")
    return found


def jitter(delay):
    return random.randrange(delay // 10 + 1)


class Task:
    """A task of the file. Its states are those of a slot; each has one way in: move."""

    def __init__(self, group, table):
        self.group = group
        self.name, self.entry = table["name"], table["entry"]
        self.args, self.kwargs = table["args"], table["kwargs"]
        self.notify, self.timeout = table["notify"], table["timeout_start_sec"]
        self.fatal = table["failure_action"] == "exit"
        self.record = Record(table)
        self.state, self.reason, self.result, self.text = "waiting", "", "", ""
        self.handle = None  # the asyncio task, while there is one
        self.timer = None  # of its next start, or of what it has to do in time
        self.due = 0  # the next start
        self.ready_at = None
        self.outcome = SUCCESS, "cancelled"  # unless it says otherwise
        self.held = ""  # why it does not start again: an operator has stopped it
        self.again = ""  # why it starts when it has ended
        self.slow = ""  # why it was too late to be ready
        self.unsaid = False  # the master could not be told

    def move(self, state, reason):
        """Is the only place that changes the state."""
        self.state, self.reason = state, reason
        self.tell()
        self.group.moved()

    def tell(self):
        """Tells the master all of the state."""
        self.unsaid = not assignments(
            TASK=self.name,
            TASK_STATE=self.state,
            TASK_RESULT=self.result,
            TASK_FAILURES=self.record.failures,
            TASK_NEXT_USEC=self.due // 1000 if self.state == "waiting" else 0,
            TASK_REASON=self.reason,
            TASK_STATUS=self.text,
        )
        if self.unsaid:
            self.group.say_again()

    def wake(self, delay, call):
        """Calls later, and forgets what was to be called."""
        if self.timer:
            self.timer.cancel()
        self.timer = call and self.group.loop.call_later(delay, call)

    def start(self):
        self.wake(0, None)
        if not self.record.may_start(time.monotonic_ns()):
            self.result = START_LIMIT
            limit = f"{self.record.burst} starts within {span(self.record.period)} (start_limit_burst)"
            self.give_up(f"{START_LIMIT}: {limit}; gave up")
            return
        self.ready_at, self.outcome, self.again, self.slow = None, (SUCCESS, "cancelled"), "", ""
        self.move("starting", "due")
        context = contextvars.copy_context()
        context.run(current.set, self)
        self.handle = self.group.loop.create_task(self.live(), name=self.name, context=context)
        self.handle.add_done_callback(self.ended)
        if 0 < self.timeout < FOREVER:
            self.wake(self.timeout / 1e9, self.too_late)

    async def live(self):
        """Runs the user's code. Nothing that it raises goes further."""
        try:
            result = resolve(self.entry)(*self.args, **self.kwargs)
            if not inspect.isawaitable(result):
                raise TypeError(
                    f"{self.entry} returned {type(result).__name__}, not an awaitable: a task is a coroutine "
                    "function; what blocks is for a worker with an entry"
                )
            if not self.notify:
                self.become_ready("running")
            await result
            self.outcome = SUCCESS, "returned"
        except asyncio.CancelledError:
            if self.state != "stopping" and not self.group.torn:
                self.outcome = EXIT_CODE, "CancelledError: the task cancelled itself"
        except SystemExit as error:
            code = error.code
            if code is None or code == 0:
                self.outcome = SUCCESS, "SystemExit: 0"
            else:
                self.outcome = EXIT_CODE, f"SystemExit: {code}"
        except KeyboardInterrupt:
            self.outcome = SUCCESS, "KeyboardInterrupt"
        except BaseException as error:
            self.outcome = EXIT_CODE, cause(error)
            show(self.name, error)

    def become_ready(self, why):
        """Takes ready(), which may come late."""
        if self.state != "starting":
            return
        self.wake(0, None)
        self.ready_at = time.monotonic_ns()
        if self.record.failures:
            why += f", after {self.record.failures} failure" + "s" * (self.record.failures > 1)
        self.move("ready", why)

    def too_late(self):
        self.slow = f"did not call prefork.ready() within {span(self.timeout)} (timeout_start_sec)"
        self.cancel(self.slow)

    def cancel(self, why):
        """Ends it, or its wait for the next start."""
        self.wake(0, None)
        if self.handle:
            if self.state != "stopping":
                self.move("stopping", why)
            self.wake(LATE, self.name_late)
            self.handle.cancel()
        elif self.state == "waiting":
            self.move("exited", why)

    def name_late(self):
        """Says who swallows its cancellation, and where: later it is killed with the process."""
        if not self.handle:
            return
        self.wake(LATE, self.name_late)
        self.group.blame("LATE", self.name, "goes on after its cancellation", waiting(self.handle))

    def ended(self, handle):
        """Decides what follows, as the master does of a slot."""
        self.handle = None
        self.wake(0, None)
        now = time.monotonic_ns()
        result, what = self.outcome
        if self.slow:
            result, what = TIMEOUT, self.slow
        self.result = result
        ready_for = None if self.ready_at is None else now - self.ready_at
        if ready_for is not None:
            what += f" after {span(ready_for)}"
        failure = "" if result == SUCCESS else f"{result}: "
        self.text = ""
        if self.group.ending or self.held:
            self.move("exited", f"{failure}{what}; {self.held}" if self.held else failure + what)
            return
        if self.again:
            self.wait(self.record.sooner(now), f"{what}; {self.again}")
            return
        delay = self.record.after(now, result, ready_for, jitter)
        rule = f'restart = "{self.record.restart}"'
        if delay is not None:
            row = f"; {ordinal(self.record.failures)} failure in a row" if self.record.failures else ""
            self.wait(delay, failure + what + row)  # the master tells when
        elif result == SUCCESS:
            self.move("exited", f"{what}; finished ({rule})")
        else:
            self.give_up(f"{failure}{what}; will not be restarted ({rule})")

    def give_up(self, why):
        self.move("failed", why)
        if self.fatal:
            self.group.escalate(self)

    def wait(self, delay, why):
        self.due = time.monotonic_ns() + delay
        self.wake(delay / 1e9, self.start)
        self.move("waiting", why)

    def obey(self, verb, why):
        """Does what an operator wants."""
        if verb == "restart":
            self.record.forget()
        if verb == "stop":
            self.held, self.again = why, ""
            self.cancel(why)
            if self.state == "failed":
                self.move("exited", why)
        elif self.state in ("waiting", "exited", "failed"):
            self.held, self.record.starts = "", []
            self.wait(self.record.sooner(time.monotonic_ns()), why)
        elif verb == "restart" or self.state == "stopping":
            self.held, self.again = "", why
            self.cancel(why)

    # What module prefork does in a task.

    def ready(self):
        return self.group.call(self.become_ready, "it says so")

    def status(self, text):
        return self.group.call(self.set_text, text)

    def set_text(self, text):
        if text != self.text:
            self.text = text
            self.tell()
