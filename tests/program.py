"""The program as its users run it: `python -m streamsal ...` in a process of its own.

`call` runs the same command in this process, without the seconds it takes to import torch: for all that a test does on
the way to what it proves, and for whatever a process has nothing to do with.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

from streamsal.cli import main

TELLTALE = str(Path(__file__).with_name("telltale.py"))
TELLCLIP = str(Path(__file__).with_name("tellclip.py"))
SPEC_ONLY = str(Path(__file__).with_name("spec_only.py"))
SCHEDULERS = ("SLURM_", "JOB_COMPLETION_INDEX", "STREAMSAL_")


def start(*arguments: str | Path, env: Mapping[str, str] | None = None, **options: object) -> subprocess.Popen[str]:
    """Starts a command; `env` is added to an environment that knows no scheduler."""
    return subprocess.Popen(
        [sys.executable, "-m", "streamsal", *map(str, arguments)],
        env=without_scheduler(env),
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def run(*arguments: str | Path, code: int = 0, **options: object) -> tuple[str, str]:
    """Runs a command to its end and returns (stdout, stderr). It must leave with `code` and without a traceback."""
    return end(start(*arguments, **options), code)


def call(
    *arguments: str | Path, code: int = 0, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """As `run`, in this process. What a child writes to a stdout or stderr that it inherits is not in what returns."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, without_scheduler(env), clear=True),
        patch.object(tempfile, "tempdir", None),  # so that TMPDIR is looked at
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            left = main([*map(str, arguments)])
        except SystemExit as refusal:  # of options
            left = refusal.code
    assert left == code, f"left with {left}, not {code}: {err.getvalue()}"
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


def without_scheduler(env: Mapping[str, str] | None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SCHEDULERS)}
    return {**clean, **(env or {})}


def end(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"left with {process.returncode}, not {code}: {err}"
    assert "Traceback" not in err
    return out, err


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; fails when the process ends before."""
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"left with {process.returncode} too early: {process.communicate()[1]}")
        time.sleep(0.01)
