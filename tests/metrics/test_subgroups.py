"""Subgroups: the same numbers as scikit-learn per group, intervals that hold, and unknown where nothing is known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

from ehrdl.errors import ConfigError
from ehrdl.metrics.alarms import at_threshold
from ehrdl.metrics.bootstrap import subject_counts
from ehrdl.metrics.calibration import calibration_intercept, calibration_slope, sigmoid
from ehrdl.metrics.catalogue import METRICS, score_draws
from ehrdl.metrics.evaluate import Outcome
from ehrdl.metrics.subgroups import table
from ehrdl.metrics.subgroups.columns import MAX_GROUPS, groups_of
from ehrdl.metrics.subgroups.influence import Risks, binary
from ehrdl.metrics.subgroups.intervals import Estimate, difference, z_of
from ehrdl.metrics.subgroups.table import GAPS, Setting, by_group
from ehrdl.schema import REGRESSION

THRESHOLD = 0.2
WEIGHTED = {name: metric.score for name, metric in METRICS.items() if name != "ece"}


def made(n=1500, subjects=500, seed=0, seeds=1, **groups):
    """Predictions with ties, of patients with several samples each."""
    rng = np.random.default_rng(seed)
    subject = rng.permutation(np.arange(n) % subjects)
    risk = rng.normal(size=subjects)[subject] + 0.5 * rng.normal(size=n) - 1
    label = (rng.random(n) < sigmoid(risk)).astype(float)
    prob = np.stack([sigmoid(risk + 0.7 * rng.normal(size=n)).round(2).clip(0.01, 0.99) for _ in range(seeds)])
    rows = pd.DataFrame({"sample_id": np.arange(n), "subject_id": subject + 1000, "label": label})
    rows["group_unit"] = rng.choice(["MICU", "SICU", "CCU"], n, p=[0.5, 0.3, 0.2])
    rows["group_sex"] = np.where(subject % 2, "F", "M")
    return outcome_of(rows.assign(**groups), {"fused": prob, "gradient_boosting": prob[:1] ** 1.5})


def outcome_of(rows, prob, kind="binary"):
    return Outcome("death", "held_out", rows, rows["label"].to_numpy(float), prob, {}, 0, kind)


def values(estimates):
    return {name: part["value"] for name, part in estimates.items() if name != "patients"}


@pytest.mark.parametrize("unit", ["MICU", "SICU", "CCU"])
@pytest.mark.parametrize("model", ["fused", "gradient_boosting"])
def test_each_group_has_the_numbers_of_scikit_learn(unit, model):
    outcome = made()
    group = by_group(outcome, ["unit"], Setting(list(outcome.prob), THRESHOLD))["columns"]["unit"][unit]
    member = (outcome.rows.group_unit == unit).to_numpy()
    label, prob = outcome.label[member], outcome.prob[model][0][member]
    tn, fp, fn, tp = confusion_matrix(label, prob >= THRESHOLD).ravel()
    expected = {
        "auroc": roc_auc_score(label, prob),
        "auprc": average_precision_score(label, prob),
        "calibration_slope": float(calibration_slope(label, prob)),
        "calibration_intercept": float(calibration_intercept(label, prob)),
        "observed_minus_predicted": label.mean() - prob.mean(),
        "brier": brier_score_loss(label, prob),
        "net_benefit": (tp - fp * THRESHOLD / (1 - THRESHOLD)) / len(label),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "alarms": (tp + fp) / len(label),
    }
    assert values(group["models"][model]) == pytest.approx(expected, abs=1e-9)
    sizes = group["n"], group["events"], group["subjects"], group["observed"]
    assert sizes == (len(label), label.sum(), outcome.rows.subject_id[member].nunique(), label.mean())


def test_influences_are_the_derivatives_by_the_weight_of_a_sample():
    outcome = made(120, 120)
    label, prob = outcome.label, outcome.prob["fused"][0]
    found = binary(Risks.of(label, prob, THRESHOLD), THRESHOLD, list(table.METRICS["binary"]))
    weight, small = np.ones(len(label)) + np.zeros((len(label), 1)), 1e-5
    more, less = (weight + sign * small * np.eye(len(label)) for sign in (1, -1))
    rates = [at_threshold(label, prob, THRESHOLD, each) for each in (more, less)]
    for name, (value, influence) in found.items():
        if name == "observed_minus_predicted":
            continue
        ends = [WEIGHTED[name](label, prob, each) for each in (more, less)] if name in WEIGHTED else None
        high, low = ends or (part[name] for part in rates)
        np.testing.assert_allclose(influence, (high - low) / (2 * small), atol=2e-7, err_msg=name)
        assert abs(influence.sum()) < 1e-9 and np.isfinite(value)


def test_intervals_are_as_wide_as_those_of_draws_of_whole_patients():
    outcome = made(3000, 800)
    found = by_group(outcome, ["unit"], Setting(["fused"], THRESHOLD))["columns"]["unit"]["SICU"]
    subjects, place = np.unique(outcome.rows.subject_id, return_inverse=True)
    counts = np.concatenate(list(subject_counts(len(subjects), 2000, 0)))
    parts = [(outcome.rows.group_unit == "SICU").to_numpy(), (outcome.rows.group_unit != "SICU").to_numpy()]
    names = [name for name in WEIGHTED if name != "calibration_intercept"]
    metrics = {name: METRICS[name] for name in names}
    label, prob = outcome.label, outcome.prob["fused"][0]
    own, rest = (score_draws(metrics, label[part], prob[part], place[part], counts) for part in parts)
    alarms = [at_threshold(label[part], prob[part], THRESHOLD, counts[:, place[part]]) for part in parts]
    draws = dict(zip(names, zip(own, rest, strict=True), strict=True))
    draws |= {name: (alarms[0][name], alarms[1][name]) for name in ("sensitivity", "specificity", "ppv", "net_benefit")}
    z = z_of(3)  # three gaps were looked at
    for name, (group, others) in draws.items():
        interval, gap = found["models"]["fused"][name], found["gaps"][name]
        assert (interval["high"] - interval["low"]) / (2 * 1.96) == pytest.approx(group.std(), rel=0.08), name
        assert (gap["high"] - gap["low"]) / (2 * z) == pytest.approx((group - others).std(), rel=0.08), name


def test_a_gap_computed_by_hand():
    """The group has an AUROC of 1, the others have 0.75; none of the intervals leaves [-1, 1]."""
    high, low = np.linspace(0.6, 0.9, 12), np.linspace(0.1, 0.4, 12)
    label = np.repeat([1.0, 0.0, 1.0, 0.0], 12)
    others = np.concatenate([np.full(12, 0.5), np.repeat([0.5, 0.2], 6)])  # half of the pairs are ties
    rows = pd.DataFrame({"subject_id": range(48), "label": label, "group_a": np.repeat(["x", "y"], 24)})
    outcome = outcome_of(rows, {"m": np.concatenate([high, low, others])[None]})
    found = by_group(outcome, None, Setting(["m"], 0.5))
    gap = found["columns"]["a"]["x"]["gaps"]["auroc"]
    assert gap["value"] == pytest.approx(1 - 0.75) and -1 < gap["low"] < gap["value"] < gap["high"] < 1
    assert found["columns"]["a"]["x"]["gaps"]["sensitivity"]["value"] == 0.0  # all alarms: known, and equal
    assert found["columns"]["a"]["x"]["gaps"]["specificity"]["value"] == pytest.approx(1 - 0.5)
    assert found["comparisons"]["auroc"] == 1
    assert all(part["value"] is None for part in found["columns"]["a"]["y"]["gaps"].values())


def test_the_interval_of_a_difference_is_that_of_newcombe_for_independent_shares():
    """56/70 - 48/80: Newcombe, Stat Med 17 (1998) 873, method 10 in table II, example (a)."""
    parts = [Estimate(k / n, np.sqrt(k / n * (1 - k / n) / n), n, True) for k, n in ((56, 70), (48, 80))]
    value, low, high = difference(*parts, covariance=0.0, z=z_of())
    assert (value, round(low, 4), round(high, 4)) == (pytest.approx(0.2), 0.0524, 0.3339)


def test_a_perfect_model_in_a_group_without_events_is_unknown_and_not_unfair():
    rows = pd.DataFrame({"subject_id": range(90), "group_a": np.repeat(["x", "y", "z"], 30)})
    rows["label"] = np.where(rows.group_a == "z", 0.0, np.arange(90) % 2)
    outcome = outcome_of(rows, {"m": np.where(rows.label == 1, 0.9, 0.1)[None]})
    found = by_group(outcome, ["a"], Setting(["m"], 0.5))
    group = found["columns"]["a"]["z"]
    unknown = {"auroc", "auprc", "calibration_slope", "calibration_intercept", "sensitivity", "ppv"}
    assert {name for name, value in values(group["models"]["m"]).items() if value is None} == unknown
    assert {name for name, value in values(group["gaps"]).items() if value is None} == unknown & set(GAPS["binary"])
    assert group["models"]["m"]["specificity"]["value"] == 1 and group["gaps"]["specificity"]["value"] == 0
    assert found["comparisons"]["sensitivity"] == 2 and found["comparisons"]["specificity"] == 3
    perfect = found["columns"]["a"]["x"]["models"]["m"]["sensitivity"]
    assert perfect["value"] == perfect["high"] == 1 and 0.7 < perfect["low"] < 0.9  # of 15 patients, not surely 1


@pytest.mark.parametrize("least", [10, 20])
def test_numbers_about_few_patients_are_unknown(least):
    rows = pd.DataFrame({"subject_id": np.arange(200) // 2, "group_a": np.where(np.arange(200) < 40, "few", "rest")})
    rows["label"] = (np.arange(200) % 40 < 24).astype(float)  # 12 patients of the group had it, 8 had it not
    outcome = outcome_of(rows, {"m": np.random.default_rng(0).random((1, 200))})
    group = by_group(outcome, None, Setting(["m"], 0.1, least))["columns"]["a"]["few"]
    known = {name for name, value in values(group["models"]["m"]).items() if value is not None}
    assert (group["subjects_with"], group["subjects_without"]) == (12, 8)
    of_all = {"observed_minus_predicted", "brier", "net_benefit", "alarms"}
    if least == 10:
        assert known == of_all | {"sensitivity", "ppv"}
    else:
        assert known <= of_all | {"ppv"} and "sensitivity" not in known


def test_a_patient_counted_ten_times_is_still_one_patient():
    once = made(400, 400)
    again = np.repeat(np.arange(400), 10)
    often = outcome_of(once.rows.iloc[again], {name: prob[:, again] for name, prob in once.prob.items()})
    one, ten = (by_group(each, ["sex"], Setting(["fused"], THRESHOLD))["columns"]["sex"] for each in (once, often))
    for name, part in one["F"]["models"]["fused"].items():
        if name != "patients":
            assert ten["F"]["models"]["fused"][name] == pytest.approx(part, abs=1e-9)
    for name, gap in one["F"]["gaps"].items():
        assert ten["F"]["gaps"][name] == pytest.approx(gap, abs=1e-9)


def test_the_order_of_the_rows_does_not_matter():
    outcome = made()
    mixed = np.random.default_rng(1).permutation(len(outcome.rows))
    other = outcome_of(outcome.rows.iloc[mixed], {name: prob[:, mixed] for name, prob in outcome.prob.items()})
    one, two = (by_group(each, None, Setting(["fused"], THRESHOLD)) for each in (outcome, other))
    for name, group in one["columns"]["unit"].items():
        for metric, estimate in group["gaps"].items():
            assert two["columns"]["unit"][name]["gaps"][metric] == pytest.approx(estimate, abs=1e-9)


def test_a_model_of_several_seeds_has_the_mean_of_its_seeds():
    outcome = made(seeds=3)
    found = by_group(outcome, ["sex"], Setting(["fused"], THRESHOLD))["columns"]["sex"]["F"]["models"]["fused"]
    member = (outcome.rows.group_sex == "F").to_numpy()
    expected = [roc_auc_score(outcome.label[member], row[member]) for row in outcome.prob["fused"]]
    assert found["auroc"]["value"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_regression_output_has_errors_and_bias_per_group():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"subject_id": range(300), "label": rng.normal(size=300), "group_a": ["x", "y", "z"] * 100})
    value = rows.label.to_numpy() + rng.normal(size=300) + 0.5
    found = by_group(outcome_of(rows, {"m": value[None]}, REGRESSION), None, Setting(["m"], 0.1))
    error = (value - rows.label)[rows.group_a == "y"]
    group = found["columns"]["a"]["y"]
    assert values(group["models"]["m"]) == pytest.approx({"mae": error.abs().mean(), "bias": error.mean()})
    half = 1.96 * error.std() / 10
    assert group["models"]["m"]["bias"]["high"] == pytest.approx(error.mean() + half, rel=1e-4)
    assert found["comparisons"] == {"mae": 3, "bias": 3} and group["events"] is None and found["threshold"] is None


def test_pairs_are_the_named_ones_or_those_of_sex_age_and_race():
    rows = made().rows.assign(group_age_band="65-74", group_race=np.arange(1500) % 3, group_present="neither")
    columns, alone = groups_of(rows)
    assert list(columns) == ["unit", "sex", "race", "sex x race"] and alone == {"age_band": "65-74"}
    assert len(columns["sex x race"].names) == 6 and columns["sex x race"].names[0] == "F, 0"
    assert list(groups_of(rows, ["sex x unit", "race"])[0]) == ["race", "sex x unit"]
    names = np.array(columns["sex x race"].names)[columns["sex x race"].code]
    assert (names == rows.group_sex + ", " + rows.group_race.astype(str)).all()


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (["sxe"], r"report.groups: 'sxe' is no column of groups; there are: unit, sex; did you mean sex\?"),
        (["sex x ward"], "report.groups: 'ward' is no column of groups"),
        (["sex x sex"], "'sex x sex' is no pair of two different columns"),
        (["sex x unit x race"], "is no pair of two different columns"),
    ],
)
def test_an_unknown_column_is_refused_in_one_line(wanted, line):
    with pytest.raises(ConfigError, match=line):
        groups_of(made(20, 20).rows, wanted)


def test_a_column_of_many_groups_keeps_the_largest_and_joins_the_rest():
    values = np.repeat([f"ward {i:02d}" for i in range(20)], np.arange(1, 21))
    rows = pd.DataFrame({"subject_id": range(len(values)), "group_ward": values})
    [groups] = groups_of(rows)[0].values()
    assert len(groups.names) == MAX_GROUPS and groups.names[-1] == "13 smaller groups"
    assert groups.names[:-1] == [f"ward {i}" for i in range(13, 20)]
    assert (groups.code == MAX_GROUPS - 1).sum() == sum(range(1, 14))


def coverage(repetitions, size, seed=0):
    """The share of repetitions in which the intervals of all gaps hold 0, where all groups are equal, by metric."""
    held = dict.fromkeys(GAPS["binary"], 0)
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        risk = rng.normal(size=size) - 1
        rows = pd.DataFrame({"subject_id": range(size), "label": (rng.random(size) < sigmoid(risk)).astype(float)})
        rows["group_a"], rows["group_b"] = rng.choice(list("wxyz"), size), rng.choice(list("pqrstu"), size)
        found = by_group(outcome_of(rows, {"m": sigmoid(risk)[None]}), None, Setting(["m"], 0.3))
        gaps = [group["gaps"] for column in found["columns"].values() for group in column.values()]
        for name in held:
            known = [gap[name] for gap in gaps if gap[name]["value"] is not None]
            held[name] += all(gap["low"] <= 0 <= gap["high"] for gap in known)
    return {name: n / repetitions for name, n in held.items()}


def test_all_intervals_of_the_gaps_hold_together_where_groups_are_equal():
    found = coverage(80, 1200)
    assert min(found.values()) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 80), found


@pytest.mark.slow
@pytest.mark.parametrize(("size", "least"), [(600, 0.9), (3000, 0.94)])
def test_all_intervals_of_the_gaps_hold_together_in_many_repetitions(size, least):
    """Measured: 0.910 (AUPRC) to 0.961 with 30 to 45 cases in a group, 0.941 to 0.962 with 150 or more."""
    found = coverage(1500, size, 1)
    assert min(found.values()) > least - 3 * np.sqrt(0.95 * 0.05 / 1500), found
