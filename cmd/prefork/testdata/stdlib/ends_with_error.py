# SPDX-License-Identifier: AGPL-3.0-or-later
import atexit


def main():
    atexit.register(print, "exit handler")
    atexit.register(lambda: 1 / 0)
    raise LookupError("not caught") from ValueError("the cause")


if __name__ == "__main__":
    main()
