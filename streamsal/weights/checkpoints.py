"""From a file of weights to the tensors of one network: read without running code, and checked key by key.

In: a name, a path or a mapping, and the template of what has to be there. Out: a state dict that fits it exactly, or
an error that says what the file is instead.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..files import write_bytes
from . import cache, caffe2, formats, synthetic, translations
from .translations import Origin

# A key that only this network has: what a file is that does not fit.
TELLING = {
    "models.3.finalizers.29.gauss.sigma": "a checkpoint of deepgaze_iie",
    "scanpath_networks.0.encoding0.convolutions.0.weight": "a checkpoint of deepgaze_iii",
    "finalizer.gauss_x.sigma": "a checkpoint of deepgaze_mr",
    "readout_network.conv0.weight": "a checkpoint of deepgaze_i",
    "score_dsn.0.side_prep.weight": "a checkpoint of stavis or stavis_visual",
    "visual_model.backbone.base1.0.conv_s.weight": "a checkpoint of avinet",
    "backbone.base1.0.conv_s.weight": "a checkpoint of vinet or vinet_s",
    "neck.conv_slow.0.weight": "a checkpoint of vinet_a",
    "convtsp4.13.weight": "a checkpoint of tased",
    "coarse_gaussians_dhf1k": "a checkpoint of unisal",
    "design": "a classifier of clips",
    "i3d.logits.conv3d.weight": "weights of a classifier of clips without its design",
    "Mixed_5c.b3b.conv3d.weight": "an Inception-I3D",
    "model.Mixed_5c.b3b.conv3d.weight": "an Inception-I3D",
    "scalar.0.weight": "a resizer of clips with a spatial transformer",
    "c1.conv3d.weight": "a resizer of clips",
    "fc_loc.0.weight": "a spatial transformer",
    "layer4.2.conv3.weight": "a ResNet without any readout",
    "features.denseblock4.denselayer32.conv2.weight": "a DenseNet-201 without any readout",
    "_blocks.38._project_conv.weight": "an EfficientNet-B5 without any readout",
    "features.34.weight": "a VGG-19 without any readout",
    "classifier.6.weight": "an AlexNet or VGG without any readout",
    "s1_fuse.conv_f2s.weight": "a SlowFast",
    "s1.pathway0_stem.conv_xy.weight": "an X3D",
    "s3.pathway0_nonlocal1.conv_theta.weight": "a network with non-local blocks, which is not among ours",
    "s1.pathway0_stem.conv.weight": "a Slow, I3D or C2D",
    "t_pool1_subsample_w": "a SlowFast from Caffe2",
    "res_conv1_bn_s": "a Slow, I3D or C2D from Caffe2",
    "blocks.0.multipathway_blocks.0.conv.weight": "a SlowFast of pytorchvideo",
    "blocks.0.conv.conv_t.weight": "an X3D of pytorchvideo",
    "blocks.1.res_blocks.0.branch1_conv.weight": "a Slow, I3D or C2D of pytorchvideo",
    "patch_embed.patch_model.weight": "an MViT of pytorchvideo",
    "blocks.0.attn.pool_k.weight": "an MViT of PySlowFast",
    "pos_encoding.spatial_pos": "an MViT of version 1",
    "pos_encoding.class_token": "an MViT of version 2",
    "stem.3.weight": "an R(2+1)D",
    "layer4.1.conv2.0.weight": "a ResNet-18 for clips, r3d_18 or mc3_18",
    "features.15.branch3.1.1.weight": "an S3D",
    "features.0.0.attn.relative_position_bias_table": "a Swin transformer for clips",
}
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights of a clip network under the keys of ours, and whose they were; None of stand-ins."""

    origin: Origin | None
    weights: dict[str, Tensor]


