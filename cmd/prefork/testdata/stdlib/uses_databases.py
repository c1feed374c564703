# SPDX-License-Identifier: AGPL-3.0-or-later
import dbm
import os
import shelve
import sqlite3
import threading


def main():
    path = os.path.join(os.environ["TMPDIR"], "data.sqlite")
    db = sqlite3.connect(path, check_same_thread=False)
    print(db.execute("pragma journal_mode=wal").fetchone())
    with db:
        db.execute("create table t (n integer primary key, text)")
        db.executemany("insert into t values (?, ?)", [(i, f"row {i}") for i in range(100)])
    threads = [threading.Thread(target=lambda: sqlite3.connect(path).execute("select count(*) from t").fetchone()) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(db.execute("select count(*), max(n) from t").fetchone())
    try:
        db.execute("insert into t values (1, 'again')")
    except sqlite3.IntegrityError as error:
        print(error)
    with shelve.open(os.path.join(os.environ["TMPDIR"], "shelf")) as shelf:
        shelf["a"] = [1, 2]
    with shelve.open(os.path.join(os.environ["TMPDIR"], "shelf")) as shelf:
        print(dict(shelf), bool(dbm))
    db.close()


if __name__ == "__main__":
    main()
