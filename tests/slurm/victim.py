"""A task that tests interrupt: when to do it, and the proof that it went on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import PATIENCE_SECONDS
from undisturbed import N_FRAMES

N_TASKS = 4
VICTIM = 3  # the last task of the array: Slurm gives it the array's own number, which is the easiest one to get wrong


def until_blocks_are_safe(folder: Path, task: int = VICTIM, blocks: int = 2) -> None:
    """So many blocks more than there are now, and not the last one."""
    shard = folder / "film.streamsal" / "shards" / f"{task:04d}.h5"
    sizes, give_up = set(), time.monotonic() + PATIENCE_SECONDS
    while len(sizes) <= blocks + 1:
        sizes.add(shard.stat().st_size if shard.exists() else 0)
        assert time.monotonic() < give_up
        time.sleep(0.02)


def when_a_block_is_safe(folder: Path, then: Mapping[int, Callable[[], object]]) -> None:
    """Does what is given for each task as soon as it has something to lose, without waiting for the others."""

    def do(task: int) -> None:
        until_blocks_are_safe(folder, task, blocks=1)
        then[task]()

    with ThreadPoolExecutor(len(then)) as pool:
        for _ in pool.map(do, then):
            pass


def resumed(folder: Path, task: int) -> list[int]:
    """How many results a task found safe each time it went on."""
    lines = (folder / "film.streamsal" / "logs" / f"{task:04d}.jsonl").read_text().splitlines()
    return [event["done"] for event in map(json.loads, lines) if event["event"] == "resume"]


def assert_resumed(folder: Path, task: int = VICTIM, *, times: int = 1, rows: int = N_FRAMES // N_TASKS) -> None:
    """It went on in the middle of its work, each time further on."""
    safe = resumed(folder, task)
    assert len(safe) == times and safe[0] > 0 and sorted(set(safe)) == safe and safe[-1] < rows
