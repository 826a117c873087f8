"""Which device, which precision, how many cores for the model."""

from __future__ import annotations

import pytest
import torch

from streamsal.devices import inference, resolve_device, resolve_dtype, share_cores
from streamsal.errors import DeviceError, UsageError

CPU = torch.device("cpu")


def test_auto_is_the_best_there_is() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == best
    assert resolve_device("cpu") == CPU


def test_a_device_that_is_not_here_is_an_error_and_never_replaced() -> None:
    with pytest.raises(DeviceError, match=r"cuda:99 was asked for.*--device cpu"):
        resolve_device("cuda:99")


def test_auto_does_not_fall_back_on_the_processor_where_slurm_gave_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_GPUS", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="cuda was asked for"):
        resolve_device("auto")


@pytest.mark.parametrize("name", ["gpu", "wurst", "cpu:x", "meta"])
def test_no_device(name: str) -> None:
    with pytest.raises(UsageError, match=f"no such device: '{name}'; use auto, cpu"):
        resolve_device(name)


def test_precision() -> None:
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_dtype("bf16", CPU) == torch.bfloat16


def test_float32_is_whole_unless_tf32_is_asked_for() -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        assert resolve_dtype("tf32", CPU) == torch.float32
        assert torch.backends.cudnn.allow_tf32
        assert resolve_dtype("fp32", CPU) == torch.float32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_autocast_only_where_a_model_allows_it() -> None:
    a = torch.ones(2, 2, requires_grad=True)
    with inference(CPU, torch.bfloat16, autocast=True):
        assert (a @ a).dtype == torch.bfloat16
    with inference(CPU, torch.bfloat16, autocast=False):
        assert (a @ a).dtype == torch.float32
        assert not (a @ a).requires_grad


def test_cores_are_shared_between_model_and_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    try:
        assert (share_cores(None), torch.get_num_threads()) == (2, 7)
        assert share_cores(5) == 5
    finally:
        torch.set_num_threads(before)
