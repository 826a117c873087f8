"""The table of models, and the one way from a name or a user's own model file to a model that can be run.

In: a name from `MODELS` or the path of a `.py` file. Out: a `Model` (see spec.py), its `ModelSpec`, or the checksums
that a plan records. A model's module, and with it torch, is imported only when that model is asked for.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import MissingWeights, StreamsalError, UsageError
from ..weights import cache as assets
from .spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from .spec import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of `streamsal models`.

    `kind`: what it gives in the end. `weights`: names of the assets it needs, see weights/assets.py: its checkpoint and
    its usual center bias. `cost`: multiply-adds of one 1920 x 1080 frame, or of one clip. `variant`: which of the
    models in its file it is, where that has several. `one_size`: frames of any size cost the same. `trained`: its
    weights are not published but trained by its users; what to say to one who names none.
    """

    module: str
    summary: str
    licence: str
    kind: str = "log_density"
    weights: tuple[str, ...] = ()
    cost: str = "no network"
    variant: str = ""
    one_size: bool = False
    trained: str = ""


def _clip_models(
    module: str, licence: str = "weights: none stated by their authors", /, **gmac: float
) -> dict[str, Entry]:
    """Models of one file that give vectors of clips, with their cost per clip; each named as the asset it needs."""
    return {
        name: Entry(
            module=f"streamsal.models.{module}",
            summary=f"vectors of clips: {assets.ASSETS[name].about}",
            licence=licence,
            kind="features",
            weights=(name,),
            cost=f"{cost:g} GMAC",
            variant=name,
        )
        for name, cost in gmac.items()
    }


def _of_videos(
    name: str, about: str, licence: str, cost: str, *, module: str = "", kind: str = "saliency_map"
) -> Entry:
    """A model whose network sees frames of one size, and some frames around each; named as the asset it needs."""
    return Entry(
        module=f"streamsal.models.{module or name}",
        summary=f"{kind.replace('_', ' ')} of each frame of a video {about}",
        licence=licence,
        weights=(name,),
        cost=cost,
        variant=name if module else "",
        one_size=True,
        kind=kind,
    )


UNSTATED = "MIT; weights: none stated by their authors"
NOT_COMMERCIAL = "CC-BY-NC-SA-4.0 (no commercial use)"

