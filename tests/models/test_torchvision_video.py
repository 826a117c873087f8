"""Clip networks of torchvision: their vectors against their own forward passes, and against measured numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from streamsal.models import torchvision_video
from streamsal.models.clip_frames import prepared
from streamsal.models.torchvision_video import VARIANTS, Averaged
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures/embeddings"
AVERAGED = [name for name in VARIANTS if not name.startswith("mvit")]


def stand_ins(variant: str) -> dict[str, Tensor]:
    return synthetic.state_dict(torchvision_video.template(variant), adjust={})


def original(variant: str, weights: dict[str, Tensor]) -> tuple[nn.Module, list[Tensor]]:
    """torchvision's own network, and a list to which it adds what its projection onto classes reads."""
    net: Any = VARIANTS[variant].constructor()
    learned = {key: value for key, value in weights.items() if not key.endswith(".relative_position_index")}
    missing = net.load_state_dict(learned, strict=False).missing_keys
    assert all(key.endswith(".relative_position_index") for key in missing)
    seen: list[Tensor] = []
    projection = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv3d)][-1]
    projection.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    return net.eval().requires_grad_(False), seen


def relative(found: Tensor, wanted: Tensor) -> float:
    return float(torch.linalg.norm(found - wanted) / torch.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("variant", "clip"),
    [
        ("r3d_18", (9, 40, 40)),
        ("mc3_18", (9, 40, 40)),
        ("r2plus1d_18", (9, 40, 40)),
        ("s3d", (24, 224, 224)),
        ("swin3d_t", (8, 64, 64)),
    ],
)
def test_vector_is_what_torchvisions_projection_reads(variant: str, clip: tuple[int, int, int]) -> None:
    weights = stand_ins(variant)
    net = torchvision_video.network(weights, variant)
    reference, seen = original(variant, weights)
    clips = torch.randn(1, 3, *clip, generator=torch.Generator().manual_seed(0))
    wanted = reference(clips)
    features = net.features(clips)
    # S3D projects first and averages over time after it, which comes to the same.
    assert relative(features, seen[0].flatten(2).mean(2) if seen[0].ndim == 5 else seen[0]) <= 1e-5
    assert relative(net.logits(features), wanted) <= 1e-5
    assert isinstance(net, Averaged)
    means = [x.mean((2, 3, 4)) for x in net.maps(clips)]
    assert relative(net.vector(means), features) <= 1e-6


@pytest.mark.parametrize("variant", ["mvit_v1_b", "mvit_v2_s"])
def test_mvit_gives_the_measured_vector(variant: str) -> None:
    measured = np.load(FIXTURES / f"{variant}_torchvision_224px.npz")
    net = torchvision_video.network(stand_ins(variant), variant)
    clips = (torch.from_numpy(measured["frames"]).float() / 255 - 0.45) / 0.225
    features = net.features(clips.permute(3, 0, 1, 2)[None])
    assert relative(features, torch.from_numpy(measured["features"])) <= 1e-5
    assert relative(net.logits(features), torch.from_numpy(measured["logits"])) <= 1e-5


@pytest.mark.parametrize("variant", ["mvit_v1_b", "mvit_v2_s"])
def test_template_is_the_official_checkpoints(variant: str) -> None:
    official = json.loads((FIXTURES / f"keys/{variant}_torchvision.json").read_text())
    assert {key: list(value.shape) for key, value in torchvision_video.template(variant).items()} == official


@pytest.mark.parametrize("variant", VARIANTS)
def test_template_has_the_parameters_that_torchvision_counts(variant: str) -> None:
    """Which are those of the published file; running averages and indices are no parameters."""
    constants = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index")
    template = torchvision_video.template(variant)
    counted = sum(value.numel() for key, value in template.items() if not key.endswith(constants))
    assert counted == get_model_weights(variant)["KINETICS400_V1"].meta["num_params"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_frames_are_prepared_as_the_preset_beside_the_weights_does(variant: str) -> None:
    preset = get_model_weights(variant)["KINETICS400_V1"].transforms()
    values = np.random.default_rng(0).integers(0, 256, (2, 270, 480, 3), np.uint8)
    frames = torch.from_numpy(values)
    wanted = preset(frames.permute(0, 3, 1, 2)).transpose(0, 1)
    assert torch.equal(prepared(frames, VARIANTS[variant].recipe), wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_clips_are_those_that_torchvision_reports_accuracies_for(variant: str) -> None:
    facts = VARIANTS[variant]
    note = get_model_weights(variant)["KINETICS400_V1"].meta["_docs"]
    assert f"frame_rate={facts.rate:g}`" in note
    assert f"clip_len={facts.frames}`" in note


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_costs_what_the_table_says(variant: str) -> None:
    facts = VARIANTS[variant]
    net = torchvision_video.network(torchvision_video.template(variant), variant)
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        features = net.features(torch.empty(1, 3, facts.frames, facts.recipe.crop, facts.recipe.crop))
    assert features.shape == (1, facts.features)
    assert counted.get_total_flops() / 2e9 == pytest.approx(facts.gmac, rel=0.01)


@pytest.mark.parametrize("variant", VARIANTS)
def test_template_has_as_many_classes_as_a_file(variant: str) -> None:
    with torch.device("meta"):
        found = VARIANTS[variant].constructor(num_classes=7).state_dict()
    template = torchvision_video.template(variant, found)
    assert {key: value.shape for key, value in template.items()} == {key: value.shape for key, value in found.items()}
    assert torchvision_video.network(template, variant).projection.bias.shape == (7,)


def test_stand_in_weights_do_not_change_a_constant_of_the_network() -> None:
    weights = stand_ins("swin3d_t")
    net: Any = torchvision_video.network(weights, "swin3d_t")
    key = "net.features.0.0.attn.relative_position_index"
    assert torch.equal(net.state_dict()[key], VARIANTS["swin3d_t"].constructor().state_dict()[key.removeprefix("net.")])
