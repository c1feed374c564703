# SPDX-License-Identifier: AGPL-3.0-or-later
import concurrent.futures
import os


def square(n):
    return n * n


def main():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(list(pool.map(square, range(5))))
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        print(list(pool.map(square, range(5))))
        try:
            pool.submit(os._exit, 1).result()
        except concurrent.futures.process.BrokenProcessPool:
            print("broken")
    late = concurrent.futures.ThreadPoolExecutor(1)
    late.submit(print, "finished at the end")


if __name__ == "__main__":
    main()
