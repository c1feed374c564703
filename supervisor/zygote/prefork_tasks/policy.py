# SPDX-License-Identifier: 0BSD
"""When a task is started again: what the master decides of slots (supervisor/fleet), and
by the same rules, which a test compares. Times are nanoseconds of the monotonic clock."""

FOREVER = (1 << 63) - 1
MIN_START = 100_000_000  # between two starts, whatever the file says
RESET = 30_000_000_000  # restart_reset_sec, if the file says none

SUCCESS, EXIT_CODE, TIMEOUT, START_LIMIT = "success", "exit-code", "timeout", "start-limit-hit"

RESTARTS = {
    "no": lambda result: False,
    "always": lambda result: True,
    "on-success": lambda result: result == SUCCESS,
    "on-failure": lambda result: result != SUCCESS,
    "on-abnormal": lambda result: result not in (SUCCESS, EXIT_CODE),
    "on-watchdog": lambda result: result == "watchdog",
    "on-abort": lambda result: result in ("signal", "core-dump"),
}


class Record:
    """The policy of a task, and what it remembers of its runs."""

    def __init__(self, table):
        self.restart = table["restart"]
        self.first = table["restart_sec"]
        self.most = table["restart_max_delay_sec"]
        self.reset = table["restart_reset_sec"]  # negative: not given
        self.burst = table["start_limit_burst"]
        self.period = table["start_limit_interval_sec"]
        self.failures = 0  # in a row
        self.last_delay = 0  # before the last restart, jitter apart
        self.starts = []  # the last ones, for the start limit
        self.started = 0  # the last one

    def may_start(self, now):
        """Begins a start, unless there were too many of late."""
        if self.burst and self.period:
            if len(self.starts) >= self.burst:
                if now < self.starts[0] + self.period:
                    return False
                del self.starts[0]
            self.starts.append(now)
        self.started = now
        return True

    def after(self, now, result, ready_for, jitter):
        """Returns the delay before the next start, None if there is none.

        ready_for is None for a task that was never ready.
        """
        reset = self.reset if self.reset >= 0 else max(RESET, self.last_delay)
        if ready_for is not None and ready_for >= reset:
            self.failures = self.last_delay = 0
        if not RESTARTS[self.restart](result):
            return None
        if result == SUCCESS:
            self.failures = 0
            return max(0, self.started + max(self.first, MIN_START) - now)
        self.failures += 1
        self.last_delay = backoff(self.first, self.most, self.failures)
        return max(self.last_delay + jitter(self.last_delay), self.started + MIN_START - now)

    def forget(self):
        """Starts over, for an operator."""
        self.failures = self.last_delay = 0
        self.starts = []

    def sooner(self, now):
        """Returns the delay of a start that is asked for."""
        return max(0, self.started + MIN_START - now)


def backoff(first, most, n):
    """Returns the delay before the n-th restart in a row: doubled n-1 times, at most most."""
    delay = first
    while n > 1 and 0 < delay < most:
        delay, n = min(2 * delay, most), n - 1
    return min(delay, most)
