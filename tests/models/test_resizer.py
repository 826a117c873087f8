"""Learned resizers against measured numbers, in every kind and with a transformer at every pair of taps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lowres_networks import FOLDER, clips, fixture, shapes, stand_ins
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamsal.models.design import Design
from streamsal.models.resizer import Resizer, in_blocks, template, told_by

SMALL: dict[str, Any] = {"side_in": 56, "side": 112}
CELLS = [(read, apply) for read in range(9) for apply in range(read, 9)]


def resizer(official: str, kind: Any, **options: Any) -> Resizer:
    net = Resizer(kind, **{**SMALL, **options})
    net.load_state_dict(stand_ins(official))
    return net.eval().requires_grad_(False)


def design(**options: Any) -> Design:
    return Design(classes=("a", "b"), **{**SMALL, "frames": 8, **options})


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_one_block_resizes_as_measured(kind: str) -> None:
    found = resizer(f"resizer_v4_{kind}_res1", kind)(clips(11, size=(4, 56, 56)))
    torch.testing.assert_close(found, fixture(f"resizer_v4_{kind}_res1")["output"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_three_blocks_resize_as_measured(kind: str) -> None:
    found = resizer(f"resizer_v4_{kind}_res3", kind, blocks=3)(clips(11, size=(4, 56, 56)))
    check(found, fixture(f"resizer_v4_{kind}_res3"), tolerance=2e-4)


def test_no_resizer_is_bilinear() -> None:
    net = Resizer("none", side_in=56, side=112)
    assert not net.state_dict()
    check(net(clips(11, size=(4, 56, 56))), fixture("resizer_skip_only"), tolerance=1e-5)


def check(found: Tensor, wanted: dict[str, Tensor], tolerance: float) -> None:
    torch.testing.assert_close(found[..., ::3, ::3], wanted["output_strided"], rtol=0, atol=tolerance)
    torch.testing.assert_close(found.mean((3, 4)), wanted["mean"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("read", range(9))
def test_a_transformer_reads_and_warps_as_measured_at_every_tap(read: int) -> None:
    wanted, clip = fixture("transformer_resizer_28to56_res3_all45"), clips(21, size=(4, 28, 28)).double()
    weights = stand_ins(f"transformer_resizer_28to56_res3_read{read}")
    for apply in range(read, 9):
        net = Resizer("transformer", side_in=28, side=56, blocks=3, read=read, apply=apply, legacy_layout=True).double()
        net.load_state_dict(weights)
        found, theta = net.eval().requires_grad_(False).run(clip)
        check_close(found[..., ::3, ::3], wanted[f"out_{read}_{apply}"])
        if apply == read:
            check_close(theta, wanted[f"theta_{read}"])


@pytest.mark.parametrize(("read", "apply"), [(1, 2), (0, 4)])
def test_a_transformer_from_56_to_112_pixels_gives_what_was_measured(read: int, apply: int) -> None:
    wanted = fixture(f"transformer_resizer_56to112_res3_{read}_{apply}")
    net = resizer(
        f"transformer_resizer_56to112_res3_read{read}",
        "transformer", blocks=3, read=read, apply=apply, legacy_layout=True,
    ).double()  # fmt: skip
    scales = []
    net.scalar.register_forward_hook(lambda module, inputs, scale: scales.append(scale))
    found, theta = net.run(clips(22, size=(4, 56, 56)).double())
    check_close(found[..., ::2, ::2], wanted["output_strided"])
    check_close(theta, wanted["theta"])
    check_close(scales[0], wanted["scale"])


def check_close(found: Tensor | None, wanted: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found.float(), wanted, rtol=1e-4, atol=1e-4)


def designs() -> dict[str, Design]:
    """By the name of the list of keys that they have to have."""
    found = {f"resizer_v4_{k}_res{n}": design(resizer=k, blocks=n) for k in ("2d", "3d") for n in (1, 3)}
    for read in range(9):
        of = {"resizer": "transformer", "blocks": 3, "read": read, "apply": 8}
        found[f"transformer_resizer_28to56_res3_read{read}"] = design(side_in=28, side=56, **of)
        if read < 2:
            found[f"transformer_resizer_56to112_res3_read{read}"] = design(**of)
    return found


@pytest.mark.parametrize("name", designs())
def test_entries_are_the_old_programs(name: str) -> None:
    found = {key: tuple(value.shape) for key, value in template(designs()[name]).items()}
    assert found == shapes(name)


def test_every_list_of_keys_is_of_a_design() -> None:
    assert set(designs()) == {path.name.removesuffix(".keys.json") for path in FOLDER.glob("*resizer*.keys.json")}


@pytest.mark.parametrize("name", designs())
def test_a_file_tells_its_kind_its_blocks_and_where_it_may_read(name: str) -> None:
    wanted = designs()[name]
    told = told_by(template(wanted), side_in=wanted.side_in, side=wanted.side)
    assert (told["resizer"], told["blocks"]) == (wanted.resizer, wanted.blocks)
    alike = next(taps for taps in ([0], [1], [2], [3, 4, 5, 6], [7, 8]) if wanted.read in taps)
    assert told["reads"] == (alike if wanted.resizer == "transformer" else [])


def test_other_sides_than_it_was_trained_for_leave_no_tap_to_read_at() -> None:
    found = template(design(resizer="transformer", side_in=56, side=112))
    assert told_by(found, side_in=28, side=112)["reads"] == []
    assert told_by(found, side_in=56, side=56)["reads"] == [0, 7, 8]


PARAMETERS = {("2d", 1): 12_032, ("2d", 4): 26_144, ("3d", 1): 38_912, ("3d", 4): 80_672, ("transformer", 3): 138_719}


@pytest.mark.parametrize(("kind", "blocks"), PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(kind: Any, blocks: int) -> None:
    net = Resizer(kind, **SMALL, blocks=blocks, read=1, apply=1)
    assert sum(value.numel() for value in net.parameters()) == PARAMETERS[kind, blocks]


@pytest.mark.parametrize(("kind", "gflop"), [("2d", 15.36), ("3d", 43.24), ("transformer", 18.52)])
def test_the_work_is_that_of_the_published_network(kind: Any, gflop: float) -> None:
    net = Resizer(kind, **SMALL, blocks=3, read=1, apply=1)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        net(torch.zeros(1, 3, 1, 56, 56))
    more = (
        0 if kind == "3d" else 32 * 2 * 3 * 16 * (8**2 - 7**2) * 112**2 / 1e9
    )  # the last kernel is 8 x 8, see in_blocks
    assert 32 * counted.get_total_flops() / 1e9 == pytest.approx(gflop + more, abs=0.01)


@pytest.mark.parametrize("read", range(9))
def test_a_new_transformer_changes_nothing(read: int) -> None:
    torch.manual_seed(0)
    net = Resizer("transformer", side_in=16, side=28, read=read, apply=8).eval()
    found, theta = net.run(clips(1, size=(2, 16, 16)))
    assert theta is not None
    torch.testing.assert_close(theta, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3), rtol=0, atol=0)
    net.taps = (None, None)
    torch.testing.assert_close(found, net(clips(1, size=(2, 16, 16))), rtol=0, atol=1e-4)


def test_a_new_transformer_in_the_legacy_layout_begins_at_half_the_size() -> None:
    net = Resizer("transformer", side_in=16, side=28, legacy_layout=True).eval()
    theta = net.thetas(clips(1, size=(2, 16, 16)))
    assert theta is not None and theta[:, 0, 0].tolist() == [1.5, 1.5]


def test_a_transformer_learns_at_every_pair_of_taps() -> None:
    clip = clips(1, size=(2, 8, 8))
    for read, apply in CELLS:
        net = Resizer("transformer", side_in=8, side=12, read=read, apply=apply)
        net(clip).square().mean().backward()  # nothing that is needed for it was written over
        last = net.get_parameter("fc_loc.2.weight").grad
        assert last is not None and last.any(), (read, apply)


@pytest.mark.parametrize("kind", ["2d", "transformer"])
def test_frames_do_not_see_each_other(kind: Any) -> None:
    torch.manual_seed(0)
    net = Resizer(kind, side_in=16, side=28, read=1, apply=3).eval()
    clip = clips(1, size=(4, 16, 16))
    alone = torch.cat([net(clip[:, :, t : t + 1]) for t in range(4)], 2)
    torch.testing.assert_close(net(clip), alone)


def test_in_training_statistics_are_over_all_frames_as_those_of_convolutions_over_clips_are() -> None:
    """The same weights, as what they are: kernels over clips that are one frame long."""
    torch.manual_seed(0)
    folded, over_clips = Resizer("2d", side_in=8, side=12), Resizer("2d", side_in=8, side=12)
    over_clips.load_state_dict(folded.state_dict())
    over_clips.kind = "3d"
    for name, module in list(over_clips.named_modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            parent = over_clips.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.BatchNorm3d(16, module.eps, module.momentum))
    clip = clips(1, 2, size=(4, 8, 8))
    torch.testing.assert_close(folded(clip), over_clips(clip), rtol=1e-4, atol=1e-4)
    folded(clip).square().mean().backward()
    over_clips(clip).square().mean().backward()
    for (name, one), other in zip(folded.state_dict().items(), over_clips.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=name)
    for one, other in zip(folded.parameters(), over_clips.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 7])
def test_places_computed_in_blocks_are_those_of_a_convolution(kernel: int) -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.rand(2, 5, 8, 12, generator=random), torch.rand(3, 5, kernel, kernel, generator=random)
    wanted = torch.nn.functional.conv2d(x, weight, padding=kernel // 2)
    torch.testing.assert_close(in_blocks(x, weight), wanted)


def test_odd_sides_are_resized_too() -> None:
    found = Resizer("2d", side_in=9, side=13).eval()(clips(1, size=(2, 9, 9)))
    assert found.shape == (1, 3, 2, 13, 13) and found.isfinite().all()


def test_under_autocast_the_six_numbers_stay_float32() -> None:
    net = Resizer("transformer", side_in=16, side=28, read=1, apply=3).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found, theta = net.run(clips(1, size=(2, 16, 16)))
    assert theta is not None and theta.dtype == torch.float32 and found.isfinite().all()
