"""Vectors of clips from a cluster: an array of tasks, and then files that one process would have written."""

from __future__ import annotations

from pathlib import Path

from cluster import Cluster
from films import write_film
from program import TELLCLIP, call
from undisturbed import assert_tidy, datasets

MODEL = ("--model", TELLCLIP, "--stride", "0.2s", "--batch-size", "4")


def written(run_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run_folder / "vectors").iterdir()}


def test_a_folder_embedded_on_a_cluster_as_in_one_process(cluster: Cluster, tmp_path: Path) -> None:
    films = {"talk.mp4": 90, "b talk.mp4": 40, "short.mp4": 5}
    (tmp_path / "talks").mkdir()
    for name, n_frames in films.items():
        write_film(tmp_path / "talks" / name, n_frames)
    small = ("--gpu", "none", "--cpus", "1", "--tasks", "2", "-o", "sent.streamsal")
    out, _ = call("submit", "talks", *MODEL, *small, cwd=tmp_path, env=cluster.environment)
    jobs = dict(line.split() for line in out.splitlines())
    states = {step: [task.state for task in cluster.finish(job).values()] for step, job in jobs.items()}
    assert states == {"infer": ["COMPLETED"] * 2, "merge": ["COMPLETED"]}
    call("embed", "sent.streamsal", "--format", "npy", cwd=tmp_path)
    call("embed", "talks", *MODEL, "--format", "npy", "-o", "good.streamsal", cwd=tmp_path)
    sent, good = tmp_path / "sent.streamsal", tmp_path / "good.streamsal"
    assert written(sent) == written(good) and len(written(good)) == 3 * len(films)
    for name in films:
        found, wanted = datasets(sent / f"{name}.h5"), datasets(good / f"{name}.h5")
        assert [name for name in wanted if found[name] != wanted[name] and name != "shard"] == []
    assert_tidy(sent, 2)
