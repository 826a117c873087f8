"""What a device does and what it could do: times, memory, arithmetic, traffic, and its ceilings of the latter two.

A function that puts work on a device flows in, numbers flow out. Knows no model and no video.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 3, 100  # at least, at most
SLOWEST = 5  # operations that are named
MATMUL_SIZE = {"cuda": 8192, "mps": 4096, "cpu": 1024}
COPY_BYTES = {"cuda": 1 << 30, "mps": 256 << 20, "cpu": 256 << 20}  # much more than any cache holds


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Marks:
    """Moments in a device's work; each ends the part that it is named after."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._moments: list[tuple[str, Any]] = []
        wait(device)
        self("start")

    def __call__(self, part: str) -> None:
        if self.device.type == "cuda":
            moment = torch.cuda.Event(enable_timing=True)
            moment.record(torch.cuda.current_stream(self.device))
        else:
            wait(self.device)
            moment = time.perf_counter()
        self._moments.append((part, moment))

    def seconds(self) -> dict[str, float]:
        """Of each part, all its turns together."""
        wait(self.device)
        spent: dict[str, float] = {}
        for (_, before), (part, after) in zip(self._moments, self._moments[1:], strict=False):
            took = before.elapsed_time(after) / 1000 if self.device.type == "cuda" else after - before
            spent[part] = spent.get(part, 0.0) + took
        return spent


def median_seconds(device: torch.device, work: Callable[[Marks], None], seconds: float) -> dict[str, float]:
    """Median over the repetitions that fit into `seconds`, three at least, of each part of `work`. No warm-up."""
    least, most = REPEATS
    samples: list[dict[str, float]] = []
    began = time.perf_counter()
    while len(samples) < least or (len(samples) < most and time.perf_counter() - began < seconds):
        marks = Marks(device)
        work(marks)
        samples.append(marks.seconds())
    return {part: statistics.median(sample[part] for sample in samples) for part in samples[0]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Bytes at the highest, and how much of it came on top of what was there before."""

    highest: int
    added: int


def peak_memory(device: torch.device, work: Callable[[], object]) -> Peak | None:
    """Of the device while it does `work`; the process's resident set on a CPU. None where it cannot be had."""
    if device.type == "cuda":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        wait(device)
        highest = torch.cuda.max_memory_allocated(device)
    elif device.type == "cpu" and forget_peak():
        before = resident_bytes("VmRSS")
        work()
        highest = resident_bytes("VmHWM")
    else:
        return None
    return Peak(highest=highest, added=highest - before)


def forget_peak() -> bool:
    """Linux: give unused memory back and let the largest resident set begin anew; False where that cannot be done."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries keep nothing back
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_bytes(which: str) -> int:
    """`VmRSS` now, `VmHWM` at the highest. Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Floating-point operations (a multiply-add is two) of products and convolutions; bytes that operations read and
    write, each operation by itself, as they are launched."""

    flops: int
    bytes: int


def count(work: Callable[[], object]) -> Work:
    """What `work` does once. What is replayed from a recording is not seen."""
    unknown_to_torch = {torch.ops.aten.mkldnn_convolution: _convolution_flops}
    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch) as flops, Traffic() as traffic:
        work()
    return Work(flops=flops.get_total_flops(), bytes=traffic.bytes)


def _convolution_flops(x: Any, weight: Any, *rest: Any, out_shape: Any, **options: Any) -> int:
    """From shapes: every output is a sum over one kernel."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


class Traffic(TorchDispatchMode):
    """Adds up the sizes of what every operation reads and writes; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = tree_leaves((args, kwargs, result))
            self.bytes += sum(_bytes(x) for x in touched if isinstance(x, Tensor))
        return result


def _bytes(x: Tensor) -> int:
    """What is expanded is read once."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`seconds` that the device's kernels ran (on a CPU: operations), and which of them took the largest shares."""

    seconds: float
    slowest: dict[str, float]


def profiled(device: torch.device, work: Callable[[], object]) -> Profile | None:
    """Of `work` done once; None where kernels cannot be seen."""
    if device.type == "mps":
        return None
    # A CUDA build of torch (2.11) on a machine without a driver would complain on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    on_cuda = device.type == "cuda"
    found = profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU], acc_events=True)
    wait(device)
    with found:
        work()
        wait(device)
    spent: dict[str, float] = {}
    for row in found.key_averages():
        took = row.self_device_time_total if on_cuda else row.self_cpu_time_total
        spent[row.key] = spent.get(row.key, 0.0) + took / 1e6
    total = sum(spent.values())
    if not total:  # some clusters do not let users profile
        return None
    largest = sorted(spent, key=lambda name: -spent[name])[:SLOWEST]
    return Profile(seconds=total, slowest={name[:80]: round(spent[name] / total, 4) for name in largest})


def matmul_flops(device: torch.device, dtype_name: str, dtype: torch.dtype, seconds: float) -> float:
    """Floating-point operations per second of a large product: what a device reaches, not what its vendor says."""
    n = MATMUL_SIZE[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    products = [lambda: torch.mm(a, b)]
    if device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # mm is MKL's in float32, which on AMD is slower than oneDNN; so the same product as a 1x1 convolution, too.
        pixels, kernels = a.view(1, 1, n, n).permute(0, 3, 1, 2), b.view(1, 1, n, n).permute(3, 2, 0, 1)
        products.append(lambda: torch.mkldnn_convolution(pixels, kernels, None, (0, 0), (1, 1), (1, 1), 1))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = dtype_name == "tf32"
    try:
        return 2 * n**3 / min(_median(device, product, seconds) for product in products)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def copy_bytes(device: torch.device, seconds: float) -> float:
    """Bytes per second, read and written, of a large copy within the device."""
    size = COPY_BYTES[device.type]
    source, into = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / _median(device, lambda: into.copy_(source), seconds)


def upload_bytes(device: torch.device, seconds: float) -> float | None:
    """Bytes per second from pinned memory to a CUDA device; None for others."""
    if device.type != "cuda":
        return None
    source = torch.zeros(256 << 20, dtype=torch.uint8, pin_memory=True)
    into = torch.empty_like(source, device=device)
    return source.numel() / _median(device, lambda: into.copy_(source, non_blocking=True), seconds)


def _median(device: torch.device, work: Callable[[], object], seconds: float) -> float:
    def timed(mark: Marks) -> None:
        work()
        mark("work")

    timed(Marks(device))
    return median_seconds(device, timed, seconds)["work"]


def describe(device: torch.device) -> dict[str, Any]:
    """Name, driver and size of a device; of a CPU the threads that torch uses."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return {
            "type": "cuda",
            "name": found.name,
            "driver": driver_version(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "capability": f"{found.major}.{found.minor}",
            "processors": found.multi_processor_count,
            "memory_gb": round(found.total_memory / 1e9, 1),
        }
    return {
        "type": device.type,
        "name": cpu_name() if device.type == "cpu" else f"{platform.machine()} {device.type}",
        "capability": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else None,
        "threads": torch.get_num_threads(),
    }


def driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split("\n")[0].strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
