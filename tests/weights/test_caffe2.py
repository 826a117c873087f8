"""Checkpoints of Caffe2 are read to the bit, and what else a pickle asks for is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import python2
import torch

from streamsal.errors import BadInput, MissingInput
from streamsal.weights import caffe2

BYTES = np.arange(256, dtype=np.uint8)
BLOBS = {
    "conv1_w": np.linspace(-3, 3, 120, dtype=np.float32).reshape(4, 5, 6),
    "every_byte": BYTES.view("<f4").reshape(8, 8),
    "big_endian": np.arange(7, dtype=">f4"),
    "columns_first": np.asfortranarray(np.arange(12, dtype="<f8").reshape(3, 4)),
    "counts": np.arange(-3, 3, dtype="<i4"),
    "empty": np.zeros((0, 3), np.float32),
    "no_dimension": np.array(2.5, np.float32),
    "lr": np.float32(0.1),
    "model_iter": np.int64(1 << 40),
}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, blob in wanted.items():
        array = found[name].numpy()
        assert array.shape == blob.shape and array.dtype == blob.dtype.newbyteorder("=")
        assert array.tobytes() == np.ascontiguousarray(blob, array.dtype).tobytes()


def test_a_file_of_python_2_is_read_to_the_bit(tmp_path: Path) -> None:
    assert_equal(caffe2.read(written(tmp_path / "w.pkl", python2.pickled({"blobs": BLOBS, "cfg": "x" * 300}))), BLOBS)


@pytest.mark.parametrize("protocol", range(5))
def test_a_file_of_any_protocol_is_read_to_the_bit(tmp_path: Path, protocol: int) -> None:
    blobs = OrderedDict((name, blob) for name, blob in BLOBS.items() if blob.size)
    content = OrderedDict(blobs=blobs)
    assert_equal(caffe2.read(written(tmp_path / "w.pkl", pickle.dumps(content, protocol))), blobs)


def test_the_test_s_writer_writes_what_pickle_reads() -> None:
    found = pickle.loads(python2.pickled({"blobs": BLOBS}), encoding="latin1")["blobs"]
    assert all(
        np.array_equal(found[name], BLOBS[name], equal_nan=blob.dtype.kind == "f") for name, blob in BLOBS.items()
    )


def test_tensors_can_be_written_to(tmp_path: Path) -> None:
    blob = caffe2.read(written(tmp_path / "w.pkl", python2.pickled({"blobs": BLOBS})))["conv1_w"]
    blob += 1
    assert torch.equal(blob, torch.from_numpy(BLOBS["conv1_w"] + 1))


class Trap:
    """Asks for a call when it is read."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_function_is_called_that_arrays_do_not_need(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pkl"
    for call in ((exec, "open('sprung', 'w')"), (Path.mkdir, Path("sprung")), (np.load, "x"), (getattr, "x", "y")):
        path.write_bytes(pickle.dumps({"blobs": {"w": Trap(*call)}}, protocol))
        with pytest.raises(BadInput, match=r"trap\.pkl is a pickle that names .*, and that is not loaded, because it"):
            caffe2.read(path)
    assert not Path("sprung").exists()


def test_types_that_hold_objects_are_refused(tmp_path: Path) -> None:
    for array in (np.array(["text", None], object), np.zeros(2, "f4,i4"), np.array(["text"]), np.zeros(2, "M8[s]")):
        path = written(tmp_path / "w.pkl", pickle.dumps({"blobs": {"w": array}}, 2))
        with pytest.raises(BadInput, match="which are no numbers"):
            caffe2.read(path)


def test_what_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    whole = python2.pickled({"blobs": BLOBS})
    for length in (1, 12, len(whole) // 3, len(whole) - 1):
        with pytest.raises(BadInput, match=r"w\.pkl is damaged or cut off .*: get or make it again"):
            caffe2.read(written(tmp_path / "w.pkl", whole[:length]))
    wrong = whole.replace(BYTES.tobytes(), BYTES.tobytes()[:-4] + b"....", 1).replace(
        b"J\x08\x00\x00\x00", b"J\x09\0\0\0"
    )
    with pytest.raises(BadInput, match=r"damaged or cut off \(cannot reshape"):
        caffe2.read(written(tmp_path / "w.pkl", wrong))


def test_other_pickles_and_no_file_are_named(tmp_path: Path) -> None:
    for content in ({"weights": {}}, {"blobs": 3}, [1, 2]):
        with pytest.raises(BadInput, match="a pickle without the blobs of a Caffe2 checkpoint"):
            caffe2.read(written(tmp_path / "w.pkl", pickle.dumps(content, 2)))
    with pytest.raises(MissingInput, match=r"no\.pkl cannot be read"):
        caffe2.read(tmp_path / "no.pkl")
