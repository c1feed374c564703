# SPDX-License-Identifier: AGPL-3.0-or-later
"""What gunicorn loads. With --preload the floor is loaded once."""

import floor  # noqa: F401
from app import wsgi as application  # noqa: F401
