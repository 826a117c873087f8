"""What `streamsal models` and `streamsal weights` tell and do: which models there are, and the files that they need.

Arguments in, a call of what does the work, results on stdout, an exit code out. Imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..progress import warn
from ..tables import print_facts
from .asked import progress_of

if TYPE_CHECKING:
    from ..models import Entry
    from ..models.spec import ModelSpec


EARLY_POOLING_PX = 224  # the program of 2022 had I3D's second pooling for frames of this size, and not for 112


def list_models(arguments: argparse.Namespace) -> int:
    from ..models import MODELS, commercial

    if arguments.name:
        facts = _model_facts(arguments.name, arguments.commercial_only)
        rows = [[key.replace("_", " "), str(value)] for key, value in facts.items()]
        print_facts(facts, rows, ["", ""], arguments.json)
        return 0
    table = [
        {"name": name, "kind": e.kind, "weights": _weights_of(e), "licence": e.licence, "about": e.summary}
        for name, e in MODELS.items()
        if commercial(name) or not arguments.commercial_only
    ]
    print_facts(
        table, [list(row.values()) for row in table], ["model", "gives", "weights", "licence", ""], arguments.json
    )
    return 0


def _model_facts(name: str, commercial_only: bool) -> dict[str, Any]:
    from ..models import MODELS, check_commercial, spec_of, usual_center_bias

    if commercial_only:
        check_commercial(name, None, usual_center_bias(name))
    spec, entry = spec_of(name), MODELS.get(name)
    window, clip = spec.window(25.0), spec.clip
    seen = f"{window.past} frames before, {window.future} after, at 25 frames per second"
    if clip:
        seen = f"{clip.length} frames of {clip.seconds:.3g} s"
    outputs = [*spec.outputs, *spec.derived]
    return {
        "name": spec.name,
        "about": spec.summary,
        "kind": ", ".join(f"{output.name} ({output.kind}, {output.units})" for output in outputs),
        "window": seen,
        "sound": _heard(spec),
        "px_per_degree": spec.px_per_degree or "any",
        "long_side": spec.long_side or "any",
        "cost": _cost(entry) if entry else "unknown",
        "weights": _weights_of(entry) if entry else "its own",
        "files": ", ".join(entry.weights) or "none" if entry else "its own",
        "licence": spec.licence,
        "citation": spec.citation,
    }


def _heard(spec: ModelSpec) -> str:
    if spec.audio is None:
        return "none"
    return f"of these frames, at {spec.audio.rate_hz} Hz" if spec.audio.rate_hz else "of these frames, at its own rate"


def _cost(entry: Entry) -> str:
    clips = entry.kind in ("features", "probabilities")
    unit = "clip" if clips else "frame of any size" if entry.one_size else "1080p frame"
    return f"{entry.cost} per {unit}" if entry.weights or entry.trained else entry.cost


def _weights_of(entry: Entry) -> str:
    return "your own" if entry.trained else _have(entry.weights)


def _have(names: Sequence[str]) -> str:
    """Whether the assets of these names are here, and which are not."""
    from ..weights.cache import ASSETS, located

    if not names:
        return "none"
    missing = [name for name in names if not located(ASSETS[name])]
    return f"missing: {', '.join(missing)}" if missing else "here"


def weights(arguments: argparse.Namespace) -> int:
    return WEIGHTS[arguments.action](arguments)


def _fetch(arguments: argparse.Namespace) -> int:
    from ..weights.cache import ASSETS, asset_named, fetch

    if not arguments.name:
        return _list_weights(arguments)
    names = _assets_of(arguments.name)
    for asset in map(asset_named, names):
        if arguments.commercial_only and asset.commercial != "allowed":
            raise UsageError(f"--commercial-only: the licence of {asset.file} is: {asset.licence}")
    for name in names:
        print(fetch(name, progress=progress_of(arguments)))
        warn(f"{ASSETS[name].file}: licence {ASSETS[name].licence}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from ..weights.cache import asset_named, import_file

    _check_content(asset_named(arguments.name).name, Path(arguments.file))
    print(import_file(arguments.name, Path(arguments.file)))
    return 0


def _check_content(name: str, path: Path) -> None:
    """Raises BadInput unless the file holds what its name will promise, down to every tensor's shape."""
    from ..models import MODELS, center_bias, create_model, i3d, model_module
    from ..weights import checkpoints, formats
    from ..weights.cache import ASSETS

    formats.require(path, *ASSETS[name].kinds)
    if name in MODELS and MODELS[name].variant:
        create_model(name, weights=path)
    elif name in MODELS:
        checkpoints.load(name, path, model_module(name).template(), nested="model_state_dict")
    elif name.startswith("i3d_"):
        i3d.weights_of(checkpoints.read(path), str(path))
    elif "npy" in ASSETS[name].kinds:
        center_bias.read(path)
    else:
        checkpoints.read_tensor(path)