MODELS: dict[str, Entry] = {
    "deepgaze_iie": Entry(
        module="streamsal.models.deepgaze_iie",
        summary="fixation density of each frame as a picture: four backbones, 120 readouts",
        licence="weights: none stated by their authors",
        weights=("deepgaze_iie", "centerbias_mit1003"),
        cost="149 GMAC",
    ),
    "deepgaze_iii": Entry(
        module="streamsal.models.deepgaze_iii",
        summary="density of the next fixation in each frame, given the last four: one backbone, 10 readouts",
        licence="weights: none stated by their authors",
        weights=("deepgaze_iii", "centerbias_mit1003"),
        cost="42 GMAC",
    ),
    "deepgaze_mr": Entry(
        module="streamsal.models.deepgaze_mr",
        summary="fixation density of each frame of a video from the last 16: VGG-19 features, their mean, one readout",
        licence="MIT",
        kind="priority",
        weights=("deepgaze_mr", "centerbias_ledov"),
        cost="806 GMAC",
    ),
    "unisal": _of_videos(
        "unisal", "from all that was before: MobileNetV2 with a memory", "Apache-2.0", "1.3 GMAC", kind="log_density"
    ),
    "tased": _of_videos("tased", "from the last 32: an S3D, decoded to where its maxima were", UNSTATED, "51 GMAC"),
    "vinet": _of_videos(
        "vinet", "from the last 32: an S3D, and a decoder of all its levels", UNSTATED, "88 GMAC", module="vinet"
    ),
    "vinet_s": _of_videos(
        "vinet_s",
        "from the last 32: ViNet with grouped kernels, a third as large",
        NOT_COMMERCIAL,
        "42 GMAC",
        module="vinet",
    ),
    "vinet_a": _of_videos(
        "vinet_a", "from a second before and after it: a SlowFast of actions", NOT_COMMERCIAL, "207 GMAC"
    ),
    "avinet": _of_videos("avinet", "from the last 32 and their sound: ViNet and SoundNet", UNSTATED, "88 GMAC"),
    "stavis": _of_videos(
        "stavis", "from 16 around it and their sound: a 3D ResNet-50 at 112x112", UNSTATED, "9.8 GMAC", module="stavis"
    ),
    "stavis_visual": _of_videos(
        "stavis_visual", "from 16 around it: a 3D ResNet-50 at 112x112", UNSTATED, "9.7 GMAC", module="stavis"
    ),
    "deepgaze_i": Entry(
        module="streamsal.models.deepgaze_i",
        summary="fixation density of each frame as a picture: one AlexNet layer; a fast baseline",
        licence="weights: none stated by their authors",
        weights=("deepgaze_i", "centerbias_mit1003"),
        cost="7 GMAC",
    ),
    "sigmotion": Entry(
        module="streamsal.models.sigmotion",
        summary="image signature and camera-compensated motion; needs no weights",
        licence="Apache-2.0",
    ),
    "signature": Entry(
        module="streamsal.models.signature",
        summary="image signature without motion; needs no weights",
        licence="Apache-2.0",
    ),
    "center": Entry(
        module="streamsal.models.center",
        summary="Gaussian center prior alone, the same for every frame; a baseline",
        licence="Apache-2.0",
    ),
    "uniform": Entry(
        module="streamsal.models.uniform",
        summary="every place equally likely; the chance level",
        licence="Apache-2.0",
    ),
    **_clip_models(
        "resnet3d",
        x3d_xs=0.605,
        x3d_s=1.96,
        x3d_m=4.73,
        x3d_l=18.4,
        slowfast_r50_4x16=27.6,
        slowfast_r50_8x8=50.3,
        slowfast_r50_16x8_ssv2=100.6,
        slowfast_r101_8x8=96.4,
        slowfast_r101_16x8=163.1,
        slow_r50_4x16=20.9,
        slow_r50_8x8=41.7,
        i3d_r50=28.4,
        c2d_r50=32.7,
    ),
    **_clip_models(
        "torchvision_video",
        r3d_18=40.7,
        mc3_18=43.3,
        r2plus1d_18=40.5,
        s3d=143.8,
        swin3d_t=87.8,
        swin3d_s=165.7,
        swin3d_b=281.3,
        mvit_v1_b=70.6,
        mvit_v2_s=64.2,
    ),
    **_clip_models("published_i3d", "Apache-2.0", i3d_rgb_imagenet=111.2, i3d_rgb_charades=111.2),
    **_clip_models("mvit", mvit_v1_b_32x3=235.8, mvit_v2_s_16x4=64.2, mvit_v2_b_32x3=224.5),
    "lowres_classifier": Entry(
        module="streamsal.models.lowres_classifier",
        summary="which actions are in each clip: a resizer and an I3D, trained by you with `streamsal train`",
        licence="Apache-2.0; weights: your own",
        kind="probabilities",
        cost="50 GMAC",
        trained="lowres_classifier has no published weights: train a classifier with `streamsal train`, or make one of "
        "older files with `streamsal weights import-pair`, and name its file with --weights",
    ),
}


DEFAULT_MODEL = "deepgaze_iie"


