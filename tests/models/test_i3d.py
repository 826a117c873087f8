"""I3D in both layouts against measured numbers, and what its weights tell of themselves."""

from __future__ import annotations

import pytest
import torch
from lowres_networks import clips, fixture, shapes, stand_ins
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamsal.errors import BadInput
from streamsal.models import i3d
from streamsal.models.i3d import I3D, template, weights_of

TOLERANCE = 1e-4


def network(official: str, classes: int, **options) -> I3D:
    net = I3D(classes, **options)
    net.load_state_dict(weights_of(stand_ins(official), official))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def fork() -> I3D:
    return network("i3d_fork_26", 26, frames=32)


@pytest.fixture(scope="module")
def classic() -> I3D:
    return network("i3d_classic_400", 400, frames=16, pool_early=True)


def check_stages(net: I3D, clips_ncthw: Tensor, wanted: dict[str, Tensor]) -> Tensor:
    """The last map, after every stage was compared: mean, deviation, largest value, and sixteen values of it."""
    x = torch.empty(0)
    for name, x in net.stages(clips_ncthw):
        found = torch.stack((x.mean(), x.std(), x.abs().max()))
        torch.testing.assert_close(found, wanted.pop(f"stat_{name}"), rtol=TOLERANCE, atol=TOLERANCE, msg=name)
        some = x[0, :4].flatten()
        some = some[:: max(1, len(some) // 16)][:16]
        torch.testing.assert_close(some, wanted.pop(f"probe_{name}"), rtol=0, atol=TOLERANCE, msg=name)
    return x


def test_clips_of_32_frames_at_112_pixels_are_scored_as_measured(fork: I3D) -> None:
    wanted = fixture("i3d_fork_32x112")
    features = fork.averages(check_stages(fork, clips(1, 2, size=(32, 112, 112)), wanted))
    assert {key.partition("_")[2] for key in wanted if "_" in key} == {"avg_pool", "dropout"}  # the rest was compared
    torch.testing.assert_close(features.flatten(1), wanted["features"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(fork.logits(features).flatten(1), wanted["logits"], rtol=0, atol=TOLERANCE)


def test_a_longer_clip_has_a_score_for_every_window(fork: I3D) -> None:
    wanted = fixture("i3d_fork_32x112_T40")["logits"]
    scores = fork.scores(clips(3, size=(40, 112, 112)))
    assert scores.shape == (1, 26, 2, 1, 1)
    torch.testing.assert_close(scores[..., 0, 0], wanted, rtol=0, atol=TOLERANCE)


def test_clips_of_16_frames_are_scored_as_measured() -> None:
    found = network("i3d_fork_26", 26, frames=16)(clips(4, size=(16, 112, 112)))
    torch.testing.assert_close(found, fixture("i3d_fork_16x112")["logits"], rtol=0, atol=TOLERANCE)


def test_weights_of_the_layout_for_224_pixels_serve_at_112() -> None:
    found = network("i3d_classic_157", 157, frames=32)(clips(1, size=(32, 112, 112)))
    torch.testing.assert_close(found, fixture("i3d_fork_32x112_from_classic157")["logits"], rtol=0, atol=TOLERANCE)


def test_clips_of_16_frames_at_224_pixels_are_scored_as_measured(classic: I3D) -> None:
    wanted = fixture("i3d_classic_16x224")
    features = classic.averages(check_stages(classic, clips(5, size=(16, 224, 224)), wanted))
    torch.testing.assert_close(features, wanted.pop("features"), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(classic.logits(features)[..., 0, 0], wanted.pop("logits"), rtol=0, atol=TOLERANCE)
    assert not wanted


def test_odd_sizes_are_padded_as_by_tensorflow(classic: I3D) -> None:
    wanted = fixture("i3d_classic_odd")
    features = classic.features(clips(6, size=(21, 225, 231)))
    torch.testing.assert_close(features, wanted["features"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(classic.logits(features), wanted["logits"], rtol=0, atol=TOLERANCE)


def test_keys_and_shapes_are_those_of_the_layout_for_224_pixels() -> None:
    for classes in (157, 400):
        found = {key: tuple(value.shape) for key, value in template(classes).items()}
        wanted = shapes(f"i3d_classic_{classes}")
        assert found == wanted and len(wanted) == 344


def test_both_layouts_hold_the_same_entries() -> None:
    fork, classic = shapes("i3d_fork_26"), shapes("i3d_classic_157")
    assert {key.removeprefix("model.") for key in fork} == set(classic)


@pytest.mark.parametrize(("frames", "side", "pool_early", "gflop"), [(32, 112, False, 91.32), (16, 224, True, 55.58)])
def test_the_work_is_that_of_the_published_network(frames: int, side: int, pool_early: bool, gflop: float) -> None:
    with torch.device("meta"):
        net, clip = I3D(26, frames=frames, pool_early=pool_early), torch.empty(1, 3, frames, side, side)
    with FlopCounterMode(display=False) as counted:
        net(clip)
    assert counted.get_total_flops() / 1e9 == pytest.approx(gflop, abs=0.01)


def test_small_frames_are_averaged_over_all_of_the_last_map() -> None:
    net = I3D(3, frames=8, width=0.125).eval()
    clip = clips(1, size=(8, 28, 28))
    maps = net.maps(clip)
    assert maps.shape == (1, 128, 1, 2, 2)
    torch.testing.assert_close(net.features(clip).flatten(1), maps.mean((2, 3, 4)))


def test_without_a_number_of_frames_all_times_are_averaged() -> None:
    net = I3D(3, width=0.125).eval()
    assert net.scores(clips(1, size=(40, 28, 28))).shape == (1, 3, 1, 1, 1)


def test_the_score_of_a_long_clip_is_the_mean_over_its_windows() -> None:
    net = I3D(3, frames=16, width=0.125).eval()
    clip = clips(1, size=(40, 28, 28))
    assert net.scores(clip).shape == (1, 3, 4, 1, 1)
    torch.testing.assert_close(net(clip), net.scores(clip).mean((2, 3, 4)))


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
def test_weights_are_found_behind_any_prefix_and_tell_what_they_are_for(prefix: str) -> None:
    like = template(5, channels=2, width=0.25)
    plain = {key: torch.full(value.shape, 3, dtype=value.dtype) for key, value in like.items()}
    found = {
        (key if "model." in prefix and key.startswith("logits.") else prefix + key): value
        for key, value in plain.items()
        if not key.endswith("num_batches_tracked")  # torch before 0.4.1 had no such counters
    }
    if prefix == "module.model.":
        found = {key if key.startswith("module.") else f"module.{key}": value for key, value in found.items()}
    weights = weights_of(found, "a file")
    assert list(weights) == list(like)
    assert weights["logits.conv3d.bias"].tolist() == [3] * 5 and weights["Conv3d_1a_7x7.conv3d.weight"].shape[1] == 2
    assert weights["Mixed_3b.b0.bn.num_batches_tracked"] == 0


def test_weights_of_something_else_are_named() -> None:
    with pytest.raises(BadInput, match=r"^f\.pt is no checkpoint of I3D: it is a checkpoint of unisal$"):
        weights_of({"coarse_gaussians_dhf1k": torch.zeros(1)}, "f.pt")
    wrong = stand_ins("i3d_fork_26")
    del wrong["model.Mixed_3b.b0.bn.weight"]
    with pytest.raises(BadInput, match="1 of 344 tensors missing"):
        weights_of(wrong, "f.pt")


def test_padding_is_as_small_as_can_be_and_one_more_behind() -> None:
    for n, before, behind in [(8, 2, 3), (9, 3, 3), (10, 2, 3), (7, 3, 3)]:
        x, around = i3d.same(torch.ones(1, 1, n, n, n), (7, 7, 7), (2, 2, 2))
        assert (around, x.shape[-1] - n + around[0]) == ((before,) * 3, behind)
