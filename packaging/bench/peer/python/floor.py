# SPDX-License-Identifier: AGPL-3.0-or-later
"""The real floor: what a usual Python service imports, about 100 MB."""

import aiohttp  # noqa: F401
import cryptography.x509  # noqa: F401
import django.db  # noqa: F401
import numpy  # noqa: F401
import requests  # noqa: F401
import sqlalchemy.orm  # noqa: F401
