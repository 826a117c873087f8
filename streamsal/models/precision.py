"""Networks in the precision that the engine asks for, and back to float32 where float16 cannot hold a number.

The engine says what it wants by the autocast context around `Model.step`. Autocast itself would convert every weight
anew in each batch and would lower what has to stay float32, so models that use this keep their own converted copies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Precisions:
    """A network by dtype: `networks[torch.float16]` is made when it is first asked for."""

    def __init__(self, float32: nn.Module) -> None:
        self._made = {torch.float32: float32}

    def __getitem__(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self._made:
            self._made[dtype] = copy.deepcopy(self._made[torch.float32]).to(dtype)
        return self._made[dtype]


def wanted_dtype(device: torch.device) -> torch.dtype:
    """What the autocast around a step names."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def at_wanted_precision(device: torch.device, compute: Callable[[torch.dtype], Tensor]) -> Tensor:
    """`compute` of the dtype that the autocast around it names, outside of that autocast; one row per frame.

    A frame that float16 makes not finite (a feature above 65504 is infinite in it) has its row of `compute` in float32.
    The other frames keep theirs: which frames share a batch depends on the shard, and their bits must not.
    """
    dtype = wanted_dtype(device)
    with torch.autocast(device.type, enabled=False):
        found = compute(dtype)
        if dtype == torch.float16:
            finite = found.isfinite().reshape(len(found), -1).all(1)
            if not bool(finite.all()):
                found = torch.where(finite.view(-1, *[1] * (found.ndim - 1)), found, compute(torch.float32))
    return found