def _import_pair(arguments: argparse.Namespace) -> int:
    from ..actions.manifest import read_classes
    from ..models.classifier import design_of_pair, read_pair, save

    i3d, resizer = Path(arguments.i3d), Path(arguments.resizer) if arguments.resizer else None
    design = design_of_pair(
        i3d,
        resizer,
        classes=read_classes(Path(arguments.classes)) if arguments.classes else (),
        read=arguments.read,
        apply=arguments.apply,
        natural=arguments.natural,
        frames=arguments.frames,
        side_in=arguments.side_in,
        side=arguments.side,
        pool_early=arguments.side >= EARLY_POOLING_PX,
    )
    save(Path(arguments.output), read_pair(i3d, resizer, design))
    print(arguments.output)
    return 0


def _export_pair(arguments: argparse.Namespace) -> int:
    from ..models.classifier import load, write_pair

    for path in write_pair(load(Path(arguments.file)), arguments.output):
        print(path)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from ..weights.cache import ASSETS, located, verify

    here = [name for name, asset in ASSETS.items() if located(asset)]
    rows = []
    for name in _assets_of(arguments.name) if arguments.name else here:
        path, sha256 = verify(name)
        rows.append([name, "as at its first use", sha256, str(path)])
    print_facts(rows, rows, ["name", "", "sha256", "file"], arguments.json)
    return 0


def _path(arguments: argparse.Namespace) -> int:
    from ..weights.cache import find

    if not arguments.name:
        return _list_weights(arguments)
    print(find(arguments.name))
    return 0


def _list_weights(arguments: argparse.Namespace) -> int:
    from ..weights.cache import ASSETS, address, located

    facts = [
        {
            "name": asset.name,
            "about": asset.about,
            "megabytes": asset.megabytes or None,
            "licence": asset.licence,
            "commercial": asset.commercial,
            "file": str(located(asset) or ""),
            "url": address(asset),
        }
        for asset in ASSETS.values()
        if asset.commercial == "allowed" or not getattr(arguments, "commercial_only", False)
    ]
    rows = [
        [f["name"], f["about"], f"{f['megabytes']} MB" if f["megabytes"] else "", f["file"] or f["url"]] for f in facts
    ]
    print_facts(facts, rows, ["name", "", "size", "file, or where it is to be had"], arguments.json)
    return 0


def _selftest(arguments: argparse.Namespace) -> int:
    from ..selftest import selftest

    return selftest(
        arguments.name,
        [Path(picture) for picture in arguments.pictures],
        weights=arguments.weights,
        dtypes=arguments.dtype or ("fp32",),
        device=arguments.device,
        output_json=Path(arguments.output) if arguments.output else None,
        say=progress_of(arguments).say,
    )


WEIGHTS = {
    "fetch": _fetch,
    "import": _import,
    "import-pair": _import_pair,
    "export-pair": _export_pair,
    "verify": _verify,
    "path": _path,
    "selftest": _selftest,
}


def _assets_of(name: str) -> tuple[str, ...]:
    """The assets behind a name: all that a model needs, or the one of that name."""
    from ..models import MODELS

    return MODELS[name].weights if name in MODELS and MODELS[name].weights else (name,)
