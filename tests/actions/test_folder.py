"""Nothing is removed from a training's folder, and nothing written over, but what a training has made."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsal.actions.folder import check_ours, clear
from streamsal.errors import UsageError


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


OURS = (
    *("last.pt", "best.pt", "validation.h5", "log.jsonl", "tensorboard/events.out.tfevents.1.here"),
    *("test/predictions.h5", "test/metrics.json", "test/classes.png", "test/answer.txt"),
)


def test_of_a_training_nothing_is_left_but_its_settings(tmp_path: Path) -> None:
    clear(touched(tmp_path, *OURS, "config.json", "split.json", "train.lock"))
    assert left(tmp_path) == {"config.json", "split.json", "train.lock"}


def test_what_somebody_keeps_in_folders_of_the_same_names_stays(tmp_path: Path) -> None:
    theirs = {"test/clip.mp4", "test/classes.png", "tensorboard/notes.txt", "tensorboard/run/events.out.tfevents.2"}
    clear(touched(tmp_path, *theirs))
    assert theirs < left(tmp_path)


@pytest.mark.parametrize("name", ["best.pt", "config.json", "validation.h5", "log.jsonl"])
def test_a_folder_without_a_training_is_taken_only_if_nothing_of_it_is_written_over(tmp_path: Path, name: str) -> None:
    check_ours(tmp_path / "new")
    check_ours(touched(tmp_path, "test/clip.mp4", "config.toml", "split.json"))
    with pytest.raises(UsageError, match=rf"{name} is of no training that was begun there"):
        check_ours(touched(tmp_path, name))
    check_ours(touched(tmp_path, "train.lock"))
