"""What is said of models and of their files, and what gets into the cache."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamsal.cli import main
from streamsal.models import MODELS, deepgaze_iii, deepgaze_mr
from streamsal.models.classifier import Classifier, design_of, write_pair
from streamsal.models.design import Design
from streamsal.weights import synthetic
from streamsal.weights.cache import ASSETS


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights on this machine, and no network to get them from."""
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("STREAMSAL_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def bias(tmp_path: Path) -> Path:
    path = tmp_path / "download.npy"
    np.save(path, np.full((8, 8), -4.16, np.float32))
    return path


def test_every_model_names_files_that_are_known() -> None:
    to_train_from = {"i3d_flow_imagenet", "i3d_flow_charades"}
    assert {asset for entry in MODELS.values() for asset in entry.weights} | to_train_from == ASSETS.keys()


def out(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    assert main([*map(str, arguments)]) == code
    return capsys.readouterr().out


def test_weights_are_imported_verified_and_found(
    empty_cache: Path, bias: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def weights(*arguments: str | Path, code: int = 0) -> str:
        return out(capsys, "weights", *arguments, code=code)

    name, kept = "centerbias_mit1003", empty_cache / "centerbias_mit1003.npy"
    weights("path", name, code=4)
    assert weights("verify") == "name    sha256  file\n"
    assert weights("import", name, bias) == f"{kept}\n"
    assert weights("path", name) == f"{kept}\n"
    sha256 = hashlib.sha256(bias.read_bytes()).hexdigest()
    assert weights("verify").splitlines()[1].split()[-2:] == [sha256, str(kept)]
    facts = {fact["name"]: fact for fact in json.loads(weights("path", "--json"))}
    assert facts[name]["file"] == str(kept) and facts["deepgaze_mr"]["file"] == ""
    weights("verify", "deepgaze_iie", code=4)  # the model's checkpoint is not here
    kept.write_bytes(kept.read_bytes()[:-1])
    weights("verify", code=65)


def test_weights_that_cannot_be_had_leave_with_the_documented_codes(
    bias: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in (
        (("import", "deepgaze_iie", "no.pth"), 66),
        (("import", "deepgaze_9", bias), 2),
        (("import", "deepgaze_iie", bias), 65),
        (("fetch", "deepgaze_iii"), 4),  # offline
        (("fetch", "--commercial-only", "deepgaze_iii"), 2),
    ):
        out(capsys, "weights", *arguments, code=code)
    everything, licensed = (out(capsys, "weights", "fetch", *option) for option in ((), ("--commercial-only",)))
    assert "deepgaze2e.pth" in everything and "deepgaze2e.pth" not in licensed and "deepgazemr-ledov.pt" in licensed


def test_a_checkpoint_is_imported_only_as_what_it_is(
    empty_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nested = {"model_state_dict": synthetic.state_dict(deepgaze_mr.template())}
    torch.save(nested, tmp_path / "mr.pt")
    other = {key: torch.zeros(1) for key in deepgaze_iii.template()}
    torch.save(other, tmp_path / "iii.pth")
    out(capsys, "weights", "import", "deepgaze_mr", tmp_path / "mr.pt")
    assert main(["weights", "import", "deepgaze_iie", str(tmp_path / "iii.pth")]) == 65
    said = r"iii\.pth is no checkpoint of deepgaze_iie: it is a checkpoint of deepgaze_iii; \d+ of 5461 tensors missing"
    assert re.search(said, capsys.readouterr().err)
    assert main(["weights", "import", "deepgaze_i", str(tmp_path / "mr.pt")]) == 65
    assert "mr.pt is no checkpoint of deepgaze_i: it is a checkpoint of deepgaze_mr" in capsys.readouterr().err
    assert sorted(path.name for path in empty_cache.iterdir()) == ["deepgazemr-ledov.pt", "deepgazemr-ledov.pt.json"]


def test_a_center_bias_is_imported_only_if_it_is_one(
    empty_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    out(capsys, "weights", "import", "centerbias_mit1003", tmp_path / "nan.npy", code=65)
    torch.save({"a": torch.zeros(2)}, tmp_path / "dict.pt")
    out(capsys, "weights", "import", "centerbias_ledov", tmp_path / "dict.pt", code=65)
    assert not empty_cache.exists()
    torch.save(torch.full((4, 4), 1 / 16), tmp_path / "bias.pt")
    out(capsys, "weights", "import", "centerbias_ledov", tmp_path / "bias.pt")


def test_old_pairs_of_files_become_a_classifier_and_pairs_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small: dict[str, Any] = {"frames": 8, "side_in": 16, "side": 28, "width": 0.125}
    design = Design(classes=("run", "walk"), resizer="transformer", read=7, apply=8, **small)
    pair = write_pair(Classifier(design), tmp_path / "old")
    (tmp_path / "classes.txt").write_text("run\nwalk\n")
    ask = ["weights", "import-pair", *pair, "--classes", tmp_path / "classes.txt", "-o", tmp_path / "classifier.pt"]
    ask += ["--frames", "8", "--side-in", "16", "--side", "28"]
    assert main([*map(str, ask), "--apply", "8"]) == 2
    assert "can read at 7 or 8" in capsys.readouterr().err
    assert out(capsys, *ask, "--read", "7", "--apply", "8") == f"{tmp_path / 'classifier.pt'}\n"
    legacy = replace(design, legacy_layout=True, colors="bgr", order="legacy")
    assert design_of(tmp_path / "classifier.pt") == legacy
    written = out(capsys, "weights", "export-pair", tmp_path / "classifier.pt", "-o", tmp_path / "new").split()
    assert written == [str(tmp_path / f"new_{name}.pt") for name in ("i3d", "resizer")]
    for one, other in zip(pair, written, strict=True):
        before, after = torch.load(one), torch.load(other)
        assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
    out(capsys, *ask[:3], "--natural", "--side", "224", "-o", tmp_path / "plain.pt")
    plain = design_of(tmp_path / "plain.pt")
    assert (plain.resizer, plain.side_in, plain.pool_early, plain.colors) == ("none", 224, True, "rgb")
    out(capsys, "weights", "export-pair", pair[0], "-o", tmp_path / "new", code=65)


def test_options_of_all_commands_stand_before_or_behind_the_action(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-v", "path", "deepgaze_i"], ["path", "deepgaze_i", "-v"]):
        assert main(["weights", *arguments]) == 4
        assert "Traceback" in capsys.readouterr().err


def test_models_say_licence_and_whether_their_weights_are_here(
    empty_cache: Path, bias: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def models(*arguments: str) -> Any:
        return json.loads(out(capsys, "models", "--json", *arguments))

    def have() -> dict[str, str]:
        return {row["name"]: row["weights"] for row in models()}

    assert have()["deepgaze_i"] == "missing: deepgaze_i, centerbias_mit1003"
    empty_cache.mkdir()
    (empty_cache / "deepgaze1.pth").touch()
    (empty_cache / "centerbias_mit1003.npy").touch()
    assert (have()["deepgaze_i"], have()["deepgaze_iie"], have()["sigmotion"]) == (
        "here",
        "missing: deepgaze_iie",
        "none",
    )
    free = [row["name"] for row in models("--commercial-only")]
    assert "deepgaze_mr" in free and "sigmotion" in free and "deepgaze_i" not in free
    facts = models("deepgaze_i")
    assert facts["cost"] == "7 GMAC per 1080p frame" and "Kümmerer" in facts["citation"] and facts["weights"] == "here"
    assert main(["models", "deepgaze_i", "--commercial-only"]) == 2
    assert "deepgaze1.pth, whose licence is: none stated" in capsys.readouterr().err
