"""Every publisher's keys become those of our networks, one to one, and no value changes on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamsal.weights import translations
from streamsal.weights.translations import origin_of, translated

KEYS = Path(__file__).parents[1] / "fixtures" / "embeddings" / "keys"
OURS = sorted(
    path.stem
    for path in KEYS.glob("*.json")
    if not path.stem.endswith(("_pytorchvideo", "_caffe2_names")) and "mvit" not in path.stem
)
CAFFE2 = {path.stem.removesuffix("_caffe2_names"): path.stem for path in sorted(KEYS.glob("*_caffe2_names.json"))}
PYTORCHVIDEO = {
    "c2d_r50": "c2d_r50_pytorchvideo",
    "i3d_r50_8x8": "i3d_r50_pytorchvideo",
    "slow_r50": "slow_r50_pytorchvideo",
    "slowfast_r50_8x8": "slowfast_r50_8x8_pytorchvideo",
    "slowfast_r101_8x8_101_101": "slowfast_r101_pytorchvideo",
    "x3d_s": "x3d_s_pytorchvideo",
}
MVIT = {
    "mvit_v1_b_16x4_pyslowfast": "mvit_v1_b_torchvision",
    "mvit_v2_s_pyslowfast": "mvit_v2_s_torchvision",
    "mvit_base_16x4_pytorchvideo": "mvit_v1_b_torchvision",
}


def keys(name: str) -> dict:
    return json.loads((KEYS / f"{name}.json").read_text())


def numbered(name: str) -> dict[str, Tensor]:
    """A tensor of the right shape for every key, whose one value, repeated, is the key's number."""
    shapes = keys(name)
    return {key: torch.tensor(float(number)).expand(shape) for number, (key, shape) in enumerate(shapes.items())}


def shapes(weights: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in weights.items()}


@pytest.mark.parametrize("name", OURS)
def test_pyslowfast_s_keys_of_convolutional_networks_are_ours(name: str) -> None:
    found = numbered(name)
    assert origin_of(found) == "pyslowfast"
    assert translated(found) == found


@pytest.mark.parametrize("name", list(CAFFE2))
def test_caffe2_s_names_become_pyslowfast_s(name: str) -> None:
    names, shapes = keys(CAFFE2[name]), keys(name)
    assert len(set(names.values())) == len(names) > 200
    blobs = {blob: torch.tensor(float(n)).expand(shapes[key]) for n, (blob, key) in enumerate(names.items())}
    assert origin_of(blobs) == "caffe2"
    # The optimizer's are left out, and dimensions of length 1 at the end may have been.
    short = {
        blob: value[..., 0] if value.ndim == 5 and value.shape[-1] == 1 else value for blob, value in blobs.items()
    }
    assert any(short[blob].ndim == 4 for blob in short)
    training = {f"{blob}_momentum": value for blob, value in blobs.items()} | {"lr": 0.1, "model_iter": 7}
    found = translated({**short, **training})
    assert set(found) == {key for key in shapes if not key.endswith(".num_batches_tracked")}
    for blob, key in names.items():
        assert found[key].shape == tuple(shapes[key]) and torch.equal(found[key], blobs[blob])


@pytest.mark.parametrize("name", list(PYTORCHVIDEO))
def test_pytorchvideo_s_keys_become_pyslowfast_s(name: str) -> None:
    weights, wanted = numbered(PYTORCHVIDEO[name]), keys(name)
    assert origin_of(weights) == "pytorchvideo"
    found = translated(weights)
    if name == "x3d_s":  # its first block has no BatchNorm behind the skip: the network is another one
        wanted = {key: shape for key, shape in wanted.items() if not key.startswith("s2.pathway0_res0.branch1_bn.")}
    assert shapes(found) == wanted
    assert list(found.values()) == list(weights.values())


def test_pytorchvideo_s_swapped_names_in_the_stem_of_x3d_are_undone() -> None:
    weights = numbered("x3d_s_pytorchvideo")
    found = translated(weights)
    assert found["s1.pathway0_stem.conv_xy.weight"] is weights["blocks.0.conv.conv_t.weight"]
    assert found["s1.pathway0_stem.conv.weight"] is weights["blocks.0.conv.conv_xy.weight"]