def load(
    name: str,
    source: str | Path | Mapping[str, Tensor] | None,
    template: Mapping[str, Tensor],
    *,
    adjust: Mapping[str, float] = synthetic.ADJUST["deepgaze"],
    nested: str | None = None,
    idle: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The weights of the network `name`, with exactly the keys, shapes and dtypes of `template`, on the CPU.

    `source` None: the cached official file (MissingWeights where there is none); "synthetic": stand-ins; a path: that
    file; a mapping: itself. `nested`: key of the file's dictionary under which the official checkpoint keeps them.
    `idle`: beginnings of keys that such a file may have and this network does not use.
    """
    if isinstance(source, str) and source == cache.SYNTHETIC:
        return synthetic.state_dict(template, adjust=adjust)
    if isinstance(source, Mapping):
        found, where = source, "the mapping given as weights"
    else:
        path = cache.find(name) if source is None else Path(source)
        found, where = read(path), str(path)
    inner: Any = found.get(nested) if nested else None
    entries = bare(inner if isinstance(inner, Mapping) else found)
    return fitted(name, {key: entries[key] for key in entries if not str(key).startswith(idle)}, template, where)


def clip_weights(
    name: str,
    source: str | Path | Mapping[str, Tensor] | None,
    template_of: Callable[[Mapping[str, Tensor] | None], Mapping[str, Tensor]],
) -> Checkpoint:
    """The weights of the clip network `name`, with exactly the keys, shapes and dtypes of its template, on the CPU.

    `source` is what it is for `load`; a file or mapping may have any publisher's keys. `template_of` gives the template
    of these weights under our keys, or of the official ones for None. Raises MissingWeights, BadInput, MissingInput.
    """
    if isinstance(source, str) and source == cache.SYNTHETIC:
        stand_ins = synthetic.state_dict(template_of(None), adjust=synthetic.ADJUST["residual_video"])
        return Checkpoint(origin=None, weights=stand_ins)
    if isinstance(source, Mapping):
        found, where = _translated(source), "the mapping given as weights"
    else:
        path = cache.find(name) if source is None else Path(source)
        found, where = load_checkpoint(path), str(path)
    return replace(found, weights=fitted(name, found.weights, template_of(found.weights), where))


def load_checkpoint(path: Path) -> Checkpoint:
    """The weights in a file of PySlowFast, Caffe2, pytorchvideo or torchvision, whatever its name ends in.

    Raises BadInput, saying what it is, for a file of another kind or another network; MissingInput where there is none.
    """
    if formats.require(path, "torch", "legacy", "caffe2") == "caffe2":
        found = caffe2.read(path)
    else:
        found = read(path)
        inner = found.get("model_state")
        found = inner if isinstance(inner, Mapping) else found
    checkpoint = _translated(found)
    if checkpoint.origin is None:
        unknown = f"something unknown ({len(found)} entries: {_some(list(found))})" if found else "an empty dictionary"
        what = identity(found) or unknown
        raise BadInput(f"{path} is no checkpoint of a clip network: it is {what}")
    return checkpoint


def _translated(found: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(origin=translations.origin_of(found), weights=translations.translated(found))


def write(path: Path, found: Mapping[str, Any]) -> None:
    """A file of torch.save, which appears whole or not at all. Raises WriteError."""
    whole = io.BytesIO()  # of a full disk PyTorch (2.11) itself says that a position was unexpected
    torch.save(dict(found), whole)
    write_bytes(path, whole.getvalue())


def read(path: Path) -> Mapping[str, Any]:
    """The dictionary in a file of torch.save; its tensors stay on disk until they are used."""
    found = _unpickled(path)
    if not isinstance(found, Mapping):
        raise BadInput(f"{path} holds a {type(found).__name__}, not a dictionary of tensors: is it the right file?")
    return found


def read_tensor(path: Path) -> Tensor:
    """The one tensor in a file of torch.save."""
    found = _unpickled(path)
    if not isinstance(found, Tensor):
        raise BadInput(f"{path} holds a {type(found).__name__}, not a tensor: is it the right file?")
    return found


def _unpickled(path: Path) -> Any:
    kind = formats.require(path, "torch", "legacy")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "torch")
    except pickle.UnpicklingError as error:
        raise BadInput(f"{path} holds more than tensors, and that is not loaded, because it could run code") from error
    except Exception as error:  # torch raises anything, from AssertionError to TypeError, where bytes are wrong
        raise formats.damaged(path, error) from error


def fitted(name: str, found: Mapping[str, Any], template: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """`found` in the template's order and dtypes. Raises BadInput unless keys and shapes are those of the template."""
    # Counters of training steps came with torch 0.4.1; nothing reads them.
    missing = [key for key in template if key not in found and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in found if key not in template]
    wrong = [key for key, value in found.items() if key in template and _shape(value) != tuple(template[key].shape)]
    faults = []
    if missing or unexpected:
        faults += [f"it is {what}" for what in [identity(found)] if what]
    if missing:
        faults.append(f"{len(missing)} of {len(template)} tensors missing ({_some(missing)})")
    if unexpected:
        faults.append(f"{len(unexpected)} of {len(found)} tensors not of this model ({_some(unexpected)})")
    if wrong:
        shapes = f"{wrong[0]} is {_shape(found[wrong[0]])}, not {tuple(template[wrong[0]].shape)}"
        faults.append(f"{len(wrong)} of {len(found)} tensors of another shape ({shapes})")
    if faults:
        raise BadInput(f"{where} is no checkpoint of {name}: {'; '.join(faults)}")
    return {
        key: found[key].to(like.dtype) if key in found else torch.zeros(like.shape, dtype=like.dtype)
        for key, like in template.items()
    }


def bare(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the prefix that a DataParallel puts before every key."""
    if not found or not all(str(key).startswith("module.") for key in found):
        return found
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def identity(found: Mapping[str, Any]) -> str:
    """What a dictionary of weights looks like, in words; empty where nothing is known."""
    for wrapper in WRAPPERS:
        inner = found.get(wrapper)
        if isinstance(inner, Mapping):
            return f"a dictionary that keeps {identity(inner) or 'something'} under {wrapper!r}"
    inner = bare(found)
    if inner is not found:
        return f"{identity(inner) or 'something'} saved from a DataParallel (save model.module.state_dict() instead)"
    return next((what for key, what in TELLING.items() if key in found), "")


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _some(keys: list[str]) -> str:
    return ", ".join(map(str, keys[:2])) + (", ..." if len(keys) > 2 else "")
