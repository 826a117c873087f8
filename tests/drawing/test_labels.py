"""Names of classes on a film: of which clips they are in which frame, and where they lie on pictures of every kind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from films import destroy_packets, write_film
from painting import HEIGHT, TURNS, WIDTH, canvas_of, noise, painter

from streamsal.cli import main
from streamsal.clips import Clips, FrameTimes, clips_of
from streamsal.color import Orientation
from streamsal.decode import decode
from streamsal.drawing.canvas import plane_views
from streamsal.drawing.labels import MOST_ROWS, LabelPainter, Labels, draw_box, labels_panel, rows_of
from streamsal.errors import UsageError
from streamsal.merge import merge, open_run
from streamsal.models import classifier as classifiers
from streamsal.models.design import Design
from streamsal.models.spec import Output
from streamsal.prepare import Request, make_plan
from streamsal.render import render
from streamsal.task import infer
from streamsal.timing import Clip, Timing

NAMES = ("walks", "runs", "stands still", "talks", "sits", "carries a heavy box")
SIZES = [(16, 16), (48, 64), (64, 160), (270, 480), (1080, 1920), (2160, 3840), (1920, 1080)]
LOSSLESS: Any = {"codec": "h264", "crf": 0, "preset": "ultrafast"}
DESIGN = Design(classes=NAMES, frames=8, rate=25, side_in=14, side=28, width=0.125, resizer="none")


def labels_of(clips: Clips, values: np.ndarray, box: tuple[int, int, int, int] | None = None) -> Labels:
    """Of given probabilities (clips, classes)."""
    first = Output(name="probabilities", kind="probabilities", units="1", labels=NAMES)
    row = {int(frame): number for number, frame in enumerate(clips.start)}
    stored: Any = SimpleNamespace(first=first, frame=clips.start, native=lambda frame: values[row[frame]])
    return Labels(stored, clips, box)


def some_clips(n_frames: int = 50, stride: str = "4") -> Clips:
    video = FrameTimes(pts_seconds=np.arange(n_frames) / 25, frame_rate=25)
    return clips_of(video, Clip(length=8, step=2, rate=25), Timing(stride=stride, tail="drop"))


def certain(name: str, n: int = 1) -> np.ndarray:
    return np.tile(np.array([each == name for each in NAMES], np.float32), (n, 1))


def test_a_frame_has_the_mean_of_all_clips_that_it_lies_in() -> None:
    clips = some_clips()
    values = np.random.default_rng(2).random((len(clips), len(NAMES)), np.float32)
    labels = labels_of(clips, values)
    for frame in range(50):
        around = [row for row, members in enumerate(clips.members) if members[0] <= frame <= members[-1]]
        found = labels.probabilities(frame)
        assert (found is None) == (not around)
        if found is not None:
            np.testing.assert_allclose(found, values[around].mean(0), rtol=1e-6)
    assert labels.probabilities(49) is None and labels.probabilities(46) is not None


def test_a_clip_without_pictures_says_nothing() -> None:
    clips = some_clips()
    values = np.tile(np.float32(0.25), (len(clips), len(NAMES)))
    values[1:3] = np.nan
    labels = labels_of(clips, values)
    assert all((labels.probabilities(frame) == 0.25).all() for frame in range(16))
    values[:] = np.nan
    assert labels_of(clips, values).probabilities(3) is None


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_panel_fits_every_picture_and_is_readable(size: tuple[int, int]) -> None:
    height, width = size
    rows = rows_of(height)
    rgb, opacity = labels_panel(dict.fromkeys(NAMES[:rows], 0.5), NAMES, *size)
    assert rows == (1 if height < 90 else MOST_ROWS)
    assert opacity.shape[0] % 2 == opacity.shape[1] % 2 == 0  # on the grid of subsampled chroma
    if height >= 48:
        assert opacity.shape[0] <= height / 2 and opacity.shape[1] < width
    assert opacity.shape[0] - 4 >= min(size) / 50 * rows
    assert not opacity[-2:].any() and not opacity[:, :2].any() and opacity[0, -1] > 0  # margins towards its corner
    assert rgb.min() >= 0 and rgb.max() <= 255


def test_bars_are_as_long_as_probabilities_and_panels_keep_their_size() -> None:
    panels = {value: labels_panel({"runs": value}, NAMES, 270, 480) for value in (0.0, 0.25, 0.5, 1.0)}
    assert len({opacity.shape for _, opacity in panels.values()}) == 1
    line = {value: np.count_nonzero(opacity[6] == 1) for value, (_, opacity) in panels.items()}
    whole = line[1.0]
    assert line[0.0] == 0 and whole > 100
    assert line[0.25] == round(whole / 4) and line[0.5] == round(whole / 2)


@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (720, 960), (270, 480)], ids=str)
def test_one_long_name_leaves_the_letters_of_the_others_as_large_as_they_were(size: tuple[int, int]) -> None:
    (_, usual), (_, beside) = (
        labels_panel({"runs": 0.5}, names, *size) for names in (NAMES, (*NAMES, "a very long name " * 20))
    )
    assert beside.shape[0] == usual.shape[0] and beside.shape[1] < size[1]


def test_letters_with_accents_are_written_without() -> None:
    for name, plain in (("läuft", "lauft"), ("Tür öffnen", "Tur offnen"), ("traînée", "trainee")):
        found, wanted = (labels_panel({each: 0.5}, [each], 270, 480) for each in (name, plain))
        np.testing.assert_array_equal(found[0], wanted[0])


def planes_with(labels: Labels, canvas: Any, frame: int = 10) -> tuple[list[np.ndarray], list[np.ndarray]]:
    picture = noise(canvas)
    paint = LabelPainter(labels, canvas)
    drawn = painter(canvas)(picture, None, maximum=1, over=lambda planes: paint.draw(frame, planes))
    return plane_views(picture), plane_views(drawn)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_labels_lie_bottom_left_as_shown_and_the_rest_stays(turn: Orientation) -> None:
    before, after = planes_with(labels_of(some_clips(), certain("runs", 12)), canvas_of(orientation=turn))
    for source, target in zip(before, after, strict=True):
        shown = turn.displayed(target != source)
        rows, columns = np.nonzero(shown)
        assert rows.min() > shown.shape[0] / 2 - 3 and columns.min() <= 3 and rows.max() >= shown.shape[0] - 5


def test_the_likeliest_comes_first_and_other_classes_make_another_picture() -> None:
    (_, runs), (_, walks), (_, none) = (
        planes_with(labels_of(some_clips(), values), canvas_of())
        for values in (certain("runs", 12), certain("walks", 12), np.full((12, len(NAMES)), np.nan, np.float32))
    )
    assert (runs[0] != walks[0]).any() and (none[0] == plane_views(noise(canvas_of()))[0]).all()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le"])
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_the_outline_lies_around_the_box_and_leaves_what_is_in_it(turn: Orientation, pixel_format: str) -> None:
    canvas = canvas_of(pixel_format, turn)
    height, width = canvas.displayed_size
    box = x, y, box_width, box_height = (20, 30, width // 2, height // 3)
    picture = noise(canvas)
    before = [plane.copy() for plane in plane_views(picture)]
    draw_box(plane_views(picture), canvas, box)
    changed = turn.displayed(plane_views(picture)[0] != before[0])
    assert not changed[y : y + box_height, x : x + box_width].any()
    for row in (y - 1, y + box_height):
        assert changed[row, x : x + box_width].mean() > 0.9
    for column in (x - 1, x + box_width):
        assert changed[y : y + box_height, column].mean() > 0.9
    rows, columns = np.nonzero(changed)
    assert y - rows.min() == rows.max() + 1 - y - box_height == 4 == x - columns.min()


def test_the_outline_of_a_box_at_the_border_is_inside_the_picture() -> None:
    picture = noise(canvas_of())
    before = plane_views(picture)[0].copy()
    draw_box(plane_views(picture), canvas_of(), (0, 0, WIDTH, HEIGHT))
    changed = plane_views(picture)[0] != before
    for side in (changed[:2], changed[-2:], changed[:, :2], changed[:, -2:]):
        assert side.mean() > 0.9
    assert not changed[6:-6, 6:-6].any()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a film of 40 frames, the last ones in no clip, with a frame without a picture."""
    folder = tmp_path_factory.mktemp("labels")
    film = write_film(folder / "film.mp4", 40, codec="mjpeg")
    destroy_packets(film, [21])
    classifiers.save(folder / "best.pt", classifiers.load("synthetic", DESIGN))
    request = Request(
        model="lowres_classifier",
        weights=str(folder / "best.pt"),
        options={"box": [30, 10, 20, 16]},
        timing=Timing(stride="8", tail="drop"),
    )
    make_plan([film], folder / "run", request)
    infer(folder / "run", 0, device="cpu")
    merge(folder / "run")
    return folder / "run"


