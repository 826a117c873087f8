"""Replayed graphs give what the function gives, for each key and shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamsal.models.cuda_graph import Recordings


def test_off_cuda_the_function_is_called_each_time() -> None:
    calls: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        calls.append(x)
        return x + 1

    recordings = Recordings()
    for value in (1.0, 2.0):
        assert recordings("key", function, torch.tensor([value])).item() == value + 1
    assert len(calls) == 2


@pytest.mark.needs_cuda
def test_a_replay_is_the_function_of_new_values() -> None:
    recordings = Recordings()
    weight = torch.randn(64, 64, device="cuda")
    for n in (3, 5, 3, 5):
        x = torch.randn(n, 64, device="cuda")
        for key, factor in (("one", 1.0), ("two", 2.0)):
            found = recordings(key, lambda y, factor=factor: factor * (y @ weight).relu(), x)
            torch.testing.assert_close(found, factor * (x @ weight).relu())
