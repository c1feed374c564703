# SPDX-License-Identifier: AGPL-3.0-or-later
import atexit
import bz2
import csv
import gzip
import io
import logging
import logging.handlers
import lzma
import os
import tempfile
import weakref
import zipfile


class Thing:
    def __init__(self, name, inner=None):
        self.name, self.inner = name, inner

    def __del__(self):
        print("destroyed", self.name, self.inner and self.inner.name)


kept = []


def main():
    where = os.environ["TMPDIR"]
    named, folder = tempfile.NamedTemporaryFile(), tempfile.TemporaryDirectory()
    kept.extend([named, folder, Thing("outer", Thing("inner"))])
    print(os.path.dirname(named.name) == where, os.path.isdir(folder.name), tempfile.gettempdir() == where)
    weakref.finalize(kept[2], print, "finalized at the end")
    for name, opened in ("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open), ("txt", open):
        kept.append(opened(os.path.join(where, "kept." + name), "wt"))
        kept[-1].write("never closed\n")
    kept.append(open(os.path.join(where, "kept.csv"), "w", newline=""))
    csv.writer(kept[-1]).writerow(["never", "closed"])
    kept.append(io.BufferedWriter(io.FileIO(os.path.join(where, "kept.raw"), "w")))
    kept[-1].write(b"never closed\n")
    handler = logging.FileHandler(os.path.join(where, "kept.log"), delay=True)
    memory = logging.handlers.MemoryHandler(100, target=handler)
    logger = logging.getLogger("files")
    logger.setLevel("INFO")
    logger.addHandler(memory)
    logger.info("flushed when logging shuts down")
    kept.append(zipfile.ZipFile(os.path.join(where, "kept.zip"), "w"))
    kept[-1].writestr("name", "never closed")
    cycle = Thing("cycle")
    cycle.inner = cycle
    atexit.register(print, "exit handler")
    print("no newline at the end", end="")


if __name__ == "__main__":
    main()