def test_a_run_with_labels_becomes_a_film_with_labels(run: Path, tmp_path: Path) -> None:
    film = render(run, tmp_path / "film.mkv", **LOSSLESS)
    with open_run(run) as opened:
        source = opened.plan.videos[0].path  # type: ignore[union-attr]
    pairs = list(zip(decode(source, rotate=False), decode(film, rotate=False), strict=True))
    assert [before.index for before, _ in pairs if before.hole] == [21] and len(pairs) == 40
    for before, after in pairs:
        if before.hole:
            continue
        assert before.picture is not None and after.picture is not None
        changed = plane_views(before.picture)[0] != plane_views(after.picture)[0]
        assert changed[6:10, 30:50].any() and not changed[10:26, 30:50].any(), "the box"
        assert changed[40:, :40].any(), "the panel"
    two = render(run, tmp_path / "two.mkv", jobs=2, **LOSSLESS)
    for one, other in zip(decode(film), decode(two), strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_a_film_of_labels_has_no_maps_to_compare_or_to_draw_otherwise(run: Path, tmp_path: Path) -> None:
    for wish, sentence in (
        ({"style": "heatmap"}, "holds labels, no maps: leave --style out, or choose labels"),
        ({"compare": run}, "labels, which are drawn alone"),
        ({"gaze_density": "5px", "gaze": tmp_path}, "labels, which are drawn alone"),
    ):
        with pytest.raises(UsageError, match=sentence):
            render(run, tmp_path / "film.mp4", **wish)  # type: ignore[arg-type]
    assert main(["render", str(run), "--style", "contact", "-q"]) == 2
    assert main(["report", str(run), "-q"]) == 2


def test_the_command_draws_labels_unless_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(run), "-q", "--end", "4"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "film.labels.mp4")
