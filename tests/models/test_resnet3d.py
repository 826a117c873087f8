"""The clip networks after ResNet against numbers measured on PySlowFast and PyTorchVideo, with the same stand-ins."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamsal.models import clip_frames, resnet3d
from streamsal.models.resnet3d import VARIANTS, ResNet3D
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures/embeddings"
DAMPED = {r"branch2\.(c_bn|norm_c)\.weight$": 0.25}  # or residuals grow until late tensors change nothing
KEYS = {
    "c2d_r50": "c2d_r50",
    "i3d_r50": "i3d_r50_8x8",
    "slow_r50_4x16": "slow_r50",
    "slow_r50_8x8": "slow_r50",
    "slowfast_r50_4x16": "slowfast_r50_4x16",
    "slowfast_r50_8x8": "slowfast_r50_8x8",
    "slowfast_r50_16x8_ssv2": "slowfast_r50_16x8_ssv2",
    "slowfast_r101_8x8": "slowfast_r101_8x8_101_101",
    "slowfast_r101_16x8": "slowfast_r101_16x8_50_50",
    "x3d_xs": "x3d_xs_s_m",
    "x3d_s": "x3d_xs_s_m",
    "x3d_m": "x3d_xs_s_m",
    "x3d_l": "x3d_l",
}
# Measured case -> variant, whether time is halved where that is not the variant's own, and the side trained on.
PYSLOWFAST = {
    "c2d_nopool_r50_8x8": ("c2d_r50", None, 64),
    "c2d_pool_r50_8x8": ("c2d_r50", True, 64),
    "i3d_r50_8x8": ("i3d_r50", None, 64),
    "slow_r50_8x8": ("slow_r50_8x8", None, 64),
    "slowfast_r50_4x16": ("slowfast_r50_4x16", None, 64),
    "slowfast_r50_8x8": ("slowfast_r50_8x8", None, 64),
    "slowfast_r50_8x8_fullyconv": ("slowfast_r50_8x8", None, 64),
    "slowfast_r50_16x8_ssv2": ("slowfast_r50_16x8_ssv2", None, 64),
    "x3d_s": ("x3d_s", None, 64),
}
PYTORCHVIDEO = {
    "slowfast_r50_8x8_pytorchvideo_224px": ("slowfast_r50_8x8", 224),
    "x3d_s_pytorchvideo_160px": ("x3d_s", 160),
}
# Our key -> that of PyTorchVideo, rule after rule.
TO_PYTORCHVIDEO = (
    (r"^s1\.pathway0_stem\.conv_xy\.", "blocks.0.conv.conv_t."),  # their names are the wrong way round
    (r"^s1\.pathway0_stem\.conv\.(?=.*x3d)", "blocks.0.conv.conv_xy."),
    (r"^s1\.pathway0_stem\.bn\.(?=.*x3d)", "blocks.0.norm."),
    (r"^s1\.pathway(\d)_stem\.conv\.", r"blocks.0.multipathway_blocks.\1.conv."),
    (r"^s1\.pathway(\d)_stem\.bn\.", r"blocks.0.multipathway_blocks.\1.norm."),
    (r"^s(\d)_fuse\.conv_f2s\.", r"blocks.<\1>.multipathway_fusion.conv_fast_to_slow."),
    (r"^s(\d)_fuse\.bn\.", r"blocks.<\1>.multipathway_fusion.norm."),
    (r"^s(\d)\.pathway0_res(\d+)\.(?=.*x3d)", r"blocks.<\1>.res_blocks.\2."),
    (r"^s(\d)\.pathway(\d)_res(\d+)\.", r"blocks.<\1>.multipathway_blocks.\2.res_blocks.\3."),
    (r"\.branch1\.", ".branch1_conv."),
    (r"\.branch1_bn\.", ".branch1_norm."),
    (r"\.branch2\.b_bn\.(?=.*x3d)", ".branch2.norm_b.0."),
    (r"\.branch2\.([abc])_bn\.", r".branch2.norm_\1."),
    (r"\.branch2\.([abc])\.", r".branch2.conv_\1."),
    (r"\.branch2\.se\.fc1\.", ".branch2.norm_b.1.block.0."),
    (r"\.branch2\.se\.fc2\.", ".branch2.norm_b.1.block.2."),
    (r"^head\.conv_5\.", "blocks.5.pool.pre_conv."),
    (r"^head\.conv_5_bn\.", "blocks.5.pool.pre_norm."),
    (r"^head\.lin_5\.", "blocks.5.pool.post_conv."),
    (r"^head\.projection\.(?=.*x3d)", "blocks.5.proj."),
    (r"^head\.projection\.", "blocks.6.proj."),
)


def official_keys(name: str) -> dict[str, list[int]]:
    return json.loads((FIXTURES / f"keys/{name}.json").read_text())


@cache
def stand_ins(variant: str) -> Mapping[str, Tensor]:
    return synthetic.state_dict(resnet3d.template(variant), adjust=DAMPED)


@cache
def measured(case: str) -> dict[str, np.ndarray]:
    return dict(np.load(FIXTURES / f"{case}.npz"))


def clips_of(case: str) -> Tensor:
    frames = torch.from_numpy(measured(case)["frames"])
    clips = (frames if frames.ndim == 5 else frames[None]).permute(0, 4, 1, 2, 3)
    return (clips / 255 - clip_frames.GRAY_MEAN[0]) / clip_frames.GRAY_STD[0]


def from_pytorchvideo(variant: str, case: str) -> dict[str, Tensor]:
    """Stand-ins under their official keys, then put under ours."""
    shapes = official_keys(f"{variant}_pytorchvideo")
    template = {
        key: torch.empty(shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
        for key, shape in shapes.items()
    }
    theirs = synthetic.state_dict(template, adjust=DAMPED)
    names = {pytorchvideo_key(key, x3d="x3d" in case): key for key in resnet3d.template(variant)}
    return {names[key]: value for key, value in theirs.items()}


def pytorchvideo_key(key: str, *, x3d: bool) -> str:
    key += "|x3d" if x3d else "|"
    for pattern, theirs in TO_PYTORCHVIDEO:
        key = re.sub(pattern, theirs, key)
    return re.sub(r"<(\d)>", lambda stage: str(int(stage[1]) - 1), key).partition("|")[0]


def relative(found: Tensor, wanted: np.ndarray | Tensor) -> float:
    wanted = torch.as_tensor(wanted)
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("case", PYSLOWFAST)
def test_vectors_and_probabilities_are_pyslowfasts(case: str) -> None:
    variant, pool, train_crop = PYSLOWFAST[case]
    net, wanted, clips = resnet3d.network(stand_ins(variant), variant, pool=pool), measured(case), clips_of(case)
    positions = net.positions(clips, train_crop)
    assert relative(positions, wanted["features"]) <= 1e-5
    assert relative(net.logits(positions), wanted["logits"]) <= 1e-5
    assert relative(net.probabilities(clips, train_crop), wanted["probs"]) <= 1e-5
    if wanted["features"].shape[1:3] == (1, 1):
        assert relative(net.features(clips), wanted["features"][:, 0, 0]) <= 1e-5


@pytest.mark.parametrize("case", PYTORCHVIDEO)
def test_vectors_are_pytorchvideos(case: str) -> None:
    variant, crop = PYTORCHVIDEO[case]
    weights = from_pytorchvideo(variant, case)
    assert weights.keys() == resnet3d.template(variant, weights).keys()
    net, wanted = resnet3d.network(weights, variant), measured(case)
    features = net.features(clips_of(case))
    assert VARIANTS[variant].crop == crop
    assert relative(features, wanted["features"][:, 0, 0]) <= 1e-5
    assert relative(net.logits(features), wanted["output"]) <= 1e-5


def test_the_same_weights_with_another_pool_or_order_of_frames_are_another_network() -> None:
    for case, variant, pool in (("c2d_pool_r50_8x8", "c2d_r50", False), ("i3d_r50_8x8", "i3d_r50", False)):
        net = resnet3d.network(stand_ins(variant), variant, pool=pool)
        assert relative(net.features(clips_of(case)), measured(case)["features"][:, 0, 0]) > 1e-3
    net = resnet3d.network(stand_ins("slowfast_r50_4x16"), "slowfast_r50_4x16")
    slow, fast = resnet3d.packed(clips_of("slowfast_r50_4x16"), 8)
    found = net.vector([x.mean((2, 3, 4)) for x in net.maps_of([slow.flip(2), fast])])
    assert relative(found, measured("slowfast_r50_4x16")["features"][:, 0, 0]) > 1e-3


@pytest.mark.parametrize(("case", "every"), [("x3d_s", 14), ("slowfast_r50_8x8", 26)])
def test_a_small_change_of_a_late_tensor_is_noticed(case: str, every: int) -> None:
    """So that the comparisons above can fail: a tenth more of a vector, the rows of a kernel in reverse."""
    net = resnet3d.network(stand_ins(case), case)
    clips, wanted = clips_of(case), torch.from_numpy(measured(case)["logits"][:, 0, 0])
    late = [key for key in stand_ins(case) if re.match(r"s[45]|s3_fuse|head", key) and "num_batches" not in key]
    unnoticed = []
    for key in late[::-every]:
        with changed(net, key):
            moved = relative(net.logits(net.features(clips)), wanted)
        if moved < 5e-5:
            unnoticed.append((key, moved))
    assert not unnoticed
    assert relative(net.logits(net.features(clips)), wanted) <= 1e-5


@contextmanager
def changed(net: ResNet3D, key: str) -> Iterator[None]:
    value = net.state_dict()[key]
    before = value.clone()
    value.copy_(before * 1.1 if before.ndim == 1 else before.flip(0))
    yield
    value.copy_(before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_template_is_the_official_checkpoints(variant: str) -> None:
    official = official_keys(KEYS[variant])
    template = resnet3d.template(variant)
    assert {key: list(value.shape) for key, value in template.items()} == official
    assert list(template) == list(official)
    assert list(resnet3d.network(template, variant).state_dict()) == list(official)


@pytest.mark.parametrize("variant", VARIANTS)
def test_size_and_cost_are_those_of_the_network(variant: str) -> None:
    facts, net = VARIANTS[variant], resnet3d.network(resnet3d.template(variant), variant)
    with FlopCounterMode(display=False) as counted:
        maps = net.maps(torch.empty(1, 3, facts.frames, facts.crop, facts.crop, device="meta"))
    weights = net.state_dict()
    last = [weights[key].numel() for key in ("head.lin_5.weight", "head.projection.weight") if key in weights]
    assert (counted.get_total_flops() / 2 + sum(last)) / 1e9 == pytest.approx(facts.gmac, rel=0.01)
    side = -(-facts.crop // resnet3d.POSITION_PX)
    slow_or_only = facts.frames // (facts.alpha or 1) // (2 if facts.pool else 1)
    assert maps[0].shape[2:] == (slow_or_only, side, side)
    assert all(x.shape[2:] == (facts.frames, side, side) for x in maps[1:])
    if "head.lin_5.weight" not in weights:
        assert sum(x.shape[1] for x in maps) == facts.features


def test_template_follows_what_a_file_may_choose() -> None:
    found = {key: torch.empty(shape, device="meta") for key, shape in official_keys("slowfast_r101_8x8_50_50").items()}
    template = resnet3d.template("slowfast_r101_8x8", found)
    assert {key: value.shape for key, value in template.items()} == {key: value.shape for key, value in found.items()}
    assert template["s4.pathway1_res6.branch2.a.weight"].shape[2] == 1
    found = dict(resnet3d.template("slow_r50_8x8")) | {"head.projection.weight": torch.empty(174, 2048, device="meta")}
    assert resnet3d.template("slow_r50_8x8", found)["head.projection.bias"].shape == (174,)


def test_template_does_not_follow_the_weights_of_another_network() -> None:
    for one, other in itertools.permutations(("c2d_r50", "i3d_r50", "slow_r50_8x8"), 2):
        found = resnet3d.template(one)
        template = resnet3d.template(other, found)
        assert any(found[key].shape != value.shape for key, value in template.items())


def test_slow_frames_are_pyslowfasts() -> None:
    def slow(frames: int, alpha: int) -> list[int]:
        clip = torch.arange(frames).view(1, 1, frames, 1, 1)
        slow, fast = resnet3d.packed(clip, alpha)
        assert fast is clip
        return slow.flatten().tolist()

    assert slow(32, 4) == [0, 4, 8, 13, 17, 22, 26, 31]
    assert slow(32, 8) == [0, 10, 20, 31]
    assert slow(64, 4) == [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]
    assert slow(160, 4) != np.linspace(0, 159, 40).astype(int).tolist()


def test_one_slow_and_four_fast_frames_are_enough() -> None:
    net = resnet3d.network(stand_ins("slowfast_r50_16x8_ssv2"), "slowfast_r50_16x8_ssv2")
    frames = clips_of("slowfast_r50_16x8_ssv2")
    first, second = (
        net.vector([x.mean((2, 3, 4)) for x in net.maps_of([frames[:, :, k : k + 1], frames[:, :, :4]])])
        for k in (0, 9)
    )
    assert first.shape == (1, 2304)
    assert relative(first, second) > 1e-3


@pytest.mark.parametrize("variant", ["x3d_s", "slow_r50_8x8"])
def test_a_vector_does_not_depend_on_the_rest_of_the_batch(variant: str) -> None:
    net = resnet3d.network(stand_ins(variant), variant)
    clip = clips_of(variant)[:1]
    others = torch.cat([clip.flip(3), clip, 2 * clip.flip(2)])
    assert relative(net.features(others)[1:2], net.features(clip)) <= 1e-6


@pytest.mark.parametrize("variant", ["x3d_s", "slowfast_r50_4x16"])
def test_vectors_stay_float32_under_autocast(variant: str) -> None:
    net, wanted = resnet3d.network(stand_ins(variant), variant), measured(variant)
    with torch.autocast("cpu", torch.bfloat16):
        features = net.features(clips_of(variant))
        logits = net.logits(features)
    assert features.dtype == logits.dtype == torch.float32
    assert relative(logits, net.logits(features)) == 0
    assert 1e-5 < relative(features, wanted["features"][:, 0, 0]) <= 2e-2


@pytest.mark.parametrize("variant", ["x3d_s", "slowfast_r50_8x8"])
def test_vector_of_averages_is_the_features(variant: str) -> None:
    net = resnet3d.network(stand_ins(variant), variant)
    clips = clips_of(variant)
    maps = net.maps(clips)
    assert len({x.shape[-2:] for x in maps}) == 1
    pooled = [x.mean((2, 3, 4)) for x in maps]
    assert torch.equal(net.vector(pooled), net.features(clips))
    assert relative(net.vector([x[:, None] for x in pooled]), net.features(clips)[:, None]) <= 1e-6


def test_network_is_for_inference_and_takes_no_copy() -> None:
    weights = stand_ins("x3d_s")
    net = resnet3d.network(weights, "x3d_s")
    assert not any(module.training for module in net.modules())
    assert not any(value.requires_grad for value in net.parameters())
    assert all(value.data_ptr() == weights[key].data_ptr() for key, value in net.state_dict().items())


@pytest.mark.parametrize(("keys", "halved"), [("c2d_r50", False), ("c2d_r50_pytorchvideo", True)])
def test_the_publisher_of_a_c2d_decides_what_its_weights_cannot_tell(keys: str, halved: bool) -> None:
    shapes = json.loads((FIXTURES / "keys" / f"{keys}.json").read_text())
    weights = {key: synthetic.stand_in(key, tuple(shape), torch.float32) for key, shape in shapes.items()}
    model = resnet3d.build(weights, device="cpu", variant="c2d_r50")
    assert model.network.pool is halved  # type: ignore[attr-defined]
