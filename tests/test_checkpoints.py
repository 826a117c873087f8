"""A checkpoint fits its network exactly, or the error says what it is instead."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamsal import checkpoints, synthetic
from streamsal.errors import BadInput, MissingInput, MissingWeights

TEMPLATE = {
    "readout_network.conv0.weight": torch.empty(1, 4, 1, 1, device="meta"),
    "norm.running_var": torch.empty(4, device="meta"),
    "norm.num_batches_tracked": torch.empty((), dtype=torch.int64, device="meta"),
}
WEIGHTS = synthetic.state_dict(TEMPLATE)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def saved(path: Path, value: object, **options: bool) -> Path:
    torch.save(value, path, **options)
    return path


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_old_and_new_torch_are_read(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "w.pth", WEIGHTS, _use_new_zipfile_serialization=zipped)
    assert_equal(checkpoints.load("deepgaze_i", path, TEMPLATE), WEIGHTS)
    assert_equal(checkpoints.load("deepgaze_i", str(path), TEMPLATE), WEIGHTS)


def test_a_mapping_is_taken_as_it_is_in_the_order_of_the_template() -> None:
    backwards = dict(reversed(WEIGHTS.items()))
    assert_equal(checkpoints.load("deepgaze_i", backwards, TEMPLATE), WEIGHTS)


def test_stand_ins_need_no_file() -> None:
    assert_equal(checkpoints.load("deepgaze_i", "synthetic", TEMPLATE), WEIGHTS)


def test_nothing_given_means_the_cached_file(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="streamsal weights fetch deepgaze_i\n"):
        checkpoints.load("deepgaze_i", None, TEMPLATE)
    (tmp_path / "home").mkdir()
    saved(tmp_path / "home" / "deepgaze1.pth", WEIGHTS)
    assert_equal(checkpoints.load("deepgaze_i", None, TEMPLATE), WEIGHTS)


def test_nested_weights_are_found_and_so_are_bare_ones(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", {"epoch": 3, "model_state_dict": WEIGHTS})
    assert_equal(checkpoints.load("deepgaze_mr", path, TEMPLATE, nested="model_state_dict"), WEIGHTS)
    assert_equal(checkpoints.load("deepgaze_mr", WEIGHTS, TEMPLATE, nested="model_state_dict"), WEIGHTS)
    with pytest.raises(BadInput, match="it is a dictionary that keeps a checkpoint of deepgaze_i under 'model_state_"):
        checkpoints.load("deepgaze_iie", path, TEMPLATE)


def test_counters_of_training_steps_may_be_missing() -> None:
    old = {key: value for key, value in WEIGHTS.items() if "tracked" not in key}
    assert_equal(checkpoints.load("deepgaze_i", old, TEMPLATE), WEIGHTS)


def test_another_precision_becomes_the_network_s() -> None:
    double = {key: value.double() for key, value in WEIGHTS.items()}
    assert_equal(checkpoints.load("deepgaze_i", double, TEMPLATE), WEIGHTS)


@pytest.mark.parametrize(("key", "what"), checkpoints.TELLING.items())
def test_another_model_s_checkpoint_is_named(key: str, what: str) -> None:
    template = {"some.weight": torch.empty(2)}
    with pytest.raises(BadInput, match=f"is no checkpoint of mine: it is {re.escape(what)}; 1 of 1 tensors missing"):
        checkpoints.load("mine", {key: torch.zeros(1)}, template)


def test_missing_and_unexpected_tensors_are_counted_and_named() -> None:
    template = {f"layer{i}.weight": torch.empty(2) for i in range(9)}
    found = {f"layer{i}.weight": torch.zeros(2) for i in range(4)} | {"extra.bias": torch.zeros(1)}
    said = (
        r"w is no checkpoint of x: 5 of 9 tensors missing \(layer4\.weight, layer5\.weight, \.\.\.\); "
        r"1 of 5 tensors not of this model \(extra\.bias\)"
    )
    with pytest.raises(BadInput, match=said):
        checkpoints.fitted("x", found, template, "w")


def test_other_shapes_are_named() -> None:
    wrong = {**WEIGHTS, "norm.running_var": torch.zeros(5)}
    with pytest.raises(BadInput, match=r"1 of 3 tensors of another shape \(norm\.running_var is \(5,\), not \(4,\)\)"):
        checkpoints.load("deepgaze_i", wrong, TEMPLATE)
    with pytest.raises(BadInput, match="of another shape"):
        checkpoints.load("deepgaze_i", {**WEIGHTS, "norm.running_var": "text"}, TEMPLATE)


def test_a_data_parallel_checkpoint_is_recognized() -> None:
    with pytest.raises(BadInput, match="a checkpoint of deepgaze_i saved from a DataParallel"):
        checkpoints.load("deepgaze_i", {f"module.{key}": value for key, value in WEIGHTS.items()}, TEMPLATE)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "trap.pth", {"weight": Trap()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput, match=r"trap\.pth holds more than tensors, and that is not loaded"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
    assert not Path("sprung").exists()


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(BadInput, match="but a web page"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
    saved(path, WEIGHTS["norm.running_var"])
    with pytest.raises(BadInput, match="holds a Tensor, not a dictionary"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
    assert torch.equal(checkpoints.read_tensor(path), WEIGHTS["norm.running_var"])
    saved(path, WEIGHTS)
    with pytest.raises(BadInput, match="holds a dict, not a tensor"):
        checkpoints.read_tensor(path)
    with pytest.raises(MissingInput, match=r"no\.pth cannot be read"):
        checkpoints.load("deepgaze_i", tmp_path / "no.pth", TEMPLATE)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, zipped: bool, share: float) -> None:
    path = saved(tmp_path / "w.pth", {"a": torch.zeros(5000)}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInput, match="cut off"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
