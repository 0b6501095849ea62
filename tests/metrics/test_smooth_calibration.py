"""The smooth calibration error and the calibration curve, against relplot, the definition and hand-made cases."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.metrics.evaluate import Outcome
from ehrdl.metrics.smooth_calibration import N_POINTS, smooth_curve, smooth_ece, smooth_eces

relplot = pytest.importorskip("relplot.metrics", reason="relplot is not installed")


def sample(n, seed=0, tilt=1.2):
    """Risks well inside (0, 1), where no kernel reaches the ends, and outcomes that are not calibrated to them."""
    rng = np.random.default_rng(seed)
    prob = 0.35 + 0.3 * rng.beta(3, 4, n)
    return (rng.random(n) < np.clip(tilt * prob - 0.05, 0, 1)).astype(float), prob


@pytest.mark.parametrize(("n", "bandwidth"), [(200, 0.02), (3000, 0.03), (50_000, 0.05)])
def test_error_at_a_bandwidth_equals_relplot(n, bandwidth, monkeypatch):
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", N_POINTS)
    label, prob = sample(n)
    theirs = relplot.smECE_sigma(prob, label, bandwidth)
    assert smooth_ece(label, prob, bandwidth) == pytest.approx(theirs * (1 + 1e-4 / n), abs=1e-9)  # it adds 1e-4


@pytest.mark.parametrize("n", [200, 3000])
def test_chosen_bandwidth_is_the_one_that_equals_the_error_and_lies_where_relplot_stops(n):
    label, prob = sample(n, seed=1)
    value = smooth_ece(label, prob)
    assert smooth_ece(label, prob, value) == pytest.approx(value, abs=1e-9)
    _, width = relplot.smECE(prob, label, return_width=True)
    assert abs(value - width) <= 2**-10


def test_error_equals_the_definition_with_every_mirror_image_of_the_kernel():
    rng = np.random.default_rng(2)
    prob = rng.integers(0, N_POINTS, 300) / (N_POINTS - 1)
    prob[:60], prob[60:90] = 0.0, 1.0
    label = (rng.random(300) < 0.3 + 0.4 * prob).astype(float)
    at, sigma = np.linspace(0, 1, N_POINTS), 0.07
    images = [prob + 2 * k for k in range(-3, 4)] + [2 * k - prob for k in range(-3, 4)]
    kernel = sum(np.exp(-0.5 * ((at[:, None] - place) / sigma) ** 2) for place in images) / (sigma * np.sqrt(2 * np.pi))
    expected = np.trapezoid(np.abs(kernel @ (label - prob)), at) / len(prob)
    assert smooth_ece(label, prob, sigma) == pytest.approx(expected, abs=1e-9)


def test_risks_of_exactly_zero_count_as_whole_samples():
    """relplot 1.0.3 counts them half, and gives 0.103 here."""
    prob = np.r_[np.zeros(500), np.full(500, 0.5)]
    label = np.r_[np.arange(500) % 10 < 3, np.arange(500) % 2].astype(float)
    assert smooth_ece(label, prob, 0.02) == pytest.approx(0.15, abs=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.4, 1.0])
def test_error_of_a_constant_is_its_distance_from_the_prevalence(constant):
    label = np.arange(1000) % 4 == 0
    assert smooth_ece(label.astype(float), np.full(1000, constant)) == pytest.approx(abs(constant - 0.25), abs=1e-9)


def test_a_calibrated_model_has_an_error_near_zero_and_its_curve_covers_the_diagonal():
    rng = np.random.default_rng(3)
    prob = rng.beta(2, 5, 20_000)
    label = (rng.random(20_000) < prob).astype(float)
    assert smooth_ece(label, prob) < 0.01
    curve = smooth_curve(label, prob, np.arange(20_000) // 2)
    seen = (curve.near > 50).all(0)
    inside = (curve.low[seen] <= curve.predicted[seen]) & (curve.predicted[seen] <= curve.high[seen])
    assert inside.mean() > 0.8 and seen.mean() > 0.4
    assert (curve.low[seen] <= curve.observed[seen]).all() and (curve.observed[seen] <= curve.high[seen]).all()


def test_curve_follows_the_true_share_of_a_model_that_says_too_much():
    rng = np.random.default_rng(4)
    prob = rng.beta(2, 3, 100_000)
    label = (rng.random(100_000) < prob / 2).astype(float)
    curve = smooth_curve(label, prob, np.arange(100_000), n_draws=50)
    middle = slice(200, 700)
    np.testing.assert_allclose(curve.observed[middle], curve.predicted[middle] / 2, atol=0.02)
    assert curve.near.sum(0)[300] == pytest.approx(100_000 * 1.764 * np.sqrt(2 * np.pi) * curve.bandwidth, rel=0.02)


def test_band_widens_as_samples_of_one_patient_repeat():
    label, prob = sample(1500, seed=5)
    alone = smooth_curve(label, prob, np.arange(1500))
    repeated = smooth_curve(np.tile(label, 4), np.tile(prob, 4), np.tile(np.arange(1500), 4))
    at = 480
    np.testing.assert_allclose(repeated.observed[at], alone.observed[at])
    assert repeated.high[at] - repeated.low[at] == pytest.approx(alone.high[at] - alone.low[at], rel=1e-9)


def outcome_of(label, prob):
    rows = pd.DataFrame({"subject_id": np.arange(len(label)) // 2})
    return Outcome("died", "held_out", rows, label, prob, {}, 0)


def test_intervals_are_those_of_a_naive_bootstrap_and_differences_are_paired():
    label, prob = sample(600, seed=6)
    found = smooth_eces(outcome_of(label, {"a": prob[None], "b": (prob * 0.8)[None]}), "a", n_draws=200)
    rng = np.random.default_rng(7)
    values, gaps = [], []
    for _ in range(150):
        rows = (2 * rng.integers(300, size=300)[:, None] + np.array([0, 1])).ravel()
        one, other = (smooth_ece(label[rows], risk[rows]) for risk in (prob, prob * 0.8))
        values.append(one)
        gaps.append(one - other)
    truth = smooth_ece(label, prob), smooth_ece(label, prob) - smooth_ece(label, prob * 0.8)
    for mine, naive, value in zip(
        (found["models"]["a"], found["differences"]["a - b"]), (values, gaps), truth, strict=True
    ):
        expected = np.percentile(naive, [2.5, 97.5]) - (np.mean(naive) - value)
        assert [mine["low"], mine["high"]] == pytest.approx(expected, abs=0.015)
        assert mine["low"] < value < mine["high"]
    assert found["models"]["a"]["value"] == pytest.approx(smooth_ece(label, prob), abs=1e-12)
    assert found["differences"]["a - b"]["value"] < 0


def test_value_is_the_mean_over_seeds():
    label, prob = sample(400, seed=8)
    found = smooth_eces(outcome_of(label, {"a": np.stack([prob, prob**2])}), None, n_draws=10)
    assert found["models"]["a"]["value"] == pytest.approx((smooth_ece(label, prob) + smooth_ece(label, prob**2)) / 2)
    assert found["differences"] == {} and found["draws"] == 10
