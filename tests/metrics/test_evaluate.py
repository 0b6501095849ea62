"""Bootstrap over subjects, and metrics.json."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known import evaluate, info_of
from sklearn.metrics import roc_auc_score

from ehrdl.errors import SchemaError
from ehrdl.metrics import evaluate as metrics
from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.calibration import sigmoid
from ehrdl.metrics.catalogue import METRICS


def predictions(n=600, outputs=("readmission",), noise=None, seed=0):
    """PREDICTIONS of a few models; `fused` has two seeds, `copy` is its first seed's twin under another name."""
    rng = np.random.default_rng(seed)
    noise = noise or {"fused": 0.3, "series_only": 1.0, "gradient_boosting": 0.6, "bayes": 0.0}
    frames = []
    subject = np.sort(rng.integers(0, n // 2, n))
    for output in outputs:
        risk = rng.normal(-1, 1.2, n)
        label = (rng.random(n) < sigmoid(risk)).astype(np.float32)
        for model, scale in noise.items():
            for fit in (0, 1) if model == "fused" else (0,):
                rows = {"sample_id": np.arange(n), "subject_id": subject, "model": model, "seed": fit, "label": label}
                rows |= {"split": "held_out", "output": output, "prob": sigmoid(risk + scale * rng.normal(size=n))}
                frames.append(pd.DataFrame(rows))
    table = pd.concat(frames, ignore_index=True)
    table["prediction_time"] = pd.Timestamp("2150-01-01")
    table["prob_calibrated"] = np.nan
    return table


def test_draws_have_as_many_subjects_as_the_split_whatever_the_block():
    one = np.concatenate(list(subject_draws(50, 30, seed=1, n_samples=100)))
    many = np.concatenate(list(subject_draws(50, 30, seed=1, n_samples=20_000)))
    assert one.shape == (30, 50) and (one.sum(1) == 50).all()
    assert (one == many).all()


def test_bootstrap_spread_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    means = np.concatenate([counts @ values / 400 for counts in subject_draws(400, 4000, 0, 400)])
    low, high = interval(means)
    error = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.006)


def test_repeating_each_patient_does_not_narrow_the_interval():
    table = predictions(300, noise={"fused": 0.5})
    copy = table.assign(sample_id=table["sample_id"] + 300)
    one, two = (evaluate(rows, n_bootstrap=200) for rows in (table, pd.concat([table, copy])))
    for name in ("auroc", "auprc", "brier", "calibration_slope"):
        a, b = (result["outputs"]["readmission"]["models"]["fused"][name] for result in (one, two))
        assert [b[key] for key in ("value", "low", "high")] == pytest.approx(
            [a[key] for key in ("value", "low", "high")]
        )


def test_interval_is_withheld_when_a_tail_of_the_draws_has_no_value():
    values = np.arange(1000.0)
    assert interval(np.where(values < 20, np.nan, values))[0] > 0
    assert np.isnan(interval(np.where(values < 30, np.nan, values))).all()


def test_value_is_the_mean_over_seeds_and_lies_in_its_interval():
    table = predictions()
    result = evaluate(table, n_bootstrap=200)["outputs"]["readmission"]
    rows = table[table["model"] == "fused"]
    expected = [roc_auc_score(part["label"], part["prob"]) for _, part in rows.groupby("seed")]
    got = result["models"]["fused"]["auroc"]
    assert got["per_seed"] == pytest.approx(expected) and got["value"] == pytest.approx(np.mean(expected))
    assert got["low"] < got["value"] < got["high"]
    assert result["n"] == 600 and result["events"] == int(rows[rows["seed"] == 0]["label"].sum())
    assert result["subjects"] == table["subject_id"].nunique() and result["draws"] == 200
    assert result["bayes_auroc"] == result["models"]["bayes"]["auroc"]["value"]


def test_interval_is_the_bootstrap_of_the_mean_over_seeds():
    table = predictions(200, noise={"fused": 0.5, "gradient_boosting": 0.5})
    models = evaluate(table, n_bootstrap=60, seed=7)["outputs"]["readmission"]["models"]
    for name, n_seeds in (("fused", 2), ("gradient_boosting", 1)):
        fits = [rows for _, rows in table[table["model"] == name].groupby("seed")]
        subjects, place = np.unique(fits[0]["subject_id"], return_inverse=True)
        counts = np.concatenate(list(subject_draws(len(subjects), 60, seed=7, n_samples=200)))
        means = [
            np.mean([roc_auc_score(rows["label"], rows["prob"], sample_weight=draw[place]) for rows in fits])
            for draw in counts
        ]
        got = models[name]["auroc"]
        assert len(got["per_seed"]) == n_seeds
        assert (got["low"], got["high"]) == pytest.approx(interval(np.array(means)))


def test_result_is_plain_json_with_the_keys_of_the_design():
    result = evaluate(predictions(), n_bootstrap=50)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result) == ["split", "outputs", "macro", "micro"]
    output = result["outputs"]["readmission"]
    assert set(output) >= {"n", "events", "subjects", "prevalence", "bayes_auroc", "models", "differences"}
    assert list(output["models"]["fused"]) == list(METRICS)
    assert set(output["models"]["fused"]["auroc"]) == {"value", "low", "high", "per_seed"}
    assert list(output["differences"]) == [f"fused - {name}" for name in ("series_only", "gradient_boosting", "bayes")]
    assert set(output["differences"]["fused - bayes"]["auroc"]) == {"value", "low", "high"}


