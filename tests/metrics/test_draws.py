"""Metrics in many draws at once are those of their formulas on the draws' weights."""

import numpy as np
import pytest

from ehrdl.metrics.bootstrap import subject_counts, subject_draws
from ehrdl.metrics.calibration import sigmoid
from ehrdl.metrics.catalogue import BY_KIND, METRICS, Metric, score_draws
from ehrdl.metrics.families.recalibration import Recalibration, _derivative
from ehrdl.schema import BINARY, REGRESSION


def predictions(n, n_subjects, seed=0, decimals=None, slope=1.3):
    """Labels, risks and subjects: some subjects have many samples, others none."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    label = (rng.random(n) < sigmoid(x - 2)).astype(np.float64)
    prob = sigmoid(slope * x - 1.5)
    return label, prob if decimals is None else np.round(prob, decimals), rng.integers(n_subjects, size=n)


def counts_of(n_subjects, n_draws, seed=3):
    return np.concatenate(list(subject_counts(n_subjects, n_draws, seed)))


def by_formula(metrics, label, prob, subject, counts):
    with np.errstate(invalid="ignore"):
        weight = counts[:, subject].astype(np.float64)
        return np.stack([metric.score(label, prob, weight) for metric in metrics.values()])


@pytest.mark.parametrize("decimals", [None, 2, 1], ids=["distinct", "tied", "few values"])
@pytest.mark.parametrize(("n", "n_subjects"), [(60, 40), (900, 900), (4000, 700)])
def test_every_metric_in_every_draw_is_its_formula(n, n_subjects, decimals):
    label, prob, subject = predictions(n, n_subjects, decimals=decimals)
    counts = counts_of(n_subjects, 40)
    got, want = score_draws(METRICS, label, prob, subject, counts), by_formula(METRICS, label, prob, subject, counts)
    known = np.isfinite(want)  # Newton's method can fail for a few risks from afar, and not from near
    assert known.mean() > 0.99
    np.testing.assert_allclose(got[known], want[known], rtol=0, atol=1e-9)


def test_errors_of_predicted_numbers_are_their_formulas():
    rng = np.random.default_rng(0)
    label, value, subject = rng.normal(50, 9, 700), rng.normal(50, 9, 700), rng.integers(300, size=700)
    counts, metrics = counts_of(300, 50), BY_KIND[REGRESSION]
    got = score_draws(metrics, label, value, subject, counts)
    np.testing.assert_allclose(got, by_formula(metrics, label, value, subject, counts), rtol=1e-12)


@pytest.mark.parametrize("slope", [0.05, 8.0], ids=["nearly constant", "extreme"])
def test_the_expanded_regressions_are_accurate_for_odd_risks(slope):
    label, prob, subject = predictions(6000, 6000, slope=slope)
    counts = counts_of(6000, 60)
    made = Recalibration(label, prob, subject, 6000)
    assert made.slope.n_columns  # expanded, and not fitted draw by draw
    got = made(counts)
    want = by_formula(METRICS, label, prob, subject, counts)
    for name in got:
        np.testing.assert_allclose(got[name], want[list(METRICS).index(name)], rtol=1e-8, atol=1e-9)


def test_draws_far_from_all_samples_are_fitted_directly():
    label, prob, subject = predictions(3000, 12)  # twelve subjects: a draw can lack half of the samples
    counts = counts_of(12, 100)
    got = score_draws(METRICS, label, prob, subject, counts)
    np.testing.assert_allclose(got, by_formula(METRICS, label, prob, subject, counts), rtol=0, atol=1e-8)


def test_what_is_undefined_is_nan_in_both():
    label, prob = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
    subject = np.arange(4)
    counts = np.array([[2, 2, 0, 0], [0, 0, 2, 2], [1, 1, 1, 1], [0, 0, 0, 0]], np.uint8)
    got = score_draws({"auroc": METRICS["auroc"], "auprc": METRICS["auprc"]}, label, prob, subject, counts)
    assert np.isnan(got[:, [0, 3]]).all() and np.isnan(got[0, 1])
    assert got[:, 2].tolist() == [1.0, 1.0]
    slope = score_draws({"calibration_slope": METRICS["calibration_slope"]}, label, prob, subject, counts[2:3])
    assert np.isnan(slope).all()  # the classes are separable


def test_a_constant_prediction_has_no_slope_and_an_intercept():
    label, _, subject = predictions(5000, 5000)
    counts, prob = counts_of(5000, 20), np.full(5000, 0.2)
    got = dict(zip(METRICS, score_draws(METRICS, label, prob, subject, counts), strict=True))
    assert np.isnan(got["calibration_slope"]).all() and np.isfinite(got["calibration_intercept"]).all()
    assert got["auroc"].tolist() == [0.5] * 20


def test_a_metric_without_a_family_is_its_formula():
    label, prob, subject = predictions(80, 50)
    accuracy = Metric(lambda y, p, w: w @ ((p > 0.5) == y) / w.sum(-1), "Accuracy", "higher is better")
    counts = counts_of(50, 30)
    [got] = score_draws({"accuracy": accuracy}, label, prob, subject, counts)
    np.testing.assert_allclose(got, accuracy.score(label, prob, counts[:, subject].astype(float)))


@pytest.mark.parametrize("n_subjects", [1, 7, 70_000])
def test_counts_are_the_draws_of_subjects_as_small_integers(n_subjects):
    counts = counts_of(n_subjects, 6)
    assert counts.dtype == np.uint8 and counts.shape == (6, n_subjects)
    np.testing.assert_array_equal(counts, np.concatenate(list(subject_draws(n_subjects, 6, 3, n_subjects))))


def test_a_draw_of_everyone_comes_first_and_blocks_are_cut_where_memory_ends(monkeypatch):
    monkeypatch.setattr("ehrdl.metrics.bootstrap._COUNTS", 4 * 50)
    blocks = list(subject_counts(50, 9, 3, all_first=True))
    assert [len(block) for block in blocks] == [4, 4, 2]
    whole = np.concatenate(blocks)
    assert (whole[0] == 1).all()
    np.testing.assert_array_equal(whole[1:], counts_of(50, 9))
    assert [len(block) for block in subject_counts(50, 0, 3, all_first=True)] == [1]
    assert list(subject_counts(50, 0, 3)) == []


def test_a_subject_drawn_more_than_255_times_is_counted():
    assert counts_of(1, 2).tolist() == [[1], [1]]
    label, prob = np.array([0.0, 1.0]), np.array([0.3, 0.2])
    counts = np.array([[300, 70_000]], np.uint32)
    got = dict(zip(METRICS, score_draws(METRICS, label, prob, np.arange(2), counts), strict=True))
    assert got["auroc"].tolist() == [0.0] and got["auprc"][0] == pytest.approx(70_000 / 70_300)
    assert BY_KIND[BINARY] is METRICS


@pytest.mark.parametrize("order", range(1, 7))
def test_derivatives_of_the_sigmoid_are_its_slopes(order):
    x, step = np.linspace(-6, 6, 41), 1e-5
    lower = (lambda x: sigmoid(x)) if order == 1 else (lambda x: _derivative(sigmoid(x), order - 1))
    slope = (lower(x + step) - lower(x - step)) / (2 * step)
    np.testing.assert_allclose(_derivative(sigmoid(x), order), slope, atol=1e-8)
