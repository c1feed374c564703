# SPDX-License-Identifier: AGPL-3.0-or-later
"""The hook that stands for the first line of an entry."""

import os


def post_worker_init(worker):
    import app

    app.first()
    if os.environ["BENCH_ENTRY"] == "crash":
        os._exit(1)
