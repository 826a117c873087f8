"""Checkpoints of clip networks, key by key, in the names that our networks use.

In: the dictionary of a publisher's file. Out: whose it is, and the same tensors under PySlowFast's keys (ResNet family,
X3D) or torchvision's (MViT, and its own networks). Knows no file and no model: what no rule names keeps its name, so
that the check against a model's template finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Origin = Literal["pyslowfast", "caffe2", "pytorchvideo", "torchvision"]
Rules = tuple[tuple[str, str], ...]

# A key that only files of this origin have, as a regular expression. The first that fits decides: pytorchvideo's MViT
# has all of the keys by which PySlowFast's is known.
SIGNS: tuple[tuple[str, Origin], ...] = (
    (r"blocks\.\d+\.(multipathway_blocks\.\d+\.)?res_blocks\.\d+\.", "pytorchvideo"),
    (r"patch_embed\.patch_model\.weight$", "pytorchvideo"),
    (r"s1\.pathway0_stem\.", "pyslowfast"),
    (r"blocks\.\d+\.attn\.pool_k\.weight$", "pyslowfast"),
    (r"res_conv1_bn_s$", "caffe2"),
    (r"pos_encoding\.class_token$", "torchvision"),  # MViT
    (r"layer4\.1\.conv2\.0\.(0\.)?weight$", "torchvision"),  # r3d_18, mc3_18, r2plus1d_18
    (r"features\.15\.branch3\.1\.1\.weight$", "torchvision"),  # s3d
    (r"features\.0\.0\.attn\.relative_position_bias_table$", "torchvision"),  # swin3d
)

# Blobs of Caffe2 that are no weights: the optimizer's.
CAFFE2_TRAINING = re.compile("momentum|lr|model_iter")
CAFFE2: Rules = (
    (r"_bn_s$", "_bn.weight"),
    (r"_bn_b$", "_bn.bias"),
    (r"_bn_rm$", "_bn.running_mean"),
    (r"_bn_riv$", "_bn.running_var"),
    (r"_w$", ".weight"),
    (r"_b$", ".bias"),
    (r"^pred\.", "head.projection."),
    (r"^conv1\.", "s1.pathway0_stem.conv."),
    (r"^res_conv1_bn\.", "s1.pathway0_stem.bn."),
    (r"^t_conv1\.", "s1.pathway1_stem.conv."),
    (r"^t_res_conv1_bn\.", "s1.pathway1_stem.bn."),
    (r"^t_pool1_subsample\.", "s1_fuse.conv_f2s."),
    (r"^t_pool1_subsample_bn\.", "s1_fuse.bn."),
    (r"^t_res(\d)_\d+_branch2c_bn_subsample\.", r"s\1_fuse.conv_f2s."),
    (r"^t_res(\d)_\d+_branch2c_bn_subsample_bn\.", r"s\1_fuse.bn."),
    (r"^res(\d)_(\d+)_", r"s\1.pathway0_res\2."),
    (r"^t_res(\d)_(\d+)_", r"s\1.pathway1_res\2."),
    (r"\.branch2([abc])(_bn)?\.", r".branch2.\1\2."),
)
# Kernels of convolutions, which have five dimensions: Caffe2 drops the last ones where they are 1.
CONVOLUTION = re.compile(r"\.(conv|conv_f2s|branch1|[abc])\.weight$")

# After the blocks have been given the numbers of PySlowFast's stages: s1 is the stem.
PYTORCHVIDEO: Rules = (
    (r"^(s\d)\.(conv|norm|res_blocks)\.", r"\1.multipathway_blocks.0.\2."),
    (r"^(s\d)\.multipathway_fusion\.conv_fast_to_slow\.", r"\1_fuse.conv_f2s."),
    (r"^(s\d)\.multipathway_fusion\.norm\.", r"\1_fuse.bn."),
    # In X3D the names of the stem's two convolutions are swapped: conv_t is the one over space.
    (r"^s1\.multipathway_blocks\.(\d)\.conv\.conv_t\.", r"s1.pathway\1_stem.conv_xy."),
    (r"^s1\.multipathway_blocks\.(\d)\.conv\.conv_xy\.", r"s1.pathway\1_stem.conv."),
    (r"^s1\.multipathway_blocks\.(\d)\.conv\.", r"s1.pathway\1_stem.conv."),
    (r"^s1\.multipathway_blocks\.(\d)\.norm\.", r"s1.pathway\1_stem.bn."),
    (r"^(s\d)\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)\.", r"\1.pathway\2_res\3."),
    (r"\.branch1_conv\.", ".branch1."),
    (r"\.branch1_norm\.", ".branch1_bn."),
    (r"\.branch2\.conv_([abc])\.", r".branch2.\1."),
    (r"\.branch2\.norm_b\.0\.", ".branch2.b_bn."),
    (r"\.branch2\.norm_b\.1\.block\.0\.", ".branch2.se.fc1."),
    (r"\.branch2\.norm_b\.1\.block\.2\.", ".branch2.se.fc2."),
    (r"\.branch2\.norm_([abc])\.", r".branch2.\1_bn."),
    (r"^blocks\.\d+\.pool\.pre_conv\.", "head.conv_5."),
    (r"^blocks\.\d+\.pool\.pre_norm\.", "head.conv_5_bn."),
    (r"^blocks\.\d+\.pool\.post_conv\.", "head.lin_5."),
    (r"^blocks\.\d+\.proj\.", "head.projection."),
)
PYTORCHVIDEO_MVIT: Rules = (
    (r"^patch_embed\.patch_model\.", "patch_embed.proj."),
    (r"^cls_positional_encoding\.", ""),
    (r"^norm_embed\.", "norm."),
    (r"^head\.proj\.", "head.projection."),
)
# Second names of pool_q, norm_q and their like.
PYTORCHVIDEO_ALIAS = re.compile(r"\.attn\._attention_pool_[qkv]\.")
PYSLOWFAST_MVIT: Rules = (
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^cls_token$", "pos_encoding.class_token"),
    (r"^pos_embed_(spatial|temporal|class)$", r"pos_encoding.\1_pos"),
    (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
    (r"\.attn\.proj\.", ".attn.project.0."),
    (r"\.attn\.pool_([qkv])\.weight$", r".attn.pool_\1.pool.weight"),
    (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.projection\.", "head.1."),
)


def origin_of(keys: Iterable[str]) -> Origin | None:
    """Whose names these are; None where they are of no clip network that is known."""
    names = list(map(str, keys))
    return next((origin for sign, origin in SIGNS if any(re.match(sign, name) for name in names)), None)


def translated(found: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of `found`, which may come from any of the origins, under the keys of our networks.

    Counters of training steps, which Caffe2 has not, stay absent.
    """
    found = {str(key): value for key, value in found.items()}
    match origin_of(found):
        case "caffe2":
            return _from_caffe2(found)
        case "pytorchvideo" if any(key.startswith("patch_embed.") for key in found):
            return _from_pyslowfast_mvit(_from_pytorchvideo_mvit(found))
        case "pytorchvideo":
            return _from_pytorchvideo(found)
        case "pyslowfast" if "patch_embed.proj.weight" in found:
            return _from_pyslowfast_mvit(found)
        case _:
            return found


