"""The README's picture can be made, and shows what it says: pieces differ behind borders, tasks nowhere."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from streamsal.sample_clip import write_demo_clip

pytestmark = pytest.mark.needs_matplotlib


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "docs")
        yield importlib.import_module("make_picture")


@pytest.fixture(scope="module")
def found(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("picture")
    film = write_demo_clip(folder / "clip.mp4", seconds=6, width=192, height=108)
    return script.compare(film, folder, tasks=4)  # cuts are at 50 and 100


def test_tasks_differ_nowhere_and_pieces_behind_every_border(found: Any) -> None:
    assert not found.ours.any()
    assert len(found.borders) == 3
    for start, stop in pairwise([*found.borders, len(found.pieces)]):
        assert found.pieces[start] > 0.01
        assert not found.pieces[start + 17 : stop].any()  # the model looks 16 frames back


def test_shown_are_the_frame_before_a_border_and_the_worst_behind_it(script: ModuleType, found: Any) -> None:
    before, behind = found.shown
    assert before + 1 in found.borders and found.pieces[behind] == found.pieces.max()
    assert script.place(before, found.borders).endswith(f"{before}, the last of its piece")
    assert script.place(52, [40, 50]) == "frame 52, the 3rd of the next"


def test_mass_that_moved_is_counted_once(script: ModuleType) -> None:
    here, there = np.log([[[0.75, 0.25]]]), np.log([[[0.25, 0.75]]])
    assert script.total_variation(here, there).tolist() == pytest.approx([0.5])
    assert script.total_variation(here, here).tolist() == [0]


def test_the_page_is_as_wide_as_it_says(script: ModuleType, found: Any, tmp_path: Path) -> None:
    from matplotlib.image import imread

    script.picture(found, about="a film").savefig(tmp_path / "page.png")
    page = imread(tmp_path / "page.png")
    assert page.shape[1] == script.WIDTH
    assert page[:, 0, :3].min() == page[0, :, :3].min() == 1  # white all around
