"""The task that tests interrupt: when to do it, and the proof that it went on where it was."""

from __future__ import annotations

import json
import time
from pathlib import Path

from cluster import PATIENCE_SECONDS
from undisturbed import N_FRAMES

VICTIM = 3  # the last task of the array: Slurm gives it the array's own number, which is the easiest one to get wrong


def until_blocks_are_safe(folder: Path) -> None:
    """Two blocks more than there are now, and not the last one."""
    shard = folder / "film.streamsal" / "shards" / f"{VICTIM:04d}.h5"
    sizes, give_up = set(), time.monotonic() + PATIENCE_SECONDS
    while len(sizes) <= 3:
        sizes.add(shard.stat().st_size if shard.exists() else 0)
        assert time.monotonic() < give_up
        time.sleep(0.02)


def resumed(folder: Path) -> list[int]:
    """How many results the victim found safe each time it went on."""
    lines = (folder / "film.streamsal" / "logs" / f"{VICTIM:04d}.jsonl").read_text().splitlines()
    return [event["done"] for event in map(json.loads, lines) if event["event"] == "resume"]


def assert_resumed(folder: Path, times: int = 1) -> None:
    """It went on in the middle of its work, each time further on."""
    safe = resumed(folder)
    assert len(safe) == times and safe[0] > 0 and sorted(set(safe)) == safe and safe[-1] < N_FRAMES // 4
