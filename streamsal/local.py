"""All tasks of a run on this machine: in this process, or one process per GPU on one plan."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .cores import decoders_for, usable_cores
from .errors import StreamsalError
from .heartbeat import HEARTBEAT_SECONDS
from .progress import Progress
from .signals import Stop, stopped
from .status import run_status
from .task import Worker


def cuda_devices() -> list[str]:
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def infer_all(
    run: Path, devices: Sequence[str], *, decode_workers: int | None, progress: Progress, stop: Stop = lambda: ""
) -> None:
    """Computes every task that is not done. Raises the first task's error, Stopped when `stop` names a reason."""
    if len(devices) > 1:
        _one_process_each(run, devices, decode_workers, progress, stop)
        return
    worker = Worker(run, device=devices[0], decode_workers=decode_workers, progress=progress, stop=stop)
    for task in range(len(worker.plan.shards)):
        worker.infer(task)


def _one_process_each(
    run: Path, devices: Sequence[str], decode_workers: int | None, progress: Progress, stop: Stop
) -> None:
    """Processes that each take the next free task; a GPU that is slower takes fewer."""
    decoders = decode_workers or decoders_for(usable_cores() // len(devices))
    command = [sys.executable, "-m", "streamsal", "infer", str(run), "--task-id", "any", "--quiet"]
    command += ["--decode-workers", str(decoders), "--device"]
    workers = [subprocess.Popen([*command, device]) for device in devices]
    looked = time.monotonic()
    try:
        with progress.track(f"{len(devices)} devices", (found := run_status(run)).rows, found.done):
            while any(worker.poll() is None for worker in workers):
                if reason := stop():
                    raise stopped(reason, f"{run} has {run_status(run).done} results safe")
                if time.monotonic() - looked >= HEARTBEAT_SECONDS:
                    progress.update(run_status(run).done)
                    looked = time.monotonic()
                time.sleep(0.2)
    finally:
        for worker in workers:
            worker.terminate()
        codes = [worker.wait() for worker in workers]
    bad = next((code for code in codes if code), 0)
    if bad:
        error = StreamsalError(f"a task of {run} failed: see `streamsal status {run}` and {run}/logs")
        error.exit_code = bad if bad > 0 else 70
        raise error
