# SPDX-License-Identifier: AGPL-3.0-or-later
"""What gunicorn and uwsgi load. With --preload the floor is loaded once."""

import importlib
import os

for name in os.environ["BENCH_MODULES"].split():
    importlib.import_module(name)

from app import wsgi as application  # noqa: E402, F401
