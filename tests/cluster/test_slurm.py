"""Batch scripts: true to their arguments and right about signals. Run here by bash alone, without Slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program import wait_until

from streamsal.cluster import slurm
from streamsal.cluster.slurm import Array, arrays
from streamsal.cluster.steps import Resources, Run, Submission
from streamsal.errors import UsageError

SCRIPTS = Path(__file__).parents[2] / "scripts" / "sbatch"
AWKWARD = """/data/my "best" talks/it's $HOME `x` 100%/r.streamsal"""
SAY_ARGUMENTS = (sys.executable, "-c", "import sys; print(sys.argv[1:])")
SUBMISSION = Run(folder=Path("/data/talk.streamsal"), resources=Resources())


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "STREAMSAL_"))} | more


def script(submission: Submission, name: str) -> str:
    return slurm.scripts(submission)[name]


def directives(script: str) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)


def test_directives_come_before_the_first_command_and_say_what_was_asked_for() -> None:
    wanted = Resources(gpu="rtx_a4000", time="0:20:00", partition="gpu,long", account="lab", cpus=8, mem="32G")
    wanted = replace(wanted, extra=("--qos=long", "--comment=a b"))
    text = script(replace(SUBMISSION, resources=wanted), "infer")
    first_command = next(n for n, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert all(n < first_command for n, line in enumerate(text.splitlines()) if line.startswith("#SBATCH"))
    assert directives(text) == [
        "--job-name=infer",
        "--partition=gpu,long",
        "--account=lab",
        "--gres=gpu:rtx_a4000:1",
        "--cpus-per-task=8",
        "--mem=32G",
        "--time=0:20:00",
        "--signal=B:USR1@120",
        "--open-mode=append",
        "--output=/data/talk.streamsal/logs/infer-%A_%a.log",
        "--requeue",
        "--qos=long",
        '"--comment=a b"',
    ]


@pytest.mark.parametrize(("gpu", "gres"), [("any", ["--gres=gpu:1"]), ("none", []), ("v100", ["--gres=gpu:v100:1"])])
def test_gpus(gpu: str, gres: list[str]) -> None:
    text = script(replace(SUBMISSION, resources=Resources(gpu=gpu)), "infer")
    assert [line for line in directives(text) if "gres" in line] == gres


def test_only_inferring_asks_for_a_gpu_and_for_a_warning_before_the_limit() -> None:
    submission = replace(SUBMISSION, resources=Resources(render=True))
    for text in (script(submission, "merge"), script(submission, "render")):
        assert not [line for line in directives(text) if "gres" in line or "signal" in line]


def test_a_merge_that_computes_gets_what_a_task_gets() -> None:
    wanted = Resources(gpu="rtx_a4000", mem="20G", time="3:00:00", cpus=6)
    text = script(replace(SUBMISSION, resources=wanted, second_pass=True), "merge")
    for line in ("--gres=gpu:rtx_a4000:1", "--mem=20G", "--time=3:00:00", "--cpus-per-task=6"):
        assert f"#SBATCH {line}\n" in text
    assert "merge /data/talk.streamsal --device cuda\n" in text


def test_paths_with_anything_in_them_reach_the_program_as_they_are(tmp_path: Path) -> None:
    site = tmp_path / "it's my site.sh"
    site.write_text("export FROM_SITE=yes\n")
    wanted = Resources(stage=True, render=True)
    submission = Run(folder=Path(AWKWARD), program=SAY_ARGUMENTS, resources=wanted, site=str(site))
    for name, text in slurm.scripts(submission).items():
        assert '--output="/data/my \\"best\\" talks/it\'s $HOME `x` 100%%/r.streamsal/logs/' in text
        ids = {"SLURM_ARRAY_TASK_ID": "3", "STREAMSAL_TASK_OFFSET": "1000"}
        said = subprocess.run(["bash", "-c", text], env=environment(**ids), capture_output=True, text=True, check=True)
        words = {
            "infer": ["--device", "cuda", "--stage", "--task-id", "1003"],
            "merge": [],
            "render": ["--style", "overlay", "--jobs", "4"],
        }
        assert said.stdout.strip() == str([name, AWKWARD, *words[name]])


@pytest.mark.parametrize(("name", "said"), [("a\nb", "line break"), ("a\\b", "backslash")])
def test_what_cannot_be_told_to_slurm_is_said(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        slurm.scripts(replace(SUBMISSION, folder=Path("/data") / name))


@pytest.mark.parametrize("gpu", ["", "my gpu", "a40,l40", "a40:2"])
def test_what_is_no_type_of_a_gpu_is_said(gpu: str) -> None:
    with pytest.raises(UsageError, match=f"--gpu {gpu} is no type of GPU"):
        slurm.scripts(replace(SUBMISSION, resources=Resources(gpu=gpu)))


def test_a_site_file_that_is_gone_ends_the_job(tmp_path: Path) -> None:
    submission = replace(SUBMISSION, program=SAY_ARGUMENTS, site=str(tmp_path / "gone.sh"))
    done = subprocess.run(["bash", "-c", script(submission, "merge")], capture_output=True, text=True)
    assert done.returncode == 2 and "gone.sh" in done.stderr and not done.stdout


@pytest.mark.parametrize("name", ["infer", "multi_gpu", "train"])
def test_scripts_by_hand_wait_and_requeue_as_the_written_ones(name: str) -> None:
    text = (SCRIPTS / f"{name}.sbatch").read_text()
    assert text.endswith(f" &\n\n{slurm.WAIT_AND_REQUEUE}")
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@120"} < set(directives(text))


@pytest.mark.parametrize("where", ["beside", "named"])
def test_scripts_by_hand_read_the_file_of_their_site(where: str, tmp_path: Path) -> None:
    site = tmp_path / ("scripts/sbatch/env.sh" if where == "beside" else "own.sh")
    site.parent.mkdir(parents=True, exist_ok=True)
    site.write_text(f'streamsal() {{ echo "$@" > {tmp_path}/said; }}\nSTREAMSAL_STAGE=1\n')
    named = {"STREAMSAL_ENV": str(site)} if where == "named" else {}
    known = environment(SLURM_SUBMIT_DIR=str(tmp_path), SLURM_ARRAY_TASK_ID="7", **named)
    command = ["bash", SCRIPTS / "infer.sbatch", "my talk.mp4", "--task-base", "1"]
    subprocess.run(command, env=known, cwd="/", check=True)
    assert (tmp_path / "said").read_text() == "infer my talk.mp4 --task-base 1 --task-id 7 --stage\n"


STOPS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
open("ready", "w").close()
time.sleep(60)
"""
IN_ARRAY = {"SLURM_JOB_ID": "33", "SLURM_ARRAY_JOB_ID": "33", "SLURM_ARRAY_TASK_ID": "7"}


@pytest.mark.parametrize(
    ("sent", "code", "known", "requeued"),
    [
        (signal.SIGUSR1, 75, IN_ARRAY, "requeue 33_7"),
        (signal.SIGUSR1, 75, {"SLURM_JOB_ID": "40"}, "requeue 40"),
        (signal.SIGUSR1, 75, {**IN_ARRAY, "SLURM_RESTART_COUNT": "9"}, "requeue 33_7"),
        (signal.SIGUSR1, 75, {**IN_ARRAY, "SLURM_RESTART_COUNT": "10"}, ""),
        (signal.SIGUSR1, 75, {**IN_ARRAY, "SLURM_RESTART_COUNT": "1", "STREAMSAL_REQUEUES": "1"}, ""),
        (signal.SIGUSR1, 75, {"SLURM_ARRAY_TASK_ID": "7"}, ""),  # outside of Slurm
        (signal.SIGUSR1, 74, IN_ARRAY, ""),
        (signal.SIGTERM, 75, IN_ARRAY, ""),
    ],
)
def test_a_task_that_was_warned_requeues_itself_and_one_that_was_ended_does_not(
    sent: signal.Signals, code: int, known: dict[str, str], requeued: str, tmp_path: Path
) -> None:
    """Slurm's own program is one that notes what it is asked for, and refuses, as at sites that requeue nothing."""
    program(tmp_path / "scontrol", f'echo "$@" >> {tmp_path}/asked; exit 1')
    submission = replace(SUBMISSION, program=(sys.executable, "-c", STOPS.format(code=code)))
    process = subprocess.Popen(
        ["bash", "-c", script(submission, "infer")],
        cwd=tmp_path,
        env=environment(SLURM_ARRAY_TASK_ID="0", PATH=f"{tmp_path}:{os.environ['PATH']}") | known,
        text=True,
    )
    wait_until((tmp_path / "ready").exists, process)
    process.send_signal(sent)
    assert process.wait(timeout=20) == code
    asked = tmp_path / "asked"
    assert (asked.read_text().strip() if asked.exists() else "") == requeued


def test_a_program_that_is_killed_or_stopped_before_it_listens_is_told_apart(tmp_path: Path) -> None:
    program(tmp_path / "scontrol", f'echo "$@" >> {tmp_path}/asked; exit 1')
    known = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", **IN_ARRAY)
    for number, code in (("KILL", 137), ("TERM", 143)):
        submission = replace(SUBMISSION, program=("sh", "-c", f"kill -{number} $$"))
        done = subprocess.run(["bash", "-c", script(submission, "infer")], env=known)
        assert done.returncode == code
        assert (tmp_path / "asked").exists() == (number == "TERM")


# What a training of two processes says: "0" is the first of them.
@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("exit 0", "exit 0", 0),
        ("exit 75", "exit 75", 75),
        ("exit 75", "sleep 0.2; exit 69", 69),  # lost the other, whose own reason is the answer
        ("exec sleep 60", "exit 69", 69),
        ("exec sleep 60", "kill -KILL $$", 137),
        ("exec sleep 60", "kill -TERM $$", 143),
    ],
)
def test_a_training_of_several_processes_leaves_with_the_reason_of_the_one_that_failed(
    first: str, second: str, code: int, tmp_path: Path
) -> None:
    program(tmp_path / "streamsal", f'if [ "$RANK" = 0 ]; then {first}; else {second}; fi')
    known = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_GPUS_ON_NODE="2")
    assert subprocess.run(["bash", SCRIPTS / "train.sbatch"], env=known, timeout=30).returncode == code


