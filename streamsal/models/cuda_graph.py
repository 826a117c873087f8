"""A function of one tensor, recorded once per shape as a CUDA graph and replayed: one launch instead of thousands.

DeepGaze IIE is about two thousand small operations per batch; launching each costs a GPU more than many of them take.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
WARM_UP = 3  # calls before recording: libraries choose algorithms and allocate workspaces in the first ones


class Recordings:
    """Recordings by key and shape. The functions must not wait for the device nor look at values."""

    def __init__(self) -> None:
        self._recorded: dict[Hashable, Function] = {}

    def __call__(self, key: Hashable, function: Function, x: Tensor) -> Tensor:
        """`function(x)`, which has to do the same whenever it comes with the same key. Off CUDA it is just called."""
        if x.device.type != "cuda":
            return function(x)
        full_key = key, x.shape, x.dtype
        if full_key not in self._recorded:
            self._recorded[full_key] = _record(function, x)
        return self._recorded[full_key](x)


def _record(function: Function, example: Tensor) -> Function:
    held = example.clone(memory_format=torch.contiguous_format)
    current, warming = torch.cuda.current_stream(example.device), torch.cuda.Stream(example.device)
    warming.wait_stream(current)
    with torch.cuda.stream(warming):
        for _ in range(WARM_UP):
            function(held)
    current.wait_stream(warming)
    graph = torch.cuda.CUDAGraph()
    # The thread that uploads the next batches allocates and synchronizes meanwhile, which is none of this recording.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function(held)

    def replay(x: Tensor) -> Tensor:
        held.copy_(x)
        graph.replay()
        return result.clone()

    return replay
