"""Files of predictions come back as they went, and other programs find in them what they expect."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from streamsal.actions.predictions import Predictions, write_answer, write_npy
from streamsal.errors import BadInput, MissingInput, WriteError


def made(*, ids: tuple[str, ...] = ("a/0.mp4", "b/1.mp4"), labeled: bool = True) -> Predictions:
    logits = np.array([[0.0, 2.0, -3.0], [-1.0, 1.0, 0.5]], np.float32)
    return Predictions(
        classes=("run", "wälk", "sit"),
        ids=ids,
        targets=np.array([[0, 1, 0], [1, 1, 0]], np.uint8) if labeled else None,
        logits=logits,
        probabilities=(1 / (1 + np.exp(-logits))).astype(np.float32),
        facts={"model": "0f", "settings": {"clips": "all"}},
    )


@pytest.mark.parametrize("labeled", [True, False])
def test_what_is_saved_is_loaded(tmp_path: Path, labeled: bool) -> None:
    predictions = made(labeled=labeled)
    loaded = Predictions.load(predictions.save(tmp_path / "test" / "predictions.h5"))
    assert (loaded.classes, loaded.ids, loaded.facts) == (predictions.classes, predictions.ids, predictions.facts)
    for name in ("logits", "probabilities"):
        assert getattr(loaded, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(loaded, name), getattr(predictions, name))
    if not labeled:
        assert loaded.targets is None
    else:
        assert loaded.targets is not None and loaded.targets.dtype == np.uint8
        np.testing.assert_array_equal(loaded.targets, predictions.targets)


def test_any_program_can_read_the_file(tmp_path: Path) -> None:
    with h5py.File(made().save(tmp_path / "p.h5")) as h5:
        assert set(h5) == {"classes", "ids", "targets", "logits", "probabilities"}
        assert h5["classes"].asstr()[1] == "wälk"  # type: ignore[union-attr]
        assert {"format", "version", "facts"} == set(h5.attrs)


def test_predictions_of_no_clips_are_predictions(tmp_path: Path) -> None:
    empty = np.zeros((0, 2), np.float32)
    none = Predictions(classes=("a", "b"), ids=(), targets=None, logits=empty, probabilities=empty)
    assert Predictions.load(none.save(tmp_path / "p.h5")).logits.shape == (0, 2)


def test_a_probability_at_its_threshold_is_seen() -> None:
    tenths = (np.arange(11)[:, None] / 10).astype(np.float32)
    predictions = Predictions(
        classes=("a",), ids=tuple(map(str, range(11))), targets=None, logits=tenths, probabilities=tenths
    )
    for k in range(11):
        seen = predictions.seen(k / 10)
        assert seen.dtype == np.uint8 and seen.sum() == 11 - k, k


def test_each_class_has_its_threshold() -> None:
    np.testing.assert_array_equal(made().seen(np.array([0.5, 0.75, 0.99])), [[1, 1, 0], [0, 0, 0]])


def test_rows_have_to_fit() -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Predictions(
            classes=("a",),
            ids=("x",),
            targets=None,
            logits=np.zeros((1, 1), np.float32),
            probabilities=np.zeros((2, 1), np.float32),
        )


def test_what_is_no_file_of_predictions_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"p\.h5 is not there"):
        Predictions.load(tmp_path / "p.h5")
    (tmp_path / "text.h5").write_text("no")
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["ids"] = [1]
    for name in ("text.h5", "other.h5"):
        with pytest.raises(BadInput, match=name):
            Predictions.load(tmp_path / name)


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "test").write_text("a file")
    with pytest.raises(WriteError, match="test"):
        made().save(tmp_path / "test" / "p.h5")


def test_the_four_files_of_the_old_program(tmp_path: Path) -> None:
    predictions = made()
    seen = predictions.seen(0.5)
    confusion = np.arange(12).reshape(3, 2, 2)
    paths = write_npy(tmp_path, predictions, seen, confusion)
    assert {path.name for path in paths} == {"predictions.npy", "actuals.npy", "logits.npy", "confusion.npy"}
    found = {path.stem: np.load(path) for path in paths}
    np.testing.assert_array_equal(found["predictions"], [[1, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(found["predictions"] - found["actuals"], [[1, 0, 0], [-1, 0, 1]])
    np.testing.assert_array_equal(found["logits"], predictions.probabilities)
    np.testing.assert_array_equal(found["confusion"], confusion)


def test_without_labels_there_are_no_actuals(tmp_path: Path) -> None:
    predictions = made(labeled=False)
    paths = write_npy(tmp_path, predictions, predictions.seen(0.5), None)
    assert {path.name for path in paths} == {"predictions.npy", "logits.npy"}


@pytest.mark.parametrize(
    ("ids", "first"), [(("7", "00012"), ("00007", "00012")), (("b/7.mp4", "a/8.mp4"), ("00000", "00001"))]
)
def test_the_answer_has_a_line_per_clip(tmp_path: Path, ids: tuple[str, ...], first: tuple[str, ...]) -> None:
    predictions = made(ids=ids)
    path = write_answer(tmp_path / "answer.txt", predictions, predictions.seen(0.5))
    assert path.read_text() == f"{first[0]} 1 1 0\n{first[1]} 0 1 1\n"
