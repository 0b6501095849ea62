"""AUROC and AUPRC against scikit-learn, hand-computed values and repeated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from ehrdl.metrics.discrimination import auprc, auroc, pr_curve, roc_curve

SKLEARN = [(auroc, roc_auc_score), (auprc, average_precision_score)]


def data(n=400, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    prob = rng.random(n)
    label = (rng.random(n) < prob**2).astype(float)
    return label, np.round(prob, 1) if ties else prob


@pytest.mark.parametrize(("ours", "theirs"), SKLEARN)
@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn_with_and_without_weights(ours, theirs, ties):
    label, prob = data(ties=ties)
    weight = np.random.default_rng(1).integers(0, 4, len(label)).astype(float)
    assert ours(label, prob) == pytest.approx(theirs(label, prob), abs=1e-12)
    assert ours(label, prob, weight) == pytest.approx(theirs(label, prob, sample_weight=weight), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 3)), min_size=2, max_size=20))
def test_a_weight_is_the_same_as_repeating_the_row(rows):
    label, prob, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    if 0 < label.sum() < len(label):
        repeats = weight.astype(int)
        for metric in (auroc, auprc):
            repeated = metric(np.repeat(label, repeats), np.repeat(prob, repeats))
            assert metric(label, prob, weight) == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("metric", [auroc, auprc])
def test_many_draws_at_once_equal_one_by_one(metric):
    label, prob = data(ties=True)
    weight = np.random.default_rng(2).integers(0, 3, (5, len(label)))
    assert metric(label, prob, weight) == pytest.approx([float(metric(label, prob, row)) for row in weight])


def test_hand_computed_values_and_a_constant_prediction():
    assert auroc([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == 0.75
    assert auprc([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx((1 + 2 / 3) / 2)
    assert auroc([1, 0, 0, 0], np.full(4, 0.3)) == 0.5
    assert auprc([1, 0, 0, 0], np.full(4, 0.3)) == 0.25


def test_one_class_has_no_value():
    assert np.isnan(auroc([1, 1], [0.2, 0.3])) and np.isnan(auroc([0, 0], [0.2, 0.3]))
    assert np.isnan(auprc([0, 0], [0.2, 0.3]))


def test_area_under_the_roc_points_is_the_auroc_and_recall_rises():
    label, prob = data()
    assert auc(*roc_curve(label, prob)) == pytest.approx(float(auroc(label, prob)))
    recall, precision = pr_curve(label, prob)
    assert (np.diff(recall) >= 0).all() and recall[0] == 0 and recall[-1] == 1
    assert precision[-1] == pytest.approx(label.mean(), abs=0.02)


@pytest.mark.parametrize("decimals", [1, 9])
def test_curves_are_scikit_learns(decimals):
    rng = np.random.default_rng(0)
    label, prob, weight = rng.integers(2, size=300), np.round(rng.random(300), decimals), rng.integers(1, 4, size=300)
    false_rate, true_rate, _ = metrics.roc_curve(label, prob, sample_weight=weight, drop_intermediate=False)
    for got, want in zip(roc_curve(label, prob, weight), (false_rate, true_rate), strict=True):
        np.testing.assert_allclose(np.unique(got), np.unique(want), atol=1e-12)
    precision, recall, _ = metrics.precision_recall_curve(label, prob, sample_weight=weight)
    for got, want in zip(pr_curve(label, prob, weight), (recall[::-1], precision[::-1]), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
