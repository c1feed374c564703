# SPDX-License-Identifier: AGPL-3.0-or-later
import threading


def main():
    def work():
        raise ValueError("in a thread")

    t = threading.Thread(target=work, name="worker")
    t.start()
    t.join()
    raise SystemExit(3)


if __name__ == "__main__":
    main()
