"""Stand-in weights are the same everywhere: other programs made the fixtures with them."""

from __future__ import annotations

import hashlib

import torch

from streamsal import synthetic

TEMPLATE = {
    "features.0.weight": torch.empty(8, 3, 3, 3, device="meta"),
    "norm.weight": torch.empty(8, device="meta"),
    "norm.bias": torch.empty(8, device="meta"),
    "norm.running_mean": torch.empty(8, device="meta"),
    "norm.running_var": torch.empty(8, device="meta"),
    "norm.num_batches_tracked": torch.empty((), dtype=torch.int64, device="meta"),
    "block._se_reduce.weight": torch.empty(2, 8, 1, 1, device="meta"),
    "finalizer.gauss.sigma": torch.empty((), device="meta"),
    "finalizer.gauss.grid": torch.arange(-2.0, 3.0),
}
# sha256 of the bytes of the entry, by the rule that the fixtures were made with.
KNOWN = {
    "features.0.weight": "f04e94260e531132",
    "norm.weight": "2a285d5b0c85a8a9",
    "norm.bias": "2887f84cec34f33e",
    "norm.running_mean": "7acf4b833cdeff0b",
    "norm.running_var": "030be64f367428e6",
    "block._se_reduce.weight": "6fdd32bc68c522d0",
    "finalizer.gauss.sigma": "45c48cc0f8d66d87",
}


def test_values_are_those_the_fixtures_were_made_with() -> None:
    weights = synthetic.state_dict(TEMPLATE)
    found = {key: hashlib.sha256(weights[key].numpy().tobytes()).hexdigest()[:16] for key in KNOWN}
    assert found == KNOWN


def test_keys_shapes_and_types_are_the_template_s() -> None:
    weights = synthetic.state_dict(TEMPLATE)
    assert list(weights) == list(TEMPLATE)
    for key, like in TEMPLATE.items():
        assert (weights[key].shape, weights[key].dtype, weights[key].device.type) == (like.shape, like.dtype, "cpu")
    half = synthetic.state_dict({"norm.bias": torch.empty(8, dtype=torch.float16)})["norm.bias"]
    assert torch.equal(half, weights["norm.bias"].half())


def test_values_depend_on_key_and_seed_alone() -> None:
    alone = synthetic.state_dict({"norm.weight": TEMPLATE["norm.weight"]})
    assert torch.equal(alone["norm.weight"], synthetic.state_dict(TEMPLATE)["norm.weight"])
    other = synthetic.state_dict(TEMPLATE, seed=1)["norm.weight"]
    assert not torch.equal(alone["norm.weight"], other)


def test_variances_and_widths_are_positive() -> None:
    weights = synthetic.state_dict(TEMPLATE)
    assert weights["norm.running_var"].min() >= 0.5
    assert 4 <= weights["finalizer.gauss.sigma"] <= 12


def test_constants_stay() -> None:
    grid = synthetic.state_dict(TEMPLATE)["finalizer.gauss.grid"]
    assert grid.tolist() == [-2, -1, 0, 1, 2] and grid is not TEMPLATE["finalizer.gauss.grid"]


def test_networks_that_amplify_are_damped() -> None:
    damped, plain = synthetic.state_dict(TEMPLATE), synthetic.state_dict(TEMPLATE, adjust={})
    key = "block._se_reduce.weight"
    assert torch.equal(damped[key], 0.1 * plain[key])
    assert all(torch.equal(damped[other], plain[other]) for other in TEMPLATE if other != key)
