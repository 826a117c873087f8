"""A contact sheet shows each chosen frame with its map, and says which frame it is."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from films import destroy_packets, write_film
from talk import make_run, write_talk

from streamsal.drawing.colormaps import colormap
from streamsal.drawing.sheet import GAP_PX, HEADER_PX, PAPER, Tile, columns_of, contact_sheet, laid_out
from streamsal.errors import Stopped, UsageError

TABLE = colormap("inferno")


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheet")
    make_run(write_talk(folder / "talk.mp4", 24), folder / "run")
    return folder / "run"


def test_a_film_of_one_shot_is_twelve_pictures_evenly_spaced_each_with_its_own_map(run: Path, tmp_path: Path) -> None:
    sheet = read(contact_sheet(run, tmp_path / "sheet.png"))
    width, height = 160, 96
    for number, frame in enumerate(range(1, 24, 2)):
        top = HEADER_PX + number // 4 * (sheet.shape[0] - HEADER_PX) // 3
        left = GAP_PX + number % 4 * (width + GAP_PX)
        tile = sheet[top : top + height, left : left + width].astype(int)
        assert (tile != PAPER).any(axis=2).mean() > 0.99
        yellow = (tile - TABLE[round(255 * 0.97)]).__abs__().sum(axis=2) < 60  # the line around half of the mass
        assert np.nonzero(yellow)[1].mean() == pytest.approx((frame % 16 + 0.5) * 10, abs=10)
    below = sheet[HEADER_PX + height : HEADER_PX + height + 24, GAP_PX : GAP_PX + width]
    assert (below != PAPER).any()


def test_gaze_is_on_the_pictures(run: Path, tmp_path: Path) -> None:
    gaze = tmp_path / "gaze.csv"
    gaze.write_text("subject,t_seconds,x_px,y_px,duration_s\na,0,140,12,9\n")
    plain, ringed = (read(contact_sheet(run, tmp_path / "sheet.png", gaze=given)) for given in (None, gaze))
    rows, columns = np.nonzero((plain != ringed).any(axis=2)[: HEADER_PX + 96, : GAP_PX + 160])
    assert (columns.mean() - GAP_PX + 0.5, rows.mean() - HEADER_PX + 0.5) == pytest.approx((140, 12), abs=1)


def test_a_hole_keeps_its_place_and_says_so(tmp_path: Path) -> None:
    video = write_film(tmp_path / "damaged.mp4", 12, codec="mjpeg")
    destroy_packets(video, [5])
    make_run(video, tmp_path / "run", holes=(5,))
    sheet = read(contact_sheet(tmp_path / "run", tmp_path / "sheet.png"))
    assert sheet.shape[0] > HEADER_PX


@pytest.mark.parametrize(("n", "size"), [(1, (96, 160)), (3, (96, 160)), (5, (160, 96)), (40, (30, 40))])
def test_any_number_of_pictures_of_any_shape_fits(n: int, size: tuple[int, int]) -> None:
    tiles = [Tile(frame=k, seconds=k / 25, rgb=np.full((*size, 3), 200, np.uint8) if k else None) for k in range(n)]
    sheet = laid_out(tiles, "a film of a long name that goes on.mp4  deepgaze_iie", TABLE, "12.3 x uniform")
    shown = (sheet == 200).all(axis=2).sum()
    assert shown == (n - 1) * size[0] * size[1]
    assert columns_of(*size, n) == min(n, 4 if size[1] > size[0] else 7)


def test_what_is_no_sheet_is_refused_and_a_stop_writes_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png"):
        contact_sheet(run, tmp_path / "sheet.mp4")
    with pytest.raises(UsageError, match="no stored frames"):
        contact_sheet(run, tmp_path / "sheet.png", start=24)
    with pytest.raises(Stopped):
        contact_sheet(run, tmp_path / "sheet.png", should_stop=lambda: "SIGTERM")
    assert list(tmp_path.iterdir()) == []
