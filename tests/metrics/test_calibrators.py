"""Calibrators against scikit-learn and closed forms, and what they do where little can be fitted."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ehrdl.metrics.calibration import calibration_intercept, logit, sigmoid
from ehrdl.metrics.calibrators import SAME, Isotonic, Platt, calibrator_of, few_for_isotonic, fit_by

METHODS = ("platt", "temperature", "isotonic", "prior")


def data(n=2000, seed=0):
    """Outcomes, and risks that are too extreme and too high."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.5, 1, n)
    return (rng.random(n) < sigmoid(odds)).astype(float), sigmoid(1.7 * odds + 0.8)


def test_platt_is_scikit_learns_logistic_regression_of_the_logit():
    label, prob = data()
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(prob)[:, None], label)
    expected = fitted.predict_proba(logit(prob)[:, None])[:, 1]
    np.testing.assert_allclose(fit_by("platt", prob, label).apply(prob), expected, atol=1e-7)


def test_temperature_is_the_one_slope_with_the_lowest_log_loss():
    label, prob = data()
    x = logit(prob)
    best = minimize_scalar(lambda b: (np.logaddexp(0, b * x) - label * b * x).sum(), (0.1, 3), tol=1e-12)
    without = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x[:, None], label)
    found = fit_by("temperature", prob, label)
    assert found.a == 0
    assert found.b == pytest.approx(best.x, abs=1e-6)
    assert found.b == pytest.approx(without.coef_[0, 0], abs=1e-5)


def test_isotonic_is_scikit_learns_with_ties_joined():
    label, prob = data()
    prob = prob.round(2)
    new = np.linspace(0, 1, 501)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(prob, label)
    np.testing.assert_allclose(fit_by("isotonic", prob, label).apply(new), fitted.predict(new), atol=1e-12)


def test_prior_moves_the_mean_risk_to_the_prevalence_and_nothing_else():
    label, prob = data()
    found = fit_by("prior", prob, label)
    assert found.b == 1
    assert found.apply(prob).mean() == pytest.approx(label.mean(), abs=1e-9)
    assert found.a == pytest.approx(float(calibration_intercept(label, prob)), abs=1e-9)


def test_prior_of_a_constant_risk_is_the_difference_of_the_log_odds():
    found = fit_by("prior", np.full(10, 0.5), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert found.a == pytest.approx(np.log(2 / 8), abs=1e-9)


def test_unknown_labels_are_left_out():
    label, prob = data(300)
    unknown = np.r_[label, np.full(5, np.nan)]
    for method in METHODS:
        assert fit_by(method, np.r_[prob, np.full(5, 0.9)], unknown) == fit_by(method, prob, label)


def test_none_is_no_calibrator():
    assert fit_by("none", *data()[::-1]) is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("prob", "label"),
    [
        (np.full(8, 0.3), [0, 0, 0, 0, 0, 0, 1, 1]),  # constant
        ([0.1, 0.2, 0.6, 0.7], [0, 0, 1, 1]),  # separable
        ([0.1, 0.2, 0.8, 0.9], [1, 0, 1, 0]),  # the wrong way round
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0]),  # no slope through 0
        ([0.0, 0.0, 1.0, 1.0], [0, 1, 0, 1]),  # certain, and wrong
        ([0.2, 0.4], [0, 0]),  # one class
        ([0.2, 0.4], [1, 1]),
        ([], []),
    ],
)
def test_where_little_can_be_fitted_risks_stay_risks_in_their_order(method, prob, label):
    found = fit_by(method, prob, label)
    risk = found.apply(np.linspace(0, 1, 101))
    assert np.isfinite(risk).all() and (risk >= 0).all() and (risk <= 1).all()
    assert (np.diff(risk) >= 0).all()
    if len(set(label)) < 2:
        assert found == SAME
    elif method != "temperature":
        assert found.apply(prob).mean() == pytest.approx(np.mean(label), abs=1e-6)


def test_classes_that_a_curve_would_separate_get_the_intercept_alone():
    found = fit_by("isotonic", [0.1, 0.2, 0.6, 0.7], [0, 0, 1, 1])
    assert isinstance(found, Platt) and found.b == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_calibrator_is_the_fitted_one(method):
    label, prob = data(500)
    found = fit_by(method, prob, label)
    again = calibrator_of(json.loads(json.dumps({"method": method, **found._asdict()})))
    assert type(again) is type(found)
    np.testing.assert_array_equal(again.apply(prob), found.apply(prob))


def test_a_calibrator_of_an_older_run_has_no_method():
    assert calibrator_of({"model": "fused", "a": 0.5, "b": 2}) == Platt(0.5, 2.0)


@pytest.mark.parametrize(
    "stored",
    [
        {"a": np.nan, "b": 1.0},
        {"x": [0.1, 0.2], "y": [0.2, 0.1]},
        {"x": [0.2, 0.1], "y": [0.1, 0.2]},
        {"x": [0.1], "y": [0.1, 0.2]},
        {"x": [], "y": []},
        {"x": [0.1], "y": [np.inf]},
    ],
)
def test_a_damaged_calibrator_is_refused(stored):
    with pytest.raises(ValueError, match="recalibration"):
        calibrator_of(stored)


def test_isotonic_of_a_small_split_is_worse_on_new_patients_than_platt():
    """Niculescu-Mizil & Caruana, ICML 2005: with few cases, the curve follows chance."""
    new_label, new_prob = data(20_000, seed=99)
    errors = {"platt": [], "isotonic": []}
    for seed in range(20):
        label, prob = data(100, seed)
        for method, found in errors.items():
            found.append(((fit_by(method, prob, label).apply(new_prob) - new_label) ** 2).mean())
    assert np.mean(errors["isotonic"]) > np.mean(errors["platt"])


def test_few_is_under_a_thousand_samples_or_a_hundred_of_a_class():
    assert few_for_isotonic(np.r_[np.ones(400), np.zeros(599)])
    assert few_for_isotonic(np.r_[np.ones(99), np.zeros(5000), np.full(9, np.nan)])
    assert not few_for_isotonic(np.r_[np.ones(100), np.zeros(900)])
    assert isinstance(fit_by("isotonic", *data()[::-1]), Isotonic)
