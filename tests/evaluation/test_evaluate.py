"""What a run scores against gaze: known numbers, chance for who knows nothing, the frames that were asked for."""

from __future__ import annotations

import csv
import json
import math
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maps_run import SALIENCY, bump, maps_run

from streamsal.cli import main
from streamsal.errors import BadInput, MissingInput, UsageError
from streamsal.evaluation import metrics, metrics_mit
from streamsal.evaluation.baselines import center_bias, read_log_density
from streamsal.evaluation.evaluate import PIXELS_AT_ONCE, Setting, batches, evaluate
from streamsal.evaluation.looked_at import films_of
from streamsal.gaze.table import Gaze
from streamsal.merge import open_run

HEIGHT, WIDTH = 24, 40
N = 30


def path_of(video: str, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Where the target of a video is in each frame."""
    phase = np.arange(n) / n * 2 * np.pi + len(video)
    return 20 + 14 * np.cos(phase), 12 + 8 * np.sin(phase)


def gaze_on(*videos: str, viewers: int = 4, n: int = N, spread: float = 1.0, seed: int = 0) -> Gaze:
    """Samples of viewers who follow the target, one per frame."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("video", "subject", "t_seconds", "x_px", "y_px")}
    for video in videos:
        x, y = path_of(video, n)
        for viewer in range(viewers):
            rows["video"] += [video] * n
            rows["subject"] += [str(viewer)] * n
            rows["t_seconds"] += (np.arange(n) / 25 + 0.01).tolist()
            rows["x_px"] += np.clip(x + random.normal(0, spread, n), 0, WIDTH - 0.01).tolist()
            rows["y_px"] += np.clip(y + random.normal(0, spread, n), 0, HEIGHT - 0.01).tolist()
    return Gaze.rows(**rows)


VIDEOS = ("a.mp4", "bb.mp4", "ccc.mp4")


def knowing(*videos: str) -> dict[str, np.ndarray]:
    """Log densities of a model that knows the targets."""
    return {video: bump(N, HEIGHT, WIDTH, *path_of(video)) for video in videos}


def uniform(*videos: str) -> dict[str, np.ndarray]:
    return {video: np.full((N, HEIGHT, WIDTH), -math.log(HEIGHT * WIDTH)) for video in videos}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def value(scores: Any, metric: str) -> float:
    return scores.summary["metrics"][metric]["mean_over_videos"]


def test_known_values_of_a_tiny_map(tmp_path: Path) -> None:
    p = np.full((2, 2, 3), 0.1)
    p[:, 1, 2] = 0.5
    run = maps_run(tmp_path / "r", {"a.mp4": np.log(p)})
    gaze = Gaze.rows(video="a.mp4", t_seconds=[0, 0.01, 0.04], x_px=[2.99, 0, 2], y_px=[1.0, 0.5, 1.5])
    evaluate(run, gaze, blur_px=0.5)
    first, second = table(run / "evaluation" / "frames.csv")
    assert (first["video"], first["frame"], first["fixations"], second["fixations"]) == ("a.mp4", "0", "2", "1")
    assert float(second["pts_seconds"]) == 0.04
    expected = {
        "log_likelihood_nats": (math.log(0.5) + math.log(0.1)) / 2,
        "information_gain_bits": (math.log2(0.5 * 6) + math.log2(0.1 * 6)) / 2,
        "log_likelihood_over_uniform_bits": (math.log2(3) + math.log2(0.6)) / 2,
        "auc": (5.5 / 6 + 2.5 / 6) / 2,
        "nss_sd": ((0.5 - 1 / 6) + (0.1 - 1 / 6)) / 2 / p[0].std(),
    }
    for name, number in expected.items():
        assert float(first[name]) == pytest.approx(number, abs=1e-6), name
    assert float(second["auc"]) == pytest.approx(5.5 / 6) and first["shuffled_auc"] == ""
    assert float(second["information_gain_bits"]) == pytest.approx(math.log2(3), abs=1e-6)


def test_a_model_that_knows_the_target_gains_bits_and_the_uniform_one_is_at_chance(tmp_path: Path) -> None:
    gaze = gaze_on(*VIDEOS)
    good = evaluate(maps_run(tmp_path / "good", knowing(*VIDEOS)), gaze, baseline="uniform")
    assert value(good, "information_gain_bits") > 4
    assert value(good, "auc") > 0.97 and value(good, "nss_sd") > 3 and value(good, "shuffled_auc") > 0.9
    chance = evaluate(maps_run(tmp_path / "chance", uniform(*VIDEOS)), gaze, baseline="uniform")
    assert value(chance, "information_gain_bits") == pytest.approx(0, abs=1e-5)
    assert value(chance, "auc") == pytest.approx(0.5) and value(chance, "nss_sd") == 0
    # Over where people look anyway, knowing nothing is a loss, and knowing the target still a gain.
    assert value(evaluate(tmp_path / "chance", gaze), "information_gain_bits") < -0.05
    assert value(evaluate(tmp_path / "good", gaze), "information_gain_bits") > 3


def test_frames_videos_and_summary_agree(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4") | {"bb.mp4": knowing("bb.mp4")["bb.mp4"][:10]})
    scores = evaluate(run, gaze_on("a.mp4", "bb.mp4"))
    frames, videos = table(run / "evaluation/frames.csv"), table(run / "evaluation/videos.csv")
    found = json.loads((run / "evaluation/summary.json").read_text())["metrics"]["nss_sd"]
    means = [np.mean([float(row["nss_sd"]) for row in frames if row["video"] == name]) for name in ("a.mp4", "bb.mp4")]
    assert [float(row["nss_sd"]) for row in videos] == pytest.approx(means, rel=1e-6)
    assert found["mean_over_videos"] == pytest.approx(np.mean(means), rel=1e-6)
    assert found["mean_over_frames"] == pytest.approx(np.mean([float(row["nss_sd"]) for row in frames]), rel=1e-6)
    assert found["ci95_low"] < found["mean_over_videos"] < found["ci95_high"]
    assert [row["frames"] for row in videos] == ["30", "10"] and scores.summary["frames_scored"] == 40
    assert scores.summary["protocol"] == "exact" and scores.summary["baseline"]["name"] == "center bias"
    assert all("unit" in each for each in scores.summary["metrics"].values())


def test_frames_without_fixations_and_holes_are_skipped_and_counted(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4"), holes=(3,))
    gaze = Gaze.rows(video="a.mp4", t_seconds=[0.12, 0.2, 0.2], x_px=[5, 5, -1], y_px=5)
    evaluate(run, gaze)
    (frame,) = table(run / "evaluation/frames.csv")
    (video,) = table(run / "evaluation/videos.csv")
    assert frame["frame"] == "5" and frame["fixations"] == "1"
    assert {name: video[name] for name in ("frames", "frames_without_fixations", "holes", "fixations_outside")} == {
        "frames": "1", "frames_without_fixations": "28", "holes": "1", "fixations_outside": "1"
    }  # fmt: skip


def test_gaze_comes_to_frames_by_time_whatever_their_time_stamps_begin_with(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4"), first_seconds=7.5)
    scores = evaluate(run, gaze_on("a.mp4"))
    assert value(scores, "auc") > 0.97 and scores.summary["frames_scored"] == N


def test_only_stored_frames_are_scored_and_only_while_they_are_shown(tmp_path: Path) -> None:
    maps = knowing("a.mp4")["a.mp4"][::5]
    run = maps_run(tmp_path / "r", {"a.mp4": maps}, every=5)
    scores = evaluate(run, gaze_on("a.mp4"))
    assert [row["frame"] for row in table(run / "evaluation/frames.csv")] == ["0", "5", "10", "15", "20", "25"]
    assert scores.summary["fixations"] == 6 * 4


def test_maps_are_scored_at_the_displayed_size(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4"), size=(2 * HEIGHT, 2 * WIDTH))
    gaze = gaze_on("a.mp4")
    doubled = Gaze.rows(video=gaze.video, t_seconds=gaze.t_seconds, x_px=2 * gaze.x_px, y_px=2 * gaze.y_px)
    scores = evaluate(run, doubled)
    maps = open_run(run)["a.mp4"].log_density(slice(0, N))
    x, y = np.floor(doubled.x_px).astype(int), np.floor(doubled.y_px).astype(int)
    expected = maps[np.tile(np.arange(N), 4), y, x].mean()
    assert value(scores, "log_likelihood_nats") == pytest.approx(expected, abs=1e-5)


def test_the_center_bias_is_that_of_the_other_videos_alone(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing(*VIDEOS))
    gaze = gaze_on(*VIDEOS)
    scores = evaluate(run, gaze)
    frames = [row for row in table(run / "evaluation/frames.csv") if row["video"] == "a.mp4"]
    others = [gaze.of(name) for name in VIDEOS[1:]]
    places = np.concatenate([np.stack([each.x_px / WIDTH, each.y_px / HEIGHT], 1) for each in others])
    bias = center_bias(places, HEIGHT, WIDTH).numpy()
    assert np.exp(bias).sum() == pytest.approx(1)
    mine = gaze.of("a.mp4")
    row, col = np.floor(mine.y_px).astype(int), np.floor(mine.x_px).astype(int)
    maps = knowing("a.mp4")["a.mp4"]
    gains = (maps[np.tile(np.arange(N), 4), row, col] - bias[row, col]) / math.log(2)
    found = np.mean([float(row["information_gain_bits"]) for row in frames])
    assert found == pytest.approx(gains.mean(), abs=1e-5)
    assert scores.summary["baseline"]["fixations"]["a.mp4"] == 2 * 4 * N


def test_negatives_are_others_fixations_this_videos_or_all(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4", "bb.mp4"))
    gaze = gaze_on("a.mp4", "bb.mp4", viewers=1)
    row, col = (np.floor(each).astype(int) for each in (gaze.y_px, gaze.x_px))
    maps = knowing("a.mp4")["a.mp4"]
    own, others = np.arange(N), np.arange(N, 2 * N)
    for shuffle, pool in (("same-video", own), ("dataset", np.arange(2 * N))):
        evaluate(run, gaze, shuffle=shuffle)  # type: ignore[arg-type]
        found = float(table(run / "evaluation/frames.csv")[4]["shuffled_auc"])
        away = pool[pool != 4]
        negatives, positive = maps[4, row[away], col[away]], maps[4, row[4], col[4]]
        assert found == pytest.approx((negatives < positive).mean() + 0.5 * (negatives == positive).mean())
    evaluate(run, gaze)
    ratio = maps[4] - center_bias(np.stack([gaze.x_px / WIDTH, gaze.y_px / HEIGHT], 1)[others], HEIGHT, WIDTH).numpy()
    expected = (ratio[row[others], col[others]] < ratio[row[4], col[4]]).mean()
    assert float(table(run / "evaluation/frames.csv")[4]["shuffled_auc"]) == pytest.approx(expected)


MASK = "video,frame,mask\n" + "".join(
    f"{video},{frame},{frame in chosen}\n"
    for video, chosen in (("a", {15, 16, 17, 18}), ("bb", set()), ("elsewhere", {3}))
    for frame in range(30)
)


def test_a_mask_at_30_hz_chooses_the_frames_on_screen_at_its_times(tmp_path: Path) -> None:
    """In the form of the DeepGaze MR meta-benchmark: video, frame, mask; frame k is at k / 30 s."""
    run = maps_run(tmp_path / "r", knowing("a.mp4", "bb.mp4"))
    (tmp_path / "mask.csv").write_text(MASK)
    scores = evaluate(run, gaze_on("a.mp4", "bb.mp4"), frames=tmp_path / "mask.csv", frames_rate_hz=30)
    # 0.5, 0.533, 0.567 and 0.6 s are in the frames that begin at 0.48, 0.52, 0.56 and 0.6 s.
    assert [row["frame"] for row in table(run / "evaluation/frames.csv")] == ["12", "13", "14", "15"]
    assert scores.summary["videos"] == 1  # those without a chosen frame drop out
    assert scores.summary["baseline"]["fixations"]["a.mp4"] == 4 * N  # but not out of the center bias
    assert scores.summary["frames"]["rate_hz"] == 30


def test_without_a_rate_a_mask_counts_the_videos_own_frames(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4", "bb.mp4"))
    (tmp_path / "mask.csv").write_text("frame;video\n7;bb.mp4\n2;a.mp4\n999;a.mp4\n")
    evaluate(run, gaze_on("a.mp4", "bb.mp4"), frames=tmp_path / "mask.csv")
    assert [(row["video"], row["frame"]) for row in table(run / "evaluation/frames.csv")] == [
        ("a.mp4", "2"),
        ("bb.mp4", "7"),
    ]


def test_a_baseline_that_is_no_density_is_refused_with_what_it_sums_to(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4"))
    density = np.full((6, 10), 1 / 60)
    np.save(tmp_path / "p.npy", density)
    with pytest.raises(BadInput, match=r"p\.npy is no log density: its logsumexp is 4.111 nats"):
        evaluate(run, gaze_on("a.mp4"), baseline=str(tmp_path / "p.npy"))
    np.save(tmp_path / "good.npy", np.log(density))
    scores = evaluate(run, gaze_on("a.mp4"), baseline=str(tmp_path / "good.npy"))
    assert value(scores, "information_gain_bits") == pytest.approx(value(scores, "log_likelihood_over_uniform_bits"))
    for name, error in (("none.npy", MissingInput), ("p.txt", UsageError), ("line.npy", BadInput)):
        np.save(tmp_path / "line.npy", np.zeros(3))
        with pytest.raises(error, match=name):
            read_log_density(tmp_path / name)


def test_stored_maps_that_are_no_densities_are_refused_with_what_they_sum_to(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", {"a.mp4": knowing("a.mp4")["a.mp4"] + 0.02})
    with pytest.raises(BadInput, match=r"frame 0 of a\.mp4 is no log density: its logsumexp is 0.02 nats"):
        evaluate(run, gaze_on("a.mp4"))
    assert not (run / "evaluation/frames.csv").exists()


def test_the_mit_protocol_gives_the_numbers_of_its_functions_under_its_name(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4", "bb.mp4"))
    gaze = gaze_on("a.mp4", "bb.mp4")
    scores = evaluate(run, gaze, protocol="mit", blur_px=2.0)
    names = "auc_judd auc_borji auc_shuffled nss_sd cc sim kl_divergence_nats information_gain"
    assert set(scores.summary["metrics"]) == {f"mit_{name}" for name in names.split()}
    row = table(run / "evaluation/frames.csv")[5]
    mine = gaze.of("a.mp4")
    x, y = (np.floor(each.reshape(4, N)[:, 5]).astype(int) for each in (mine.x_px, mine.y_px))
    saliency = np.exp(knowing("a.mp4")["a.mp4"][5])
    fixated = metrics_mit.fixation_map(y, x, HEIGHT, WIDTH)
    truth = metrics.empirical_map(torch.zeros(4), torch.tensor(y), torch.tensor(x), 1, HEIGHT, WIDTH, 2.0)[0].numpy()
    assert float(row["mit_nss_sd"]) == pytest.approx(metrics_mit.nss(saliency, fixated), rel=1e-5)
    assert float(row["mit_sim"]) == pytest.approx(metrics_mit.sim(saliency, truth), rel=1e-5)
    assert float(row["mit_auc_judd"]) == pytest.approx(metrics_mit.auc_judd(saliency, fixated), abs=1e-3)
    again = evaluate(run, gaze, protocol="mit", blur_px=2.0)
    assert again.summary["metrics"] == scores.summary["metrics"]  # nothing depends on chance


def squared(*videos: str) -> dict[str, np.ndarray]:
    """Saliency maps 0 ... 255 of the same model, which a density is only seen in after a curve."""
    maps = {name: np.exp(each) for name, each in knowing(*videos).items()}
    return {name: 255 * (each / each.max()) ** 0.25 for name, each in maps.items()}


def test_saliency_maps_gain_bits_by_another_name_and_less_than_the_density_fitted_to_them(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", squared(*VIDEOS), SALIENCY)
    gaze = gaze_on(*VIDEOS)
    unfitted = evaluate(run, gaze, baseline="uniform")
    assert unfitted.summary["scored_as"] == "saliency map" and unfitted.summary["fit"] is None
    assert not any(name.startswith(("information_gain_bits", "log_")) for name in unfitted.summary["metrics"])
    fitted = evaluate(run, gaze, baseline="uniform", fit=True)
    gain = value(fitted, "information_gain_bits")
    assert gain > value(unfitted, "information_gain_of_the_unfitted_map_bits") + 1
    truth = evaluate(maps_run(tmp_path / "t", knowing(*VIDEOS)), gaze, baseline="uniform")
    assert gain > value(truth, "information_gain_bits") - 0.4  # of a map that has lost nothing but its scale
    assert fitted.summary["fit"]["parameters"] == 32
    assert "left out" in fitted.summary["fit"]["fitted_on"]
    assert fitted.summary["fit"]["fits"]["a.mp4"]["n_fixations"] == 2 * 4 * N  # not its own
    assert value(fitted, "auc") == pytest.approx(value(unfitted, "auc"), abs=0.02)


def test_a_fit_of_one_evaluation_serves_another(tmp_path: Path) -> None:
    train = maps_run(tmp_path / "train", squared("a.mp4", "bb.mp4"), SALIENCY)
    evaluate(train, gaze_on("a.mp4", "bb.mp4"), fit=True)
    test = maps_run(tmp_path / "test", squared("ccc.mp4"), SALIENCY)
    gaze = gaze_on("ccc.mp4")
    with pytest.raises(UsageError, match="--fit-on FILE"):
        evaluate(test, gaze, fit=True)
    served = evaluate(test, gaze, fit_on=train / "evaluation/fit.json")
    assert value(served, "information_gain_bits") > 3
    assert "earlier evaluation" in served.summary["fit"]["fitted_on"]
    for name, error in (("none.json", MissingInput), ("bad.json", BadInput)):
        (tmp_path / "bad.json").write_text('{"format": "other"}')
        with pytest.raises(error, match=name):
            evaluate(test, gaze, fit_on=tmp_path / name)


def test_a_fit_on_a_file_of_gaze_is_fitted_to_it(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", squared("a.mp4"), SALIENCY)
    gaze = gaze_on("a.mp4", seed=5)
    lines = [f"{t},{x},{y}" for t, x, y in zip(gaze.t_seconds, gaze.x_px, gaze.y_px, strict=True)]
    (tmp_path / "others.csv").write_text("\n".join(["t_seconds,x_px,y_px", *lines]))
    scores = evaluate(run, gaze_on("a.mp4"), fit_on=tmp_path / "others.csv")
    assert value(scores, "information_gain_bits") > 3
    assert scores.summary["fit"]["fits"]["all videos"]["n_fixations"] == 4 * N


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4"))
    with pytest.raises(UsageError, match="densities already"):
        evaluate(run, gaze_on("a.mp4"), fit=True)
    with pytest.raises(UsageError, match="--baseline uniform"):
        evaluate(run, gaze_on("a.mp4"), baseline="center-bias")
    with pytest.raises(UsageError, match="none of center-bias, uniform"):
        evaluate(run, gaze_on("a.mp4"), baseline="middle")
    with pytest.raises(UsageError, match="--frames-rate says how"):
        evaluate(run, gaze_on("a.mp4"), frames_rate_hz=30)
    with pytest.raises(BadInput, match="no gaze falls into the frames"):
        evaluate(run, Gaze.rows(video="a.mp4", t_seconds=99.0, x_px=1, y_px=1))
    with pytest.raises(BadInput, match="no gaze falls into the frames"):
        evaluate(run, gaze_on("elsewhere.mp4"))


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    run = maps_run(tmp_path / "r", knowing("a.mp4", "bb.mp4"))
    notes = evaluate(run, gaze_on("a.mp4", "elsewhere.mp4")).summary["notes"]
    assert [note.split(":")[0] for note in notes] == ["left out", "one video has gaze, so there is no shuffled AUC"]
    assert not evaluate(run, gaze_on("a.mp4", "bb.mp4")).summary["notes"]
    assert not evaluate(run, gaze_on("a.mp4"), shuffle="same-video").summary["notes"]


@pytest.mark.needs_cuda
@pytest.mark.parametrize("protocol", ["exact", "mit"])
def test_the_gpu_scores_as_the_processor_does(tmp_path: Path, protocol: Any) -> None:
    run = maps_run(tmp_path / "r", squared(*VIDEOS), SALIENCY)
    for how in ({}, {"fit": True}):
        here, there = (evaluate(run, gaze_on(*VIDEOS), protocol=protocol, device=d, **how) for d in ("cpu", "cuda"))
        for metric in here.summary["metrics"]:
            assert value(there, metric) == pytest.approx(value(here, metric), rel=0.02 if how else 1e-4), metric


def test_however_long_the_film_two_batches_at_most_are_in_memory(tmp_path: Path) -> None:
    long = np.tile(knowing("a.mp4")["a.mp4"], (4, 1, 1))
    with open_run(maps_run(tmp_path / "r", {"a.mp4": long}, size=(720, 1280))) as run:
        (film,) = films_of(run, gaze_on("a.mp4", viewers=1, n=4 * N))
        setting = Setting(
            films=[film],
            places=[film.places],
            baseline="uniform",
            shuffle="same-video",
            protocol="exact",
            device=torch.device("cpu"),
        )
        seen: list[weakref.ref[torch.Tensor]] = []
        for batch in batches(setting, film):
            assert batch.maps_nhw.numel() <= PIXELS_AT_ONCE
            seen.append(weakref.ref(batch.maps_nhw))
            assert sum(each() is not None for each in seen) <= 2
    assert len(seen) == N


def test_a_real_film_is_evaluated_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip whose scenes say where their target is: sigmotion finds it, uniform does not know it."""
    from streamsal.sample_clip import open_scene, shot_list, write_demo_clip

    monkeypatch.chdir(tmp_path)
    write_demo_clip("clip.mp4", seconds=3, width=160, height=96)
    rows = []
    for shot in shot_list(75):
        scene = open_scene(shot, 160, 96)
        for frame in range(shot.start, shot.stop):
            x, y = scene.target(frame - shot.start)
            rows.append(f"{frame / 25},{160 * x},{96 * y}")
    Path("gaze.csv").write_text("\n".join(["t_seconds,x_px,y_px", *rows]))
    gains = {}
    for model in ("sigmotion", "uniform"):
        run = f"{model}.streamsal"
        assert main(["run", "clip.mp4", "--model", model, "-o", run, "--no-render", "-q", "--start", "10"]) == 0
        capsys.readouterr()
        assert main(["evaluate", run, "--gaze", "gaze.csv", "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)
        gains[model] = summary["metrics"]["information_gain_bits"]["mean_over_videos"]
        assert summary["frames_scored"] == 65 and summary["baseline"] == {"name": "uniform"}
    assert gains["sigmotion"] > 1.5 and gains["uniform"] == pytest.approx(0, abs=1e-4)
    assert main(["evaluate", "sigmotion.streamsal", "--gaze", "gaze.csv"]) == 0
    printed = capsys.readouterr().out
    assert "information_gain_bits" in printed and "exact, scored as a density" in printed
    # The run began with frame 10; gaze still counts from the film's first frame.
    assert table(Path("sigmotion.streamsal/evaluation/frames.csv"))[0]["frame"] == "10"
    with open_run("sigmotion.streamsal") as opened:
        (film,) = films_of(opened, Gaze.rows(video="clip.mp4", t_seconds=0.4, x_px=1, y_px=1))
        assert film.fixations.frame.tolist() == [0]


def test_the_reader_in_the_documentation_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/evaluation.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    maps_run(tmp_path / "talk.streamsal", {"talk.mp4": knowing("a.mp4")["a.mp4"]})
    x, y = path_of("a.mp4")
    Path("anna.txt").write_text("".join(f"{40 * k + 5} {x[k]} {y[k]}\n" for k in range(N)))
    found: dict[str, Any] = {}
    exec(text, found)
    assert value(found["scores"], "nss_sd") > 3
