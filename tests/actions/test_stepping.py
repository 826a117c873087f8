"""Steps of a small classifier on clips of noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from side_by_side import end_all, start_two
from torch import Tensor

from streamsal.actions.config import Config, Data, Network, Train
from streamsal.actions.processes import Processes
from streamsal.actions.stepping import Stepper, groups, seed_of
from streamsal.errors import UsageError
from streamsal.models.classifier import Classifier

CONFIG = Config(
    data=Data(train="clips.csv"),
    model=Network(frames=8, side_in=14, side=28, width=0.125),
    train=Train(warmup=0.0, clip_norm=0.0),
)


def stepper(config: Config = CONFIG, dtype: torch.dtype = torch.float32, processes: Processes | None = None) -> Stepper:
    torch.manual_seed(1)
    classifier = Classifier(config.design(("a", "b")), dropout=config.model.dropout)
    targets = np.array([[1, 0], [0, 1]], np.uint8)
    return Stepper(classifier, config, targets, processes=processes or Processes(), dtype=dtype, n_steps=10)


def batch(n: int = 2, seed: int = 5) -> tuple[Tensor, Tensor]:
    lots = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 14, 14, generator=lots) * 2 - 1, torch.eye(2)[:n]


def weights(one: Stepper) -> Tensor:
    return torch.cat([p.detach().flatten() for p in one.classifier.parameters()])


def test_steps_make_the_loss_smaller() -> None:
    one = stepper()
    losses = [one.step(number, iter([batch()]), 1, 2) for number in range(6)]
    assert losses[-1] < losses[0] - 0.05


def test_a_step_depends_on_its_number_and_not_on_what_was_drawn_before() -> None:
    first, second, third = stepper(), stepper(), stepper()
    first.step(3, iter([batch()]), 1, 2)
    torch.manual_seed(99)
    second.step(3, iter([batch()]), 1, 2)
    third.step(4, iter([batch()]), 1, 2)  # another learning rate, other features dropped
    assert torch.equal(weights(first), weights(second)) and not torch.equal(weights(first), weights(third))


def test_a_clip_that_is_too_small_to_be_a_batch_is_refused_and_what_helps_is_said() -> None:
    with pytest.raises(UsageError, match=r"take a train\.batch that leaves no single clip"):
        stepper(replace(CONFIG, model=replace(CONFIG.model, side=14))).step(0, iter([batch(1)]), 1, 1)


def test_seeds_differ_by_step_and_by_process() -> None:
    assert len({seed_of(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)}) == 180


def test_gradients_of_several_batches_are_those_of_their_clips_weighed_alike() -> None:
    """Batch norms at rest, nothing dropped: only then do clips not depend on the batch they are in."""
    still = replace(CONFIG, model=replace(CONFIG.model, freeze="i3d", resizer="none", dropout=0.0))
    clips, labels = torch.cat([batch()[0], batch(1, 6)[0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    together, divided = stepper(still), stepper(still)
    a = together.step(0, iter([(clips, labels)]), 1, 3)
    b = divided.step(0, iter([(clips[:2], labels[:2]), (clips[2:], labels[2:])]), 2, 3)
    assert a == pytest.approx(b, rel=1e-5)
    gradients = [one.classifier.i3d.logits.conv3d.weight.grad for one in (together, divided)]
    assert gradients[0] is not None and gradients[1] is not None
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_of_a_frozen_i3d_only_the_logits_and_the_resizer_move() -> None:
    one = stepper(replace(CONFIG, model=replace(CONFIG.model, freeze="i3d")))
    before = {key: value.clone() for key, value in one.classifier.state_dict().items()}
    one.step(0, iter([batch()]), 1, 2)
    moved = {key for key, value in one.classifier.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key in moved if key.startswith("i3d.")} == {"i3d.logits.conv3d.weight", "i3d.logits.conv3d.bias"}
    assert any(key.startswith("resizer.") and key.endswith("running_mean") for key in moved)
    assert one.classifier.i3d.dropout.training


def test_batch_norms_forget_as_fast_as_it_is_said() -> None:
    said = stepper(replace(CONFIG, train=replace(CONFIG.train, momentum=1.0))).classifier
    usual = stepper().classifier
    momenta = [{getattr(m, "momentum", None) for m in one.i3d.modules()} - {None} for one in (said, usual)]
    assert momenta == [{1.0}, {0.01}]


def test_biases_and_batch_norms_do_not_decay() -> None:
    classifier = stepper().classifier
    decaying, others = groups(classifier, 0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert {parameter.ndim for parameter in decaying["params"]} >= {5}
    assert len(decaying["params"]) + len(others["params"]) == len(list(classifier.parameters()))


def test_float16_finds_a_scale_and_then_trains_weights_of_float32() -> None:
    one = stepper(dtype=torch.float16)
    before, first = weights(one), one.scaler.get_scale()
    steps = iter(range(12))
    while torch.equal(weights(one), before):
        one.step(next(steps), iter([batch()]), 1, 2)
    assert one.scaler.get_scale() < first
    assert weights(one).dtype == torch.float32 and weights(one).isfinite().all()


def test_gradients_that_overflow_float16_cost_a_step_and_no_more() -> None:
    one = stepper(dtype=torch.float16)
    before, scale = weights(one), one.scaler.get_scale()
    clips, labels = batch()
    one.step(1, iter([(clips * float("inf"), labels)]), 1, 2)
    assert torch.equal(weights(one), before) and one.scaler.get_scale() == scale / 2


SIDE_BY_SIDE = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
import torch
from test_stepping import CONFIG, batch, stepper, weights
from streamsal.actions.processes import joined

with joined("cpu") as processes:
    one = stepper(processes=processes)
    for number in range(3):
        one.step(number, iter([batch(seed=10 * number + processes.rank), batch(1, seed=number)]), 2, 3)
    first, second = processes.gathered(weights(one))
    assert torch.equal(first, second)
    statistics = dict(one.classifier.named_buffers())["i3d.Conv3d_1a_7x7.bn.running_mean"]
    first, second = processes.gathered(statistics.clone())
    assert not torch.equal(first, second)
    processes.as_first(one.classifier.buffers())
    first_again, second = processes.gathered(statistics.clone())
    assert torch.equal(first, first_again) and torch.equal(first, second)
"""


def test_two_processes_have_the_same_weights_and_after_being_told_the_same_statistics() -> None:
    here = __file__.rpartition("/")[0]
    end_all(start_two("-c", SIDE_BY_SIDE.format(here=here, tests=here.rpartition("/")[0])))
