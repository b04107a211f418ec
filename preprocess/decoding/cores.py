"""How many processor cores there are for us."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts control groups, whose quota is what a container may use of the processor."""
_OWN_CGROUP = Path("/proc/self/cgroup")
"""Where Linux names the control groups of this process."""


def available_cores() -> int:
    """CPU cores this process may use at once: its affinity, or less where a control group's quota allows less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, math.ceil(min(cores, _quota())))


@cache
def _quota() -> float:
    """Cores that the control groups of this process allow; infinite where none limits them."""
    return quota(_OWN_CGROUP, _CGROUPS)


def quota(own: Path, root: Path) -> float:
    """The least quota, in cores, of the control groups that the file `own` names below `root`, and of their parents.

    Both versions of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/cpu.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        place = top / path.lstrip("/")
        # In a container the path may be the host's: then only the top is there, and is the container's own group.
        for folder in (place, *place.parents):
            least = min(least, _quota_of(folder))
            if folder == top:
                break
    return least


def _quota_of(folder: Path) -> float:
    try:
        if (file := folder / "cpu.max").exists():
            most, period = file.read_text().split()
        else:
            most = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return math.inf if most.strip() in ("max", "-1") else int(most) / int(period)
    except (OSError, ValueError):
        return math.inf
