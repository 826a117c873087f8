"""The example for training: its clips show what their labels say, and its recipe learns it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from streamsal.actions import example
from streamsal.actions.config import config_of, read_toml
from streamsal.actions.grid import read_grid
from streamsal.actions.manifest import read_manifest
from streamsal.actions.reading import decoded, windows
from streamsal.actions.split import clips_of
from streamsal.errors import UsageError
from streamsal.index import index_video

TEXT_ORDER = windows(example.WINDOW, example.WINDOW, 0.0, "legacy")[0].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, of fewer scenes."""
    found = tmp_path_factory.mktemp("example")
    example.write_example(found, {"train": range(3), "test": range(3, 4)})
    return found


def test_every_class_has_a_clip_in_every_scene_and_no_scene_is_trained_and_tested_on(folder: Path) -> None:
    sides = {side: read_manifest(folder / f"{side}.csv") for side in ("train", "test")}
    for manifest in sides.values():
        shown = {(clip.scene, manifest.classes[label]) for clip in manifest.clips for label in clip.labels}
        assert shown == {(clip.scene, name) for clip in manifest.clips for name in example.CLASSES}
    assert not {clip.scene for clip in sides["train"].clips} & {clip.scene for clip in sides["test"].clips}
    assert not set(example.SCENES["train"]) & set(example.SCENES["test"])


def test_files_hold_the_pictures_that_were_drawn(folder: Path) -> None:
    for clip in read_manifest(folder / "test.csv").clips:
        index, drawn = index_video(clip.path), example.pictures(3, clip.path.stem)
        assert (index.n_frames, index.width, index.height) == (len(drawn), example.SIDE, example.SIDE)
        found = decoded(index, 0.0, frames=len(drawn))[0]
        assert abs(found.astype(int) - drawn).mean() < 5  # levels; what moves is about 100 brighter


def test_the_example_is_the_same_on_every_call(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    example.write_clip(again, example.pictures(0, "up_then_left"))
    assert again.read_bytes() == (folder / "clips/scene_00/up_then_left.mp4").read_bytes()


@pytest.mark.parametrize("name", ["recipe.toml", "order.toml", "train.csv", "test.csv"])
def test_a_file_of_another_content_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name} is there and says something else"):
        example.write_example(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", example.CLASSES)
def test_what_moves_in_a_file_moves_as_its_label_says(folder: Path, name: str) -> None:
    """The spot is found in the decoded pictures by itself, as what is brighter than the clip's usual picture."""
    film = decoded(index_video(folder / f"clips/scene_02/{name}.mp4"), 0.0, frames=example.LENGTHS[0])[0].mean(-1)
    bright = np.pad(film - np.median(film, 0), ((0, 0), (1, 1), (1, 1)))
    bright = sliding_window_view(bright, (3, 3), axis=(1, 2)).mean((-2, -1))  # noise is a third of that of a pixel
    frames = sorted({motion.frame for motion in example.motions(2, name)})
    rows, columns = np.mgrid[: example.SIDE, : example.SIDE]
    weights = np.where(bright > 25, bright, 0)
    for move, number in zip(example.CLASSES[name], (0, 1), strict=True):
        seen = [k for k in frames[number * example.STEPS :][: example.STEPS] if k < len(film) and weights[k].any()]
        assert len(seen) >= 3
        rise = [
            np.average(axis, weights=weights[seen[-1]]) - np.average(axis, weights=weights[seen[0]])
            for axis in (rows, columns)
        ]
        sign = np.array(example.MOVES[move])
        assert rise @ sign > 2 and rise @ sign > abs(rise @ sign[::-1])


def test_both_moves_are_in_every_window_of_a_clip_and_some_clips_are_shorter_than_one() -> None:
    shorter = 0
    for scene, name in ((scene, name) for scene in range(10) for name in example.CLASSES):
        n_frames = len(example.pictures(scene, name))
        frames = [motion.frame for motion in example.motions(scene, name)]
        first, last = max(n_frames - example.WINDOW, 0), min(n_frames, example.WINDOW) - 1
        assert first <= min(frames) and max(frames) <= last
        assert len(set(frames)) == 2 * example.STEPS
        shorter += n_frames < example.WINDOW
    assert shorter > 10


def test_in_the_order_of_numbers_as_text_the_second_move_often_comes_first() -> None:
    place = {frame: where for where, frame in enumerate(TEXT_ORDER)}
    exchanged, n = 0, 0
    for scene, name in ((scene, name) for scene in range(24) for name in example.CLASSES):
        frames = [motion.frame for motion in example.motions(scene, name)]
        first, second = frames[: example.STEPS], frames[example.STEPS :]
        exchanged += sum(place[a] > place[b] for a in first for b in second)
        n += example.STEPS**2
    assert 0.3 < exchanged / n < 0.7


def test_the_recipe_and_the_grid_are_settings_that_can_be_trained(folder: Path) -> None:
    recipe = config_of(read_toml(folder / example.RECIPE), folder / example.RECIPE)
    assert recipe.model.frames == example.WINDOW and recipe.model.side_in == example.SIDE
    assert recipe.data.flip == 0
    grid = read_grid(folder / example.GRID)
    assert grid is not None
    cells = [cell.config for cell in grid.cells()]
    assert cells == [replace(recipe, data=replace(recipe.data, order=order)) for order in ("natural", "legacy")]


def test_validation_has_scenes_of_its_own_with_every_class(folder: Path, tmp_path: Path) -> None:
    config = config_of(read_toml(folder / example.RECIPE), folder / example.RECIPE)
    clips = clips_of(config, tmp_path)
    shown = [clips.train.clips[row] for row in clips.validation_rows]
    assert {label for clip in shown for label in clip.labels} == set(range(len(example.CLASSES)))
    assert not {clip.scene for clip in shown} & {clips.train.clips[row].scene for row in clips.train_rows}


@pytest.mark.slow
def test_the_recipe_learns_the_example_in_minutes_and_not_from_frames_in_another_order(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from streamsal.actions.judge import judge
    from streamsal.actions.train import train
    from streamsal.models.classifier import load, save

    example.write_example(tmp_path)
    config = config_of(read_toml(tmp_path / example.RECIPE), tmp_path / example.RECIPE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = train(config, tmp_path / "trained")
        learnt = judge(best, config.data.test, test=config.test, plots=False)
        scrambled = load(best)
        scrambled.design = replace(scrambled.design, order="legacy")
        save(tmp_path / "scrambled.pt", scrambled)
        lost = judge(tmp_path / "scrambled.pt", config.data.test, test=config.test, plots=False)
    finally:
        torch.set_num_threads(threads)
    assert learnt is not None and lost is not None
    assert learnt.f1_macro > 0.9
    assert lost.f1_macro < 0.7