def test_a_training_has_a_process_for_each_gpu_of_its_job_and_all_are_asked_to_stop(tmp_path: Path) -> None:
    program(tmp_path / "scontrol", 'echo "$@" > "$0.asked"; exit 1')
    says = 'echo "$RANK $LOCAL_RANK of $WORLD_SIZE at $MASTER_ADDR $MASTER_PORT, $OMP_NUM_THREADS threads: $*"'
    shows = f'{says} > "$0.new$RANK"; mv "$0.new$RANK" "$0.$RANK"'
    program(tmp_path / "streamsal", f"trap 'exit 75' TERM; {shows}; sleep 60 & wait $!")
    known = {"SLURM_GPUS_ON_NODE": "3", "SLURM_CPUS_PER_TASK": "7", "SLURM_JOB_ID": "123456"}
    process = subprocess.Popen(
        ["bash", SCRIPTS / "train.sbatch", "my tiny.toml"],
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}", **known),
        text=True,
    )
    wait_until(lambda: all((tmp_path / f"streamsal.{rank}").exists() for rank in range(3)), process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 75
    assert (tmp_path / "scontrol.asked").read_text() == "requeue 123456\n"
    for rank in range(3):
        said = f"{rank} {rank} of 3 at 127.0.0.1 23456, 2 threads: train my tiny.toml\n"
        assert (tmp_path / f"streamsal.{rank}").read_text() == said


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def expanded(array: Array) -> list[int]:
    ends = [part.split("-") for part in array.spec.partition("%")[0].split(",")]
    return [array.offset + index for first, *last in ends for index in range(int(first), int((last or [first])[0]) + 1)]


@given(tasks=st.sets(st.integers(0, 500)), size=st.integers(1, 100), throttle=st.integers(0, 9))
def test_arrays_hold_every_task_once_below_the_largest_index(tasks: set[int], size: int, throttle: int) -> None:
    made = arrays(tasks, size, throttle)
    assert [task for array in made for task in expanded(array)] == sorted(tasks)
    assert all(0 <= task - array.offset < size for array in made for task in expanded(array))
    assert all(array.spec.endswith(f"%{throttle}") == bool(throttle) for array in made)


def test_a_small_plan_is_one_plain_array() -> None:
    assert arrays(range(16), throttle=4) == [Array(offset=0, spec="0-15%4")]
    assert arrays([7, 3]) == [Array(offset=0, spec="3,7")]


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notes what sbatch is asked for and gives ids from 100 on, as federations write them. Refuses partition `none`."""
    programs = {
        "sbatch": 'case "$*" in *none*) echo "sbatch: error: invalid partition" >&2; exit 1;; esac\n'
        'printf "%s\\n" "$*" >> "$0.asked"; echo "$((99 + $(wc -l < "$0.asked")));east"',
        "scontrol": 'echo "MaxArraySize            = 51"',
        "squeue": "printf '100\\n100\\n7\\n'",
    }
    for name, text in programs.items():
        program(tmp_path / name, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_printed_lines_do_in_a_shell_what_submitting_does(fake_slurm: Path) -> None:
    folder, made = Path(AWKWARD), arrays([3, 60], 51, 2)
    _, merge, render = steps = replace(SUBMISSION, resources=Resources(render=True)).steps
    ids = [slurm.submit(slurm.array_words(folder / "infer.sbatch", array)) for array in made]
    merged = slurm.submit(slurm.job_words(folder / "merge.sbatch", merge, ids))
    slurm.submit(slurm.job_words(folder / "render.sbatch", render, [merged]))
    asked = (fake_slurm / "sbatch.asked").read_text()
    assert ids == ["100", "101"] and "--dependency=afterany:100:101 " in asked and "afterok:102 " in asked
    (fake_slurm / "sbatch.asked").unlink()
    lines = "\n".join(slurm.shell_lines(folder, steps, made))
    subprocess.run(["bash", "-eu", "-c", lines], check=True, capture_output=True)
    assert (fake_slurm / "sbatch.asked").read_text().replace(";east", "") == asked


def test_what_slurm_says_is_understood(fake_slurm: Path) -> None:
    assert slurm.max_array_size() == 51
    assert slurm.queued(["7", "8", "100"]) == ["7", "100"]
    with pytest.raises(UsageError, match="invalid partition") as refused:
        slurm.check(slurm.job_words(Path("none.sbatch"), SUBMISSION.steps[1], []))
    assert "--test-only" in str(refused.value)


def test_a_machine_without_slurm_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="--backend local"):
        slurm.require_slurm()
    with pytest.raises(UsageError, match="scontrol cannot be run"):
        slurm.max_array_size()
