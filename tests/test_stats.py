"""Statistics of maps whose answers are known: uniform ones, single pixels, areas that pass over them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from films import destroy_packets, write_film
from synthetic_run import FEATURES, MAP, make_plan

from streamsal.aoi import Aoi, KeyFrame, Kind, read_aois
from streamsal.cli import main
from streamsal.errors import BadInput, MissingInput, UsageError
from streamsal.gaze.table import Gaze
from streamsal.index import index_video
from streamsal.maps import Maps
from streamsal.merge import Run, open_run
from streamsal.models.spec import Output, Readback
from streamsal.plan import Plan
from streamsal.prepare import Request, index_path
from streamsal.prepare import make_plan as make_real_plan
from streamsal.stats import AoiMass, AoiSummary, CutLine, FrameStats, Looked, change_bits, frame_stats, stats, summary
from streamsal.store import PartInfo, ShardWriter, shard_path
from streamsal.task import infer

HEIGHT, WIDTH = 24, 40  # as displayed
DENSITY = Output(name="log_density", kind="log_density", units="nat", readback=Readback())
Values = Callable[[int], np.ndarray]


def uniform(frame: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), -math.log(HEIGHT * WIDTH), np.float32)


def pixel(row: int, column: int) -> Values:
    def at(frame: int) -> np.ndarray:
        density = np.full((HEIGHT, WIDTH), -np.inf, np.float32)
        density[row, column] = 0
        return density

    return at


def make_run(
    folder: Path, values: Values, *, output: Output = DENSITY, n_frames: int = 10, holes: tuple[int, ...] = ()
) -> Run:
    """A run of a.mp4, 25 frames per second, whose clock begins at 1 s."""
    plan = make_plan({"a.mp4": n_frames}, {"a.mp4": []}, store_dtype="float32")
    path = folder / "a.streamsal"
    (path / "shards").mkdir(parents=True)
    plan.save(path / "plan.json")
    write_shard(path, plan, values, output, holes)
    return open_run(path)


def write_shard(path: Path, plan: Plan, values: Values, output: Output, holes: tuple[int, ...]) -> None:
    part = PartInfo.of(plan, plan.shards[0][0], outputs=(output,), device="cpu", dtype="float32")
    frames = np.array(part.frames)
    hole = np.isin(frames, holes)
    stacked = np.stack([values(int(frame)) for frame in frames])
    stacked[hole] = np.nan
    with ShardWriter(shard_path(path, 0), [part]) as shard:
        shard.append(part, frame=frames, pts_seconds=1 + frames / 25, hole=hole, values={output.name: stacked})
        shard.commit()
        shard.finish()


def static(name: str, kind: Kind, *numbers: float, **rest: str) -> Aoi:
    return Aoi(name=name, kind=kind, keys=(KeyFrame(seconds=-math.inf, numbers=tuple(map(float, numbers))),), **rest)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def maps_of(run: Run) -> Maps:
    return run["a.mp4"]


AREAS = [
    static("third", "rectangle", 0, 0, WIDTH / 3, HEIGHT),
    static("fraction", "rectangle", 0.25, 0.25, 0.5, 0.5, unit="fraction"),
    static("ellipse", "ellipse", 4, 4, 30, 16),
    static("triangle", "polygon", 0, 0, WIDTH, 0, 0, HEIGHT),
]


@pytest.mark.parametrize("native", [False, True])
def test_a_uniform_density_has_the_mass_of_an_areas_share_and_the_largest_entropy(tmp_path: Path, native: bool) -> None:
    values = uniform if not native else lambda frame: uniform(frame)[::2, ::2] + np.float32(math.log(4))
    run = make_run(tmp_path, values)
    paths = stats(run, aois=AREAS, native=native)
    assert [path.relative_to(run.path).as_posix() for path in paths] == [
        "stats/frames.csv",
        "stats/aois.csv",
        "stats/aoi_summary.csv",
    ]
    step = 2 if native else 1
    spread = math.sqrt((HEIGHT**2 + WIDTH**2 - 2 * step**2) / 12)
    for row in rows(paths[0]):
        assert float(row["entropy_bits"]) == pytest.approx(math.log2(HEIGHT * WIDTH), abs=2e-6)
        assert (float(row["centroid_x_px"]), float(row["centroid_y_px"])) == pytest.approx((20, 12), abs=2e-5)
        assert float(row["spread_px"]) == pytest.approx(spread, abs=2e-5)
        assert float(row["mass_central_third"]) == pytest.approx(1 / 9, abs=2e-6)
        assert float(row["peak_log_density"]) == pytest.approx(-math.log(HEIGHT * WIDTH), abs=2e-6)
    for row in rows(paths[1]):
        assert float(row["mass"]) == pytest.approx(float(row["area_fraction"]), abs=2e-6)
    found = {row["aoi"]: row for row in rows(paths[2])}
    shares = {"third": 1 / 3, "fraction": 0.25, "ellipse": math.pi * 15 * 8 / 960, "triangle": 0.5}
    for name, share in shares.items():
        assert float(found[name]["mean_mass"]) == pytest.approx(share, rel=2e-3)
        assert float(found[name]["mass_over_area"]) == pytest.approx(1, abs=1e-5)
        assert (found[name]["n_frames"], found[name]["noticed_frame"], found[name]["n_fixations"]) == ("10", "", "")


def test_a_single_sure_pixel_is_centroid_and_peak_and_all_the_mass_of_where_it_lies(tmp_path: Path) -> None:
    run = make_run(tmp_path, pixel(5, 30))
    here, there = static("here", "rectangle", 30, 5, 1, 1), static("there", "rectangle", 31, 5, 1, 1)
    half = static("half", "rectangle", 30.5, 0, 9.5, HEIGHT)
    for line, masses in frame_stats(maps_of(run), [0, 1], [here, there, half]):
        assert (line.entropy_bits, line.spread_px) == pytest.approx((0, 0), abs=1e-6)
        assert (line.centroid_x_px, line.centroid_y_px) == (line.peak_x_px, line.peak_y_px) == (30.5, 5.5)
        assert line.peak_log_density == pytest.approx(0, abs=1e-6)
        assert [mass.mass for mass in masses] == pytest.approx([1, 0, 0.5])
        assert masses[0].area_fraction == pytest.approx(1 / 960)
    assert line.js_from_previous_bits == line.kl_from_previous_bits == 0


def test_an_area_that_moves_is_at_half_time_half_way_by_the_clock_of_the_first_frame(tmp_path: Path) -> None:
    run = make_run(tmp_path, pixel(5, 20), n_frames=11)
    keys = (
        KeyFrame(seconds=2 / 25, numbers=(0.0, 0.0, 10.0, 10.0)),
        KeyFrame(seconds=6 / 25, numbers=(32.0, 0.0, 10.0, 10.0)),  # 8 px per frame: over the pixel only half way
        KeyFrame(seconds=9 / 25, numbers=(32.0, 0.0, 10.0, 10.0), hidden=True),
    )
    paths = stats(run, aois=[Aoi(name="a", kind="rectangle", keys=keys)])
    masses = {int(row["frame"]): row["mass"] for row in rows(paths[1])}
    assert [masses[k] for k in range(2, 9)] == [f"{float(k == 4):.6f}" for k in range(2, 9)]
    assert [masses[k] for k in (0, 1, 9, 10)] == [""] * 4
    (found,) = rows(paths[2])
    assert (found["n_frames"], found["noticed_frame"], found["noticed_pts_seconds"]) == ("7", "4", "1.160000")
    assert float(found["mean_mass"]) == pytest.approx(1 / 7, abs=1e-6)


def looked(*rows_of_density: list[float]) -> Looked:
    density = torch.tensor(rows_of_density)
    return Looked(log_density_hw=density.log().clamp(min=-1e4), density_hw=density)


def test_changes_are_divergences_in_bits() -> None:
    def entropy(*masses: float) -> float:
        return -sum(mass * math.log2(mass) for mass in masses)

    one, other, apart = looked([0.5, 0.5, 0, 0]), looked([0.25, 0.75, 0, 0]), looked([0, 0, 0, 1])
    shannon = pytest.approx(entropy(0.375, 0.625) - (entropy(0.5, 0.5) + entropy(0.25, 0.75)) / 2, abs=1e-6)
    assert change_bits(one, other) == (pytest.approx(0.5 + 0.5 * math.log2(2 / 3), abs=1e-6), shannon)
    assert change_bits(other, one) == (pytest.approx(-0.25 + 0.75 * math.log2(1.5), abs=1e-6), shannon)
    assert change_bits(one, apart)[1] == change_bits(apart, one)[1] == pytest.approx(1, abs=1e-6)
    assert change_bits(one, one) == change_bits(apart, apart) == (0, 0)


def test_a_summary_on_a_grid_is_in_displayed_pixels() -> None:
    found = summary(looked([0, 0.25], [0, 0.75]), (10, 20))
    assert (found["centroid_x_px"], found["centroid_y_px"]) == (15, 6.25)
    assert (found["peak_x_px"], found["peak_y_px"]) == (15, 7.5)
    assert found["spread_px"] == pytest.approx(5 * math.sqrt(0.25 * 0.75))
    assert found["entropy_bits"] == pytest.approx(math.log2(50) + 0.25 * 2 + 0.75 * math.log2(4 / 3), abs=1e-6)
    assert found["peak_log_density"] == pytest.approx(math.log(0.75 / 50))


def test_a_hole_has_no_numbers_and_no_change_to_or_from_it(tmp_path: Path) -> None:
    paths = stats(make_run(tmp_path, uniform, holes=(3,)), aois=AREAS[:1])
    found = rows(paths[0])
    assert [row["status"] for row in found[2:5]] == ["done", "hole", "done"]
    assert {value for name, value in found[3].items() if name not in ("video", "frame", "pts_seconds", "status")} == {
        ""
    }
    assert [row["js_from_previous_bits"] for row in found[:6]] == ["", "0.000000", "0.000000", "", "", "0.000000"]
    masses = rows(paths[1])
    assert (masses[3]["mass"], masses[3]["area_fraction"]) == ("", "0.333333")
    assert rows(paths[2])[0]["n_frames"] == "9"


def test_a_map_that_is_no_density_counts_with_its_share_of_its_sum(tmp_path: Path) -> None:
    values = lambda frame: np.repeat([[1.0], [3.0]], WIDTH, 1).repeat(HEIGHT // 2, 0).astype(np.float32)  # noqa: E731
    run = make_run(tmp_path, values, output=MAP)
    ((_, (mass,)),) = frame_stats(maps_of(run), [0], [static("top", "rectangle", 0, 0, WIDTH, HEIGHT / 2)])
    assert mass.mass == pytest.approx(0.25)


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, lambda frame: np.zeros(5, np.float32), output=FEATURES)
    with pytest.raises(UsageError, match="features of synthetic is no map"):
        stats(run)
    assert not (run.path / "stats").exists()


def gaze(t: list[float], x: list[float], duration: list[float], subject: list[str]) -> Gaze:
    return Gaze.rows(t_seconds=t, x_px=x, y_px=[5.0] * len(t), duration_s=duration, subject=subject, video="a.mp4")


def test_fixations_are_counted_and_timed_in_the_area_they_are_in(tmp_path: Path) -> None:
    run = make_run(tmp_path, uniform)  # 0.4 s long
    left = static("left", "rectangle", 0, 0, 20, HEIGHT)
    looks = gaze([0.1, 0.2, 0.3, 0.35], [5, 30, 10, 19.9], [0.05, 0.1, 0.05, 9], ["ann", "ann", "bob", "ann"])
    (found,) = rows(stats(run, aois=[left], gaze=looks)[2])
    assert (found["n_fixations"], found["n_subjects"]) == ("3", "2")
    assert (found["dwell_seconds"], found["first_fixation_seconds"]) == ("0.150000", "0.100000")
    (part,) = rows(stats(run, aois=[left], gaze=looks, start=0, stop=5)[2])
    assert (part["n_fixations"], part["dwell_seconds"]) == ("1", "0.050000")
    samples = gaze([0.1, 0.2], [5, 5], [0, 0], ["", ""])
    (found,) = rows(stats(run, aois=[left], gaze=samples)[2])
    assert (found["n_fixations"], found["dwell_seconds"]) == ("2", "")


def test_wrong_wishes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = make_run(tmp_path, uniform)
    with pytest.raises(UsageError, match="name them with --aoi"):
        stats(run, gaze=gaze([], [], [], []))
    with pytest.raises(BadInput, match=r"the area left is of b\.mp4, which is no video of this run"):
        stats(run, aois=[static("left", "rectangle", 0, 0, 9, 9, video="b.mp4")])
    with pytest.raises(UsageError, match="no stored frames from 20"):
        stats(run, start=20)
    with pytest.raises(UsageError, match=r"c\.mp4: no such videos"):
        stats(run, video="c.mp4")
    assert not (run.path / "stats").exists()


def test_a_run_that_begins_later_needs_the_index_for_areas_that_move(tmp_path: Path) -> None:
    run = make_run(tmp_path, uniform)
    maps = maps_of(run)
    maps.frame = maps.frame + 5
    moving = Aoi(name="a", kind="rectangle", keys=(KeyFrame(seconds=0, numbers=(0.0, 0.0, 9.0, 9.0)),))
    assert stats(run, aois=AREAS[:1])
    with pytest.raises(MissingInput, match=r"a\.mp4\.npz is missing"):
        stats(run, aois=[moving])


def test_areas_and_gaze_belong_to_the_video_they_name(talks: Path, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("video,t_seconds,x_px,y_px\ntalk.mp4,0.1,5,5\n50%b off,0.2,5,5\n50%b off,0.3,5,5\n")
    everywhere = static("all", "rectangle", 0, 0, 1, 1, unit="fraction")
    first, second = (static("one", "rectangle", 0, 0, 9, 9, video=video) for video in ("talk.mp4", "50%b off"))
    found = rows(stats(talks, aois=[everywhere, first, second], gaze=tmp_path / "g.csv")[2])
    assert [(row["video"], row["aoi"], row["n_frames"], row["n_fixations"]) for row in found] == [
        ("a__talk.mp4", "all", "48", "1"),
        ("a__talk.mp4", "one", "48", "1"),
        ("b__50%b off.mkv", "all", "29", "2"),
        ("b__50%b off.mkv", "one", "29", "2"),
    ]
    assert {row["video"] for row in rows(stats(talks, video="talk.mp4")[0])} == {"a__talk.mp4"}


AOI_FILE = """\
name,shape,x,y,width,height,unit,seconds
all,rectangle,0,0,1,1,fraction,
ball,ellipse,10,10,40,30,px,0.2
ball,ellipse,50,20,40,30,px,0.9
"""
GAZE_FILE = """\
subject,t_seconds,x_px,y_px,duration_s
ann,0.1,30,30,0.2
bob,0.5,50,30,0.4
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """film.mp4 computed as one task and as three; frame 13 of it is a hole."""
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "film.avi", 30, codec="mjpeg")
    destroy_packets(folder / "film.avi", [13])
    for tasks in (1, 3):
        run = folder / f"{tasks}.streamsal"
        make_real_plan([folder / "film.avi"], run, Request(model="signature", tasks=tasks, start="0.08s"))
        for task in range(tasks):
            infer(run, task, device="cpu")
    (folder / "a.csv").write_text(AOI_FILE)
    (folder / "g.csv").write_text(GAZE_FILE)
    return folder