def test_model_compared_with_its_twin_differs_by_exactly_zero():
    table = predictions(noise={"series_only": 0.5})
    twin = table.assign(model="twin")
    result = evaluate(pd.concat([table, twin]), n_bootstrap=100)["outputs"]["readmission"]
    for value in result["differences"]["series_only - twin"].values():
        assert value == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_paired_difference_is_narrower_than_the_intervals_of_its_parts():
    result = evaluate(predictions(), n_bootstrap=300)["outputs"]["readmission"]
    width = [
        result["models"][name]["auroc"]["high"] - result["models"][name]["auroc"]["low"] for name in ("fused", "bayes")
    ]
    difference = result["differences"]["fused - bayes"]["auroc"]
    assert difference["high"] - difference["low"] < min(width)
    assert difference["value"] == pytest.approx(
        result["models"]["fused"]["auroc"]["value"] - result["models"]["bayes"]["auroc"]["value"]
    )


def test_constant_prediction_has_no_slope_and_null_in_json():
    table = predictions(noise={"fused": 0.3, "prevalence": 0.0})
    table.loc[table["model"] == "prevalence", "prob"] = 0.3
    output = evaluate(table, n_bootstrap=20)["outputs"]["readmission"]
    missing = {"value": None, "low": None, "high": None}
    assert output["models"]["prevalence"]["calibration_slope"] == {**missing, "per_seed": [None]}
    assert output["differences"]["fused - prevalence"]["calibration_slope"] == missing
    assert output["models"]["prevalence"]["auroc"]["value"] == 0.5
    assert output["bayes_auroc"] is None


def test_unknown_labels_are_left_out_and_counted():
    table = predictions()
    table.loc[table["sample_id"] < 10, "label"] = np.nan
    output = evaluate(table, n_bootstrap=10)["outputs"]["readmission"]
    assert (output["n"], output["unknown"]) == (590, 10)


def test_order_of_rows_and_other_splits_do_not_matter():
    table = predictions()
    other = table.assign(split="train", prob=0.5)
    shuffled = pd.concat([table, other]).sample(frac=1, random_state=0)
    expected = evaluate(table, reference="fused", n_bootstrap=20)["outputs"]["readmission"]["models"]
    assert evaluate(shuffled, n_bootstrap=20)["outputs"]["readmission"]["models"] == expected


