"""Memory that is not there is no bug of ours, whoever says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from streamsal.actions.memory import enough_memory
from streamsal.errors import DeviceError


def full_gpu() -> None:
    raise torch.OutOfMemoryError


@pytest.mark.parametrize("ask", [full_gpu, lambda: torch.empty(10**15), lambda: np.empty(10**15)])
def test_memory_that_is_refused_is_said_with_what_helps(ask: Callable[[], object]) -> None:
    said = r"^out of memory with batch = 2: halve it$"
    with pytest.raises(DeviceError, match=said), enough_memory("batch = 2: halve it"):
        ask()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"), enough_memory("batch = 2"):
        raise RuntimeError("shapes do not fit")
