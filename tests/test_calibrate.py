"""The table of warm-ups is what an interrupted memory really does to densities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from films import write_film

from streamsal import cli
from streamsal.calibrate import WARM_UPS, Recorder, calibrate, compared
from streamsal.engine import predict
from streamsal.errors import UsageError
from streamsal.models import unisal
from streamsal.models.spec import Batch, Video
from streamsal.models.unisal import Unisal

SMALL = {"height": 32, "width": 64}
N_FRAMES = 60  # 12 steps of 5 chains: long enough for one warm-up but the empty one


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", N_FRAMES)


def model_with(**options: str) -> Unisal:
    model = unisal.build("synthetic", device="cpu", **SMALL, **options)  # type: ignore[arg-type]
    assert isinstance(model, Unisal)
    return model


def test_rows_are_the_variation_of_runs_that_began_so_late() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (N_FRAMES, 40, 60, 3), dtype=np.uint8)
    model = model_with(state="relay")
    recorder = Recorder(model)
    batch = Batch(
        frames_nhwc=torch.from_numpy(frames),
        frame=np.arange(N_FRAMES),
        pts_seconds=np.arange(N_FRAMES) / 25,
        present=slice(0, N_FRAMES),
    )
    recorder.step(batch, recorder.begin(Video(name="clip", n_frames=N_FRAMES, frame_rate=25.0, height=40, width=60)))
    places = [3, 7, 11]
    found = compared(model, recorder.found, 5, 25.0, [0, 2], places)

    def density(first: int) -> np.ndarray:
        maps = predict(frames[first:], model=model, device="cpu", dtype="fp32", native=True)
        return np.concatenate([np.full((first, *maps.shape[1:]), np.nan), np.exp(maps.astype(np.float64))])

    unbroken = density(0)
    for row, warm_up in zip(found, (0, 2), strict=True):
        variations = []
        for place in places:
            same = slice(5 * place, 5 * place + 5)
            variations.append(np.abs(density(5 * (place - warm_up))[same] - unbroken[same]).sum((1, 2)) / 2)
        assert row.median == pytest.approx(np.median(variations), rel=1e-4)
        assert row.worst == pytest.approx(np.max(variations), rel=1e-4)
        assert (row.warm_up_steps, row.warm_up_frames, row.warm_up_seconds) == (warm_up, 5 * warm_up, warm_up / 5)
        assert row.compared == 15


def test_longer_warm_ups_are_closer(tmp_path: Path) -> None:
    rows = calibrate(write_film(tmp_path / "long.mp4", 5 * 60), model_with(), device="cpu")
    assert [row.warm_up_steps for row in rows] == list(WARM_UPS[:-1]), "the longest is longer than the video"
    assert all(later.worst < earlier.worst for earlier, later in pairwise(rows))
    assert [row.warm_up_frames for row in rows] == [5 * steps for steps in WARM_UPS[:-1]]


def test_command_prints_a_table_or_json(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "unisal", "--calibrate", str(film), "--weights", "synthetic", "--device", "cpu"]
    options = ["--option", "height=32", "--option", "width=64"]
    assert cli.main([*command, *options]) == 0
    head, first = capsys.readouterr().out.splitlines()[:2]
    assert head.split("  ")[0] == "warm-up"
    assert first.startswith("0 steps")
    assert cli.main([*command, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["warm_up_steps"] == 0


def test_what_has_no_warm_up_is_refused(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no warm-up to calibrate"):
        calibrate(film, model_with(mode="static"), device="cpu")
    with pytest.raises(UsageError, match=r"short\.mp4 has 9 frames, too few to calibrate: give 10 or more"):
        calibrate(write_film(tmp_path / "short.mp4", 9), model_with(), device="cpu")
    assert cli.main(["models", "sigmotion", "--calibrate", str(film)]) == UsageError.exit_code
