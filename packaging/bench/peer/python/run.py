# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worker that is a program: imports everything, and serves on the descriptor that it is told."""

import importlib
import os
import sys

for name in os.environ["BENCH_MODULES"].split():
    importlib.import_module(name)

import app  # noqa: E402

getattr(app, os.environ["BENCH_ENTRY"])(app.inherited(int(sys.argv[1])))
