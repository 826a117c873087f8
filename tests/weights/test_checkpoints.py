"""A checkpoint fits its network exactly, or the error says what it is instead."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import python2
import torch
from torch import Tensor

from streamsal.errors import BadInput, MissingInput, MissingWeights
from streamsal.weights import checkpoints, synthetic, translations

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
        checkpoints.load("deepgaze_i", {**WEIGHTS, "norm.running_var": "text"}, TEMPLATE)  # type: ignore[arg-type]


def test_the_prefix_of_a_data_parallel_is_left_out() -> None:
    prefixed = {f"module.{key}": value for key, value in WEIGHTS.items()}
    for found in (prefixed, {"epoch": 60, "state_dict": prefixed}):
        loaded = checkpoints.load("deepgaze_i", found, TEMPLATE, nested="state_dict")
        assert list(loaded) == list(TEMPLATE)
    with pytest.raises(BadInput, match="a checkpoint of deepgaze_i saved from a DataParallel"):
        checkpoints.fitted("deepgaze_iii", prefixed, {"other.weight": torch.zeros(1)}, "w")


def test_idle_entries_may_be_there_or_not() -> None:
    for extra in ({}, {"sound.weight": torch.zeros(3)}):
        assert list(checkpoints.load("x", {**WEIGHTS, **extra}, TEMPLATE, idle=("sound.",))) == list(TEMPLATE)
    with pytest.raises(BadInput, match=r"1 of 4 tensors not of this model \(sound\.weight\)"):
        checkpoints.load("x", {**WEIGHTS, "sound.weight": torch.zeros(3)}, TEMPLATE)


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


def test_a_file_with_wrong_bytes_in_it_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", WEIGHTS, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    storage = [*re.finditer(rb"\d{8,}", data)][-1].start()  # the name of a storage, which another part refers to
    path.write_bytes(data[:storage] + b"x" + data[storage + 1 :])
    with pytest.raises(BadInput, match="damaged or cut off"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
    data = saved(path, WEIGHTS).read_bytes()
    table = data.rindex(b"PK\x01\x02") + 6  # the version of zip that its last entry needs
    path.write_bytes(data[:table] + b"\xff" + data[table + 1 :])
    with pytest.raises(BadInput, match="damaged or cut off"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)


KEYS = Path(__file__).parents[1] / "fixtures" / "embeddings" / "keys"
NETWORKS = sorted(path.stem for path in KEYS.glob("*.json") if "_caffe2_names" not in path.stem)
CAFFE2 = sorted(path.stem for path in KEYS.glob("*_caffe2_names.json"))


def keys(name: str) -> dict:
    return json.loads((KEYS / f"{name}.json").read_text())


def template(name: str, longest: int = 3) -> dict[str, Tensor]:
    """Every key of a network, its tensors cut down to the size of a test."""
    return {
        key: torch.empty(
            [min(size, longest) for size in shape],
            dtype=torch.int64 if key.endswith(".num_batches_tracked") else torch.float32,
            device="meta",
        )
        for key, shape in keys(name).items()
    }


def stand_ins(name: str, longest: int = 3) -> dict[str, Tensor]:
    return synthetic.state_dict(template(name, longest), adjust=synthetic.ADJUST["residual_video"])


def caffe2_file(path: Path, names: Mapping[str, str], weights: Mapping[str, Tensor], *, text: str = "w") -> Path:
    """`weights` as the optimizer of Caffe2 left them, in a file of Python 2."""
    blobs: dict[str, object] = {blob: weights[key].numpy() for blob, key in names.items()}
    blobs |= {f"{blob}_momentum": np.ones(2, np.float32) for blob in names}
    blobs |= {"lr": np.float32(0.1), "model_iter": np.array([7])}
    path.write_bytes(python2.pickled({"cfg": text, "blobs": blobs}))
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_of_every_network_is_read_to_the_bit_with_what_training_left_in_it(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    weights = stand_ins(name)
    training = {"epoch": 196, "cfg": "TRAIN: \n", "optimizer_state": {"state": {0: {"momentum": torch.ones(3)}}}}
    bare = saved(tmp_path / "bare.pkl", OrderedDict(weights), _use_new_zipfile_serialization=zipped)
    whole = saved(tmp_path / "x.zip", {**training, "model_state": weights}, _use_new_zipfile_serialization=zipped)
    for path in (bare, whole):
        found = checkpoints.load_checkpoint(path)
        assert found.origin == translations.origin_of(weights)
        assert_equal(found.weights, translations.translated(weights))


def test_a_file_of_full_size_is_read_to_the_bit(tmp_path: Path) -> None:
    weights = stand_ins("x3d_s", longest=9999)
    assert sum(map(torch.numel, weights.values())) > 3_790_000
    path = saved(tmp_path / "x3d_s.pyth", {"model_state": weights})
    assert_equal(checkpoints.clip_weights("x3d_s", path, lambda _: template("x3d_s", 9999)).weights, weights)


def test_a_file_of_torch_and_python_2_is_read_to_the_bit(tmp_path: Path) -> None:
    weights, path = stand_ins("slow_r50"), tmp_path / "slow.pkl"
    file = io.BytesIO()
    torch.save({"model_state": weights}, file, _use_new_zipfile_serialization=False)
    path.write_bytes(python2.torch_file(file.getvalue()))
    assert path.read_bytes() != file.getvalue() and b"U\x0bmodel_state" in path.read_bytes()
    assert_equal(checkpoints.load_checkpoint(path).weights, weights)


@pytest.mark.parametrize("name", CAFFE2)
def test_a_file_of_caffe2_becomes_pyslowfast_s_to_the_bit(tmp_path: Path, name: str) -> None:
    network = name.removesuffix("_caffe2_names")
    weights, text = stand_ins(network), "SOLVER: \n" * 1000
    path = caffe2_file(tmp_path / "w.pyth", keys(name), weights, text=text)
    found = checkpoints.load_checkpoint(path)
    assert found.origin == "caffe2"
    assert_equal(checkpoints.clip_weights(network, path, lambda _: template(network)).weights, weights)


def test_a_file_of_a_clip_network_is_the_official_one_or_any_other_or_a_mapping(tmp_path: Path) -> None:
    def loaded(source: str | Path | Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        return checkpoints.clip_weights("slowfast_r50_8x8", source, lambda _: template("slowfast_r50_8x8")).weights

    weights, names = stand_ins("slowfast_r50_8x8"), keys("slowfast_r50_8x8_caffe2_names")
    with pytest.raises(MissingWeights, match="streamsal weights fetch slowfast_r50_8x8\n"):
        loaded(None)
    assert_equal(loaded("synthetic"), weights)
    assert_equal(loaded(dict(reversed(weights.items()))), weights)
    assert_equal(loaded({blob: weights[key] for blob, key in names.items()}), weights)
    (tmp_path / "home").mkdir()
    path = caffe2_file(tmp_path / "home" / "SLOWFAST_8x8_R50.pkl", names, weights)
    for source in (None, path, str(path)):
        assert_equal(loaded(source), weights)


def test_the_template_is_made_of_what_was_found() -> None:
    seen: list[Mapping[str, Tensor] | None] = []

    def template_of(found: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        seen.append(found)
        return template("x3d_s") if found is None else {key: value for key, value in found.items()}

    weights = stand_ins("x3d_s_pytorchvideo")
    found = checkpoints.clip_weights("x3d_s", weights, template_of).weights
    assert "s2.pathway0_res0.branch1_bn.weight" not in found and len(found) == len(weights)
    checkpoints.clip_weights("x3d_s", "synthetic", template_of)
    assert seen[0] is not None and seen[0].keys() == found.keys() and seen[1] is None


def test_stand_ins_of_residual_networks_are_damped_at_the_end_of_each_block() -> None:
    key = "s2.pathway0_res0.branch2.c_bn.weight"
    like = {key: torch.empty(8), "s2.pathway0_res0.branch2.b_bn.weight": torch.empty(8)}
    found = checkpoints.clip_weights("x3d_s", "synthetic", lambda _: like).weights
    plain = synthetic.state_dict(like)
    assert torch.equal(found.pop(key), plain.pop(key) * 0.25)
    assert_equal(found, plain)


def test_a_checkpoint_of_another_clip_network_is_named_with_some_of_its_keys(tmp_path: Path) -> None:
    names, weights = keys("slowfast_r50_8x8_caffe2_names"), stand_ins("slowfast_r50_8x8")
    path = caffe2_file(tmp_path / "w.pkl", names, weights)
    said = (
        r"w\.pkl is no checkpoint of x3d_s: it is a SlowFast; \d+ of 568 tensors missing \(s1\.pathway0_stem\.conv_xy"
    )
    with pytest.raises(BadInput, match=said):
        checkpoints.clip_weights("x3d_s", path, lambda _: template("x3d_s"))
    path = saved(tmp_path / "v.pyth", {"model_state": stand_ins("x3d_s_pytorchvideo")})
    said = (
        r"v\.pyth is no checkpoint of mvit: it is an X3D; .* 563 of 563 tensors not of this model \(s1\.pathway0_stem"
    )
    with pytest.raises(BadInput, match=said):
        checkpoints.clip_weights("mvit", path, lambda _: template("mvit_v2_s_torchvision"))
    wide = {**weights, "head.projection.weight": torch.zeros(174, 3)}
    with pytest.raises(
        BadInput, match=r"1 of 662 tensors of another shape \(head.projection.weight is \(174, 3\), not"
    ):
        checkpoints.clip_weights("slowfast_r50_8x8", wide, lambda _: template("slowfast_r50_8x8"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (WEIGHTS, "a checkpoint of deepgaze_i"),
        ({"model_state_dict": WEIGHTS}, "a dictionary that keeps a checkpoint of deepgaze_i under 'model_state_dict'"),
        ({"module.s1_fuse.conv_f2s.weight": torch.zeros(1)}, "a SlowFast saved from a DataParallel"),
        ({"layer4.2.conv3.weight": torch.zeros(1)}, "a ResNet without any readout"),
        ({"a": 1, "b": 2, "c": 3}, "something unknown (3 entries: a, b, ...)"),
        ({}, "an empty dictionary"),
    ],
)
def test_a_file_without_a_clip_network_is_named(tmp_path: Path, content: dict, what: str) -> None:
    path = saved(tmp_path / "w.pyth", content)
    with pytest.raises(BadInput, match=rf"w\.pyth is no checkpoint of a clip network: it is {re.escape(what)}"):
        checkpoints.load_checkpoint(path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><title>404</title>", "but a web page"),
        (gzip.compress(b"tar", mtime=0), "but compressed with gzip: unpack it first"),
        (b"version https://git-lfs.github.com/spec/v1\n", "but the pointer of a Git LFS file"),
        (b"", "but an empty file"),
        (b"PK\x03\x04 and no more", "but the beginning of a torch checkpoint, damaged or cut off"),
        (pickle.dumps({"weights": [1.0]}, 2), "but a pickle that neither torch.save nor Caffe2 wrote"),
        (
            pickle.dumps({"blobs": {"unknown_w": np.zeros(1)}}, 2),
            "no checkpoint of a clip network: it is something unk",
        ),
        (python2.pickled({"blobs": {"conv1_w": np.zeros(99)}})[:-300], "is damaged or cut off"),
    ],
)
def test_a_file_that_is_no_checkpoint_of_clips_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "SLOWFAST_8x8_R50.pkl"
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        checkpoints.load_checkpoint(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and what in said and "\n" not in said


@pytest.mark.parametrize("kind", ["zip", "legacy", "caffe2", "pickle"])
def test_code_in_a_file_of_a_clip_network_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path, state = tmp_path / "trap.pyth", {"s1.pathway0_stem.bn.weight": Trap()}
    if kind in ("zip", "legacy"):
        saved(path, {"model_state": state}, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps({"blobs" if kind == "caffe2" else "weights": state}, 2))
    with pytest.raises(BadInput, match=r"trap\.pyth .*because it could run code"):
        checkpoints.load_checkpoint(path)
    assert not Path("sprung").exists()


def test_a_file_of_deepgaze_s_that_is_of_a_clip_network_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"model_state": stand_ins("slowfast_r50_8x8_pytorchvideo")})
    with pytest.raises(BadInput, match="it is a dictionary that keeps a SlowFast of pytorchvideo under 'model_state'"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
    path = caffe2_file(tmp_path / "w.pkl", {"pred_b": "b"}, {"b": torch.zeros(1)})
    with pytest.raises(BadInput, match="is not a torch checkpoint but a Caffe2 checkpoint"):
        checkpoints.load("deepgaze_i", path, TEMPLATE)