def test_pools_between_pytorchvideo_s_stages_count_as_blocks_there_and_not_here() -> None:
    for name, block in (("i3d_r50", 3), ("slow_r50", 2)):
        weights = numbered(f"{name}_pytorchvideo")
        key = f"blocks.{block}.res_blocks.0.branch2.conv_a.weight"
        assert translated(weights)["s3.pathway0_res0.branch2.a.weight"] is weights[key]


@pytest.mark.parametrize("name", list(MVIT))
def test_keys_of_mvit_become_torchvision_s(name: str) -> None:
    weights = numbered(name)
    assert origin_of(weights) == name.rsplit("_", 1)[1]
    found = translated(weights)
    assert shapes(found) == keys(MVIT[name])
    aliases = {key for key in weights if "_attention_pool_" in key}
    kept = {float(value.flatten()[0]) for key, value in weights.items() if key not in aliases}
    assert {float(number) for value in found.values() for number in value.unique()} == kept


def test_pytorchvideo_s_queries_keys_and_values_are_one_matrix_in_this_order() -> None:
    weights = numbered("mvit_base_16x4_pytorchvideo")
    parts = [weights[f"blocks.3.attn.{part}.weight"] for part in "qkv"]
    assert torch.equal(translated(weights)["blocks.3.attn.qkv.weight"], torch.cat(parts))


def test_pyslowfast_s_mvit_of_24_blocks_is_known_and_keeps_all_its_tensors() -> None:
    weights = numbered("mvit_v1_b_32x3_pyslowfast")
    found = translated(weights)
    assert origin_of(weights) == "pyslowfast" and origin_of(found) == "torchvision"
    assert len(found) == len(weights) and {"blocks.23.mlp.3.bias", "pos_encoding.temporal_pos"} < found.keys()


@pytest.mark.parametrize("name", ["mvit_v1_b_torchvision", "mvit_v2_s_torchvision"])
def test_torchvision_s_keys_of_mvit_are_ours(name: str) -> None:
    weights = numbered(name)
    assert origin_of(weights) == "torchvision"
    assert translated(weights) == weights


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t", "swin3d_s", "swin3d_b"])
def test_torchvision_s_other_networks_are_known_and_keep_their_keys(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        weights = models.get_model(name).state_dict()
    assert origin_of(weights) == "torchvision"
    assert translated(weights) == weights


@pytest.mark.parametrize("name", ["resnet50", "swin_t", "vit_b_16", "alexnet", "efficientnet_b0"])
def test_networks_of_single_frames_are_no_clip_networks(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        assert origin_of(models.get_model(name).state_dict()) is None


def test_what_no_rule_names_keeps_its_name_and_nothing_is_lost() -> None:
    one = torch.zeros(1)
    weights = {**numbered("slow_r50_pytorchvideo"), "blocks.9.detection_head.weight": one, "ema": one}
    assert {"blocks.9.detection_head.weight", "ema"} < translated(weights).keys()
    blobs = {"res_conv1_bn_s": one, "nonlocal_conv3_1_theta_w": one, "s1.pathway0_stem.bn.weight": one}
    assert len(translated(blobs)) == 3
    alone = {"patch_embed.patch_model.weight": one, "blocks.0.attn.q.weight": one}
    assert translated(alone).keys() == {"conv_proj.weight", "blocks.0.attn.q.weight"}


def test_translating_twice_changes_nothing() -> None:
    for name in [*CAFFE2.values(), *PYTORCHVIDEO.values(), *MVIT]:
        if not name.endswith("_caffe2_names"):
            once = translated(numbered(name))
            assert translated(once).keys() == once.keys()


def test_every_sign_is_of_a_network_that_is_tried() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        tried = [models.get_model(name).state_dict() for name in ("r3d_18", "s3d", "swin3d_t", "mvit_v1_b")]
    tried += [keys(name) for name in (*OURS, *CAFFE2.values(), *PYTORCHVIDEO.values(), *MVIT)]
    for sign, origin in translations.SIGNS:
        assert any(origin_of([key]) == origin for found in tried for key in found if re.match(sign, key))
