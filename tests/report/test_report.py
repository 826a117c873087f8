"""A report of runs: what it shows is theirs, whatever lies beside them, and it is one small file."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
import pytest
from films import write_film
from talk import make_run, write_talk

from streamsal.cli import main
from streamsal.errors import IncompleteRun, Interrupted, MissingInput, UsageError
from streamsal.evaluation.evaluate import evaluate
from streamsal.prepare import Request, make_plan
from streamsal.render import render
from streamsal.report.report import report
from streamsal.sample_clip import write_demo_clip
from streamsal.stats import stats
from streamsal.task import infer

N_FRAMES = 40


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(write_talk(tmp_path / "talk.mp4", N_FRAMES), tmp_path / "talk.streamsal", holes=(7,))
    return tmp_path / "talk.streamsal"


def films(page: Path) -> list[dict]:
    text = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)[0]
    return json.loads(text)["films"]


def quantities(page: Path) -> list[str]:
    return re.findall(r'<div class="panel"><p class="head"><b>(.*?)</b>', page.read_text())


def sources(page: Path) -> list[str]:
    return re.findall(r'<video src="(.*?)"', page.read_text())


def test_a_run_alone_gives_a_page(run: Path, tmp_path: Path) -> None:
    page = report([run], tmp_path / "report.html")
    (film,) = films(page)
    assert (film["frames"], film["holes"]) == (N_FRAMES, [[7, 8]])
    assert quantities(page) == ["Entropy", "Change"]
    assert sources(page) == ["./talk.mp4"]
    assert page.read_text().count("data:image/jpeg") >= 4
    assert "Fixation densities were predicted with bumps" in page.read_text()
    assert not list(tmp_path.glob(".report*"))


def test_films_are_linked_from_wherever_the_page_lies(tmp_path: Path) -> None:
    (tmp_path / "a #1").mkdir()
    video = write_talk(tmp_path / "a #1" / "b: 100%?.mp4", 20)
    make_run(video, tmp_path / "run")
    for folder in (tmp_path, tmp_path / "a #1", tmp_path / "deep" / "er"):
        folder.mkdir(parents=True, exist_ok=True)
        (source,) = sources(report([tmp_path / "run"], folder / "report.html"))
        assert source.startswith(("./", "../"))
        assert (folder / unquote(source)).resolve() == video


def test_a_rendered_film_comes_first_and_one_of_a_part_not_at_all(run: Path, tmp_path: Path) -> None:
    quick = {"codec": "h264", "preset": "ultrafast"}
    render(run, run / "talk.contour.mp4", style="contour", start="10", **quick)
    assert sources(report([run], tmp_path / "report.html")) == ["./talk.mp4"]
    render(run, run / "talk.overlay.mp4", **quick)
    page = report([run], tmp_path / "report.html")
    assert films(page)[0]["films"] == ["./talk.streamsal/talk.overlay.mp4", "./talk.mp4"]


def test_a_film_that_keeps_another_video_of_its_source_is_known_as_whole(tmp_path: Path) -> None:
    video = tmp_path / "two.mp4"
    with av.open(str(video), "w") as both:
        parts = [av.open(str(write_film(tmp_path / f"{n}.mp4", n))) for n in (20, 40)]
        streams = [both.add_stream_from_template(part.streams.video[0]) for part in parts]
        for part, stream in zip(parts, streams, strict=True):
            for packet in part.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    both.mux(packet)
            part.close()
    make_plan([video], tmp_path / "run", Request(model="center", stream=1))
    infer(tmp_path / "run", 0)
    render(tmp_path / "run", tmp_path / "run" / "two.overlay.mp4", codec="h264", preset="ultrafast")
    page = report([tmp_path / "run"], tmp_path / "report.html")
    assert films(page)[0]["films"] == ["./run/two.overlay.mp4", "./two.mp4"]


def test_an_embedded_film_leaves_nothing_beside_the_page(run: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    page = report([run], tmp_path / "report.html", embed=True)
    assert sources(page)[0].startswith("data:video/mp4;base64,")
    assert set(tmp_path.rglob("*")) - before == {page}


def test_tables_of_the_run_are_shown_and_those_of_an_older_one_are_not(run: Path, tmp_path: Path) -> None:
    areas = tmp_path / "areas.csv"
    areas.write_text("name,shape,x,y,width,height\nleft,rectangle,0,0,80,96\n")
    stats(run, aois=areas, cuts=True)
    page = report([run], tmp_path / "report.html")
    assert quantities(page) == ["Entropy", "Change", "Mass in areas"]
    with open(run / "stats" / "frames.csv", newline="") as file:
        entropy = [float(line["entropy_bits"] or "nan") for line in csv.DictReader(file)]
    shown = [np.nan if v is None else v for v in films(page)[0]["panels"][0]["curves"][0]["value"]]
    np.testing.assert_allclose(shown, entropy, atol=0.01)
    for name in ("frames.csv", "aois.csv"):
        os.utime(run / "stats" / name, (1, 1))
    assert quantities(report([run], tmp_path / "report.html")) == ["Entropy", "Change"]


def test_cuts_from_the_table_make_the_shots(run: Path, tmp_path: Path) -> None:
    (run / "stats").mkdir()
    rows = [f"talk.mp4,{frame},0,1" for frame in (10, 20, 30)]
    (run / "stats" / "cuts.csv").write_text("\n".join(["video,frame,pts_seconds,strength", *rows]))
    page = report([run], tmp_path / "report.html")
    assert films(page)[0]["shots"] == [0, 10, 20, 30]
    assert re.findall(r'data-frame="(\d+)" data-from="(\d+)"', page.read_text()) == [
        ("5", "0"), ("15", "10"), ("25", "20"), ("35", "30"),
    ]  # fmt: skip


def write_gaze(path: Path) -> Path:
    rows = [f"talk.mp4,s{s},{k / 10},{40 + 3 * k + s},50,0.08" for s in (1, 2) for k in range(15)]
    path.write_text("\n".join(["video,subject,t_seconds,x_px,y_px,duration_s", *rows]))
    return path


def test_gaze_gives_scores_with_their_protocol_and_an_evaluation_made_before_is_shown(
    run: Path, tmp_path: Path
) -> None:
    gaze = write_gaze(tmp_path / "gaze.csv")
    page = report([run], tmp_path / "report.html", gaze=gaze)
    assert quantities(page) == ["Entropy", "Change", "Information gain", "NSS"]
    assert "over uniform; protocol exact" in page.read_text() and "fixations in that frame" in page.read_text()
    again = report([run], tmp_path / "again.html")
    assert films(again)[0]["panels"] == films(page)[0]["panels"]
    evaluate(run, gaze, protocol="mit")
    assert "protocol mit" in report([run], tmp_path / "report.html").read_text()
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    (run / "evaluation" / "summary.json").write_text(json.dumps({**summary, "plan_id": "another"}))
    assert "NSS" not in quantities(report([run], tmp_path / "report.html"))


def test_more_gaze_than_a_small_page_can_hold_is_left_out_and_that_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaze, said = write_gaze(tmp_path / "gaze.csv"), "too many to be drawn over the film here"
    page = report([run], tmp_path / "report.html", gaze=gaze)
    assert films(page)[0]["looks"]["after"] and said not in page.read_text()
    assert 'class="gaze"' in page.read_text()
    monkeypatch.setattr("streamsal.report.report.GAZE_BYTES", 100)
    page = report([run], tmp_path / "report.html", gaze=gaze)
    assert films(page)[0]["looks"] is None and said in page.read_text()
    assert 'class="gaze"' not in page.read_text()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compared")
    clip = write_demo_clip(folder / "clip.mp4", seconds=3, width=160, height=96)
    other = write_film(folder / "other.mp4", 20)
    for model, tasks, videos in (("signature", 1, [clip, other]), ("center", 3, [clip])):
        make_plan(videos, folder / model, Request(model=model, tasks=tasks))
        for task in range(tasks):
            infer(folder / model, task)
    return folder / "signature", folder / "center"


def test_runs_of_the_same_video_share_a_timeline(compared: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(compared, tmp_path / "report.html")
    clip, other = films(page)
    assert [len(panel["curves"]) for panel in clip["panels"]] == [2, 2]
    assert [len(panel["curves"]) for panel in other["panels"]] == [1, 1]
    assert len(clip["shots"]) == 3 and len(clip["shards"]) == 2 and other["shards"] == []
    text = page.read_text()
    assert "signature and center compared" in text and 'class="sheet several"' in text


def test_one_video_of_several_can_be_chosen(compared: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(compared, tmp_path / "report.html", video="other.mp4")
    assert [film["frames"] for film in films(page)] == [20]
    with pytest.raises(UsageError, match=r"no video nothing\.mp4"):
        report(compared, tmp_path / "report.html", video="nothing.mp4")


def test_two_runs_of_one_model_are_told_apart(run: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "talk.mp4", tmp_path / "again")
    text = report([run, tmp_path / "again"], tmp_path / "report.html").read_text()
    assert "bumps, talk.streamsal and bumps, again compared" in text


def test_the_command_writes_beside_the_maps_and_prints_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaze = write_gaze(run.parent / "gaze.csv")
    assert main(["report", str(run), "--gaze", str(gaze), "-q"]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert "NSS" in quantities(run / "report.html")


def test_it_stops_when_asked_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"report\.html is not written"):
        report([run], tmp_path / "report.html", should_stop=lambda: "Ctrl-C")
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_is_not_complete_or_whose_film_is_gone_is_refused(run: Path, tmp_path: Path) -> None:
    os.rename(tmp_path / "talk.mp4", tmp_path / "moved.mp4")
    with pytest.raises(MissingInput):
        report([run], tmp_path / "report.html")
    os.rename(tmp_path / "moved.mp4", tmp_path / "talk.mp4")
    (run / "shards" / "0000.h5").unlink()
    with pytest.raises(IncompleteRun):
        report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_pictures_of_many_frames_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(write_talk(tmp_path / "talk.mp4", N_FRAMES, size=(360, 640)), tmp_path / "run")
    whole = report([tmp_path / "run"], tmp_path / "report.html").stat().st_size
    monkeypatch.setattr("streamsal.report.report.PICTURE_BYTES", 20_000)
    assert report([tmp_path / "run"], tmp_path / "report.html").stat().st_size < whole


@pytest.mark.parametrize(
    ("n_frames", "every", "holes"), [(1, 1, ()), (1, 1, (0,)), (9, 4, ()), (6, 1, tuple(range(6)))]
)
def test_the_shortest_the_sparsest_and_the_emptiest_run_have_a_page(
    tmp_path: Path, n_frames: int, every: int, holes: tuple[int, ...]
) -> None:
    make_run(write_film(tmp_path / "film.mp4", n_frames), tmp_path / "run", every=every, holes=holes)
    (film,) = films(report([tmp_path / "run"], tmp_path / "report.html"))
    assert film["frames"] == n_frames and film["shots"] == [0]
    assert sum(stop - start for start, stop in film["holes"]) == len(holes)
    assert bool(film["panels"]) == (len(holes) < n_frames)
    assert film["end"] > film["times"]["first"]


def test_a_part_of_a_film_has_its_whole_timeline(tmp_path: Path) -> None:
    video = write_film(tmp_path / "film.mp4", 30)
    make_plan([video], tmp_path / "run", Request(model="center", start="10", stop="20"))
    infer(tmp_path / "run", 0)
    page = report([tmp_path / "run"], tmp_path / "report.html")
    (film,) = films(page)
    assert film["frames"] == 30
    assert film["panels"][0]["curves"][0]["frame"] == list(range(10, 20))
    assert all(10 <= int(frame) < 20 for frame in re.findall(r'data-frame="(\d+)"', page.read_text()))
