"""Settings of a training: what is said of those that are wrong, and what those that are left out become."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from streamsal.actions.config import Config, config_of, read_toml
from streamsal.actions.config import Test as Judging
from streamsal.errors import BadInput, MissingInput, UsageError

SOURCE = Path("/data/tiny.toml")
MINIMAL = {"data": {"train": "train.json"}}


def given(table: str, **settings: Any) -> Config:
    return config_of({**MINIMAL, table: {**MINIMAL.get(table, {}), **settings}}, SOURCE)


def test_what_is_left_out_has_its_default_and_a_dict_gives_the_same_again() -> None:
    config = config_of(MINIMAL, SOURCE)
    assert (config.train.epochs, config.model.side_in, config.test) == (30, 56, Judging())
    assert config_of(config.to_dict(), Path("elsewhere.toml")) == config


def test_whole_numbers_are_numbers_and_truth_is_none() -> None:
    assert given("train", lr=1).train.lr == 1.0 and type(given("train", lr=1).train.lr) is float
    with pytest.raises(UsageError, match=r"\[train\] lr = true: it has to be a number"):
        given("train", lr=True)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "[data] needs train"),
        ({"dta": {}}, "has no table 'dta': did you mean data?"),
        ({"data": 3}, "data is a table: write [data]"),
        ({"data": {"train": "a", "flipp": 1}}, "[data] has no setting 'flipp': did you mean flip?"),
        ({"train": {"zzz": 1}}, "[train] has no setting 'zzz': there are epochs, batch"),
        ({"train": {"epochs": 2.5}}, "[train] epochs = 2.5: it has to be a whole number"),
        ({"train": {"epochs": "two"}}, '[train] epochs = "two": it has to be a whole number'),
        ({"train": {"loss": "focal"}}, 'it has to be "bce" or "weighted" or "asymmetric"'),
        ({"data": {"train": ["a"]}}, '[data] train = ["a"]: it has to be a text'),
        ({"data": {"train": "a", "validation": True}}, "it has to be a text or a number"),
        ({"data": {"train": "a", "flip": 1.5}}, "data.flip = 1.5 has to be between 0 and 1"),
        ({"data": {"train": "a", "workers": -1}}, "data.workers = -1 makes no sense"),
        ({"train": {"batch": 0}}, "train.batch = 0 makes no sense"),
        ({"train": {"seed": -1}}, "train.seed = -1 makes no sense"),
        ({"train": {"lr": float("nan")}}, "[train] lr = NaN: it has to be a number"),
        ({"train": {"warmup": float("inf")}}, "[train] warmup = Infinity: it has to be a number"),
        ({"model": {"width": float("inf")}}, "[model] width = Infinity: it has to be a number"),
        ({"train": {"batch": 10**20}}, "train.batch = 1e+20 makes no sense"),
        ({"train": {"keep_minutes": -1}}, "train.keep_minutes = -1 makes no sense"),
        ({"data": {"train": ""}}, "[data] needs train"),
        ({"data": {"train": "a", "validation": ""}}, "data.validation is empty"),
        ({"data": {"train": "a", "validation": 0}}, "data.validation = 0 has to be more than 0"),
        ({"data": {"train": "a", "validation": 1}}, "less than 1"),
        ({"model": {"weights": "i3d_rgb_charade"}}, "is no published I3D (i3d_rgb_imagenet, i3d_rgb_charades)"),
        ({"test": {"clips": 0}}, "test.clips = 0 makes no sense"),
        ({"test": {"clips": "some"}}, 'it has to be a whole number or "all"'),
        ({"test": {"threshold": 2}}, "test.threshold = 2 has to be between 0 and 1"),
        ({"test": {"threshold": "best"}}, 'it has to be a number or "tuned"'),
    ],
)
def test_what_is_wrong_is_named_with_its_table_in_one_sentence(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        config_of(tables if not tables or "data" in tables else {**MINIMAL, **tables}, SOURCE)
    assert said in str(refused.value) and str(refused.value).startswith("/data/tiny.toml")


def test_legacy_means_all_that_the_old_program_did() -> None:
    data = given("data", legacy=True).data
    old = {"order": "legacy", "colors": "bgr", "split": "legacy", "short": "drop", "start": "first"}
    assert old.items() <= asdict(data).items() and data.flip == 0.5
    assert given("data", legacy=True, order="legacy").data == data
    with pytest.raises(UsageError, match="legacy = true means order = 'legacy': leave one of them out"):
        given("data", legacy=True, order="natural")


def test_paths_are_relative_to_the_file_that_names_them() -> None:
    data = given("data", validation="val.json", root="/videos").data
    assert (data.train, data.validation, data.root) == ("/data/train.json", "/data/val.json", "/videos")
    assert (data.test, data.classes) == ("", "")
    assert given("data", validation=0.2).data.validation == 0.2
    assert given("model", weights="start/best.pt").model.weights == "/data/start/best.pt"
    assert given("model", weights="i3d_rgb_imagenet").model.weights == "i3d_rgb_imagenet"  # the name of a published one


def test_the_design_is_that_of_model_and_data_together() -> None:
    config = config_of({"data": {"train": "t", "legacy": True}, "model": {"frames": 16, "blocks": 3}}, SOURCE)
    design = config.design(("a", "b"))
    assert (design.frames, design.blocks, design.colors, design.order) == (16, 3, "bgr", "legacy")
    assert design.classes == ("a", "b")
    with pytest.raises(BadInput, match="frames = 12"):
        given("model", frames=12).design(("a",))
    with pytest.raises(UsageError, match=r"^/data/tiny\.toml: \[model\] frames = 12"):
        given("model", frames=12).buildable(SOURCE)
    assert config.buildable(SOURCE) is config


def test_a_file_that_is_not_there_or_no_toml_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="name a configuration that is there"):
        read_toml(tmp_path / "none.toml")
    for content in (b"[data\n", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.toml is no TOML"):
            read_toml(tmp_path / "bad.toml")


def test_a_mark_that_windows_puts_before_a_text_is_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[data]\r\ntrain = 'a'\r\n")
    assert read_toml(tmp_path / "a.toml") == {"data": {"train": "a"}}


def test_settings_are_read_without_torch() -> None:
    code = "import sys, streamsal.actions.config; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
