from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from streamsal.models import deepgaze_iie
from streamsal.models.deepgaze_iie import DeepGazeIIE


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    """These pictures are so small that threads only wait for each other: 40 times slower on two busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def iie() -> DeepGazeIIE:
    """DeepGaze IIE with stand-in weights: seconds to make, so once for all tests of a process."""
    return deepgaze_iie.build("synthetic", device="cpu", center_bias="gaussian")
