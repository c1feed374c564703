# SPDX-License-Identifier: 0BSD
"""What runs the tasks of a worker: one program, which a floor loads if it has such a worker."""
