"""Files are told by what is in them, not by their names."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from streamsal.errors import BadInput, MissingInput
from streamsal.weights.formats import KINDS, check_intact, kind, require


def saved(value: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def hdf5() -> bytes:
    file = io.BytesIO()
    h5py.File(file, "w").close()
    return file.getvalue()


CHECKPOINT = saved({"weight": torch.zeros(100)})
FILES = {
    "torch": CHECKPOINT,
    "legacy": saved({"weight": torch.zeros(100)}, _use_new_zipfile_serialization=False),
    "caffe2": pickle.dumps({"cfg": "text", "blobs": {"pred_b": np.zeros(3, np.float32)}}, protocol=2),
    "npy": array(),
    "empty": b"",
    "html": b"\n<!DOCTYPE html><html><body>Not Found</body></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132735\n",
    "gzip": gzip.compress(CHECKPOINT, mtime=0),
    "truncated": CHECKPOINT[: len(CHECKPOINT) // 2],
    "zip": zipped(),
    "safetensors": (2).to_bytes(8, "little") + b"{}",
    "hdf5": hdf5(),
    "pickle": pickle.dumps({"weight": [0.0]}),
    "text": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "unknown": b"\x00\x01\x02\x03" * 20,
}


def test_every_kind_is_tried() -> None:
    assert FILES.keys() == KINDS.keys()


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_is_what_its_bytes_say(name: str, tmp_path: Path) -> None:
    path = tmp_path / "deepgaze2e.pth"
    path.write_bytes(FILES[name])
    assert kind(path) == name
    if name in ("torch", "legacy"):
        assert require(path, "torch", "legacy") == name
    else:
        with pytest.raises(BadInput) as caught:
            require(path, "torch", "legacy")
        assert str(caught.value) == f"{path} is not a torch checkpoint but {KINDS[name]}"


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_are_told_apart_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "w.pkl"
    for content, found in (({"blobs": {}}, "caffe2"), ({"blob": ["x"]}, "pickle")):
        path.write_bytes(pickle.dumps(content, protocol))
        assert kind(path) == found


def test_a_pickle_that_is_cut_off_or_lies_about_lengths_is_still_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    for data in (b"\x80\x02}q\x01U\x05blo", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x3f" + b"x"):
        path.write_bytes(data)
        assert kind(path) == "pickle"


def test_the_end_of_a_checkpoint_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for missing in (1, 30, 200):
        path.write_bytes(CHECKPOINT[:-missing])
        assert kind(path) == "truncated"


def test_wherever_a_bit_has_changed_a_checkpoint_is_damaged_or_padding_was_hit(tmp_path: Path) -> None:
    path, missed = tmp_path / "w.pth", set()
    path.write_bytes(CHECKPOINT)
    check_intact(path)
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for place in range(0, len(CHECKPOINT), 3):
        data = bytearray(CHECKPOINT)
        data[place] ^= 0x80
        path.write_bytes(data)
        try:
            check_intact(path)
        except BadInput as error:
            assert "damaged or cut off" in str(error)
        else:
            missed.add(place)
    for name, content in held.items():
        first = CHECKPOINT.index(content, CHECKPOINT.index(name.encode()))
        assert not missed & set(range(first, first + len(content))), name


def test_what_is_no_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.pth"):
        with pytest.raises(MissingInput, match="cannot be read"):
            kind(path)
