"""Alarms at a threshold, against scikit-learn, hand-computed numbers and the published formula of net benefit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from ehrdl.errors import SchemaError
from ehrdl.info import ModelInfo, RunInfo
from ehrdl.metrics.alarms import RATES, Rule, at_threshold, decision_curve, net_benefit, net_benefit_of_all
from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.decisions import add, add_decisions, decide


def data(n=600, seed=0):
    rng = np.random.default_rng(seed)
    prob = np.round(rng.beta(2, 5, n), 2)
    return (rng.random(n) < prob).astype(float), prob


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.55])
def test_rates_are_scikit_learns(threshold):
    label, prob = data()
    alarm = prob >= threshold
    (tn, fp), (fn, tp) = confusion_matrix(label, alarm, labels=[0, 1])
    found = {name: float(value) for name, value in at_threshold(label, prob, threshold).items()}
    assert found["sensitivity"] == pytest.approx(recall_score(label, alarm))
    assert found["ppv"] == pytest.approx(precision_score(label, alarm))
    assert found["f1"] == pytest.approx(f1_score(label, alarm))
    assert found["specificity"] == pytest.approx(tn / (tn + fp))
    assert found["alarms"] == pytest.approx(alarm.mean())
    assert found["lift"] == pytest.approx(tp / (tp + fp) / label.mean())
    assert found["net_benefit"] == pytest.approx(tp / 600 - fp / 600 * threshold / (1 - threshold))
    assert np.isnan(found["npv"]) if threshold == 0 else found["npv"] == pytest.approx(tn / (tn + fn))


def test_a_risk_equal_to_the_threshold_is_an_alarm():
    assert float(at_threshold([0, 1], [0.2, 0.2], 0.2)["alarms"]) == 1.0
    assert float(at_threshold([0, 1], [0.2, 0.2], 0.2 + 1e-12)["alarms"]) == 0.0


def test_a_score_of_few_values_has_the_net_benefit_of_its_own_steps():
    """The example of the issue: at a threshold of 0.2, a score with many risks of exactly 0.2."""
    label = np.repeat([1, 0, 1, 0], [20, 30, 10, 40])
    prob = np.repeat([0.2, 0.2, 0.1, 0.1], [20, 30, 10, 40])
    assert float(net_benefit(label, prob, 0.2)) == pytest.approx(20 / 100 - 30 / 100 * 0.25)


def test_rates_without_a_denominator_are_unknown_and_never_zero():
    none = at_threshold([0, 0, 1], [0.1, 0.2, 0.3], 0.9)
    assert np.isnan(none["ppv"]) and np.isnan(none["lift"]) and float(none["sensitivity"]) == 0
    without = at_threshold([0, 0], [0.1, 0.9], 0.5)
    assert np.isnan(without["sensitivity"]) and np.isnan(without["lift"]) and float(without["specificity"]) == 0.5
    assert float(at_threshold([0, 1], [0.1, 1.0], 1.0)["net_benefit"]) == 0.5  # no false alarm, so it costs nothing
    assert np.isnan(at_threshold([0, 1], [1.0, 1.0], 1.0)["net_benefit"])


def test_a_missing_risk_is_an_error():
    with pytest.raises(SchemaError, match="column prob: a risk is missing"):
        at_threshold([0, 1], [0.1, np.nan], 0.5)


def test_an_alarm_for_all_gains_the_prevalence_and_costs_the_others():
    label = np.array([1, 0, 0, 0])
    assert float(net_benefit_of_all(label, 0.1)) == pytest.approx(0.25 - 0.75 / 9)
    assert float(net_benefit_of_all(label, 0.25)) == pytest.approx(0)  # at the prevalence it is worth nothing


def test_thresholds_keep_their_promise_and_the_next_one_breaks_it():
    label, prob = data()
    steps = np.unique(prob)
    wanted = Rule("sensitivity", 0.8).threshold(label, prob)
    assert at_threshold(label, prob, wanted)["sensitivity"] >= 0.8
    assert at_threshold(label, prob, steps[np.searchsorted(steps, wanted) + 1])["sensitivity"] < 0.8
    budget = Rule("alarms", 0.1).threshold(label, prob)
    assert at_threshold(label, prob, budget)["alarms"] <= 0.1
    assert at_threshold(label, prob, steps[np.searchsorted(steps, budget) - 1])["alarms"] > 0.1


def test_a_budget_smaller_than_the_first_tie_gives_no_alarm():
    assert Rule("alarms", 0.1).threshold([0, 1, 1], [0.5, 0.5, 0.5]) == np.inf


def table(n=300, seeds=(0, 1)):
    rng = np.random.default_rng(1)
    parts = []
    for split in ("tuning", "held_out"):
        label, prob = data(n, seed=len(split))
        subject = rng.integers(n // 2, size=n) + (n if split == "tuning" else 0)
        for model in ("fused", "lace"):
            for seed in seeds:
                noisy = np.clip(prob + rng.normal(0, 0.1, n), 0, 1)
                columns = {"sample_id": np.arange(n) + (n if split == "tuning" else 0), "subject_id": subject}
                columns |= {"label": label, "prob": noisy, "split": split, "model": model, "seed": seed}
                parts.append(pd.DataFrame(columns | {"output": "death", "prob_calibrated": np.nan, "value": np.nan}))
    return pd.concat(parts, ignore_index=True)


def test_thresholds_are_chosen_on_tuning_and_intervals_are_draws_of_subjects():
    predictions, rule = table(), Rule("sensitivity", 0.8)
    found = decide(predictions, "held_out", [rule, Rule("risk", 0.3)], n_bootstrap=40, seed=3)["death"]
    part = found["sensitivity 0.8"]
    assert (part["kind"], part["at"], part["chosen_on"]) == ("sensitivity", 0.8, "tuning") and "all" not in part
    chosen, values, draws = [], [], []
    for seed in (0, 1):
        rows = predictions[(predictions.model == "lace") & (predictions.seed == seed)]
        tuning, held = (rows[rows.split == name].sort_values("sample_id") for name in ("tuning", "held_out"))
        chosen.append(rule.threshold(tuning.label, tuning.prob))
        values.append(at_threshold(held.label, held.prob, chosen[-1])["net_benefit"])
        subjects, place = np.unique(held.subject_id, return_inverse=True)
        weight = np.concatenate(list(subject_draws(len(subjects), 40, 3, len(held))))[:, place]
        draws.append(at_threshold(held.label, held.prob, chosen[-1], weight)["net_benefit"])
    low, high = interval(np.mean(draws, axis=0))
    got = part["models"]["lace"]
    assert got["thresholds"] == pytest.approx(chosen)
    assert got["net_benefit"] == pytest.approx({"value": np.mean(values), "low": low, "high": high})
    assert set(got) == {"thresholds", *RATES}
    everyone = found["risk 0.3"]["all"]
    assert everyone["sensitivity"]["value"] == 1.0 and everyone["specificity"]["value"] == 0.0


def test_without_tuning_rows_thresholds_are_chosen_on_the_scored_rows_and_it_is_said():
    predictions = table()
    found = decide(predictions[predictions.split == "held_out"], "held_out", [Rule("alarms", 0.1)], 20)
    assert found["death"]["alarms 0.1"]["chosen_on"] == "held_out"


def test_decisions_stand_beside_the_metrics_of_their_output():
    metrics = {"split": "held_out", "outputs": {"death": {"n": 3}, "days": {"n": 3}}}
    assert add(metrics, {"death": {"risk 0.1": 1}})["outputs"] == {
        "death": {"n": 3, "decisions": {"risk 0.1": 1}},
        "days": {"n": 3, "decisions": {}},
    }


def test_a_decision_curve_is_the_net_benefit_at_each_threshold():
    label, prob = data()
    grid = np.linspace(0.01, 0.9, 60)
    want = [float(net_benefit(label, prob, at)) for at in grid]
    np.testing.assert_allclose(decision_curve(label, prob, grid), want, atol=1e-12)


@pytest.mark.parametrize("model", ["tied", "score"])
def test_net_benefit_is_that_of_dcurves_also_where_risks_equal_the_threshold(model):
    """The file holds risks of two decimals and a score of five values, with the answers of dcurves 1.1.7.

    dcurves needs pandas 2, so it cannot be installed beside this package.
    """
    known = json.loads(Path(__file__).with_name("dcurves.json").read_text())
    for i, at in enumerate(known["thresholds"]):
        got = net_benefit(known["label"], known[model], at)
        assert float(got) == pytest.approx(known["net_benefit"][model][i], abs=1e-9)
        everyone = net_benefit_of_all(known["label"], at)
        assert float(everyone) == pytest.approx(known["net_benefit"]["all"][i], abs=1e-9)
    np.testing.assert_allclose(
        decision_curve(known["label"], known[model], known["thresholds"]), known["net_benefit"][model], atol=1e-9
    )


INFO = RunInfo({"fused": ModelInfo("fused", "deep", ""), "lace": ModelInfo("lace", "score", "")})


def test_differences_are_paired_by_draws_and_their_intervals_are_those_of_a_plain_bootstrap():
    predictions, rule = table(seeds=(0,)), Rule("risk", 0.3)
    part = decide(predictions, "held_out", [rule], 2000, 0, INFO)["death"]["risk 0.3"]
    rows = {name: predictions[(predictions.model == name) & (predictions.split == "held_out")] for name in INFO.models}
    fused, lace = (rows[name].sort_values("sample_id", ignore_index=True) for name in ("fused", "lace"))
    of_subject = list(fused.groupby("subject_id").indices.values())
    rng, draws = np.random.default_rng(9), []
    for _ in range(2000):
        some = np.concatenate([of_subject[i] for i in rng.integers(len(of_subject), size=len(of_subject))])
        draws.append([float(net_benefit(t.label[some], t.prob[some], 0.3)) for t in (fused, lace)])
    first, second = np.array(draws).T
    got = part["differences"]["fused - lace"]["net_benefit"]
    want = float(net_benefit(fused.label, fused.prob, 0.3) - net_benefit(lace.label, lace.prob, 0.3))
    assert got["value"] == pytest.approx(want, abs=1e-9)
    ends = np.percentile(first - second, [2.5, 97.5])
    error = 0.25 * (first - second).std()  # three standard errors of the difference of two such percentiles
    np.testing.assert_allclose([got["low"], got["high"]], ends, rtol=0, atol=error)
    over = part["over_all"]["lace"]["value"]
    assert over == pytest.approx(float(net_benefit(lace.label, lace.prob, 0.3) - net_benefit_of_all(lace.label, 0.3)))
    assert (
        decide(predictions, "held_out", [rule], 10)["death"]["risk 0.3"]["differences"] == {}
    )  # no deep model is known


def test_macro_is_the_mean_of_rates_and_micro_pools_the_alarms():
    one, other = table(seeds=(0,)), table(seeds=(0,)).assign(output="sepsis")
    other["label"] = 1 - other["label"]
    both, rules = pd.concat([one, other], ignore_index=True), [Rule("risk", 0.3), Rule("sensitivity", 0.8)]
    none = {"models": {}, "differences": {}}
    metrics = {"split": "held_out", "outputs": {"death": {}, "sepsis": {}}, "macro": none, "micro": none}
    found = add_decisions(metrics, both, rules, INFO, 30)
    for rule in ("risk 0.3", "sensitivity 0.8"):
        of = [found["outputs"][name]["decisions"][rule]["models"]["lace"] for name in ("death", "sepsis")]
        macro, micro = (found[key]["decisions"][rule]["models"]["lace"] for key in ("macro", "micro"))
        for name in ("ppv", "f1", "net_benefit"):
            assert macro[name]["value"] == pytest.approx(np.mean([part[name]["value"] for part in of]))
        true, raised = (sum(part[name]["value"] for part in of) for name in ("true_alarms", "alarms"))
        assert micro["ppv"]["value"] == pytest.approx(true / raised)
        assert micro["net_benefit"]["value"] == pytest.approx(macro["net_benefit"]["value"])  # equally many samples
        assert list(found["micro"]["decisions"][rule]["differences"]) == ["fused - lace"]


def test_outputs_with_different_seeds_are_refused():
    from ehrdl.metrics.evaluate import evaluate

    both = pd.concat([table(seeds=(0,)), table(seeds=(0, 1)).assign(output="sepsis")])
    with pytest.raises(SchemaError, match="column seed: model fused has 2 seeds for output sepsis and 1 for death"):
        evaluate(both, n_bootstrap=2)
