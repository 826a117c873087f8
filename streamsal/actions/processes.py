"""Training processes side by side: what torchrun or train.sbatch set in, who we are and how the others are asked out.

One process alone is the same thing with a world of 1, in which nothing is ever sent. Knows no model and no files.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..devices import resolve_device
from ..errors import DeviceError, Stopped, StreamsalError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among `world` of them, which call the methods below in the same order."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in order of rank, on each of them. Any object that can be pickled."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def any(self, flag: bool) -> bool:
        """Whether the flag of one process at least is set."""
        if self.world == 1:
            return flag
        set_ = torch.tensor(int(flag))
        dist.all_reduce(set_, dist.ReduceOp.MAX)
        return bool(set_)

    def barrier(self) -> None:
        self.any(False)

    def as_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Fills tensors of all processes, on their devices, with those of the first."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def first_does(self, work: Callable[[], T]) -> T:
        """What `work` gives to the first process, which alone does it; its StreamsalError is raised on all."""
        result: Any = None
        if self.first:
            try:
                result = work()
            except StreamsalError as error:
                result = error
        result = self.gathered(result)[0] if self.world > 1 else result
        if isinstance(result, StreamsalError):
            raise result
        return result


@contextmanager
def joined(device: str, environment: Mapping[str, str] | None = None) -> Iterator[Processes]:
    """The processes that torchrun or train.sbatch has started, or this one alone; left in order however the block ends.

    Each gets the GPU of its number on its machine, where the device is `auto` or `cuda`. Gradients go by NCCL between
    GPUs, everything else by gloo through main memory. Raises DeviceError, UsageError, and Stopped in the block of those
    whose work is lost because another has ended.
    """
    environment = os.environ if environment is None else environment
    with _as_torchrun_sets_them():
        world = int(environment.get("WORLD_SIZE", "1")) if "RANK" in environment else 1
        local_rank = int(environment.get("LOCAL_RANK", "0"))
    if world == 1:
        yield Processes(device=resolve_device(device))
        return
    own = _own_device(device, local_rank)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    # Its functions have the group of the moment they are imported as a default, DistributedDataParallel imports them
    # (PyTorch 2.11), and a gloo whose threads outlive the block may abort the process when Python ends.
    importlib.import_module("torch.distributed.nn.functional")
    with _as_torchrun_sets_them():
        dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo")
    try:
        yield Processes(rank=dist.get_rank(), world=world, device=own)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise Stopped(
            "another process of this training has ended; see what it said, then run all of them again"
        ) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def _as_torchrun_sets_them() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(
            f"RANK is set as by torchrun, but other variables are not ({error}): unset it, or use torchrun"
        ) from error


def _own_device(name: str, local_rank: int) -> torch.device:
    if ":" in name or name == "mps":
        raise UsageError(f"--device {name} is one device, and there are several processes: take auto, cpu or cuda")
    if name == "auto":  # not Apple's GPU: no backend speaks for it
        name = "cuda" if torch.cuda.is_available() or os.environ.get("SLURM_JOB_GPUS") else "cpu"
    if resolve_device(name).type == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise DeviceError(
            f"process {local_rank} of this machine has no GPU of its own, there being {torch.cuda.device_count()}: "
            "give torchrun --nproc-per-node the number of GPUs"
        )
    return torch.device("cuda", local_rank)
