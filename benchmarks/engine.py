"""Does everything else hide behind the slower of decoder and model, and do two tasks do twice the work?

Measured on a 1080p film, in turns:
- one process on all cores: a whole task (index check, decode, model, compression, store) beside its decoder alone, its
  model alone, each with the threads that the command line gives it, and these two at once with nothing else, which is
  what the machine's memory allows;
- a task pinned to one core, beside two tasks of the same plan cut in two, each pinned to a core of its own, all as
  `streamsal infer` in processes of their own, from the first heartbeat to the last. Beside them plain PyAV decoding in
  one and two pinned processes: what this machine gives anybody who uses a second core;
- what a task costs before its first frame: interpreter, imports, index, model, first batch.

    python benchmarks/engine.py [--seconds 24] [--rounds 5] [-o results/engine.json]
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from clips import clip
from measure import Report, Sample, arguments, interleaved, median, ratio, rounded, table

from streamsal.batches import Job, assemble
from streamsal.cores import usable_cores
from streamsal.devices import inference
from streamsal.models import create_model
from streamsal.models.spec import Batch, Video
from streamsal.plan import Plan
from streamsal.prepare import Request, checked_index, make_plan
from streamsal.progress import Meter
from streamsal.task import infer

OVERLAP, SPEED_UP = 1.15, 1.8
SHARD_SECONDS = 600
HELD_BATCHES = 4

PLAIN_DECODE = """
import sys, time, av
path = sys.argv[1]
start = time.time()
with av.open(path) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for picture in container.decode(stream): pass
print(start, time.time())
"""

BEFORE_THE_FIRST_FRAME = """
import sys, time
moments = [(float(sys.argv[2]), 0.0)]
note = lambda: moments.append((time.time(), time.process_time()))
note()
from pathlib import Path
import torch, av, h5py
from streamsal import batches, engine, models, plan, prepare, store, task
note()
run = Path(sys.argv[1])
planned = plan.Plan.load(run / "plan.json")
index = prepare.checked_index(run, planned.videos[0])
note()
of = planned.model
model = models.create_model(of.name, weights=of.weights or None, device="cpu", **of.options)
note()
job = batches.Job(index=index, video=planned.videos[0], model=model, batch_size=planned.batch_size,
                 device=torch.device("cpu"), dtype=torch.float32)
