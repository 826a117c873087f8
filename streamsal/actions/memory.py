"""What PyTorch says where memory runs out, on a GPU or beside it, becomes a DeviceError with what helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import DeviceError


@contextmanager
def enough_memory(what_helps: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)):
            raise
        raise DeviceError(f"out of memory with {what_helps}") from error