def _from_caffe2(found: Mapping[str, Any]) -> dict[str, Any]:
    weights = _renamed({key: value for key, value in found.items() if not CAFFE2_TRAINING.search(key)}, CAFFE2)
    for key, value in weights.items():
        if CONVOLUTION.search(key) and isinstance(value, Tensor):
            weights[key] = value.reshape(*value.shape, *[1] * (5 - value.ndim))
    return weights


def _from_pytorchvideo(found: Mapping[str, Any]) -> dict[str, Any]:
    # Where a pool without weights stands between the stages (I3D, C2D), the blocks after it count one more.
    blocks = {int(key.split(".")[1]) for key in found if re.match(r"blocks\.\d+\..*res_blocks\.", key)}
    stages = {0: 1} | {block: stage for stage, block in enumerate(sorted(blocks), start=2)}
    numbers = tuple((rf"^blocks\.{block}\.", f"s{stage}.") for block, stage in stages.items())
    return _renamed(found, (*numbers, *PYTORCHVIDEO))


def _from_pytorchvideo_mvit(found: Mapping[str, Any]) -> dict[str, Any]:
    """PySlowFast's keys, with queries, keys and values in one matrix."""
    weights = _renamed({k: v for k, v in found.items() if not PYTORCHVIDEO_ALIAS.search(k)}, PYTORCHVIDEO_MVIT)
    for query in [key for key in weights if re.search(r"\.attn\.q\.(weight|bias)$", key)]:
        keys = [query.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        parts = [part for key in keys if isinstance(part := weights.get(key), Tensor)]
        if len(parts) == 3 and len({part.shape[1:] for part in parts}) == 1:
            weights[query.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
            for key in keys:
                del weights[key]
    return weights


def _from_pyslowfast_mvit(found: Mapping[str, Any]) -> dict[str, Any]:
    """torchvision's keys, and its position encodings without the dimensions of length 1 in front."""
    weights = _renamed(found, PYSLOWFAST_MVIT)
    for key, value in weights.items():
        if key.startswith("pos_encoding.") and isinstance(value, Tensor) and value.ndim == 3:
            weights[key] = value.flatten() if "class" in key else value.flatten(0, 1)
    return weights


def _renamed(found: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Every rule applied to every key, in order. Of two keys that become one, the second keeps its name."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    weights: dict[str, Any] = {}
    for key, value in found.items():
        name = key
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        weights[key if name in weights else name] = value
    return weights
