from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from streamsal.evaluation import metrics
from streamsal.evaluation.metrics import (
    auc,
    blurred,
    cc,
    center_bias,
    check_log_density,
    empirical_map,
    equalized,
    gold_standard,
    information_gain,
    kl_divergence,
    kl_of_densities,
    log_likelihood,
    nss,
    per_frame,
    pixels,
    shuffled_auc,
    shuffled_auc_map,
    sim,
)

FIXTURES = Path(__file__).parents[1] / "fixtures/metrics"
CASES = ("smooth", "uint8", "sparse", "constant")


class Case:
    """What pysaliency 0.2.22 measured: frames, real-valued fixations, and its scores of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file = dict(np.load(FIXTURES / f"pysaliency_{name}.npz"))
        self.log_density, self.saliency = self.file["in/log_density"], self.file["in/saliency"]
        self.center_bias = self.file["in/centerbias_log_density"]
        self.n, self.height, self.width = self.log_density.shape
        self.at = (self.file["in/n"], *pixels(self.file["in/x"], self.file["in/y"]))
        self.sigma = float(self.file["kernel_size"])

    @property
    def negatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every fixation of all other frames, in each frame."""
        frame, row, col = (torch.as_tensor(x) for x in self.at)
        others = [(torch.full_like(row[frame != i], i), row[frame != i], col[frame != i]) for i in range(self.n)]
        return tuple(torch.cat(column) for column in zip(*others, strict=True))

    def maps(self, kind: str) -> np.ndarray | Tensor:
        density = np.exp(self.log_density)
        return {"map": self.saliency, "density": density, "blurred_density": blurred(density, self.sigma)}[kind]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.file[f"out/{key}"]


@cache
def case(name: str) -> Case:
    return Case(name)


