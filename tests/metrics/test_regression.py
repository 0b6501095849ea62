"""MAE, RMSE and R2 against scikit-learn, and metrics.json of regression outputs beside binary ones."""

import json

import numpy as np
import pandas as pd
import pytest
from known import evaluate
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from ehrdl.errors import SchemaError
from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.calibration import sigmoid
from ehrdl.metrics.regression import binned, mae, r2, rmse
from ehrdl.schema import PREDICTIONS, check

OURS = {"mae": mae, "rmse": rmse, "r2": r2}
THEIRS = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
NOISE = {"fused": 0.5, "gradient_boosting": 1.0, "prevalence": None}


def predictions(n=300, numbers=("days",), binary=(), seed=0):
    """PREDICTIONS of three models; `fused` has two seeds."""
    rng = np.random.default_rng(seed)
    subject, frames = np.sort(rng.integers(0, n // 2, n)), []
    for output in (*numbers, *binary):
        truth = rng.normal(4, 2, n)
        label = truth if output in numbers else (rng.random(n) < sigmoid(truth - 4)).astype(float)
        for model, noise in NOISE.items():
            for fit in (0, 1) if model == "fused" else (0,):
                value = np.full(n, 4.0) if noise is None else truth + noise * rng.normal(size=n)
                rows = {"sample_id": np.arange(n), "subject_id": subject, "model": model, "seed": fit, "label": label}
                held = {"value": value, "prob": np.nan} if output in numbers else {"prob": sigmoid(value - 4)}
                frames.append(pd.DataFrame({**rows, "output": output, "value": np.nan, **held}))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(split="held_out", prediction_time=pd.Timestamp("2150-01-01"), prob_calibrated=np.nan)


@pytest.mark.parametrize("name", OURS)
def test_it_is_scikit_learns_number_under_every_weight(name):
    rng = np.random.default_rng(0)
    label, value = 100 + rng.normal(size=80), 100 + rng.normal(size=80)
    weight = rng.integers(0, 4, (5, 80)).astype(float)
    assert OURS[name](label, value) == pytest.approx(THEIRS[name](label, value))
    expected = [THEIRS[name](label, value, sample_weight=row) for row in weight]
    np.testing.assert_allclose(OURS[name](label, value, weight), expected)


def test_r2_of_labels_that_do_not_differ_is_undefined_and_nothing_has_no_error():
    assert np.isnan(r2([7.1, 7.1, 7.1], [7, 7.5, 7]))
    assert np.isnan(r2([1, 2, 3], [1, 2, 3], [[0, 2, 0]])).all()
    assert np.isnan(mae([1, 2], [1, 2], [[0, 0]])).all()


def test_bins_hold_equal_shares_and_a_constant_has_one():
    value = np.arange(100.0)
    predicted, observed, error, count = binned(2 * value, value)
    np.testing.assert_allclose(predicted, 4.5 + 10 * np.arange(10))
    np.testing.assert_allclose(observed, 9 + 20 * np.arange(10))
    np.testing.assert_allclose(error, 2 * np.arange(10).std(ddof=1) / np.sqrt(10))
    assert count.tolist() == [10] * 10
    assert binned(value, np.full(100, 3.0))[3].tolist() == [100]


def test_a_regression_output_has_its_own_metrics_with_intervals_and_differences():
    table = predictions()
    check(table, PREDICTIONS)
    result = evaluate(table, n_bootstrap=60, units={"days": "d"})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    output = result["outputs"]["days"]
    assert (output["kind"], output["unit"], output["n"], output["draws"]) == ("regression", "d", 300, 60)
    assert (output["events"], output["prevalence"], output["bayes_auroc"]) == (None, None, None)
    label = table.label[(table.model == "prevalence")]
    assert output["label_mean"] == pytest.approx(label.mean()) and output["label_sd"] == pytest.approx(
        label.std(ddof=0)
    )
    fits = [rows for _, rows in table[table.model == "fused"].groupby("seed")]
    for name, theirs in THEIRS.items():
        got = output["models"]["fused"][name]
        expected = [theirs(rows.label, rows.value) for rows in fits]
        assert got["per_seed"] == pytest.approx(expected) and got["value"] == pytest.approx(np.mean(expected))
        assert got["low"] < got["value"] < got["high"]
    assert list(output["differences"]) == ["fused - gradient_boosting", "fused - prevalence"]
    assert output["differences"]["fused - prevalence"]["mae"]["high"] < 0
    assert output["differences"]["fused - prevalence"]["r2"]["low"] > 0


def test_the_interval_is_the_bootstrap_of_the_mean_over_seeds():
    table = predictions(120)
    got = evaluate(table, n_bootstrap=40, seed=3)["outputs"]["days"]["models"]["fused"]["rmse"]
    fits = [rows for _, rows in table[table.model == "fused"].groupby("seed")]
    subjects, place = np.unique(fits[0].subject_id, return_inverse=True)
    means = [
        np.mean([root_mean_squared_error(rows.label, rows.value, sample_weight=draw[place]) for rows in fits])
        for counts in subject_draws(len(subjects), 40, seed=3, n_samples=120)
        for draw in counts
    ]
    assert (got["low"], got["high"]) == pytest.approx(interval(np.array(means)))


def test_macro_is_the_mean_over_outputs_of_one_kind_and_micro_pools_the_binary_ones():
    table = predictions(200, numbers=("days", "weeks"), binary=("death", "sepsis"))
    result = evaluate(table, n_bootstrap=20)
    macro = result["macro"]["models"]["fused"]
    assert list(macro) == ["auroc", "auprc", "brier", "ece", "calibration_slope", "calibration_intercept", *OURS]
    for names, metric in ((("days", "weeks"), "mae"), (("death", "sepsis"), "auroc")):
        single = [result["outputs"][name]["models"]["fused"][metric]["value"] for name in names]
        assert macro[metric]["value"] == pytest.approx(np.mean(single))
    alone = evaluate(table[table.output.isin(["death", "sepsis"])], n_bootstrap=20)
    assert result["micro"] == alone["micro"]
    assert {name: result["outputs"][name] for name in ("death", "sepsis")} == alone["outputs"]
    assert {name: value for name, value in macro.items() if name not in OURS} == alone["macro"]["models"]["fused"]


def test_errors_in_different_units_have_no_mean_but_r2_has():
    table = predictions(100, numbers=("days", "pressure"))
    macro = evaluate(table, n_bootstrap=20, units={"days": "d", "pressure": "mmHg"})["macro"]["models"]["fused"]
    nothing = {"value": None, "low": None, "high": None, "per_seed": [None, None]}
    assert macro["mae"] == nothing and macro["rmse"] == nothing
    assert macro["r2"]["low"] < macro["r2"]["value"] < macro["r2"]["high"]


def test_one_output_of_each_kind_are_their_own_averages():
    result = evaluate(predictions(100, binary=("death",)), n_bootstrap=20)
    assert result["micro"] == {key: result["outputs"]["death"][key] for key in ("models", "differences")}
    fused = [result["outputs"][name]["models"]["fused"] for name in ("death", "days")]
    assert result["macro"]["models"]["fused"] == fused[0] | fused[1]
    assert evaluate(predictions(100), n_bootstrap=20)["micro"] == {"models": {}, "differences": {}}


def test_unknown_values_are_left_out_and_an_output_without_any_is_refused():
    table = predictions()
    table.loc[table.sample_id < 30, "label"] = np.nan
    output = evaluate(table, n_bootstrap=5)["outputs"]["days"]
    assert (output["n"], output["unknown"]) == (270, 30)
    with pytest.raises(SchemaError, match="split held_out, output days has no known label"):
        evaluate(table.assign(label=np.nan), n_bootstrap=5)
