# SPDX-License-Identifier: AGPL-3.0-or-later
"""The hooks of uwsgi that stand for the first line of an entry."""

import os

import app
import uwsgi
from wsgi import application  # noqa: F401


def first():
    app.first()
    if os.environ["BENCH_ENTRY"] == "crash":
        os._exit(1)


if "lazy-apps" in uwsgi.opt or b"lazy-apps" in uwsgi.opt:
    first()
else:
    uwsgi.post_fork_hook = first
