"""What does it cost to cut the work into many tasks, and to let unequal cards share them?

Measured:
- planning 10 000 tasks over 1 000 videos whose indexes exist (links to one short film), the state of that run with a
  heartbeat of every task, and a task that joins it when all is done (`--task-id any`), each as a command of its own;
- merging of so many and of twice as many small shards: the ratio is 2 where merging is linear;
- what a task does before its first frame, in processor seconds, for sigmotion and DeepGaze IIE with stand-in weights.
  16 tasks do it 15 times more often than one; the share is that of shards that keep one core busy for 10 minutes, the
  first batch counted in full, which makes it an upper bound;
- two processes sharing a run by `--task-id any`, one four times slower than the other (both slowed on purpose), from
  the first start to the last end, relative to both working without a gap and ending at the same moment.

    python benchmarks/cluster.py [--tasks 10000] [--videos 1000] [--rounds 3] [-o results/cluster.json]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from clips import clip
from engine import before_the_first_frame, forget_results, planned
from measure import Report, arguments, interleaved, median, ratio, rounded, table
from merge import make_plan as plan_of_shards
from merge import write_shards

from streamsal.heartbeat import heartbeat_path
from streamsal.index import VideoIndex, index_video
from streamsal.merge import merge
from streamsal.plan import Plan
from streamsal.prepare import index_path
from streamsal.store import shard_path

PLAN_SECONDS, STATUS_SECONDS, OVERHEAD, UNEQUAL = 10.0, 2.0, 0.05, 1.1
N_TASKS, SHARD_SECONDS = 16, 600
SHARED_TASKS, FAST_MS, SLOWER = 80, 100, 4  # a fast shard takes 1.25 s, so that what lies between two is little
MERGED_SHARDS, MERGED_FRAMES = 500, 50


def command(*words: str | Path, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "STREAMSAL_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "streamsal", *map(str, words)],
        env={**clean, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


class ManyTasks:
    """A run of many short videos that are one film, all of it done as far as heartbeats say."""

    def __init__(self, folder: Path, film: Path, n_videos: int, n_tasks: int) -> None:
        self.films, self.run, self.n_tasks = folder / "films", folder / "many.streamsal", n_tasks
        shutil.rmtree(folder, ignore_errors=True)
        self.films.mkdir(parents=True)
        (self.run / "index").mkdir(parents=True)
        self.index: VideoIndex = index_video(film)
        for number in range(n_videos):
            name = f"{number:04d}.mp4"
            os.link(film, self.films / name)
            self.index.save(index_path(self.run, name))

    def plan(self) -> None:
        (self.run / "plan.json").unlink(missing_ok=True)
        words = ("plan", self.films, "--model", "sigmotion", "--tasks", str(self.n_tasks), "-o", self.run)
        assert command(*words).wait() == 0

    def pretend_done(self) -> None:
        plan = Plan.load(self.run / "plan.json")
        for folder in ("logs", "shards"):
            (self.run / folder).mkdir(exist_ok=True)
        for task in range(self.n_tasks):
            rows = plan.rows(task)
            beat = {"task": task, "rows": rows, "done": rows, "holes": 0, "state": "done", "restarts": 0, "fps": 3.0}
            beat |= {"host": "node01", "pid": 1, "device": "cuda", "error": "", "time": time.time(), "plan": plan.id}
            heartbeat_path(self.run, task).write_text(json.dumps({**beat, "shard_bytes": 0}))
            shard_path(self.run, task).touch()

    def status(self) -> None:
        assert command("status", self.run).wait() == 0

    def join(self) -> None:
        assert command("infer", self.run, "--task-id", "any").wait() == 0


def shards_to_merge(folder: Path, n_shards: int) -> Path:
    run = folder / f"merge_{n_shards}x{MERGED_FRAMES}.streamsal"
    if not (run / "complete").exists():
        write_shards(run, plan_of_shards(n_shards, MERGED_FRAMES))
        (run / "complete").touch()
    return run


def shared_by_unequals(run: Path) -> float:
    """Seconds for all tasks, relative to both processes at work all the time until the same moment."""
    forget_results(run)
    delays = [str(FAST_MS), str(FAST_MS * SLOWER)]
    words = ("infer", run, "--task-id", "any", "--device", "cpu", "--decode-workers", "1")
    workers = [command(*words, STREAMSAL_TEST_DELAY_MS=delay) for delay in delays]
    assert not any(worker.wait() for worker in workers)
    plan = Plan.load(run / "plan.json")
    seconds = dict.fromkeys((worker.pid for worker in workers), 0.0)
    frames = dict.fromkeys(seconds, 0)
    begun, ended = [], []
    for task in range(len(plan.shards)):
        lines = heartbeat_path(run, task).with_suffix(".jsonl").read_text().splitlines()
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        seconds[first["pid"]] += last["t"] - first["t"]
        frames[first["pid"]] += plan.rows(task)
        begun.append(first["t"])
        ended.append(last["t"])
    ideal = sum(frames.values()) / sum(frames[pid] / seconds[pid] for pid in seconds)
    return (max(ended) - min(begun)) / ideal


def overhead(start_seconds: float) -> float:
    """Share of all processor time that 16 tasks spend on starting and one would not."""
    return (N_TASKS - 1) * start_seconds / (N_TASKS * SHARD_SECONDS)


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--videos", type=int, default=1000)
    options = parser.parse_args()

    report = Report(benchmark="cluster", options=options)
    film = clip(options.work_dir, seconds=40, width=192, height=108)
    many = ManyTasks(options.work_dir / "cluster", film, options.videos, options.tasks)
    few, double = (shards_to_merge(options.work_dir, n) for n in (MERGED_SHARDS, 2 * MERGED_SHARDS))
    samples = interleaved({"plan": many.plan}, options.rounds, warm_up=False)
    many.pretend_done()
    samples |= interleaved(
        {
            "status": many.status,
            "join when all is done": many.join,
            f"merge {MERGED_SHARDS} shards": lambda: merge(few),
            f"merge {2 * MERGED_SHARDS} shards": lambda: merge(double),
        },
        options.rounds,
    )
    growth = ratio(samples[f"merge {2 * MERGED_SHARDS} shards"], samples[f"merge {MERGED_SHARDS} shards"])

    starts = {}
    for model, weights in (("sigmotion", None), ("deepgaze_iie", "synthetic")):
        run = planned(film, options.work_dir / f"cluster_{model}.streamsal", model, 1, weights)
        starts[model] = before_the_first_frame(run, options.rounds)
    totals = {model: sum(median(found, "cpu") for found in steps.values()) for model, steps in starts.items()}

    run = planned(film, options.work_dir / "cluster_shared.streamsal", "center", SHARED_TASKS)
    unequal = statistics.median(shared_by_unequals(run) for _ in range(options.rounds))

    print(f"{options.tasks} tasks over {options.videos} videos\n")
    table(
        ["", "seconds", "cpu"],
        [[name, *(f"{median(found, of):.2f}" for of in ("wall", "cpu"))] for name, found in samples.items()],
    )
    for model, steps in starts.items():
        rows = [[name, *(f"{median(found, of):.3f}" for of in ("wall", "cpu"))] for name, found in steps.items()]
        table([f"{model}, before the first frame", "seconds", "cpu"], rows)
    report.finish(
        targets={
            "seconds to plan": (median(samples["plan"]), "<=", PLAN_SECONDS),
            "seconds for status": (median(samples["status"]), "<=", STATUS_SECONDS),
            "merging twice as many shards": (growth, "<=", 2.2),
            **{
                f"{N_TASKS} tasks over one, share of processor time, {model}": (overhead(total), "<=", OVERHEAD)
                for model, total in totals.items()
            },
            "a card and one 4x slower, relative to ideal": (unequal, "<=", UNEQUAL),
        },
        tasks=options.tasks,
        videos=options.videos,
        seconds=rounded(samples),
        before_first_frame_seconds={model: rounded(steps) for model, steps in starts.items()},
    )


if __name__ == "__main__":
    main()
