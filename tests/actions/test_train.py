"""Whole trainings of a small classifier on clips that are drawn here: interrupted, resumed, by two processes."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from program import end, start, wait_until
from side_by_side import end_all, start_two
from tiny_clips import write_clips

from streamsal.actions.config import Config, config_of, read_toml
from streamsal.actions.predictions import Predictions
from streamsal.actions.train import precision, train
from streamsal.errors import DeviceError, Held, MissingInput, PlanMismatch, Stopped, UsageError
from streamsal.locks import lock
from streamsal.models.classifier import load
from streamsal.progress import Progress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, config.toml, and `whole`: the training nobody disturbed."""
    folder = tmp_path_factory.mktemp("training")
    config = write_clips(folder)
    torch.set_num_threads(1)
    train(config_of(read_toml(config), config), folder / "whole")
    return folder


@pytest.fixture
def config(made: Path) -> Config:
    return config_of(read_toml(made / "config.toml"), made / "config.toml")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["weights"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("clips_per_second", "waits_for")} for line in lines]


class StopAt:
    """Asks to stop, or ends all, when it is asked for the n-th time: after every step, and once in every validation."""

    def __init__(self, n: int, *, die: bool = False) -> None:
        self.left, self.die = n, die

    def __call__(self) -> str:
        self.left -= 1
        if self.left < 1 and self.die:
            raise KeyboardInterrupt
        return "SIGTERM" if self.left < 1 else ""


def test_a_training_leaves_a_classifier_its_scores_and_a_log(made: Path) -> None:
    folder = made / "whole"
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "split.json", "last.pt", "best.pt", "validation.h5", "log.jsonl", "tensorboard", "train.lock")
    }
    classifier, facts = load(folder / "best.pt"), torch.load(folder / "best.pt", weights_only=True)
    assert classifier.design.classes == ("down", "right") and classifier.design.side_in == 14
    assert facts["epoch"] in (1, 2) and len(facts["thresholds"]) == 2
    validated = [line for line in log_of(folder) if "validation" in line]
    assert [line["epoch"] for line in validated] == [1, 2] and validated[0]["best"]
    best = next(line for line in validated if line["epoch"] == facts["epoch"])
    assert facts["scores"]["f1_macro"] == best["validation"]["f1_macro"]
    found = Predictions.load(folder / "validation.h5")
    assert set(found.ids) == set(json.loads((folder / "split.json").read_text())["validation"])
    surprise = -np.log(np.where(found.targets, found.probabilities, 1 - found.probabilities)).mean()
    assert best["validation"]["loss"] == pytest.approx(surprise, abs=1e-5)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_training_that_is_stopped_goes_on_to_the_same_weights_and_log(
    made: Path, config: Config, tmp_path: Path, after: int
) -> None:
    with pytest.raises(Stopped, match=r"stopped by SIGTERM: .*; run the same command again to go on"):
        train(config, tmp_path / "t", stop=StopAt(after))
    train(config, tmp_path / "t")
    assert same(weights(tmp_path / "t"), weights(made / "whole"))
    assert log_of(tmp_path / "t") == log_of(made / "whole")


@pytest.mark.parametrize("at", ["validation", "a step"])
def test_a_training_that_ends_without_warning_goes_on_from_what_was_kept(
    made: Path, config: Config, tmp_path: Path, at: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "t", stop=StopAt(3 if at == "validation" else 5, die=True))
    train(config, tmp_path / "t")
    assert same(weights(tmp_path / "t"), weights(made / "whole"))
    assert log_of(tmp_path / "t") == log_of(made / "whole")


class DiesValidated(Progress):
    """What is said of a validation is said before it is kept."""

    def say(self, text: str) -> None:
        if "best" in text:
            raise KeyboardInterrupt


