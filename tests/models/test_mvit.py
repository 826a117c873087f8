"""MViT against numbers measured with PySlowFast's network, with stand-in weights in both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamsal.errors import BadInput
from streamsal.models import mvit
from streamsal.weights import synthetic
from streamsal.weights.translations import translated

FIXTURES = Path(__file__).parents[1] / "fixtures/embeddings"
MEASURED = ("mvit_v1_b_16x4_pyslowfast", "mvit_v1_b_32x3_pyslowfast", "mvit_v2_s_pyslowfast")
PUBLISHED = {"mvit_v1_b_32x3": "mvit_v1_b_32x3_pyslowfast", "mvit_v2_s_16x4": "mvit_v2_s_pyslowfast"}


def official(keys: str) -> dict[str, Tensor]:
    shapes = json.loads((FIXTURES / f"keys/{keys}.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def stand_ins(keys: str) -> dict[str, Tensor]:
    return translated(synthetic.state_dict(official(keys), adjust=synthetic.ADJUST["residual_video"]))


def difference(found: Tensor, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.numpy() - wanted) / np.linalg.norm(wanted))


def shapes(template: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in template.items()}


@pytest.mark.parametrize("case", MEASURED)
def test_features_and_logits_are_pyslowfasts(case: str) -> None:
    """Measured on clips of 64 pixels; the depth, widths and kernels of the three are read from their weights."""
    measured = np.load(FIXTURES / f"{case}.npz")
    net = mvit.assembled(stand_ins(f"{case}_64px"))
    clips = (torch.from_numpy(measured["frames"]).float() / 255 - 0.45) / 0.225
    features = net.features(clips.permute(3, 0, 1, 2)[None])
    assert difference(features, measured["features"]) <= 1e-5
    assert difference(net.logits(features), measured["logits"]) <= 1e-5


@pytest.mark.parametrize("variant", PUBLISHED)
def test_template_is_the_official_checkpoints(variant: str) -> None:
    assert shapes(mvit.template(variant)) == shapes(translated(official(PUBLISHED[variant])))


@pytest.mark.parametrize("variant", mvit.VARIANTS)
def test_the_layout_of_a_template_is_read_back_from_it(variant: str) -> None:
    template = mvit.template(variant)
    assert mvit.layout_of(template) == mvit.VARIANTS[variant].layout
    assert mvit.clip_size(template) == (mvit.VARIANTS[variant].frames, mvit.VARIANTS[variant].crop)


@pytest.mark.parametrize("variant", mvit.VARIANTS)
def test_a_clip_costs_what_the_table_says(variant: str) -> None:
    facts = mvit.VARIANTS[variant]
    net = mvit.network(mvit.template(variant), variant)
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        features = net.features(torch.empty(1, 3, facts.frames, facts.crop, facts.crop))
    assert features.shape == (1, facts.features)
    assert counted.get_total_flops() / 2e9 == pytest.approx(facts.gmac, rel=0.01)


def test_template_follows_the_blocks_and_classes_of_a_file() -> None:
    """Files called 32x3 have 24 blocks or 16, and 400 classes or 600: both are read as they are."""
    found = translated(official("mvit_v1_b_16x4_pyslowfast"))
    found["pos_encoding.temporal_pos"] = torch.empty(16, 96, device="meta")
    found["head.1.weight"], found["head.1.bias"] = (torch.empty(600, *more, device="meta") for more in ((768,), ()))
    assert shapes(mvit.template("mvit_v1_b_32x3", found)) == shapes(found)
    assert mvit.network(found, "mvit_v1_b_32x3").projection.out_features == 600


def test_weights_for_other_clips_are_refused() -> None:
    with pytest.raises(BadInput, match="clips of 16 frames and 64 pixels, and mvit_v2_s_16x4 takes 16 frames and 224"):
        mvit.network(translated(official("mvit_v2_s_pyslowfast_64px")), "mvit_v2_s_16x4")
    with pytest.raises(BadInput, match="clips of 16 frames and 224 pixels, and mvit_v2_b_32x3 takes 32 frames"):
        mvit.network(translated(official("mvit_v2_s_pyslowfast")), "mvit_v2_b_32x3")


def test_weights_of_no_known_mvit_are_refused() -> None:
    weights = mvit.template("mvit_v1_b_32x3")
    del weights["blocks.5.attn.pool_q.pool.weight"]
    with pytest.raises(BadInput, match="block 5 is wider, but pools no queries"):
        mvit.template("mvit_v1_b_32x3", weights)


def test_a_clip_has_the_same_vector_in_any_batch() -> None:
    net = mvit.assembled(stand_ins("mvit_v2_s_pyslowfast_64px"))
    clips = torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    together, alone = net.features(clips), torch.cat([net.features(clip[None]) for clip in clips])
    assert torch.linalg.norm(together - alone) <= 1e-5 * torch.linalg.norm(alone)
    assert torch.linalg.norm(alone[0] - alone[1]) > 1e-2 * torch.linalg.norm(alone)
