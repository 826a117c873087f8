"""Saliency as weights: mass is neither lost nor made, and each frame gets its own map, of the run that was planned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from films import HEIGHT, WIDTH, destroy_packets, write_film
from hypothesis import given
from hypothesis import strategies as st
from program import TELLCLIP
from spot import CELL_PX, cell
from tellspot import EVERYWHERE, OUTSIDE

import streamsal
from streamsal.cli import main
from streamsal.merge import open_run
from streamsal.models import create_model
from streamsal.models.clip_model import ClipModel
from streamsal.models.spec import ClipBatch, Result
from streamsal.timing import Timing
from streamsal.vectors.pooling import cell_masses

SPOT, TELLSPOT = (str(Path(__file__).parents[1] / f"{name}.py") for name in ("spot", "tellspot"))
N_FRAMES = 60
WHOLE = (0.0, 0.0, 1.0, 1.0)
X3D = ("--model", "x3d_xs", "--weights", "synthetic", "--stride", "0.4s")


def edges() -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(0, 0.9), st.floats(0.05, 1)).map(lambda x: (x[0], min(1.0, x[0] + x[1])))


@given(edges(), edges(), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30))
def test_no_mass_of_the_box_is_lost_or_made(
    vertical: tuple[float, float], horizontal: tuple[float, float], n: int, height: int, width: int
) -> None:
    mass = np.random.default_rng(height * width).random((height, width))
    box = (vertical[0], horizontal[0], vertical[1], horizontal[1])
    cells = cell_masses(mass, box, n)
    assert cells.shape == (n, n) and cells.min() >= 0
    assert np.isclose(cells.sum(), cell_masses(mass, box, 1).item(), rtol=1e-5)
    finer = cell_masses(mass, box, 2 * n).reshape(n, 2, n, 2).sum((1, 3))
    np.testing.assert_allclose(finer, cells, rtol=1e-4, atol=1e-6)
    assert np.isclose(cell_masses(mass, WHOLE, n).sum(), mass.sum(), rtol=1e-5)


def test_cells_of_small_maps() -> None:
    mass = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert cell_masses(mass, WHOLE, 1).tolist() == [[10]]
    assert cell_masses(mass, WHOLE, 2).tolist() == mass.tolist()
    assert cell_masses(mass, WHOLE, 4).tolist() == (np.kron(mass, np.ones((2, 2))) / 4).tolist()
    assert cell_masses(mass, (0.25, 0.0, 0.75, 1.0), 1).tolist() == [[5]]
    assert cell_masses(mass, (0.0, 0.25, 0.5, 0.75), 2).tolist() == [[0.25, 0.5], [0.25, 0.5]]
    assert cell_masses(np.ones((3, 3)), WHOLE, 2).tolist() == [[2.25, 2.25], [2.25, 2.25]]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", N_FRAMES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STREAMSAL_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str | Path, code: int = 0) -> None:
    assert main([*map(str, arguments), "--quiet"]) == code


def look(video: Path, *options: str, model: str = SPOT, run: str = "look") -> None:
    call("run", video, "--model", model, "--no-render", *options, "-o", run)


def cells_seen(video: Path, *options: str) -> dict[int, list[int]]:
    """{frame that a clip starts with: the cell that each member's saliency is in}"""
    pooled = ("--pool", "saliency:look", "--stride", "5", "--batch-size", "2", "-o", "clips")
    call("embed", video, "--model", TELLSPOT, *pooled, *options)
    with open_run("clips") as run:
        maps = run[video.name]
        return {int(frame): maps.output("features", int(frame)).astype(int).tolist() for frame in maps.frame}


def cells_of(map_of: Callable[[int], int], n_frames: int = N_FRAMES) -> dict[int, list[int]]:
    """What is right where frame k has the map of frame `map_of(k)`."""

    def answer(frame: int) -> int:
        row, column = cell(map_of(frame), HEIGHT // CELL_PX, WIDTH // CELL_PX)
        return 8 * row + column if column < 8 else OUTSIDE

    starts = sorted({*range(0, n_frames - 14, 5), n_frames - 15})
    return {start: [answer(start + offset) for offset in (0, 3, 7, 10, 14)] for start in starts}


def test_every_member_has_the_map_of_its_own_frame(film: Path, here: Path) -> None:
    look(film, "--tasks", "3")
    wanted = cells_of(lambda frame: frame)
    assert cells_seen(film, "--tasks", "2") == wanted
    assert any(OUTSIDE in row for row in wanted.values())


def test_the_run_may_call_the_video_otherwise(film: Path, here: Path) -> None:
    shutil.copy(film, "copy.mp4")
    look(Path("copy.mp4"))
    assert cells_seen(film) == cells_of(lambda frame: frame)


def test_of_every_fourth_frame_the_map_on_screen(film: Path, here: Path) -> None:
    look(film, "--every", "4")
    assert cells_seen(film) == cells_of(lambda frame: frame // 4 * 4)


def test_of_a_part_of_the_video_the_nearest_map(film: Path, here: Path) -> None:
    look(film, "--start", "10", "--end", "31")
    assert cells_seen(film) == cells_of(lambda frame: min(max(frame, 10), 30))


def test_where_the_saliency_has_a_hole_all_cells_are_alike(here: Path) -> None:
    video = write_film(here / "film.mov", N_FRAMES, codec="mjpeg")
    destroy_packets(video, [7, 22])
    call("run", video, "--model", SPOT, "--no-render", "-o", "look", code=1)
    seen, wanted = cells_seen(video), cells_of(lambda frame: frame)
    members = {start: [start + offset for offset in (0, 3, 7, 10, 14)] for start in wanted}
    for start, frames in members.items():
        for place, frame in enumerate(frames):
            assert seen[start][place] == (EVERYWHERE if frame in (7, 22) else wanted[start][place])
    assert {7, 22} <= {frame for frames in members.values() for frame in frames}


def pooled_vectors(film: Path) -> tuple[np.ndarray, np.ndarray]:
    call("embed", film, *X3D, "--pool", "saliency:look", "--device", "cpu", "--format", "npy", "-o", "x3d")
    plain, salient = (np.load(f"x3d/vectors/film_x3d_xs{suffix}.npy") for suffix in ("", "_features_salient"))
    assert plain.shape == salient.shape == (3, 2048)
    return plain, salient


def test_looking_everywhere_alike_is_the_plain_mean(film: Path, here: Path) -> None:
    look(film, model="uniform")
    plain, salient = pooled_vectors(film)
    np.testing.assert_allclose(salient, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())


class Corner(ClipModel):
    """The vector of the first position of the map."""

    def step(self, batch: ClipBatch, state: None) -> Result:
        network = self.network
        pooled = [x[..., 0, 0].mean(2) for x in network.maps(batch.clips_ncthw)]  # type: ignore[attr-defined]
        values = {"features": network.vector(pooled), "valid": super().step(batch, state).values["valid"]}  # type: ignore[attr-defined]
        return Result(
            frame=batch.frame[batch.present], values={**values, "features": values["features"][batch.present]}
        )


def test_looking_at_one_position_gives_its_vector(film: Path, here: Path) -> None:
    # Of 64 x 96 resized to 182 x 273, x3d sees rows from 11 and columns from 57, of which its first position has 32:
    # rows 11 ... 43 and columns 57 ... 89. The spot is in rows 0 ... 22.75 and columns 45.5 ... 68.25.
    look(film, "--option", "always=[0,2]")
    plain, salient = pooled_vectors(film)
    model = create_model("x3d_xs", weights="synthetic")
    assert isinstance(model, ClipModel)
    corner = Corner(model.spec, model.network, model.recipe)
    chunks = streamsal.stream(film, model=corner, timing=Timing(stride="0.4s"), device="cpu")
    wanted = np.concatenate([chunk.values["features"].numpy() for chunk in chunks])
    np.testing.assert_allclose(salient, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(salient - plain).max() > 1e-3 * np.abs(plain).max()


def test_looking_at_nothing_that_is_seen_is_the_plain_mean(film: Path, here: Path) -> None:
    look(film, "--option", "always=[4,0]")
    plain, salient = pooled_vectors(film)
    np.testing.assert_allclose(salient, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())


def test_another_saliency_run_than_planned_is_refused(
    film: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look(film)
    plan = ("--model", TELLSPOT, "--pool", "saliency:look", "--stride", "5", "-o", "clips")
    call("plan", film, *plan)
    Path("look").rename("elsewhere")
    call("infer", "clips", code=66)
    assert "look" in capsys.readouterr().err
    look(film, "--every", "2")
    call("infer", "clips", code=65)
    assert "is another saliency run than when the plan was made" in capsys.readouterr().err
    call("embed", film, *plan, code=65)  # which would plan with this one
    assert "was planned otherwise" in capsys.readouterr().err
    shutil.rmtree("look")
    Path("elsewhere").rename("look")
    call("embed", film, *plan)


def test_a_saliency_run_that_is_not_complete_is_named(
    film: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("plan", film, "--model", SPOT, "--tasks", "2", "-o", "look")
    call("infer", "look", "--task-id", "0")
    call("embed", film, "--model", TELLSPOT, "--pool", "saliency:look", "-o", "clips", code=3)
    assert "look" in capsys.readouterr().err.splitlines()[-1]


def test_a_video_that_the_saliency_run_does_not_hold(
    film: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look(film)
    other = write_film(here / "other.mp4", 20)
    pooled = ("--model", TELLSPOT, "--pool", "saliency:look", "--stride", "5")
    call("embed", other, *pooled, "-o", "clips", code=65)
    assert "other.mp4 is not in the saliency run look" in capsys.readouterr().err
    call("embed", other, film, *pooled, "-o", "both", code=1)
    assert "other.mp4 is not in the saliency run look" in capsys.readouterr().err
    (path,) = Path("both/vectors").iterdir()
    assert path.name.endswith("film_tellspot.py.h5")


def test_only_a_run_of_densities_says_where_people_look(
    film: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("embed", film, "--model", TELLCLIP, "-o", "vectors")
    call("embed", film, "--model", TELLSPOT, "--pool", "saliency:vectors", "-o", "clips", code=2)
    assert "vectors holds vectors of" in capsys.readouterr().err
    call("embed", film, "--model", TELLSPOT, "--pool", "saliency:nothing", "-o", "clips", code=66)
    assert not list(Path("clips").rglob("*.h5"))
