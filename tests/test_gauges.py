"""What is measured of a device is what it did: known products, known copies, known allocations."""

from __future__ import annotations

import sys

import pytest
import torch

from streamsal import gauges
from streamsal.gauges import Marks, count, median_seconds, peak_memory, profiled


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.needs_cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def test_a_multiply_add_is_two_operations_and_every_operand_is_moved_once(device: torch.device) -> None:
    a, b = torch.ones(30, 40, device=device), torch.ones(40, 50, device=device)
    found = count(lambda: a @ b)
    assert found.flops == 2 * 30 * 40 * 50
    assert found.bytes == 4 * (30 * 40 + 40 * 50 + 30 * 50)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_convolution_counts_whichever_library_computes_it(groups: int) -> None:
    x, weight = torch.ones(2, 6, 9, 11), torch.ones(12, 6 // groups, 3, 3)
    wanted = 2 * (2 * 12 * 9 * 11) * (6 // groups * 9)
    assert count(lambda: torch.nn.functional.conv2d(x, weight, padding=1, groups=groups)).flops == wanted
    given = ([1, 1], [1, 1], [1, 1], groups)
    assert count(lambda: torch.mkldnn_convolution(x, weight, None, *given)).flops == wanted


def test_views_move_nothing_and_what_is_expanded_is_read_once() -> None:
    x, row = torch.ones(30, 40), torch.ones(1, 40)
    assert count(lambda: x.mT[3:].unsqueeze(0)).bytes == 0
    assert count(lambda: x + row.expand(30, 40)).bytes == 4 * (1200 + 40 + 1200)
    assert count(lambda: x.mul_(2)).bytes == 4 * 2 * 1200


def test_parts_are_told_apart_and_their_turns_added(device: torch.device) -> None:
    def work(mark: Marks) -> None:
        for _ in range(2):
            torch.ones(8, device=device).sum()
            mark("first")
            mark("second")

    marks = Marks(device)
    work(marks)
    assert list(marks.seconds()) == ["first", "second"]
    found = median_seconds(device, work, seconds=0)
    assert found["first"] > found["second"] >= 0


def test_peak_memory_is_what_was_added_and_given_back(device: torch.device) -> None:
    if device.type == "cpu" and sys.platform != "linux":
        pytest.skip("resident sets are read from /proc")
    n_bytes = 256 << 20
    found = peak_memory(device, lambda: torch.ones(n_bytes, dtype=torch.uint8, device=device))
    assert found is not None
    assert found.highest >= found.added
    assert found.added == pytest.approx(n_bytes, rel=0.1)


def test_the_slowest_operation_is_named(device: torch.device) -> None:
    a = torch.ones(600, 600, device=device)
    found = profiled(device, lambda: (a @ a @ a @ a).add_(1))
    assert found is not None and found.seconds > 0
    assert 0 < sum(found.slowest.values()) <= 1.001
    if device.type == "cpu":
        assert next(iter(found.slowest)) == "aten::mm"


def test_ceilings_are_rates_and_the_product_s_precision_setting_is_put_back(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "MATMUL_SIZE", {device.type: 64})
    monkeypatch.setattr(gauges, "COPY_BYTES", {device.type: 1 << 20})
    before = torch.backends.cuda.matmul.allow_tf32
    assert gauges.matmul_flops(device, "tf32", torch.float32, seconds=0) > 0
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert gauges.copy_bytes(device, seconds=0) > 0
    assert (gauges.upload_bytes(device, seconds=0) is None) == (device.type == "cpu")


def test_a_device_is_described_by_name_and_size(device: torch.device) -> None:
    found = gauges.describe(device)
    assert found["type"] == device.type
    assert found["name"]
    assert found["threads" if device.type == "cpu" else "memory_gb"] > 0
