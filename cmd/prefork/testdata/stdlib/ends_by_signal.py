# SPDX-License-Identifier: AGPL-3.0-or-later
import os
import signal


def main():
    print("before", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
