# SPDX-License-Identifier: 0BSD
"""A zygote of few lines that keeps every duty but those that its argument names."""

import ctypes
import importlib
import json
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback

BROKEN = sys.argv[1].split(",") if len(sys.argv) > 1 else []
ENTRIES = {}


def keeps(duty):
    return duty not in BROKEN


def send(sock, *parts):
    sock.send(b"\0".join(str(part).encode() for part in parts), socket.MSG_NOSIGNAL)


def receive(sock, size):
    data, fds, _, _ = socket.recv_fds(sock, size, 253)
    return data, list(fds)


def parse(data):
    fields = {}
    for part in data.decode().split("\0"):
        key, _, value = part.partition("=")
        if key.startswith("a_field") and not keeps("fields"):
            raise ValueError(key)
        fields.setdefault(key, []).append(value)
    return fields


def resolve(name):
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def sockets():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass  # that of the folder itself
    return {target for target in found if target.startswith("socket:")}


class Failure(Exception):
    pass


def main():
    number = int(os.environ["PREFORK_ZYGOTE_FD"])
    protocol = os.environ["PREFORK_ZYGOTE_PROTOCOL"]
    if keeps("variables"):
        del os.environ["PREFORK_ZYGOTE_FD"], os.environ["PREFORK_ZYGOTE_PROTOCOL"]
    for fd in range(3, number + 1):
        os.set_inheritable(fd, False)
    command = socket.socket(fileno=number)
    master = int.from_bytes(command.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    before = sockets()
    try:
        if protocol != "1" and keeps("version"):
            raise ValueError("another protocol")
        request = parse(receive(command, 1 << 18)[0])
        sys.path[:0] = request.get("path", [])
        for name in request.get("preload", []):
            if keeps("progress"):
                send(command, "progress", "importing " + name)
            importlib.import_module(name)
        for name in request.get("setup", []):
            resolve(name)()
        if request["threads"] == ["refuse"] and keeps("threads") and threading.active_count() > 1:
            raise ValueError("threads")
        if request["fds"] == ["refuse"] and keeps("fds"):
            if sockets() - before:
                raise ValueError("a socket was left open")
    except Exception as error:
        if keeps("broken"):
            send(command, "broken", error)
        os._exit(1 if keeps("broken-status") else 3)
    send(command, *(["loaded", protocol] if keeps("loaded") else ["loaded"]), *[] if keeps("many") else ["4"])
    serve(command, number, master, request)


def serve(command, number, master, request):
    zygote = os.getpid()
    while True:
        data, fds = receive(command, 4096)
        if not data:
            os._exit(0 if keeps("end") else 5)
        name, _, ident = data.decode().partition("\0")
        if "\0" in ident:  # it said that it takes many, and takes one
            ident = ident.partition("\0")[0]
            while len(fds) > 1:
                os.close(fds.pop())
        if name != "fork":
            if not keeps("unknown"):
                os.kill(zygote, signal.SIGKILL)
            continue
        if not keeps("id"):
            ident = str(int(ident) & 0xFFFFFFFF)
        if not fds and keeps("descriptor"):
            send(command, "refused", ident, 9, "no gate")
            continue
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            middle = os.getpid()
            if keeps("parent"):
                if len(fds) > 1 and keeps("group"):
                    try:
                        os.write(fds[1], b"0")
                    except OSError as error:
                        os._exit(error.errno)
                if os.fork() > 0:
                    os._exit(0)
            return worker(command, fds, ident, number, middle, zygote, master, reader, writer, request)
        if keeps("parent") and keeps("reap"):
            status = os.waitpid(child, 0)[1]
            if status:
                send(command, "refused", ident, os.WEXITSTATUS(status), "cgroup: " + os.strerror(os.WEXITSTATUS(status)))
        for fd in [*fds, writer] + [reader] * keeps("leak"):
            os.close(fd)


def worker(command, fds, ident, number, middle, zygote, master, reader, writer, request):
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    for _ in range(1000):
        if os.getppid() == middle and keeps("parent"):
            time.sleep(0.001)
    gate = socket.socket(fileno=os.dup(fds[0]))
    if len(fds) > 1 and not keeps("group"):
        os.write(fds[1], b"0")
    for fd in fds:
        os.close(fd)
    if keeps("command"):
        command.close()
    if keeps("session"):
        os.setsid()
    send(gate, "hello", ident)
    data, fds = receive(gate, 4096)
    if not data:
        os._exit(0 if keeps("gate-end") else 3)
    if not keeps("outlive"):
        try:
            os.kill(zygote, 0)
            assert open(f"/proc/{zygote}/stat").read().split()[2] != "Z"
        except (OSError, AssertionError):
            os._exit(9)
    try:
        orders = parse(data)
        if "memfd" in orders and keeps("memfd"):
            orders = parse(os.pread(fds[0], 1 << 20, 0))
            os.close(fds.pop(0))
        become(orders, fds, number, master)
        entry, args = resolve(orders["entry"][0]), json.loads(orders.get("args", ["[]"])[0])
    except Exception as error:
        status = error.args[0] if isinstance(error, Failure) and keeps("status") else 1
        send(gate, "failed", status, error)
        os._exit(status if keeps("failed-exit") else 0)
    if keeps("gate-close"):
        gate.close()
    else:
        os.set_inheritable(gate.detach(), False)
    run(entry, args)


def run(entry, args):
    status = 0
    try:
        entry(*args)
    except SystemExit as error:
        status = int(error.code or 0)
    except Exception:
        status = 1
        if keeps("traceback"):
            traceback.print_exc()
    if keeps("flush"):
        sys.stdout.flush()
    os._exit(status if keeps("exit") else 0)


def become(orders, fds, number, master):
    outputs = [number for number, key in ((1, "stdout"), (2, "stderr")) if key in orders]
    for to, fd in zip(outputs if keeps("output") else outputs[::-1], fds):
        os.dup2(fd, to)
    for fd in fds[: len(outputs)]:
        os.close(fd)
    fds = fds[len(outputs) :]
    names = orders.get("listen", []) + orders.get("stored", [])
    if len(fds) != len(names):
        raise Failure(202, "descriptors")
    for to, fd in enumerate(fds, 3):
        os.dup2(fd, to, inheritable=keeps("inheritable"))
        os.close(fd)
    if keeps("reserve"):
        os.closerange(3 + len(fds), number)
    if keeps("stale"):
        for name in ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)
    for text in orders.get("env", []):
        name, _, value = text.partition("=")
        os.environ[name] = value
    if names:
        os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
    if "watchdog" in orders:
        os.environ.update(WATCHDOG_USEC=orders["watchdog"][0], WATCHDOG_PID=str(os.getpid()))
    for score in orders.get("oom_score_adjust", []):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(score)
    for text in orders.get("limit", []) if keeps("limit") else []:
        limit, *values = (int(value) for value in text.split(":"))
        resource.setrlimit(limit, tuple(values))
    if "nice" in orders and keeps("nice"):
        os.setpriority(os.PRIO_PROCESS, 0, int(orders["nice"][0]))
    if "umask" in orders and keeps("umask"):
        os.umask(int(orders["umask"][0], 8))
    prctl = ctypes.CDLL(None).prctl
    if "user" in orders and keeps("user"):
        os.setgroups([int(group) for group in orders.get("extra_group", [])])
        os.setresgid(*[int(orders["group"][0])] * 3)
        os.setresuid(*[int(orders["user"][0])] * 3)
        prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
    if "dir" in orders and keeps("dir"):
        try:
            os.chdir(orders["dir"][0])
        except OSError as error:
            raise Failure(200, error) from None
    if "no_new_privileges" in orders and keeps("no-new-privileges"):
        prctl(38, 1, 0, 0, 0)
    if "death_signal" in orders and keeps("death-signal"):
        prctl(1, 9, 0, 0, 0)
        if os.getppid() != int(orders["master"][0]):
            os._exit(0)
    if not keeps("random"):
        random.seed(1)
    if not keeps("mask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    if not keeps("term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


main()