def test_draws_with_one_class_are_dropped_and_counted():
    table = predictions(40, noise={"fused": 0.5})
    first = table.loc[table["label"] == 1, "sample_id"].min()
    table["label"] = (table["sample_id"] == first).astype(np.float32)
    output = evaluate(table, n_bootstrap=400)["outputs"]["readmission"]
    # the one case's patient is left out of a draw with probability (1 - 1/S)^S
    left_out = (1 - 1 / output["subjects"]) ** output["subjects"]
    assert output["draws"] == pytest.approx(400 * (1 - left_out), abs=35)
    assert output["models"]["fused"]["brier"]["low"] is not None


def test_macro_is_the_mean_over_outputs_and_micro_pools_them():
    table = predictions(outputs=("death", "sepsis"))
    seen = []
    result = evaluate(table, n_bootstrap=30, on_draws=seen.append)
    single = [result["outputs"][name]["models"]["bayes"]["auroc"]["value"] for name in ("death", "sepsis")]
    assert result["macro"]["models"]["bayes"]["auroc"]["value"] == pytest.approx(np.mean(single))
    rows = table[table["model"] == "bayes"]
    pooled = result["micro"]["models"]["bayes"]["auroc"]
    assert pooled["value"] == pytest.approx(roc_auc_score(rows["label"], rows["prob"]))
    assert set(result["macro"]["differences"]) == set(result["outputs"]["death"]["differences"])
    assert sum(seen) == 30


def test_one_output_is_its_own_average():
    result = evaluate(predictions(), n_bootstrap=20)
    output = result["outputs"]["readmission"]
    for part in ("macro", "micro"):
        assert result[part] == {"models": output["models"], "differences": output["differences"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(label=0.0),
            r"split held_out, output readmission has one class only \(n = 600, events = 0\)",
        ),
        (lambda t: t.assign(split="train"), "no row is held_out"),
        (lambda t: t[(t["model"] != "bayes") | (t["sample_id"] > 3)], "all must predict the same samples"),
        (lambda t: pd.concat([t, t[t["model"] == "bayes"]]), "model bayes, seed 0 predicts a sample twice"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(change, message):
    with pytest.raises(SchemaError, match=message) as caught:
        evaluate(change(predictions()), n_bootstrap=5)
    assert "\n" not in str(caught.value)


def test_unknown_reference_and_outputs_with_other_models_are_refused():
    table = predictions(outputs=("death", "sepsis"))
    with pytest.raises(SchemaError, match="reference stack is not one of"):
        evaluate(table, reference="stack", n_bootstrap=5)
    with pytest.raises(SchemaError, match="have different models"):
        evaluate(table[(table["output"] == "death") | (table["model"] != "bayes")], n_bootstrap=5)


def test_without_a_deep_model_there_are_no_differences():
    table = predictions(noise={"logistic_regression": 0.5, "gradient_boosting": 0.4})
    assert evaluate(table, n_bootstrap=5)["outputs"]["readmission"]["differences"] == {}


def test_metrics_of_binary_outputs_are_what_they_were_before_there_were_numbers():
    """The file was written by the last version that knew binary outputs alone."""
    before = _flat(json.loads(Path(__file__).with_name("binary.json").read_text()))
    table = predictions(200, ("death", "sepsis"), {"fused": 0.5, "prevalence": 0.8})
    found = metrics.evaluate(table.assign(value=np.nan), info=info_of(table), n_bootstrap=20)  # without subgroups
    now = _flat(found)
    assert list(now) == list(before)
    for name, value in before.items():
        assert now[name] == (value if isinstance(value, str | None) else pytest.approx(value, rel=1e-8)), name


def _flat(values, name=""):
    if isinstance(values, dict):
        return {key: value for part in values for key, value in _flat(values[part], f"{name}/{part}").items()}
    if isinstance(values, list):
        return {key: value for i, part in enumerate(values) for key, value in _flat(part, f"{name}/{i}").items()}
    return {name: values}
