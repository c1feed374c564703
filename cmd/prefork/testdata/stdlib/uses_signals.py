# SPDX-License-Identifier: AGPL-3.0-or-later
import faulthandler
import os
import re
import signal
import sys
import tempfile
import threading
import time


def main():
    usual = [s for s in signal.valid_signals() if s < signal.SIGRTMIN]  # prefork has one of the others
    print({s: str(signal.getsignal(s)) for s in usual if signal.getsignal(s) != signal.SIG_DFL})
    print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    print(seen)
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    print(signal.pause(), seen)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    print(signal.set_wakeup_fd(theirs))
    threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    print(os.read(ours, 1), signal.set_wakeup_fd(-1) == theirs)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    except KeyboardInterrupt:
        print("interrupted")
    with tempfile.TemporaryFile() as file:
        faulthandler.register(signal.SIGUSR2, file, all_threads=False)
        os.kill(os.getpid(), signal.SIGUSR2)
        faulthandler.unregister(signal.SIGUSR2)
        faulthandler.dump_traceback(file)
        file.seek(0)
        print(len(re.findall(rb"uses_signals.py\", line \d+ in main", file.read())), faulthandler.is_enabled())
    try:
        os.write(os.pipe()[1], b"")
        r, w = os.pipe()
        os.close(r)
        os.write(w, b"x")
    except BrokenPipeError as error:
        print(error)
    faulthandler.enable(sys.stderr)
    signal.raise_signal(signal.SIGSEGV)


if __name__ == "__main__":
    main()
