"""Stand-in weights are the same everywhere: other programs made the fixtures with them."""

from __future__ import annotations

import hashlib

import torch

from streamsal.weights import synthetic

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


def test_constants_keep_the_template_s_values() -> None:
    index = torch.arange(6)
    template = {"attn.relative_position_index": index, "finalizer.gauss.grid": torch.arange(3.0)}
    found = synthetic.state_dict(template)
    assert all(torch.equal(found[key], value) and found[key] is not value for key, value in template.items())
    on_meta = {"attn.relative_position_index": index.to("meta")}
    assert torch.equal(synthetic.state_dict(on_meta)["attn.relative_position_index"], torch.zeros_like(index))


def test_the_end_of_every_residual_branch_is_damped_in_clip_networks_whoever_named_it() -> None:
    keys = (
        "branch2.c_bn.weight",
        "branch2.norm_c.weight",
        "branch2.c_bn.bias",
        "branch2.b_bn.weight",
        "branch1_bn.weight",
    )
    template = {f"s2.pathway0_res0.{key}": torch.empty(4) for key in keys}
    plain = synthetic.state_dict(template)
    damped = synthetic.state_dict(template, adjust=synthetic.ADJUST["residual_video"])
    factors = [float((damped[key] / plain[key]).unique()) for key in template]
    assert factors == [0.25, 0.25, 1, 1, 1]
