"""How many cores there are to use: what every backend takes for its number of threads unless it is told one."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may use, which a container or taskset can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
