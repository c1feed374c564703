# SPDX-License-Identifier: AGPL-3.0-or-later
import sys


def main():
    sys.stdout = open("/dev/full", "w")
    print("lost")


if __name__ == "__main__":
    main()
