# SPDX-License-Identifier: 0BSD
"""The entry of prefork check-zygote, for a zygote of Python."""

import os
import random
import signal
import socket
import sys
import threading

left = []


def entry(word):
    if word == "state":
        print("random", random.random())
        for name, value in os.environ.items():
            print(f"{name}={value}")
        print("ready", flush=True)
        while True:
            signal.pause()
    if word == "exit":
        sys.stdout.reconfigure(write_through=False)  # also with PYTHONUNBUFFERED
        sys.stdout.write("bye")
        sys.exit(7)
    if word == "raise":
        raise ValueError("as it was told")


def thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def socket_left_open():
    left.append(socket.socket())