def test_an_epoch_that_is_validated_twice_is_on_the_board_once(config: Config, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, progress=DiesValidated(quiet=True))
    train(config, tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    for tag, kind in (("train/loss", "loss"), ("validation/loss", "validation")):
        assert [x.step for x in board.Scalars(tag)] == [line["step"] for line in log_of(tmp_path) if kind in line]


def test_weights_do_not_depend_on_who_decodes(made: Path, config: Config, tmp_path: Path) -> None:
    train(replace(config, data=replace(config.data, workers=2)), tmp_path / "t")
    assert same(weights(tmp_path / "t"), weights(made / "whole"))


def test_a_training_that_is_done_is_not_done_again(made: Path, config: Config) -> None:
    before = (made / "whole/last.pt").stat().st_mtime_ns, (made / "whole/log.jsonl").read_text()
    assert train(config, made / "whole") == made / "whole/best.pt"
    assert before == ((made / "whole/last.pt").stat().st_mtime_ns, (made / "whole/log.jsonl").read_text())


def test_another_configuration_is_refused_unless_it_begins_anew(made: Path, config: Config, tmp_path: Path) -> None:
    shutil.copytree(made / "whole", tmp_path / "t")
    other = replace(config, train=replace(config.train, lr=0.01), data=replace(config.data, validation=0.2))
    with pytest.raises(PlanMismatch, match=r"train\.lr = 0\.001, and now it is 0\.01"):
        train(other, tmp_path / "t")
    (tmp_path / "t/test").mkdir()
    (tmp_path / "t/test/clip.mp4").write_text("somebody's own")
    train(other, tmp_path / "t", resume="no")
    assert (tmp_path / "t/test/clip.mp4").exists()
    assert len(json.loads((tmp_path / "t/split.json").read_text())["validation"]) == 2
    assert len(log_of(tmp_path / "t")) == len(log_of(made / "whole"))
    assert not same(weights(tmp_path / "t"), weights(made / "whole"))


def test_a_training_goes_on_in_another_folder_from_what_was_kept_in_one(
    made: Path, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(config, tmp_path / "one", stop=StopAt(4))
    shutil.copy(tmp_path / "one/last.pt", tmp_path / "last.pt")
    train(config, tmp_path / "two", resume=str(tmp_path / "last.pt"))
    assert same(weights(tmp_path / "two"), weights(made / "whole"))
    assert load(tmp_path / "two/best.pt").design.classes == ("down", "right")  # the best of the epochs seen here
    assert [line["step"] for line in log_of(tmp_path / "two") if "loss" in line] == [4]
    (tmp_path / "two/best.pt").unlink()
    with pytest.raises(MissingInput, match=r"best\.pt is gone"):
        train(config, tmp_path / "two")


def test_a_folder_in_which_somebody_else_keeps_such_files_is_left_alone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_text("of another program")
    with pytest.raises(UsageError, match=r"best\.pt is of no training that was begun there: name another folder"):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_two_copies_do_not_train_into_one_folder(config: Config, tmp_path: Path) -> None:
    with lock(tmp_path / "train.lock", wait=False), pytest.raises(Held, match="another process trains into"):
        train(config, tmp_path)


def test_a_training_that_diverges_says_so_and_keeps_weights_that_are_finite(config: Config, tmp_path: Path) -> None:
    wild = replace(config, train=replace(config.train, lr=1e30, warmup=0.0, clip_norm=0.0, keep_minutes=0.0))
    with pytest.raises(UsageError, match="training has diverged; begin anew with a smaller"):
        train(wild, tmp_path)
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_out_of_memory_is_said_with_what_helps(config: Config, tmp_path: Path) -> None:
    def full() -> str:
        raise torch.OutOfMemoryError

    with pytest.raises(DeviceError, match=r"out of memory with train\.batch = 2"):
        train(config, tmp_path, stop=full)


def test_half_precision_is_refused_where_its_gradients_are_wrong(config: Config, tmp_path: Path) -> None:
    assert precision("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(UsageError, match=r"train\.dtype = 'bf16' is for GPUs"):
        train(replace(config, train=replace(config.train, dtype="bf16")), tmp_path)


def test_killed_at_any_moment_a_training_resumes_to_the_same_weights(made: Path, tmp_path: Path) -> None:
    command = ("train", made / "config.toml", "-o", tmp_path / "t", "--set", "train.keep_minutes=0", "--device", "cpu")
    process = start(*command, env={"OMP_NUM_THREADS": "1"})
    wait_until(lambda: (tmp_path / "t/last.pt").exists(), process)
    process.kill()
    process.communicate()
    process = start(*command, env={"OMP_NUM_THREADS": "1"})
    out, err = end(process, 0)
    assert out == f"{tmp_path / 't/best.pt'}\n" and "going on in epoch" in err
    assert same(weights(tmp_path / "t"), weights(made / "whole"))
    assert log_of(tmp_path / "t") == log_of(made / "whole")


def test_a_signal_keeps_the_training_and_leaves_with_75(made: Path, tmp_path: Path) -> None:
    long = ("train", made / "config.toml", "-o", tmp_path, "--set", "train.epochs=1000", "--device", "cpu")
    process = start(*long)
    wait_until(lambda: (tmp_path / "log.jsonl").exists() and "loss" in (tmp_path / "log.jsonl").read_text(), process)
    process.send_signal(signal.SIGUSR1)
    _, err = end(process, 75)
    assert "stopped by SIGUSR1" in err.splitlines()[-1] and "run the same command again to go on" in err
    assert torch.load(tmp_path / "last.pt", weights_only=True)["place"]["step"] > 0


TWO = """
import sys, torch
from pathlib import Path
from streamsal.actions.config import config_of, read_toml
from streamsal.actions.predict import predict
from streamsal.actions.processes import joined
from streamsal.actions.split import clips_of
from streamsal.actions.train import train
from streamsal.models.classifier import load

made, folder = map(Path, sys.argv[1:])
config = config_of(read_toml(made / "config.toml"), made / "config.toml")
with joined("cpu") as processes:
    train(config, folder, processes=processes)
    kept = torch.load(folder / "last.pt", weights_only=True)["weights"]
    clips = clips_of(config, made / "whole")
    found = predict(load(made / "whole/best.pt"), clips.validation, clips.validation_rows, config.test,
                    processes=processes, workers=0)
    if processes.first:
        found.save(folder / "two.h5")
print(sum("gloo" in thread.read_text() for thread in Path("/proc/self/task").glob("*/comm")), "threads outlive it")
"""


def test_two_processes_train_one_classifier_and_validate_as_one(made: Path, config: Config, tmp_path: Path) -> None:
    for out, _ in end_all(start_two("-c", TWO, made, tmp_path)):
        assert out == "0 threads outlive it\n"
    assert [line["epoch"] for line in log_of(tmp_path) if "validation" in line] == [1, 2]
    one, two = Predictions.load(made / "whole/validation.h5"), Predictions.load(tmp_path / "two.h5")
    assert one.ids == two.ids and (one.logits == two.logits).all()
