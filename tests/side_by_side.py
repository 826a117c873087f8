"""Two processes that know of each other as torchrun would have told them, without the seconds that torchrun takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from program import SCHEDULERS


def start_two(*arguments: str | Path, n: int = 2) -> list[subprocess.Popen[str]]:
    """`python ARGUMENTS` as process 0 ... n - 1 of one world."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SCHEDULERS)}
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**clean, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def end_all(processes: Sequence[subprocess.Popen[str]], code: int = 0) -> list[tuple[str, str]]:
    """(stdout, stderr) of each; all must leave with `code`."""
    said = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [code] * len(processes), said
    return said
