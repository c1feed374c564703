# SPDX-License-Identifier: AGPL-3.0-or-later
import sys


def main():
    print("before")
    sys.exit("the reason")


if __name__ == "__main__":
    main()
