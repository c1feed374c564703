# SPDX-License-Identifier: AGPL-3.0-or-later
import calendar
import contextvars
import ctypes
import ctypes.util
import datetime
import decimal
import gettext
import locale
import os
import queue
import sched
import time
import warnings
import zoneinfo

variable = contextvars.ContextVar("variable", default="default")


def main():
    print(locale.setlocale(locale.LC_ALL, ""), locale.getlocale(), locale.getpreferredencoding(), locale.localeconv()["decimal_point"])
    print(calendar.day_name[0], gettext.gettext("x"), f"{decimal.Decimal('1234.5'):n}")
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    print(time.tzname, time.strftime("%H:%M %Z", time.localtime(0)))
    try:
        print(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).isoformat())
    except zoneinfo.ZoneInfoNotFoundError as error:
        print(error)
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.getpid() == os.getpid(), libc.close(-1), ctypes.get_errno(), libc.abs(-5))
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(lambda a, b: a[0] - b[0])
    numbers = (ctypes.c_int * 4)(3, 1, 4, 1)
    libc.qsort(numbers, 4, 4, compare)
    libc.puts(b"by the stdio of C")
    print(list(numbers))
    contextvars.copy_context().run(variable.set, "other")
    print(variable.get())
    todo, found = sched.scheduler(), queue.SimpleQueue()
    todo.enter(0.001, 1, found.put, ("scheduled",))
    todo.run()
    print(found.get())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # what is shown by default depends on __main__
        warnings.warn("deprecated", DeprecationWarning)
    print(len(caught), 0.1 + 0.2, os.getcwd() == os.environ["PWD_OF_TEST"], oct(os.umask(0)), os.nice(0))


if __name__ == "__main__":
    main()
