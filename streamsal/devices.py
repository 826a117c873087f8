"""Which device computes, in which precision, with how many cores: decided once, here, and passed down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .cores import decoders_for, usable_cores
from .errors import DeviceError, UsageError


def resolve_device(name: str) -> torch.device:
    """`auto`: the first CUDA device, else Apple's GPU, else the CPU. Raises DeviceError if the one named is absent.

    In a Slurm job that was given a GPU `auto` names it: hours on the node's processor are not what was asked for.
    """
    if name == "auto" and os.environ.get("SLURM_JOB_GPUS"):
        name = "cuda"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"no such device: {name!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= n_devices:
            raise DeviceError(
                f"{name} was asked for, and the number of CUDA devices visible here is {n_devices}: use --device cpu"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps was asked for and is not available here; use --device cpu")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"no such device: {name!r}; use auto, cpu, cuda, cuda:N or mps")
    return device


def device_name(device: torch.device) -> str:
    """What files say of the device that computed them."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: float16 on CUDA, float32 elsewhere. Only models that allow autocast are touched by it.

    `tf32` is float32 whose convolutions on a CUDA device keep 10 bits of each factor. PyTorch does that unasked (2.11);
    here float32 means float32 unless tf32 is what was asked for.
    """
    if name == "auto":
        name = "fp16" if device.type == "cuda" else "fp32"
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    return {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def share_cores(decode_workers: int | None) -> int:
    """Leaves the model all cores but one; returns how many decoders to run side by side, if that is not given."""
    cores = usable_cores()
    torch.set_num_threads(max(1, cores - 1))
    return decode_workers or decoders_for(cores)


@contextmanager
def inference(device: torch.device, dtype: torch.dtype, *, autocast: bool) -> Iterator[None]:
    """No gradients, and autocast where the model's spec allows it."""
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=autocast and dtype != torch.float32):
        yield
