# SPDX-License-Identifier: 0BSD
"""The zygote's program: see base.py."""
