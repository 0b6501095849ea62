"""Calibration measures against scikit-learn, closed forms and hand-computed values."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from ehrdl.metrics.calibration import (
    brier,
    calibration_curve,
    calibration_intercept,
    calibration_slope,
    ece,
    logit,
    sigmoid,
)
from ehrdl.metrics.calibrators import Platt, fit_calibrator

METRICS = [brier, ece, calibration_slope, calibration_intercept]


def data(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    prob = sigmoid(rng.normal(-1.5, 1, n))
    return (rng.random(n) < prob).astype(float), prob


def test_brier_equals_scikit_learn():
    label, prob = data()
    assert brier(label, prob) == pytest.approx(brier_score_loss(label, prob))


def test_ece_by_hand():
    # bins {0.1, 0.2} and {0.6, 0.9}: gaps |0.5 - 0.15| and |1 - 0.75|, each half of the mass
    assert ece([0, 1, 1, 1], [0.1, 0.2, 0.6, 0.9], n_bins=2) == pytest.approx((0.35 + 0.25) / 2)


def test_ece_does_not_depend_on_the_order_of_ties():
    label, prob = data(500)
    prob = np.round(prob, 1)
    order = np.random.default_rng(1).permutation(len(label))
    assert ece(label, prob) == pytest.approx(float(ece(label[order], prob[order])))
    assert ece(label, np.full(500, 0.25)) == pytest.approx(abs(label.mean() - 0.25))


def test_slope_of_the_true_risk_is_about_one_and_its_intercept_about_zero():
    label, prob = data(40_000)
    assert calibration_slope(label, prob) == pytest.approx(1, abs=0.05)
    assert calibration_intercept(label, prob) == pytest.approx(0, abs=0.05)


def test_slope_halves_when_the_logits_are_doubled_and_intercept_follows_a_shift():
    label, prob = data()
    doubled, shifted = sigmoid(2 * logit(prob)), sigmoid(logit(prob) + 0.7)
    assert calibration_slope(label, doubled) == pytest.approx(float(calibration_slope(label, prob)) / 2)
    expected = float(calibration_intercept(label, prob)) - 0.7
    assert calibration_intercept(label, shifted) == pytest.approx(expected, abs=1e-6)


def test_slope_equals_unpenalised_logistic_regression_with_weights():
    label, prob = data()
    weight = np.random.default_rng(1).integers(0, 3, len(label)).astype(float)
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(prob)[:, None], label, sample_weight=weight)
    assert calibration_slope(label, prob, weight) == pytest.approx(fit.coef_[0, 0], abs=1e-5)


def test_intercept_of_a_constant_prediction_is_the_difference_of_log_odds():
    label = np.array([1, 0, 0, 0, 0])
    assert calibration_intercept(label, np.full(5, 0.5)) == pytest.approx(np.log(0.25))


def test_slope_does_not_exist_for_a_constant_or_separable_prediction():
    assert np.isnan(calibration_slope([0, 1, 0, 1], np.full(4, 0.3)))
    assert np.isnan(calibration_slope([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize("metric", METRICS)
def test_a_weight_is_the_same_as_repeating_the_row_in_every_draw(metric):
    label, prob = data(300)
    prob = np.round(prob, 2)
    weight = np.random.default_rng(2).integers(0, 4, (6, len(label)))
    expected = [float(metric(np.repeat(label, row), np.repeat(prob, row))) for row in weight]
    assert metric(label, prob, weight) == pytest.approx(expected, abs=1e-8)


def test_a_separable_draw_has_no_slope_and_leaves_the_others_alone():
    label, prob = data(300)
    weight = np.ones((3, 300))
    weight[1] = ((label == 1) & (prob > 0.5)) | ((label == 0) & (prob < 0.4))
    slopes = calibration_slope(label, prob, weight)
    assert np.isnan(slopes).tolist() == [False, True, False]
    assert slopes[0] == pytest.approx(float(calibration_slope(label, prob)))


def test_forest_probabilities_of_zero_and_one_are_taken():
    label, prob = data(500)
    prob[:20], prob[20:25] = 0.0, 1.0
    for metric in METRICS:
        assert np.isfinite(metric(label, prob))


def test_curve_has_ten_bins_of_equal_size_and_its_gaps_give_the_ece():
    label, prob = data(1000)
    predicted, observed, count = calibration_curve(label, prob)
    assert count.tolist() == [100.0] * 10
    assert np.abs(predicted - observed) @ count / 1000 == pytest.approx(float(ece(label, prob)))
    assert calibration_curve(label, np.full(1000, 0.2))[2].tolist() == [1000.0]


def test_calibrator_gives_slope_one_and_intercept_zero_on_what_it_was_fitted_to():
    label, prob = data()
    distorted = sigmoid(2.5 * logit(prob) + 1)
    label[:5] = np.nan
    platt = fit_calibrator(distorted, label)
    mended, known = platt.apply(distorted)[5:], label[5:]
    assert calibration_slope(known, mended) == pytest.approx(1, abs=1e-6)
    assert calibration_intercept(known, mended) == pytest.approx(0, abs=1e-6)
    assert Platt(*json.loads(json.dumps(platt))) == platt


@pytest.mark.parametrize(
    ("prob", "label", "slope"),
    [
        (np.full(4, 0.9), [0, 0, 0, 1], 1.0),  # constant
        ([0.1, 0.2, 0.6, 0.7], [0, 0, 1, 1], 1.0),  # separable
        ([0.1, 0.2, 0.8, 0.9], [1, 0, 1, 0], 1.0),  # would turn the ranking round
    ],
)
def test_calibrator_falls_back_to_the_intercept(prob, label, slope):
    platt = fit_calibrator(prob, label)
    assert platt.b == slope
    assert platt.apply(prob).mean() == pytest.approx(np.mean(label), abs=1e-6)


def test_calibrator_of_one_class_changes_nothing():
    assert fit_calibrator([0.2, 0.4], [0, 0]) == Platt(0.0, 1.0)
    assert fit_calibrator([], []) == Platt(0.0, 1.0)


def test_predictions_that_hardly_differ_get_a_finite_recalibration():
    label = np.r_[np.ones(18), np.zeros(169)]
    prob = 0.13967 + 0.00018 * np.r_[np.ones(2), np.zeros(16), np.ones(10), np.zeros(159)]
    fitted = fit_calibrator(prob, label)
    assert np.isfinite(fitted.a) and np.isfinite(fitted.b)
    assert float(fitted.apply(prob).mean()) == pytest.approx(label.mean(), abs=1e-6)


def test_slope_and_intercept_are_those_of_statsmodels():
    """The file has risks of two decimals and labels. Its answers are those of statsmodels 0.15.0 (GLM, binomial)."""
    known = json.loads(Path(__file__).with_name("statsmodels.json").read_text())
    label, prob = np.array(known["label"]), np.array(known["prob"])
    assert float(calibration_slope(label, prob)) == pytest.approx(known["slope"], abs=1e-9)
    assert float(calibration_intercept(label, prob)) == pytest.approx(known["intercept"], abs=1e-9)
