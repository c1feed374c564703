# SPDX-License-Identifier: AGPL-3.0-or-later
import atexit
import threading
import time

local = threading.local()
lock = threading.Lock()
counts = {"n": 0}


def add():
    for _ in range(1000):
        with lock:
            counts["n"] += 1


def late():
    threading.main_thread().join()  # it has ended, as far as threads can tell
    print("a thread that is joined at the end", flush=True)


def main():
    atexit.register(print, "exit handler")
    threads = [threading.Thread(target=add, name=f"t{i}") for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(counts["n"], threading.current_thread().name, threading.active_count(), threading.current_thread() is threading.main_thread())
    print(threading.get_native_id() == __import__("os").getpid())
    timer = threading.Timer(0.01, print, ["timer"])
    timer.start()
    timer.join()
    barrier = threading.Barrier(2)
    t = threading.Thread(target=barrier.wait)
    t.start()
    barrier.wait()
    t.join()
    local.x = 1
    threading.Thread(target=lambda: print(hasattr(local, "x"))).start()
    threading.Thread(target=late).start()
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


if __name__ == "__main__":
    main()
