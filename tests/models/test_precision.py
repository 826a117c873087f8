"""Copies of a network per precision, and the way back from float16."""

from __future__ import annotations

import torch
from torch import Tensor

from streamsal.devices import inference
from streamsal.models.precision import Precisions, at_wanted_precision

CPU = torch.device("cpu")


def test_each_precision_is_made_once_and_leaves_the_others_alone() -> None:
    networks = Precisions(torch.nn.Linear(3, 2).requires_grad_(False))
    half = networks[torch.float16]
    assert half is networks[torch.float16]
    assert half.weight.dtype == torch.float16
    assert networks[torch.float32].weight.dtype == torch.float32


def test_the_engines_autocast_says_which_and_is_off_inside() -> None:
    asked: list[torch.dtype] = []

    def compute(dtype: torch.dtype) -> Tensor:
        asked.append(dtype)
        assert not torch.is_autocast_enabled("cpu")
        return torch.zeros(2)

    for wanted in (torch.float32, torch.bfloat16, torch.float16):
        with inference(CPU, wanted, autocast=True):
            at_wanted_precision(CPU, compute)
    assert asked == [torch.float32, torch.bfloat16, torch.float16]


def test_what_float16_cannot_hold_is_computed_again() -> None:
    def compute(dtype: torch.dtype) -> Tensor:
        return (torch.tensor([70000.0]).to(dtype) * 1).float()

    for wanted in (torch.float32, torch.bfloat16, torch.float16):
        with inference(CPU, wanted, autocast=True):
            found = at_wanted_precision(CPU, compute)
        torch.testing.assert_close(found, torch.tensor([70000.0]), rtol=4e-3, atol=0)


def test_a_frame_that_float16_can_hold_keeps_its_bits_beside_one_that_it_cannot() -> None:
    def compute(dtype: torch.dtype) -> Tensor:
        return (frames.to(dtype) / 3).float()

    frames = torch.tensor([[[1.0, 2.0]], [[70000.0, 1.0]]])
    with inference(CPU, torch.float16, autocast=True):
        found = at_wanted_precision(CPU, compute)
    torch.testing.assert_close(found[0], (frames[0].half() / 3).float(), rtol=0, atol=0)
    torch.testing.assert_close(found[1], frames[1] / 3, rtol=0, atol=0)