def differ(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference; NaN must be where NaN is expected."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float64
    assert np.array_equal(found.isnan().numpy(), np.isnan(expected))
    return float(np.nanmax(abs(found.numpy() - expected)))


@pytest.mark.parametrize("name", CASES)
def test_likelihoods_and_information_gains_are_pysaliencys(name: str) -> None:
    c = case(name)
    check_log_density(c.log_density)
    gain = information_gain(c.log_density, c.center_bias, *c.at)
    assert differ(log_likelihood(c.log_density, *c.at), c["ll_nats"]) <= 1e-9
    assert differ(information_gain(c.log_density, None, *c.at), c["ig_uniform_bits"]) <= 1e-9
    assert differ(gain, c["ig_centerbias_bits"]) <= 1e-9
    assert differ(gain.mean(), c["ig_centerbias_bits_mean_over_fixations"]) <= 1e-9
    by_frame = per_frame(gain, c.at[0], c.n)
    assert differ(by_frame.nanmean(), c["ig_centerbias_bits_mean_over_frames"]) <= 1e-9
    truth = np.broadcast_to(c.center_bias, c.log_density.shape).copy()
    assert differ(kl_of_densities(truth, c.log_density), c["kl_density_vs_centerbias_nats"]) <= 1e-9


@pytest.mark.parametrize("kind", ["map", "density"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count_at_most", [0, 1000], ids=["sorted", "counted"])
def test_aucs_are_pysaliencys(name: str, kind: str, count_at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "COUNT_AT_MOST", count_at_most)
    c = case(name)
    maps = c.maps(kind)
    uniform, shuffled = auc(maps, *c.at), shuffled_auc(maps, *c.at, *c.negatives)
    assert differ(uniform, c[f"{kind}/auc_uniform"]) <= 1e-12
    assert differ(auc(maps, *c.at, negatives="unfixated"), c[f"{kind}/auc_unfixated"]) <= 1e-12
    assert differ(shuffled, c[f"{kind}/auc_shuffled"]) <= 1e-12
    assert differ(per_frame(uniform, c.at[0], c.n), c[f"{kind}/auc_uniform_per_frame"]) <= 1e-12
    assert differ(per_frame(shuffled, c.at[0], c.n), c[f"{kind}/auc_shuffled_per_frame"]) <= 1e-12
    assert differ(uniform.mean(), c[f"{kind}/auc_uniform_mean_over_fixations"]) <= 1e-12
    assert differ(per_frame(uniform, c.at[0], c.n).nanmean(), c[f"{kind}/auc_uniform_mean_over_frames"]) <= 1e-12


@pytest.mark.parametrize("name, kind", [(name, kind) for name in CASES for kind in ("map", "density")])
def test_nss_is_pysaliencys_but_for_constant_maps(name: str, kind: str) -> None:
    c = case(name)
    found = nss(c.maps(kind), *c.at)
    if (name, kind) == ("constant", "map"):
        # There the mean of many 0.3 is not 0.3, and dividing rounding by rounding gave 1.
        assert (c["map/nss"] == 1).any()
        assert not found.any()
    else:
        assert differ(found, c[f"{kind}/nss"]) <= 1e-9


MAP_SCORES: dict[str, Callable] = {
    "cc": cc,
    "sim": sim,
    "kldiv_mit": kl_divergence,
    "kldiv_min1e-20": lambda truth, maps: kl_divergence(truth, maps, floor=1e-20),
}


@pytest.mark.parametrize("kind", ["map", "density", "blurred_density"])
@pytest.mark.parametrize("name", CASES)
def test_scores_of_maps_against_empirical_maps_are_pysaliencys(name: str, kind: str) -> None:
    c = case(name)
    truth = empirical_map(*c.at, c.n, c.height, c.width, c.sigma, dtype=torch.float64)
    assert differ(truth, c["empirical_map"]) <= 1e-9
    seen = c["frame_has_fixations"]
    assert np.array_equal(truth.sum((1, 2)).numpy() > 0, seen)
    for score, function in MAP_SCORES.items():
        found = function(truth, c.maps(kind)).where(torch.from_numpy(seen), torch.nan)
        assert differ(found, c[f"{kind}/{score}"]) <= 1e-9, score


@pytest.mark.parametrize("name", CASES)
def test_the_maps_made_for_the_aucs_are_pysaliencys(name: str) -> None:
    c = case(name)
    ratio = shuffled_auc_map(c.log_density, c.center_bias)
    assert differ(ratio, c["sauc_map"]) <= 1e-9
    assert differ(equalized(ratio), c["sauc_map_equalized"]) <= 1e-12
    assert differ(auc(c.log_density, *c.at), c["auc_map/auc_uniform"]) <= 1e-12
    assert differ(shuffled_auc(ratio, *c.at, *c.negatives), c["sauc_map/auc_shuffled"]) <= 1e-12


def test_fixations_of_frames_of_other_sizes_are_scaled_before_they_are_cut_to_pixels() -> None:
    file = np.load(FIXTURES / "pysaliency_mixed_sizes.npz")
    x, y, n = file["in/x"], file["in/y"], file["in/n"]
    maps = [file[f"in/saliency_{i}"] for i in range(3)]
    for i, own in enumerate(maps):
        row, col = pixels(x[n == i], y[n == i])
        here = torch.zeros_like(row)
        others = [j for j in range(3) if j != i]
        scales = {j: (own.shape[1] / maps[j].shape[1], own.shape[0] / maps[j].shape[0]) for j in others}
        rows, cols = zip(*(pixels(x[n == j], y[n == j], scale=scales[j]) for j in others), strict=True)
        found = shuffled_auc(own[None], here, row, col, None, torch.cat(rows), torch.cat(cols))
        assert differ(found, file["out/auc_shuffled"][n == i]) <= 1e-12
        assert differ(nss(own[None], here, row, col), file["out/nss"][n == i]) <= 1e-9


def test_center_biases_and_gold_standards_are_pysaliencys() -> None:
    file = np.load(FIXTURES / "pysaliency_centerbias.npz")
    n, (height, width) = file["in/n"], (int(size) for size in file["in/shape"])
    x, y = file["in/x"] / width, file["in/y"] / height
    options = {"height": height, "width": width, "eps": float(file["in/eps"])}
    bandwidth = float(file["in/bandwidth"])
    assert differ(center_bias(x, y, **options, bandwidth=bandwidth), file["out/centerbias_all"]) <= 1e-9
    same_aspect = center_bias(x, y, **options, bandwidth=bandwidth, keep_aspect=True)
    assert differ(same_aspect, file["out/centerbias_all_keep_aspect"]) <= 1e-9
    for i in range(4):
        others = center_bias(x[n != i], y[n != i], **options, bandwidth=bandwidth)
        assert differ(others, file["out/centerbias_leave_one_out"][i]) <= 1e-9
        row, col = pixels(file["in/x"][n == i], file["in/y"][n == i])
        found = log_likelihood(others[None], torch.zeros_like(row), row, col)
        assert differ(found, file["out/centerbias_leave_one_out_ll"][n == i]) <= 1e-9
        gold = gold_standard(x[n == i], y[n == i], **options, bandwidth=0.06)
        assert differ(gold, file["out/kde_gold_bandwidth0.06"][i]) <= 1e-9


def brute_auc(value: float, negatives: np.ndarray) -> float:
    """The definition: how often the fixated one wins against a random other, a draw being half a win."""
    return float(np.mean([1.0 if other < value else 0.5 if other == value else 0.0 for other in negatives]))


SMALL = hnp.arrays(np.float32, (2, 5, 7), elements=st.integers(-3, 3).map(float))  # few values, so many ties
FINE = hnp.arrays(np.float64, (2, 5, 7), elements=st.floats(-50, 50, allow_subnormal=False))
PLACES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=20)


def columns(places: list[tuple[int, int, int]]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column) for column in zip(*places, strict=True))


@given(maps=SMALL, places=PLACES, others=PLACES)
@settings(max_examples=100, deadline=None)
def test_aucs_are_shares_of_won_comparisons_with_exact_ties(maps: np.ndarray, places: list, others: list) -> None:
    at, negatives = columns(places), columns(others)
    for way in (auc(maps, *at), auc(torch.from_numpy(maps), *(torch.from_numpy(x) for x in at))):
        assert way.tolist() == [brute_auc(maps[f, r, c], maps[f].ravel()) for f, r, c in places]
    unfixated = [
        [maps[f, r, c] for r in range(5) for c in range(7) if (f, r, c) not in places] for f in range(len(maps))
    ]
    expected = [brute_auc(maps[f, r, c], np.array(unfixated[f])) for f, r, c in places]
    assert np.allclose(auc(maps, *at, negatives="unfixated"), expected, rtol=0, atol=1e-15)
    elsewhere = {f: np.array([maps[p] for p in others if p[0] == f]) for f in range(2)}
    expected = [brute_auc(maps[f, r, c], elsewhere[f]) if len(elsewhere[f]) else np.nan for f, r, c in places]
    found = shuffled_auc(maps, *at, *negatives)
    assert np.allclose(found, expected, rtol=0, atol=1e-15, equal_nan=True)


@given(maps=SMALL, places=PLACES, count_at_most=st.sampled_from([0, 100]))
@settings(max_examples=100, deadline=None)
def test_aucs_see_only_the_order_of_values(maps: np.ndarray, places: list, count_at_most: int) -> None:
    at = columns(places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "COUNT_AT_MOST", count_at_most)
        exact = auc(maps, *at)
        assert torch.equal(auc(np.exp(maps) * 3 + 1, *at), exact)
        assert torch.equal(auc(maps.astype(np.float64) ** 3, *at), exact)
        assert torch.equal(auc(maps.astype(np.float16), *at), exact)
        assert torch.allclose(auc(-maps, *at), 1 - exact, rtol=0, atol=1e-15)
        assert (auc(np.zeros_like(maps), *at) == 0.5).all()


@given(maps=SMALL, places=PLACES)
@settings(max_examples=50, deadline=None)
def test_shuffled_auc_against_every_pixel_is_the_auc(maps: np.ndarray, places: list) -> None:
    at = columns(places)
    frame, row, col = (index.ravel() for index in np.indices(maps.shape))
    assert torch.equal(shuffled_auc(maps, *at, frame, row, col), auc(maps, *at))
    once = frame == 0
    assert torch.equal(shuffled_auc(maps, *at, None, row[once], col[once]), auc(maps, *at))


@given(maps=FINE)
@settings(max_examples=100, deadline=None)
def test_nss_of_all_pixels_has_mean_0_and_variance_1_unless_the_map_is_constant(maps: np.ndarray) -> None:
    frame, row, col = (index.ravel() for index in np.indices(maps.shape))
    scores = nss(maps, frame, row, col).view(2, -1)
    constant = torch.from_numpy(maps.std((1, 2)) <= 1e-12 * abs(maps).max((1, 2)))
    assert (scores[constant] == 0).all()
    varied = scores[torch.from_numpy(maps.std((1, 2)) > 1e-6 * abs(maps).max((1, 2)))]
    assert (varied.mean(1).abs() <= 1e-8).all()
    assert ((varied.square().mean(1) - 1).abs() <= 1e-6).all()


@given(a=FINE, b=FINE)
@settings(max_examples=100, deadline=None)
def test_divergences_are_at_least_0_and_0_for_the_truth_itself(a: np.ndarray, b: np.ndarray) -> None:
    log_p, log_q = (x - np.logaddexp.reduce(x.reshape(2, -1), 1)[:, None, None] for x in (a, b))
    assert (kl_of_densities(log_p, log_q) >= -1e-9).all()
    assert (kl_divergence(np.exp(log_p), np.exp(log_q)) >= -1e-9).all()
    assert kl_of_densities(log_p, log_p).abs().max() == 0
    assert kl_divergence(np.exp(log_p), 3 * np.exp(log_p)).abs().max() <= 1e-9
    assert torch.allclose(sim(np.exp(log_p), 7 * np.exp(log_p)), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(sim(np.exp(log_p), np.exp(log_q)), sim(np.exp(log_q), np.exp(log_p)), rtol=0, atol=1e-12)


@given(maps=FINE, places=PLACES)
@settings(max_examples=50, deadline=None)
def test_nothing_is_gained_over_itself_and_gains_add_up(maps: np.ndarray, places: list) -> None:
    at = columns(places)
    log_density = maps - np.logaddexp.reduce(maps.reshape(2, -1), 1)[:, None, None]
    assert not information_gain(log_density, log_density, *at).any()
    assert not information_gain(np.full((2, 5, 7), -np.log(35)), None, *at).abs().gt(1e-12).any()
    over_first = information_gain(log_density, log_density[0], *at)
    of_first = information_gain(np.stack([log_density[0]] * 2), None, *at)
    assert torch.allclose(over_first + of_first, information_gain(log_density, None, *at), rtol=0, atol=1e-9)


def smooth_maps(n: int = 3, height: int = 60, width: int = 90) -> Tensor:
    noise = torch.randn(n, 1, 6, 8, generator=torch.Generator().manual_seed(n * width), dtype=torch.float64)
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[:, 0]


def some_fixations(n: int, height: int, width: int, k: int = 200) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(5)
    return random.integers(0, n, k), random.integers(0, height, k), random.integers(0, width, k)


def test_float32_maps_score_as_float64_ones_even_far_from_zero() -> None:
    maps, at = smooth_maps(), some_fixations(3, 60, 90)
    far = (maps / 100 + 1000).float()
    assert torch.allclose(nss(far, *at), nss(far.double(), *at), rtol=0, atol=1e-9)
    other = smooth_maps().flip(2).float()
    assert torch.allclose(cc(far, other), cc(far.double(), other.double()), rtol=0, atol=1e-6)
    positive = maps.exp()
    truth = empirical_map(*at, 3, 60, 90, 4.0)
    for score in (sim, kl_divergence):
        assert torch.allclose(score(truth, positive.float()), score(truth.double(), positive), rtol=0, atol=1e-6)


def test_scores_of_a_frame_do_not_depend_on_its_batch_or_the_order_of_fixations() -> None:
    maps, (frame, row, col) = smooth_maps(5), some_fixations(5, 60, 90)
    frame[frame == 3] = 0  # a frame that nobody looked at
    negatives = some_fixations(5, 60, 90, k=333)
    shuffle = np.random.default_rng(0).permutation(len(frame))
    for score in (auc, nss, lambda *x: shuffled_auc(*x, *negatives), lambda *x: information_gain(x[0], None, *x[1:])):
        together = score(maps, frame, row, col)
        assert torch.equal(score(maps, frame[shuffle], row[shuffle], col[shuffle]), together[shuffle])
        if score in (auc, nss):
            for i in range(5):
                own = frame == i
                alone = score(maps[i : i + 1], np.zeros(own.sum(), int), row[own], col[own])
                assert torch.allclose(alone, together[own], rtol=0, atol=1e-12)


def test_holes_score_nan_and_leave_the_other_frames_alone() -> None:
    maps, at = smooth_maps(), some_fixations(3, 60, 90)
    holed = maps.clone()
    holed[1] = torch.nan
    hit = torch.from_numpy(at[0] == 1)
    every = (np.repeat(np.arange(3), 40), np.tile(np.arange(40), 3), np.tile(np.arange(40), 3))
    for score in (auc, nss, log_likelihood, lambda *x: shuffled_auc(*x, *every)):
        assert torch.equal(score(holed, *at).isnan(), hit)
        assert torch.equal(score(holed, *at)[~hit], score(maps, *at)[~hit])
    few = tuple(x[:9] for x in at)
    assert torch.equal(auc(holed, *few).isnan(), hit[:9])
    truth = empirical_map(*at, 3, 60, 90, 4.0, dtype=torch.float64)
    for compare in (cc, sim, kl_divergence):
        assert compare(truth, holed).isnan().tolist() == [False, True, False]
    constant = torch.zeros_like(maps)
    assert cc(constant, holed).isnan().tolist() == [False, True, False]


def test_correlation_is_0_with_a_constant_map_and_undefined_between_two() -> None:
    maps = smooth_maps(2)
    flat = torch.full_like(maps, 0.3)
    assert cc(maps, flat).tolist() == [0, 0] == cc(flat, maps).tolist()
    assert cc(flat, flat).isnan().all()
    assert torch.allclose(cc(maps, 2 * maps - 5), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(cc(maps, -maps), -torch.ones(2, dtype=torch.float64))


def test_empirical_maps_are_blurred_counts_and_keep_their_number() -> None:
    at = some_fixations(3, 60, 90, k=50)
    counts = np.zeros((3, 60, 90))
    np.add.at(counts, at, 1)
    found = empirical_map(*at, 3, 60, 90, 9.0, dtype=torch.float64)
    assert torch.allclose(found, blurred(counts, 9.0, edges="reflect"), rtol=0, atol=1e-12)
    assert np.allclose(found.sum((1, 2)), counts.sum((1, 2)))
    assert np.array_equal(empirical_map(*at, 3, 60, 90, 0.0, dtype=torch.float64), counts)


def test_a_blur_of_an_inner_point_is_the_gaussian_and_what_leaves_the_frame_is_lost() -> None:
    point = torch.zeros(1, 41, 300, dtype=torch.float64)
    point[0, 20, 150] = 1
    found = blurred(point, 3.0)[0]
    offset = torch.arange(-12, 13, dtype=torch.float64)
    kernel = (-(offset**2) / 18).exp()
    kernel /= kernel.sum()
    assert torch.allclose(found[8:33, 138:163], kernel[:, None] * kernel, rtol=0, atol=1e-15)
    assert abs(float(found.sum()) - 1) <= 1e-12
    corner = torch.zeros(1, 41, 300, dtype=torch.float64)
    corner[0, 0, 0] = 1
    half = float(kernel[12:].sum())
    assert abs(float(blurred(corner, 3.0).sum()) - half**2) <= 1e-12
    assert abs(float(blurred(corner, 3.0, edges="reflect").sum()) - 1) <= 1e-12
    # A frame smaller than the kernel: its mirror image is mirrored again.
    assert torch.allclose(blurred(torch.ones(1, 3, 5), 9.0, edges="reflect"), torch.ones(1, 3, 5))


def test_per_frame_means_leave_out_frames_without_fixations() -> None:
    found = per_frame(torch.tensor([1.0, 2.0, 6.0]), np.array([2, 0, 2]), 4)
    assert found.isnan().tolist() == [False, True, False, True]
    assert found[[0, 2]].tolist() == [2.0, 3.5]
    assert per_frame([], [], 2).isnan().all()


def test_no_fixations_give_no_scores() -> None:
    nothing = (np.zeros(0, int),) * 3
    for score in (auc, nss, log_likelihood):
        assert score(smooth_maps(), *nothing).shape == (0,)
    assert empirical_map(*nothing, 2, 4, 6, 1.0).sum() == 0


def test_gaze_falls_into_the_pixel_that_holds_it() -> None:
    row, col = pixels(np.array([3.98, 0.0, 4.0]), np.array([0.5, 1.999, -0.01]))
    assert (row.tolist(), col.tolist()) == ([0, 1, -1], [3, 0, 4])
    row, col = pixels(torch.tensor([10.0]), torch.tensor([10.0]), scale=(0.55, 1.99))
    assert (int(row), int(col)) == (19, 5)


@pytest.mark.parametrize("at", [(0, -1, 0), (0, 60, 0), (0, 0, 90), (0, 0, -1), (3, 0, 0), (-1, 0, 0)])
def test_fixations_outside_are_refused_and_never_wrap(at: tuple[int, int, int]) -> None:
    place = tuple(np.array([x]) for x in at)
    for score in (auc, nss, log_likelihood):
        with pytest.raises(ValueError, match=r"outside of the frame of 90x60|not among the 3 maps"):
            score(smooth_maps(), *place)


def test_what_is_no_log_density_is_refused_with_what_it_sums_to() -> None:
    right = torch.full((3, 4, 5), -np.log(20.0))
    right[1] = torch.nan
    check_log_density(right)
    check_log_density(right + 0.009)
    right[2] += 0.25
    with pytest.raises(ValueError, match=r"map 2 is no log density: its logsumexp is 0\.25 nats"):
        check_log_density(right)


def test_baselines_need_fixations_or_a_share_of_the_uniform_density() -> None:
    uniform = center_bias([], [], 4, 6, bandwidth=0.1, eps=1.0)
    assert torch.allclose(uniform, torch.full((4, 6), -np.log(24), dtype=torch.float64))
    with pytest.raises(ValueError, match="center bias needs"):
        center_bias([], [], 4, 6, bandwidth=0.1, eps=0.0)
    with pytest.raises(ValueError, match="gold standard needs"):
        gold_standard([], [], 4, 6, bandwidth=0.1, eps=0.01)