def test_a_run_in_three_tasks_has_the_tables_of_a_run_in_one_to_the_byte(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {}
    for tasks in (1, 3):
        output = films / f"tables{tasks}"
        options = ["--aoi", films / "a.csv", "--gaze", films / "g.csv", "--cuts", "-o", output, "-q"]
        assert main(["stats", str(films / f"{tasks}.streamsal"), *map(str, options)]) == 0
        names = ["frames", "aois", "aoi_summary", "cuts"]
        assert capsys.readouterr().out.split() == [str(output / f"{name}.csv") for name in names]
        tables[tasks] = {path.name: path.read_bytes() for path in output.iterdir()}
    assert tables[1] == tables[3] and len(tables[1]) == 4
    found = rows(films / "tables1" / "frames.csv")
    assert [int(row["frame"]) for row in found] == list(range(2, 30))
    assert [row["frame"] for row in found if row["status"] == "hole"] == ["13"]
    masses = [row for row in rows(films / "tables1" / "aois.csv") if row["aoi"] == "all" and row["mass"]]
    assert len(masses) == 27 and all(float(row["mass"]) == pytest.approx(1, abs=1e-5) for row in masses)
    ball = next(row for row in rows(films / "tables1" / "aoi_summary.csv") if row["aoi"] == "ball")
    index = index_video(films / "film.avi")
    shown = index.pts_seconds - index.pts_seconds[0]
    assert int(ball["n_frames"]) == int((shown > 0.2 - 1e-6).sum()) - 1
    assert (ball["n_fixations"], ball["n_subjects"]) == ("2", "2")


def test_what_is_asked_for_part_of_a_run_is_what_the_whole_says_there(films: Path, tmp_path: Path) -> None:
    run = films / "1.streamsal"
    whole = rows(stats(run, output=tmp_path / "whole")[0])
    part = rows(stats(run, output=tmp_path / "part", start="0.4s", stop=20)[0])
    first = next(k for k, row in enumerate(whole) if row["frame"] == part[0]["frame"])
    assert part[0]["js_from_previous_bits"] == ""
    assert part[1:] == whole[first + 1 : first + len(part)] and part[-1]["frame"] == "19"


def test_gaze_of_any_tracker_is_read_with_the_options_of_evaluate(films: Path, tmp_path: Path) -> None:
    run, areas, usual = films / "1.streamsal", films / "a.csv", films / "g.csv"
    lines = [line.split(",") for line in usual.read_text().splitlines()[1:]]
    other = [f"{who}\t{1000 * float(t) + 5000:.0f}\t{x}\t{y}\t{1000 * float(d):.0f}" for who, t, x, y, d in lines]
    (tmp_path / "g.tsv").write_text("\n".join(["Who\tWhen\tGX\tGY\tLong", *other]) + "\n")
    expected = rows(stats(run, aois=areas, gaze=usual, output=tmp_path / "usual")[2])
    columns = "t=When,x=GX,y=GY,duration=Long,subject=Who,time_unit=ms"
    options = ["--gaze", tmp_path / "g.tsv", "--columns", columns, "--gaze-start", 5, "-o", tmp_path / "other", "-q"]
    assert main(["stats", str(run), "--aoi", str(areas), *map(str, options)]) == 0
    assert rows(tmp_path / "other" / "aoi_summary.csv") == expected


def test_a_bad_file_of_areas_leaves_with_65_and_one_sentence(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (films / "bad.json").write_text('[{"name": "a", "rectangle": [0, 0, 0, 1]}]')
    assert main(["stats", str(films / "1.streamsal"), "--aoi", str(films / "bad.json")]) == 65
    assert capsys.readouterr().err == f"streamsal: {films / 'bad.json'}: entry 1 (a): width is 0, not above 0\n"


def test_the_index_tells_when_a_film_begins_even_if_the_run_does_not_hold_its_first_frame(films: Path) -> None:
    assert index_path(films / "1.streamsal", "film.avi").exists()
    keys = (
        KeyFrame(seconds=0, numbers=(0.0, 0.0, 9.0, 9.0)),
        KeyFrame(seconds=0.16, numbers=(0.0, 0.0, 9.0, 9.0), hidden=True),
    )
    paths = stats(films / "3.streamsal", aois=[Aoi(name="a", kind="rectangle", keys=keys)])
    there = [int(row["frame"]) for row in rows(paths[1]) if row["area_fraction"]]
    assert there == [2, 3]


def test_the_page_on_statistics_is_true(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "stats.md").read_text()
    blocks = {kind: re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("json", "csv", "python")}
    (tmp_path / "a.json").write_text(blocks["json"][0])
    (tmp_path / "a.csv").write_text(blocks["csv"][0])
    assert read_aois(tmp_path / "a.json") == read_aois(tmp_path / "a.csv")
    for line in (FrameStats, AoiMass, AoiSummary, CutLine):
        assert not [column.name for column in fields(line) if f"`{column.name}`" not in page]
    stats(films / "1.streamsal", aois=films / "a.csv", cuts=True, output=tmp_path / "talk.streamsal" / "stats")
    (tmp_path / "talk.mp4").symlink_to(films / "film.avi")
    monkeypatch.chdir(tmp_path)
    for source in blocks["python"]:
        exec(source, {})
    printed = capsys.readouterr().out
    assert printed.startswith("0 30 0.0\n") and "all in shot 0: 1.000 of the probability in 27 frames" in printed
