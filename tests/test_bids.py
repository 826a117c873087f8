"""The folder has the form of a BIDS derivative, and says of itself what is not of the standard."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import two_passes
from films import write_film
from synthetic_run import make_plan, make_run

from streamsal.bids import labels
from streamsal.errors import UsageError
from streamsal.export import export
from streamsal.exported import summary
from streamsal.merge import Run, open_run
from streamsal.prepare import Request
from streamsal.prepare import make_plan as make_real_plan
from streamsal.task import infer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plan = make_plan({"a talk.mp4": 12, "b.mkv": 5}, {"a talk.mp4": [5], "b.mkv": []})
    return open_run(make_run(tmp_path_factory.mktemp("run") / "two.streamsal", plan))


def test_every_table_has_a_row_per_frame_and_every_column_is_described(run: Run, tmp_path: Path) -> None:
    tables = export(run, tmp_path / "bids", format="bids")
    assert [path.name for path in tables] == [f"stim-{name}_desc-synthetic_saliency.tsv" for name in ("atalk", "b")]
    for path, name in zip(tables, run.videos, strict=True):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        described = json.loads(path.with_suffix(".json").read_text())
        assert described["StimulusFile"] == name
        assert all(described[column]["Description"] for column in rows[0])
        assert [int(row["frame"]) for row in rows] == run[name].frame.tolist()
        for row in rows:
            _, seconds, *rest = summary(run[name], int(row["frame"]), False)
            assert list(row.values()) == [seconds, row["frame"], *(str(cell) or "n/a" for cell in rest)]
        assert all(re.fullmatch(r"[^\t]+", cell) for row in rows for cell in row.values())  # nothing is empty


def test_the_dataset_describes_itself_and_what_the_validator_has_to_ignore(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path, format="bids", video="b.mkv")
    facts = json.loads((tmp_path / "dataset_description.json").read_text())
    assert facts["DatasetType"] == "derivative" and facts["GeneratedBy"][0]["Name"] == "streamsal"
    assert {"Name", "BIDSVersion"} <= facts.keys()
    assert "Not of BIDS" in (tmp_path / "README").read_text()
    ignored = (tmp_path / ".bidsignore").read_text().split()
    own = [path.relative_to(tmp_path) for path in tmp_path.glob("stimuli/*")]
    assert len(own) == 2 and all(any(path.match(pattern) for pattern in ignored) for path in own)


def test_labels_are_letters_and_digits_and_no_two_are_the_same() -> None:
    assert labels(["a b.mp4", "a-b.mkv", "abn2.avi", "ab.mov", "\N{SNOWMAN}.mp4"]) == [
        "ab",
        "abn2",
        "abn2n2",
        "abn3",
        "video",
    ]


def test_what_is_no_density_has_no_such_table(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 3)
    make_real_plan([film], tmp_path / "run", Request(model=two_passes.__file__, options={"derived": False}))
    infer(tmp_path / "run", 0, device="cpu")
    with pytest.raises(UsageError, match="density only without --native"):
        export(tmp_path / "run", tmp_path / "bids", format="bids", native=True)
    assert not (tmp_path / "bids").exists()
