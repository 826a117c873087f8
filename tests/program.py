"""The program as its users run it: `python -m streamsal ...` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

TELLTALE = str(Path(__file__).with_name("telltale.py"))
TELLCLIP = str(Path(__file__).with_name("tellclip.py"))
SPEC_ONLY = str(Path(__file__).with_name("spec_only.py"))
SCHEDULERS = ("SLURM_", "JOB_COMPLETION_INDEX", "STREAMSAL_")


def start(*arguments: str | Path, env: Mapping[str, str] | None = None, **options: object) -> subprocess.Popen[str]:
    """Starts a command; `env` is added to an environment that knows no scheduler."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SCHEDULERS)}
    return subprocess.Popen(
        [sys.executable, "-m", "streamsal", *map(str, arguments)],
        env={**clean, **(env or {})},
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def run(*arguments: str | Path, code: int = 0, **options: object) -> tuple[str, str]:
    """Runs a command to its end and returns (stdout, stderr). It must leave with `code` and without a traceback."""
    return end(start(*arguments, **options), code)


def end(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, f"left with {process.returncode}, not {code}: {err}"
    assert "Traceback" not in err
    return out, err


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; fails when the process ends before."""
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"left with {process.returncode} too early: {process.communicate()[1]}")
        time.sleep(0.01)