def create_model(
    name_or_path: str | Path,
    *,
    weights: str | Path | Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Model:
    """A model by its name in the table, or from a user's own file, ready to `begin` a video on `device`.

    `weights`: a checkpoint's path or its tensors by key, "synthetic" for stand-ins; None: the cached official file.
    An option `backend="reference"` asks for the authors' own package instead of our network, `as_density=True` for log
    densities made of a model's saliency maps.
    """
    options, as_density = without_as_density(options)
    module, options = backend_of(name_or_path, with_stand_in_bias(name_or_path, weights, options))
    check_options(name_or_path, module, options)
    options |= variant_of(name_or_path)
    if weights is not None:
        check_takes_weights(name_or_path, module)
        options["weights"] = weights
    with naming_the_file(name_or_path, "in build()"):
        model = module.build(device=device, **options)
    check_model(name_or_path, model)
    if not as_density:
        return model
    from .as_density import AsDensity

    return AsDensity(model)


def spec_of(name_or_path: str | Path, weights: str | Path | None = None, **options: Any) -> ModelSpec:
    """A model's spec; without building its network, where its file has a `spec(**options)` or a `SPEC`.

    `weights`: as for `create_model`, for a model whose weights say what it is: its `spec` has a parameter of that name.
    """
    options, as_density = without_as_density(options)
    if as_density:
        from .as_density import spec_as_density

        return spec_as_density(spec_of(name_or_path, weights, **options))
    module, options = backend_of(name_or_path, options)
    check_options(name_or_path, module, options)
    options |= variant_of(name_or_path)
    if callable(getattr(module, "spec", None)):
        if "weights" in inspect.signature(module.spec).parameters:
            options["weights"] = weights
        with naming_the_file(name_or_path, "in spec()"):
            return module.spec(**options)
    if isinstance(getattr(module, "SPEC", None), ModelSpec) and not options:
        return module.SPEC
    return create_model(name_or_path, **options).spec


def without_as_density(options: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The options that are the model's own, and whether densities are to be made of its maps."""
    return {name: value for name, value in options.items() if name != "as_density"}, bool(options.get("as_density"))


def variant_of(name_or_path: str | Path) -> dict[str, Any]:
    """What tells a file with several models which of them is meant."""
    entry = MODELS.get(str(name_or_path))
    return {"variant": entry.variant} if entry and entry.variant else {}


def backend_of(name_or_path: str | Path, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What has `build` and `spec` of a model, by its option `backend`, and the other options."""
    options = dict(options)
    backend = options.pop("backend", "own")
    if backend == "own":
        return model_module(name_or_path), options
    if backend != "reference":
        raise UsageError(f"no backend is named {backend!r}: use own, or reference for the authors' package")
    from .deepgaze_reference import Backend

    return Backend(str(name_or_path)), options


def with_stand_in_bias(name_or_path: str | Path, weights: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model; one with stand-in weights has no use for a center bias that has to be downloaded."""
    synthetic = isinstance(weights, str) and weights == assets.SYNTHETIC
    if synthetic and usual_center_bias(name_or_path) and "center_bias" not in options:
        return {**options, "center_bias": "gaussian"}
    return dict(options)


def usual_center_bias(name_or_path: str | Path) -> str:
    """Name of the center bias a model takes unless told otherwise; empty for one that takes no template."""
    option = inspect.signature(model_module(name_or_path).build).parameters.get("center_bias")
    return option.default if option is not None and isinstance(option.default, str) else ""


def weights_file(name_or_path: str | Path, weights: str | Path | None = None) -> str:
    """The weights a run would use: an absolute path, "synthetic", or nothing for a model without any.

    Raises MissingWeights where the official file is needed and not here, UsageError for weights a model cannot take.
    """
    if weights is None:
        entry = MODELS.get(str(name_or_path))
        if entry and entry.trained:
            raise MissingWeights(entry.trained)
        return str(assets.find(entry.weights[0])) if entry and entry.weights else ""
    check_takes_weights(name_or_path, model_module(name_or_path))
    return assets.SYNTHETIC if str(weights) == assets.SYNTHETIC else os.path.abspath(weights)


def weights_sha256(name_or_path: str | Path, weights: str | Path | None = None) -> str | None:
    """Checksum of the weights a run would use; None for a model without any."""
    path = weights_file(name_or_path, weights)
    if path == assets.SYNTHETIC:
        return assets.SYNTHETIC_SHA256
    return assets.checksum(Path(path)) if path else None


def missing_assets(name_or_path: str | Path, *, weights: str | None, center_bias: str) -> list[assets.Asset]:
    """What a run with these weights and this center bias would need and this machine does not have."""
    return [asset for asset in needed_assets(name_or_path, weights, center_bias) if assets.located(asset) is None]


def needed_assets(name_or_path: str | Path, weights: str | None, center_bias: str) -> list[assets.Asset]:
    entry = MODELS.get(str(name_or_path))
    checkpoint = [] if weights or entry is None else list(entry.weights[:1])
    template = f"centerbias_{center_bias}"
    return [assets.ASSETS[name] for name in [*checkpoint, *([template] if template in assets.ASSETS else [])]]


def check_commercial(name_or_path: str | Path, weights: str | None, center_bias: str) -> None:
    """Raises UsageError naming the file whose licence does not allow commercial use. A user's own files are his."""
    entry = MODELS.get(str(name_or_path))
    used = needed_assets(name_or_path, weights, center_bias)
    if entry and weights and weights != assets.SYNTHETIC:
        used += [assets.ASSETS[name] for name in entry.weights[:1]]  # whoever copied it, it is the same checkpoint
    for asset in used:
        if asset.commercial != "allowed":
            raise UsageError(
                f"--commercial-only: {name_or_path} needs {asset.file}, whose licence is: {asset.licence}; take "
                "another model (`streamsal models --commercial-only`)"
            )


def commercial(name: str) -> bool:
    """Whether everything that a model of the table needs is licensed for commercial use."""
    return all(assets.ASSETS[asset].commercial == "allowed" for asset in MODELS[name].weights)


def code_sha256(name_or_path: str | Path) -> str | None:
    """Checksum of a user's own model file; None for a model of the table, whose code the version identifies."""
    return assets.file_sha256(Path(name_or_path)) if is_user_file(name_or_path) else None


def is_user_file(name_or_path: str | Path) -> bool:
    return isinstance(name_or_path, Path) or name_or_path.endswith(".py") or "/" in name_or_path


def model_module(name_or_path: str | Path) -> ModuleType:
    """The module of a model: imported by its name in the table, or loaded from a user's file."""
    if is_user_file(name_or_path):
        return load_user_file(Path(name_or_path))
    entry = MODELS.get(str(name_or_path))
    if entry is None:
        close = difflib.get_close_matches(str(name_or_path), MODELS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(MODELS)}"
        raise UsageError(f"no model is named {name_or_path!r}: {hint} (a model file of your own ends in .py)")
    return importlib.import_module(entry.module)


def load_user_file(path: Path) -> ModuleType:
    """Runs a user's model file as a module of its own; the same unchanged file gives the same module again."""
    # The name carries path and content: an edited file is a new module, and no user file can hide an installed one.
    identity = hashlib.sha256(f"{path.resolve()}\n{assets.file_sha256(path)}".encode()).hexdigest()[:16]
    name = f"streamsal_user_model_{identity}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise UsageError(f"{path} cannot be loaded as a model file: it has to end in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # before the file runs: its dataclasses look their own module up
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"model file {path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "build", None)):
        raise UsageError(f"model file {path} has no function build(weights=None, *, device, **options): add one")
    return module


@contextmanager
def naming_the_file(name_or_path: str | Path, where: str, *, but: type[Exception] = StreamsalError) -> Iterator[None]:
    """An error inside a user's own model file is said to be that file's. Our own errors and `but` stay as they are."""
    try:
        yield
    except (StreamsalError, but):
        raise
    except Exception as error:
        if not is_user_file(name_or_path):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise StreamsalError(f"model file {name_or_path} failed {where}: {reason}") from error


def check_options(name_or_path: str | Path, module: Any, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(module.build).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.name not in ("weights", "device", "variant")]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UsageError(f"model {name_or_path} takes no option {option!r}: {takes}")


def check_takes_weights(name_or_path: str | Path, module: ModuleType) -> None:
    entry = MODELS.get(str(name_or_path))
    takes = bool(entry.weights or entry.trained) if entry else "weights" in inspect.signature(module.build).parameters
    if not takes:
        raise UsageError(f"model {name_or_path} has no weights to load: leave the weights out")


def check_model(name_or_path: str | Path, model: object) -> None:
    """Raises UsageError naming the first thing that keeps `model` from being a `Model`."""
    what = f"what build() of {name_or_path} returned, a {type(model).__name__},"
    if not isinstance(getattr(model, "spec", None), ModelSpec):
        raise UsageError(f"{what} has no attribute spec that is a streamsal.models.spec.ModelSpec: add one")
    for method, arguments in (("begin", "video"), ("step", "batch, state"), ("end", "state")):
        if not callable(getattr(model, method, None)):
            raise UsageError(f"{what} has no method {method}({arguments}): add one")
