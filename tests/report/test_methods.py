"""What a paper is told of a run: all that was recorded, and nothing that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from films import write_film
from talk import make_run, write_talk

from streamsal.index import VideoIndex
from streamsal.merge import Run, open_run
from streamsal.models import spec_of
from streamsal.plan import PlannedModel
from streamsal.prepare import Request, make_plan
from streamsal.report.methods import Measured, citations, facts, number, ordinal, paragraph
from streamsal.task import infer
from streamsal.weights.assets import ASSETS


def measured(run: Run) -> list[Measured]:
    return [
        Measured(label="m", run=run, maps=run[name], index=VideoIndex.load(run.path / "index" / f"{name}.npz"))
        for name in run.videos
    ]


@pytest.fixture(scope="module")
def talk_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    make_run(write_talk(folder / "talk.mp4", 20), folder / "talk.streamsal", every=3, holes=(3, 9))
    return folder / "talk.streamsal"


def test_the_facts_are_those_of_the_run(talk_run: Path) -> None:
    with open_run(talk_run) as run:
        found = facts(measured(run)[0])
        assert found["Weights, SHA-256"] == "ab" * 32
        assert found["Stored maps"] == "log_density, 9 × 16 (rows × columns), float16"
        assert found["Size shown"] == "160 × 96 px"
        assert found["Holes"] == "2 without a picture: 3, 9"
        assert (found["Device"], found["Precision"], found["Tasks"], found["streamsal"]) == (
            "cpu",
            "float32",
            "1",
            "0.1.0",
        )
        assert "results for 7 (every 3 frames from 0 to 18)" in found["Frames"]
        assert run.plan and found["Plan"] == run.plan.id[:16]


def test_the_paragraph_names_model_weights_frames_device_and_what_is_missing(talk_run: Path) -> None:
    with open_run(talk_run) as run:
        text = paragraph(measured(run))
    for said in (
        f"bumps (weights SHA-256 {'ab' * 32})", "every 3rd frame", "talk.mp4 (7 frames", "160 × 96 px",
        "streamsal 0.1.0 on cpu in float32", "batches of 4 frames", "as one task", "float16",
        "2 frames could not be decoded",
    ):  # fmt: skip
        assert said in text, text


def test_a_model_without_weights_and_several_videos_are_said_to_be_that(tmp_path: Path) -> None:
    videos = [write_film(tmp_path / name, 8) for name in ("a.mp4", "b.mp4")]
    make_plan(videos, tmp_path / "run", Request(model="center", tasks=2))
    for task in range(2):
        infer(tmp_path / "run", task)
    with open_run(tmp_path / "run") as run:
        text = paragraph(measured(run))
        assert "center (a model without weights) for each frame of 2 videos (16 frames at 25 frames/s)" in text
        assert "as 2 tasks, each with the warm-up frames" in text
        assert "could not be decoded" not in text
        assert citations(measured(run)) == ([spec_of("center").citation] if spec_of("center").citation else [])


def test_random_stand_ins_are_called_that(talk_run: Path) -> None:
    with open_run(talk_run) as run:
        assert run.plan is not None
        (each,) = measured(run)
        assert not each.stand_in
        run.plan = replace(run.plan, model=replace(run.plan.model, weights="synthetic"))
        assert each.stand_in and "no number of this run has a meaning" in paragraph([each])


def test_the_model_and_the_files_of_others_are_cited_once(talk_run: Path) -> None:
    with open_run(talk_run) as run:
        assert run.plan is not None
        (each,) = measured(run)
        assert citations([each]) == []  # a model that we do not have
        bias = ASSETS["centerbias_mit1003"]
        run.plan = replace(run.plan, model=PlannedModel(name="deepgaze_iie", center_bias=f"/cache/{bias.file}"))
        each.maps.info["model"] = "deepgaze_iie"
        assert citations([each, each]) == list(dict.fromkeys([spec_of("deepgaze_iie").citation, bias.citation]))
        assert bias.file in paragraph([each])


def test_numbers_are_written_as_in_print() -> None:
    assert number(1234567) == "1\u202f234\u202f567"
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 22, 101, 113)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "22nd", "101st", "113th",
    ]  # fmt: skip
