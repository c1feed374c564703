# SPDX-License-Identifier: AGPL-3.0-or-later
import os
import re
import signal
import subprocess
import sys


def ignored(status):
    return int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16)


def main():
    print(subprocess.run(["cat"], input="through a pipe", text=True, stdout=subprocess.PIPE, check=True).stdout)
    print(subprocess.run(["sh", "-c", "exit 7"]).returncode, subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
    print(subprocess.check_output(["sh", "-c", "ls /proc/self/fd | wc -l; grep -E 'Sig(Blk|Cgt)' /proc/self/status"], text=True))
    # What the machine's own processes ignore (some ignore signal 32) is no module's
    # doing: what a child does not ignore and its parent does is.
    print(hex(ignored(open("/proc/self/status").read()) ^ ignored(subprocess.check_output(["cat", "/proc/self/status"], text=True))))
    try:
        subprocess.run(["sleep", "1000"], timeout=0.05)
    except subprocess.TimeoutExpired as error:
        print(type(error).__name__)
    try:
        subprocess.run(["/nonexistent"])
    except FileNotFoundError as error:
        print(error)
    code = "import sys, os; print(sys.flags.hash_randomization, sys.flags.isolated, sys.stdin is not None, os.getsid(0) == os.getpid())"
    print(subprocess.check_output([sys.executable, "-c", code], text=True, start_new_session=True))
    child = subprocess.Popen(["sleep", "1000"])
    child.send_signal(signal.SIGTERM)
    print(child.wait(), os.WNOHANG)
    try:
        print(os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no children")
    print(os.system("exit 3") >> 8, os.popen("echo popen").read())
    pid = os.fork()
    if pid == 0:
        print("a copy", flush=True)
        os._exit(5)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
