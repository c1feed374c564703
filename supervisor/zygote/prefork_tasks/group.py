# SPDX-License-Identifier: 0BSD
"""All tasks of a process: what they share is the loop, the lifespan and the end."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time

from .task import LATE, Task, current, resolve
from .words import assignments, cause, prefork, running, say, show, waiting

MOST_ORDERS = 16  # that are read in a turn of the loop


class Group:
    """The tasks of a worker, from their start to the exit status of the process."""

    def __init__(self, tables, lifespan, orders):
        self.lifespan = lifespan
        self.orders = socket.socket(fileno=orders)  # what operators want of tasks
        self.tasks = [Task(self, table) for table in tables]
        self.by_name = {task.name: task for task in self.tasks}
        self.loop: asyncio.AbstractEventLoop  # from main on
        self.root: asyncio.Task | None = None  # the asyncio task of the group itself
        self.begun = False  # the tasks have been started
        self.ending = False  # none of them starts again
        self.asked = False  # somebody else wanted the end
        self.torn = False  # the loop has ended under its tasks
        self.status = 0  # of the exit
        self.is_ready = False
        self.over = asyncio.Event()
        self.repeats = False  # what could not be said is said again
        self.said = None  # what the status of the process is about, if something is wrong
        self.watch = Watch(self)

    def run(self):
        """Runs until there is nothing left to run; returns the exit status."""
        prefork._tasks = self  # type: ignore[assignment]
        runner = asyncio.Runner()
        for step in (lambda: runner.run(self.main()), runner.close):
            try:
                step()
            except (KeyboardInterrupt, SystemExit) as error:
                # Of a child of a task: nobody else can have raised it, and asyncio ends the loop.
                self.torn, self.status = True, 1
                say(f"prefork: {cause(error)} in a task's child has ended the loop, and all tasks\n")
                show("prefork", error)
        self.watch.end()
        return self.status

    async def main(self):
        self.loop, self.root = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stop)
        self.loop.add_reader(self.orders, self.read_orders)
        self.watch.beat()
        step = f"lifespan {self.lifespan}"
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self.lifespan:
                    prefork._send_status(f"enters {step}")
                    await stack.enter_async_context(resolve(self.lifespan)())
                    prefork._send_status("")
                self.begun = True
                self.watch.begin()
                self.extend_start()
                for task in self.tasks:
                    task.start()
                try:
                    await self.over.wait()
                finally:
                    await self.finish()
                    if self.lifespan:
                        prefork._send_status(f"leaves {step}")
        except asyncio.CancelledError:
            if not self.asked:
                raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.status = 1
            show("lifespan", error)
            prefork._send_status(f"{step}: {cause(error)}")
        if not self.asked and any(task.state == "failed" for task in self.tasks):
            self.status = 1
        self.loop.call_later(LATE, self.name_children)

    def extend_start(self):
        """Has the process wait for its slowest task: each has a limit of its own."""
        slowest = max((task.timeout for task in self.tasks if task.notify), default=0)
        if slowest:
            prefork.extend_timeout(min(slowest / 1e9 + 10, 1e9))

    async def finish(self):
        """Waits for all that run, whatever the reason of the end."""
        self.end_all("the process ends")
        while handles := [task.handle for task in self.tasks if task.handle]:
            await asyncio.wait(handles)

    def stop(self):
        """Takes SIGTERM and SIGINT."""
        if self.asked:
            return
        self.asked = True
        prefork.stopping()
        if self.begun:
            self.end_all("the process is to stop")
        elif self.root:
            self.root.cancel()

    def end_all(self, why):
        if not self.ending:
            self.ending = True
            for task in self.tasks:
                task.cancel(why)
        self.look_for_end()

    def escalate(self, task):
        """Ends the process for a task that has failed (failure_action)."""
        if not self.ending:
            self.status = 1
            self.end_all(f'{task.name} has failed (failure_action = "exit")')

    def moved(self):
        """Looks at the whole when a task has another state."""
        if not self.is_ready and all(settled(task) for task in self.tasks):
            self.is_ready = True
            prefork._send_ready()
        self.look_for_end()

    def look_for_end(self):
        if self.begun and all(t.state in ("exited", "failed") and (self.ending or not t.held) for t in self.tasks):
            self.ending = True
            self.over.set()

    def read_orders(self):
        """Reads what an operator wants: a verb, a task, and who it is."""
        for _ in range(MOST_ORDERS):
            try:
                order = self.orders.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                order = b""
            if not order:  # the master has gone
                self.loop.remove_reader(self.orders)
                return
            verb, name, why = (order.decode("utf-8", "replace").split("\0") + ["", ""])[:3]
            task = self.by_name.get(name)
            if task and self.begun and not self.ending:
                task.obey(verb, why)

    def blame(self, fault, name, what, place):
        """Says which task is at fault, and where."""
        prefork._send_status(f"{name} {what} at {place}")
        if (fault, name, str(place)) != self.said:
            self.said = fault, name, str(place)
            assignments(TASK=name, FAULT=fault, TASK_REASON=f"{what} at {place}", **place.fields())

    def say_again(self):
        """Says later what the master could not be told: its socket was full."""
        if not self.repeats:
            self.repeats = True
            self.loop.call_later(1, self.repeat)

    def repeat(self):
        self.repeats = False
        for task in self.tasks:
            if task.unsaid:
                task.tell()

    def name_children(self):
        """Says what else keeps the loop from ending: tasks that tasks have made."""
        for child in asyncio.all_tasks(self.loop):
            if child is not self.root and not child.done():
                self.blame("LATE", f"child task {child.get_name()}", "goes on after its cancellation", waiting(child))
        self.loop.call_later(LATE, self.name_children)

    # What module prefork asks.

    def current(self):
        """Returns the task that this code belongs to, in its children too; else None."""
        task = current.get()
        return task if task and os.getpid() == self.watch.pid else None

    def call(self, call, *args):
        """Calls in the thread of the loop: any thread may say something of its task."""
        if threading.get_ident() == self.watch.thread:
            call(*args)
        else:
            self.loop.call_soon_threadsafe(call, *args)
        return True


def settled(task):
    return task.state in ("ready", "exited", "failed") or task.record.failures > 0 or bool(task.held)


class Watch:
    """The heartbeat of the loop, and a thread that says who holds it up. There is neither
    without a watchdog. Before the tasks there is no thread: a lifespan may fork."""

    def __init__(self, group):
        self.group = group
        self.pid, self.thread = os.getpid(), threading.get_ident()
        self.every = (prefork.watchdog_sec or 0) / 4
        self.beaten = 0.0
        self.ended = False

    def begin(self):
        if self.every:
            threading.Thread(target=self.look, name="prefork-watch", daemon=True).start()

    def end(self):
        self.ended = True

    def beat(self):
        if not self.every:
            return
        now = time.monotonic()
        lag = max(0.0, now - self.beaten - self.every) if self.beaten else 0.0
        self.beaten = now
        if self.group.said and not self.group.ending:
            self.group.said = None
            prefork._send_status("")
        prefork.notify(f"WATCHDOG=1\nX_PREFORK_LOOP_LAG_USEC={lag * 1e6:.0f}")
        self.group.loop.call_later(self.every, self.beat)

    def look(self):
        """Is the thread. What it finds is said before the watchdog ends the process."""
        while not self.ended:
            slept = time.monotonic()
            time.sleep(self.every)
            now = time.monotonic()
            held = now - self.beaten
            if held < 2 * self.every or self.ended or now - slept > 1.5 * self.every:
                continue  # it is well, or all of the process has been frozen
            task = asyncio.current_task(self.group.loop)  # None: a callback
            place = running(sys._current_frames().get(self.thread))
            self.group.blame("BLOCKS", self.name_of(task), f"blocks the loop since {held:.1f}s", place)

    def name_of(self, task):
        if task is None:
            return "a callback"
        if task is self.group.root:
            return "lifespan"
        context = getattr(task, "get_context", None)  # from Python 3.12 on
        owner = context and context().get(current)
        return owner.name if owner else task.get_name()


def prepare(tables, lifespan, orders):
    """Returns what runs the tasks of a worker."""
    return Group(tables, lifespan, orders).run
