"""A shard says of itself all that a reader has to know, and one frame in it is bytes that plain HDF5 understands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from synthetic_run import DENSITY, FEATURES, HOLES, MAP, OUTPUTS, make_plan, make_run, parts_of, values_of

from streamsal.density import full_size
from streamsal.layout import (
    DONE,
    compress,
    decompress,
    describe,
    dump_outputs,
    load_outputs,
    offset_name,
    stored_dtype,
)
from streamsal.models.spec import Output, Readback
from streamsal.plan import Plan
from streamsal.store import shard_path


def plan_of(n_frames: int, **options: str) -> Plan:
    return make_plan({"talk.mp4": n_frames}, {"talk.mp4": []}, **options)  # type: ignore[arg-type]


def test_plain_h5py_reads_what_the_attributes_say(tmp_path: Path) -> None:
    path = shard_path(make_run(tmp_path / "talk.streamsal", plan_of(60)), 0)
    expected = values_of(np.arange(60))
    with h5py.File(path) as file:
        assert file.attrs["complete"] == 1
        group = file["talk.mp4"]
        assert group.attrs["model"] == "synthetic" and group.attrs["weights_sha256"] == "ab" * 32
        assert (group.attrs["height"], group.attrs["width"], group.attrs["committed"]) == (24, 40, 60)
        done = group["status"][:] == DONE
        assert list(np.flatnonzero(~done)) == list(HOLES)
        density, log_offset = group["log_density"], group["log_offset"][:]
        assert density.compression == "gzip" and density.shuffle and density.chunks == (1, 12, 20)
        read = density[:].astype("float32") + log_offset[:, None, None]
        assert density.attrs["how_to_read"].startswith("log_density.astype('float32') + log_offset[:, None, None]")
        np.testing.assert_allclose(np.exp(read[done], dtype=np.float64).sum((1, 2)), 1, atol=1e-6)
        np.testing.assert_allclose(read[done], expected["log_density"][done], atol=1.6e-2)
        assert np.isnan(read[~done]).all() and np.isnan(group["saliency"][7]).all()
        np.testing.assert_allclose(group["saliency"][done], expected["saliency"][done], rtol=1e-3, atol=1e-6)
        assert np.array_equal(group["features"][done], expected["features"][done])  # these fit float16
        np.testing.assert_array_equal(group["frame"], np.arange(60))
        np.testing.assert_array_equal(group["pts_seconds"], np.arange(60) / 25)


@pytest.mark.parametrize(("store_dtype", "error"), [("uint16", 1e-3), ("float32", 0.0)])
def test_other_store_types_read_as_they_say(tmp_path: Path, store_dtype: str, error: float) -> None:
    path = shard_path(make_run(tmp_path / "talk.streamsal", plan_of(30, store_dtype=store_dtype)), 0)
    expected = values_of(np.arange(30))
    with h5py.File(path) as file:
        group = file["talk.mp4"]
        names = {"numpy": np, **{name: group[name][:] for name in ("log_density", "log_offset")}}
        read = eval(group["log_density"].attrs["how_to_read"].split(" is the ")[0], names)  # what a reader would type
        done = group["status"][:] == DONE
        assert np.abs(read[done] - expected["log_density"][done]).max() <= error
        assert np.isnan(read[~done]).all()
        assert np.array_equal(group["saliency"][done], expected["saliency"][done])  # no density: not quantized


def test_matrices_read_as_they_say() -> None:
    rng = np.random.default_rng(2)
    constants = {name: rng.normal(size=size).astype(np.float32) for name, size in SIZES.items()}
    priority, k = rng.normal(size=(3, 5, 7)).astype(np.float32), 1
    readback = Readback(interpolation="matrices")
    output = Output(name="priority", kind="priority", units="nats", readback=readback, exact=True)
    text = describe(output, "uint16")["how_to_read"]
    read = eval(text.split(" is the ")[0], {"constants": constants, "priority": priority, "k": k})
    tensors = {name: torch.from_numpy(array) for name, array in constants.items()}
    full = full_size(torch.from_numpy(priority), 30, 41, readback, tensors)[k].numpy()
    np.testing.assert_allclose(read - np.logaddexp.reduce(read, axis=None, dtype=np.float64), full, atol=1e-5)


SIZES = {"rows": (30, 5), "columns": (41, 7), "prior": (30, 41)}


@pytest.mark.parametrize(("height", "width", "block"), [(122, 97, 15), (64, 96, 2), (75, 99, 2), (101, 135, 4)])
def test_repeated_cells_are_those_that_the_attribute_says(height: int, width: int, block: int) -> None:
    readback = Readback(interpolation="nearest", block=block)
    text = describe(Output(name="log_density", kind="log_density", units="nats", readback=readback), "float32")
    (formula,) = re.findall(r"min\(.*h - 1\)", text["how_to_read"])
    h, w = height // block, width // block
    down = [eval(formula, {"numpy": np, "i": i, "h": h, "height": height}) for i in range(height)]
    across = [eval(formula, {"numpy": np, "i": i, "h": w, "height": width}) for i in range(width)]
    stored = torch.arange(float(h * w)).view(1, h, w) / (h * w)
    full = full_size(stored, height, width, readback)[0].numpy()
    expected = stored[0].numpy()[np.ix_(down, across)]
    np.testing.assert_allclose(full, expected - np.logaddexp.reduce(expected, axis=None, dtype=np.float64), atol=1e-5)


def test_exact_outputs_and_numbers_keep_float32() -> None:
    exact, scalar = replace(MAP, exact=True), replace(FEATURES, scalar=True)
    for store_dtype in ("float16", "uint16", "float32"):
        assert stored_dtype(exact, store_dtype) == stored_dtype(scalar, store_dtype) == np.float32
    assert stored_dtype(replace(DENSITY, exact=True), "uint16") == np.float32


def test_attributes_round_trip(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(30), 0)
    assert load_outputs(part.attributes()["outputs"]) == OUTPUTS
    nearest = Readback(interpolation="nearest", block=4)
    outputs = (
        replace(DENSITY, readback=nearest, exact=True),
        replace(DENSITY, readback=Readback(gaussian_prior=(0.2, 0.3, 1.0))),
        replace(FEATURES, scalar=True),
    )
    assert load_outputs(dump_outputs(outputs)) == outputs
    assert [offset_name(o) for o in (DENSITY, MAP, FEATURES)] == ["log_offset", None, None]


@pytest.mark.parametrize("dtype", ["<f2", "<u2", "<f4"])
@pytest.mark.parametrize("shape", [(5,), (7, 11), (3, 0)])
def test_a_frame_comes_back_from_its_bytes_with_its_checksum(shape: tuple[int, ...], dtype: str) -> None:
    stored = np.random.default_rng(3).integers(0, 60_000, shape).astype(dtype)
    chunk, crc32 = compress(stored)
    again, crc32_again = decompress(chunk, shape, np.dtype(dtype))
    assert again.dtype == stored.dtype and crc32 == crc32_again
    np.testing.assert_array_equal(again, stored)
    with pytest.raises(ValueError):
        decompress(chunk[:-6], shape, np.dtype(dtype))


def test_only_densities_are_quantized() -> None:
    assert stored_dtype(DENSITY, "uint16") == np.uint16
    assert stored_dtype(FEATURES, "uint16") == stored_dtype(MAP, "uint16") == np.float32
    assert {stored_dtype(output, "float16") for output in OUTPUTS} == {np.dtype("<f2")}


def test_labels_are_in_the_attributes_of_their_dataset_and_read_back(tmp_path: Path) -> None:
    names = tuple(f"wält{chr(0xE9)} {number}" for number in range(700))
    labeled = Output(name="probabilities", kind="probabilities", units="1", labels=names)
    assert load_outputs(dump_outputs([labeled, FEATURES])) == (labeled, FEATURES)
    assert "labels" not in dump_outputs([FEATURES]), "as files of before there were any"
    with h5py.File(tmp_path / "labels.h5", "w", libver="earliest") as file:
        shard, merged = file.create_dataset("shard", data=[1]), file.create_dataset("merged", data=[1])
        shard.attrs.update(describe(labeled, "float16"))
        merged.attrs.update(shard.attrs)
    with h5py.File(tmp_path / "labels.h5") as file:
        assert tuple(file["merged"].attrs["labels"]) == names
