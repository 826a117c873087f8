"""last.pt, of a training of a small network that needs no clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from streamsal.actions.config import Config, Data, Network, Train
from streamsal.actions.config import Test as Judging
from streamsal.actions.keeping import Place, identity_of, keep, restore
from streamsal.actions.manifest import LabeledClip, Manifest
from streamsal.actions.split import ClipSets
from streamsal.errors import BadInput, MissingInput, PlanMismatch, WriteError

CONFIG = Config(data=Data(train="/data/clips.csv"))
PLACE = Place(epoch=3, step=17, best=0.5, best_epoch=2, log_bytes=1234)


def clip_sets(labels: tuple[int, ...] = (0,), folder: str = "/data") -> ClipSets:
    named = [LabeledClip(id=f"c{n}", path=Path(folder, f"c{n}.mp4"), labels=labels, scene="s") for n in range(4)]
    manifest = Manifest(classes=("run", "walk"), clips=tuple(named))
    return ClipSets(train=manifest, train_rows=(0, 2, 3), validation=manifest, validation_rows=(1,))


def parts() -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
    torch.manual_seed(1)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": [network.weight]}, {"params": [network.bias], "weight_decay": 0.0}])
    return {"weights": network, "optimizer": optimizer}


def train(parts: dict, steps: int) -> torch.Tensor:
    for _ in range(steps):
        parts["optimizer"].zero_grad()
        parts["weights"](torch.ones(1, 3)).square().sum().backward()
        parts["optimizer"].step()
    return torch.cat([p.detach().flatten() for p in parts["weights"].parameters()])


def test_what_was_kept_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    identity, whole, half = identity_of(CONFIG, clip_sets(), 1), parts(), parts()
    undisturbed = train(whole, 6)
    train(half, 3)
    keep(tmp_path / "last.pt", PLACE, identity, half)
    again = parts()
    assert restore(tmp_path / "last.pt", identity, again) == PLACE
    assert torch.equal(train(again, 3), undisturbed)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (replace(CONFIG, train=Train(lr=0.1)), "train.lr = 0.001, and now it is 0.1"),
        (replace(CONFIG, train=Train(epochs=31)), "train.epochs = 30, and now it is 31"),  # the cosine ends elsewhere
        (replace(CONFIG, test=Judging(clips="all")), 'test.clips = 1, and now it is "all"'),
        (replace(CONFIG, data=replace(CONFIG.data, validation=0.2)), "data.validation = 0.1, and now it is 0.2"),
    ],
)
def test_another_training_is_refused_and_the_setting_named(tmp_path: Path, now: Config, said: str) -> None:
    keep(tmp_path / "last.pt", PLACE, identity_of(CONFIG, clip_sets(), 1), parts())
    with pytest.raises(PlanMismatch) as refused:
        restore(tmp_path / "last.pt", identity_of(now, clip_sets(), 1), parts())
    assert said in str(refused.value)


def test_other_clips_and_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    keep(tmp_path / "last.pt", PLACE, identity_of(CONFIG, clip_sets(), 1), parts())
    with pytest.raises(PlanMismatch, match=r"made with other clips or labels, .*: put manifests and split\.json back"):
        restore(tmp_path / "last.pt", identity_of(CONFIG, clip_sets((1,)), 1), parts())
    with pytest.raises(PlanMismatch, match="the number of processes = 1, and now it is 2"):
        restore(tmp_path / "last.pt", identity_of(CONFIG, clip_sets(), 2), parts())


def test_clips_that_were_moved_and_what_only_costs_time_may_change(tmp_path: Path) -> None:
    keep(tmp_path / "last.pt", PLACE, identity_of(CONFIG, clip_sets(), 1), parts())
    data, timing = Data(train="/tmp/clips.csv", root="/tmp", workers=9), Train(every=1, keep_minutes=1.0)
    moved = identity_of(Config(data=data, train=timing), clip_sets(folder="/tmp"), 1)
    assert restore(tmp_path / "last.pt", moved, parts()) == PLACE
    here, there = (replace(CONFIG, model=Network(weights=f"{folder}/i3d.pt")) for folder in ("/data", "/tmp"))
    keep(tmp_path / "last.pt", PLACE, identity_of(here, clip_sets(), 1), parts())
    assert restore(tmp_path / "last.pt", identity_of(there, clip_sets(), 1), parts()) == PLACE


def test_what_is_no_training_is_said_to_be_none(tmp_path: Path) -> None:
    identity = identity_of(CONFIG, clip_sets(), 1)
    with pytest.raises(MissingInput, match=r"last\.pt is not there"):
        restore(tmp_path / "last.pt", identity, parts())
    torch.save({"format": "streamsal classifier 1"}, tmp_path / "best.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "best.pt").read_bytes()[:200])
    (tmp_path / "text.pt").write_text("hello")
    keep(tmp_path / "flipped.pt", PLACE, identity, parts())
    whole = bytearray((tmp_path / "flipped.pt").read_bytes())
    whole[whole.index(parts()["weights"].weight.detach().numpy().tobytes())] ^= 1  # type: ignore[union-attr]
    (tmp_path / "flipped.pt").write_bytes(whole)
    for name in ("best.pt", "cut.pt", "text.pt", "flipped.pt"):
        with pytest.raises(BadInput, match=r"is no last\.pt of a training"):
            restore(tmp_path / name, identity, parts())


def test_a_disk_that_refuses_leaves_the_last_one_whole(tmp_path: Path) -> None:
    identity = identity_of(CONFIG, clip_sets(), 1)
    keep(tmp_path / "last.pt", PLACE, identity, parts())
    (tmp_path / "gone").write_text("no folder")
    with pytest.raises(WriteError):
        keep(tmp_path / "gone" / "last.pt", PLACE, identity, parts())
    keep(tmp_path / "last.pt", replace(PLACE, epoch=4), identity, parts())
    assert restore(tmp_path / "last.pt", identity, parts()).epoch == 4
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "gone"}