next(engine.compute(job, len(index.pts) // 2, index.n_frames))
note()
print(*(number for moment in moments for number in moment))
"""
MOMENTS = ("interpreter", "imports", "index", "model", "seek, decode and first batch")


def planned(video: Path, run: Path, model: str, tasks: int, weights: str | None = None) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    make_plan([video], run, Request(model=model, weights=weights, tasks=tasks))
    return run


def forget_results(run: Path) -> None:
    for folder in ("shards", "logs"):
        shutil.rmtree(run / folder, ignore_errors=True)


class OneProcess:
    """A task in this process, and its decoder and its model alone."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.plan = Plan.load(run / "plan.json")
        video = self.plan.videos[0]
        device = torch.device("cpu")
        self.job = Job(
            index=checked_index(run, video),
            video=video,
            model=create_model(self.plan.model.name, device=device),
            batch_size=self.plan.batch_size,
            device=device,
            dtype=torch.float32,
        )
        # Copies: staging memory is used again.
        self.held = [
            replace(batch, frames_nhwc=batch.frames_nhwc.clone())
            for batch in itertools.islice(self._decoded(), HELD_BATCHES)
        ]

    def task(self) -> None:
        forget_results(self.run)
        infer(self.run, 0)

    def decoder(self) -> None:
        for _ in self._decoded():
            pass

    def model(self) -> None:
        video, size = self.job.video, self.job.batch_size
        state = self.job.model.begin(
            Video(
                name=video.name,
                n_frames=video.n_frames,
                frame_rate=video.frame_rate,
                height=video.model_height,
                width=video.model_width,
            )
        )
        with inference(self.job.device, self.job.dtype, autocast=self.job.model.spec.autocast):
            for base, batch in zip(range(0, video.n_frames, size), itertools.cycle(self.held), strict=False):
                self.job.model.step(_moved(batch, base, video.n_frames), state)
            self.job.model.end(state)

    def both(self) -> None:
        """Decoder and model at once and nothing else: what the memory they share leaves of either."""
        decoder = threading.Thread(target=self.decoder)
        decoder.start()
        self.model()
        decoder.join()

    def rates(self) -> dict[str, float | str]:
        """As the task itself saw them: frames per busy second of each stage, and which binds."""
        facts = json.loads((self.run / "logs" / "0000.json").read_text())
        return {name: facts[name] for name in ("decode_fps", "model_fps", "write_fps", "binds", "memory_mb")}

    def _decoded(self) -> Iterator[Batch]:
        return assemble(self.job, 0, self.job.video.n_frames, set(), Meter())


def _moved(batch: Batch, base: int, n_frames: int) -> Batch:
    size = len(batch.frame)
    frame = torch.arange(base, base + size).numpy()
    return replace(batch, frame=frame, present=slice(0, min(size, n_frames - base)))


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started inside run on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def side_by_side(commands: list[list[str]], cores: list[int]) -> list[str]:
    """Outputs of commands that run at the same time, each on a core of its own."""
    processes = []
    for command, core in zip(commands, cores, strict=False):
        with pinned(core):
            processes.append(subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "a process failed"
    return outputs


def tasks_pinned(run: Path, n_tasks: int, cores: list[int]) -> float:
    """Seconds from the first task's start to the last one's end, without the start of the interpreters."""
    forget_results(run)
    side_by_side(
        [["-m", "streamsal", "infer", str(run), "--task-id", str(task), "--quiet"] for task in range(n_tasks)], cores
    )
    events = [
        {event["event"]: event["t"] for event in map(json.loads, log.read_text().splitlines())}
        for log in sorted((run / "logs").glob("*.jsonl"))
    ]
    return max(one["done"] for one in events) - min(one["start"] for one in events)


def plain_pinned(video: Path, n_processes: int, cores: list[int]) -> float:
    """Seconds per film, decoded by PyAV in as many processes at once."""
    outputs = side_by_side([["-c", PLAIN_DECODE, str(video)]] * n_processes, cores)
    times = [[float(word) for word in output.split()] for output in outputs]
    return (max(stop for _, stop in times) - min(start for start, _ in times)) / n_processes


def before_the_first_frame(run: Path, rounds: int) -> dict[str, list[Sample]]:
    """Each step in new processes; the file cache is warm."""
    steps: dict[str, list[Sample]] = {name: [] for name in MOMENTS}
    for _ in range(rounds):
        command = [sys.executable, "-c", BEFORE_THE_FIRST_FRAME, str(run), str(time.time())]
        numbers = iter(map(float, subprocess.check_output(command, text=True).split()))
        moments = [Sample(wall=wall, cpu=cpu) for wall, cpu in zip(numbers, numbers, strict=True)]
        for name, (before, after) in zip(MOMENTS, itertools.pairwise(moments), strict=True):
            steps[name].append(after - before)
    return steps


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=24, help="length of the film (default: 24)")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--model", default="sigmotion", help="a model that needs no weights (default: sigmotion)")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("this benchmark needs two cores")

    video = clip(options.work_dir, seconds=options.seconds, width=options.width, height=options.height)
    whole = planned(video, options.work_dir / "engine_1.streamsal", options.model, 1)
    halves = planned(video, options.work_dir / "engine_2.streamsal", options.model, 2)
    torch.set_num_threads(max(1, usable_cores() - 1))  # as the command line does
    one = OneProcess(whole)
    frames = one.job.video.n_frames

    report = Report(benchmark="engine", options=options)
    samples = interleaved(
        {
            "task": one.task,
            "decoder alone": one.decoder,
            "model alone": one.model,
            "decoder and model at once": one.both,
        },
        options.rounds,
    )
    rates = one.rates()
    slower = max(("decoder alone", "model alone"), key=lambda name: median(samples[name]))
    overlap = ratio(samples["task"], samples[slower])
    shared = ratio(samples["decoder and model at once"], samples[slower])
    samples |= interleaved(
        {
            "1 task on 1 core": lambda: tasks_pinned(whole, 1, cores),
            "2 tasks on 2 cores": lambda: tasks_pinned(halves, 2, cores),
            "plain decoding, 1 core": lambda: plain_pinned(video, 1, cores),
            "plain decoding, 2 cores": lambda: plain_pinned(video, 2, cores),
        },
        options.rounds,
    )
    speed_up = ratio(samples["1 task on 1 core"], samples["2 tasks on 2 cores"])
    ceiling = ratio(samples["plain decoding, 1 core"], samples["plain decoding, 2 cores"])
    before = before_the_first_frame(whole, options.rounds)

    print(f"{options.model}, {frames} frames {options.width}x{options.height}, batches of {one.job.batch_size}\n")
    table(
        ["", "ms per frame", "cpu", "fps"],
        [
            [
                name,
                *(f"{1000 * median(found, of) / frames:.2f}" for of in ("wall", "cpu")),
                f"{frames / median(found):.0f}",
            ]
            for name, found in samples.items()
        ],
    )
    print(
        "the task's own account: "
        + ", ".join(f"{stage} {rates[f'{stage}_fps']} fps" for stage in ("decode", "model", "write"))
        + f"; {rates['binds']} binds\n"
    )
    table(
        ["before the first frame", "seconds", "cpu"],
        [[name, *(f"{median(found, of):.3f}" for of in ("wall", "cpu"))] for name, found in before.items()],
    )
    total = sum(median(found) for found in before.values())
    print(f"in all {total:.2f} s, {100 * total / SHARD_SECONDS:.2f} % of a shard of {SHARD_SECONDS // 60} minutes")
    print(f"decoder and model at once, and nothing else, take {shared:.2f} times as long as the slower one alone")
    print(f"plain decoding in two processes is {ceiling:.2f} times as fast as in one")
    report.finish(
        targets={
            f"task / {slower}": (overlap, "<=", OVERLAP),
            "two pinned tasks, speed-up": (speed_up, ">=", SPEED_UP),
        },
        model=options.model,
        frames=frames,
        seconds_per_frame=rounded(samples, per=frames),
        rates=rates,
        both_at_once=round(shared, 4),
        plain_decoding_speed_up=round(ceiling, 4),
        before_first_frame_seconds=rounded(before),
        before_first_frame_share=round(total / SHARD_SECONDS, 6),
    )


if __name__ == "__main__":
    main()
