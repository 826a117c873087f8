"""How many processors this process has, and how many of them decode."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Processors this process may use: what Slurm gave the task, else the affinity mask; never the whole node's."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none


def decoders_for(cores: int) -> int:
    """How many runs of a video to decode at once: a quarter of the cores, since a decoder outruns most models."""
    return max(1, min(4, cores // 4))
