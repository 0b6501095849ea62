"""The challenge's utility against values worked out by hand from its definition."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.info import RunInfo
from ehrdl.metrics.challenges import utility_named
from ehrdl.metrics.challenges.physionet2019 import alarm_gain, best_threshold, by_utility, utility
from ehrdl.metrics.evaluate import evaluate


def septic(hours, turned):
    """Gains of one patient whose label turns 1 at an hour; the onset is six hours later."""
    hours = np.asarray(hours, float)
    return alarm_gain(np.ones(len(hours), np.int64), hours, (hours >= turned).astype(float))


def test_an_alarm_is_worth_what_the_definition_says_at_every_hour_before_and_after_the_onset():
    # The label turns at hour 20, so the onset is hour 26: 12 hours before is 14, 3 hours after is 29.
    by_hand = {
        13: -0.05,  # too early: a false alarm
        14: 0.0,
        17: 3 / 6,  # half way up; no alarm costs nothing yet
        20: 1.0,  # the optimum
        23: 6 / 9 + 2 * 3 / 9,  # a true alarm falls from 1, a missed one to -2
        26: 3 / 9 + 2 * 6 / 9,
        29: 0.0 + 2.0,
        30: 0.0,  # no longer scored
    }
    gain = dict(zip(range(40), septic(range(40), 20), strict=True))
    for hour, value in by_hand.items():
        assert gain[hour] == pytest.approx(value), hour


def test_a_patient_without_sepsis_pays_for_each_alarm():
    assert septic([0, 1, 2], turned=99).tolist() == [-0.05, -0.05, -0.05]


def test_a_label_that_is_1_from_the_first_hour_puts_the_onset_six_hours_later():
    # as the challenge's own score does: where the record begins is where the label turned
    assert septic([0, 6, 9, 10], 0).tolist() == pytest.approx([1.0, 3 / 9 + 12 / 9, 2.0, 0.0])


def test_utility_is_1_for_the_best_alarms_0_for_none_and_below_0_where_they_do_harm():
    subject = np.repeat([1, 2], 40)
    hour = np.tile(np.arange(40.0), 2)
    label = ((subject == 1) & (hour >= 20)).astype(float)
    gain = alarm_gain(subject, hour, label)
    best = (subject == 1) & (hour >= 14) & (hour <= 29)  # from 12 h before the onset to 3 h after
    assert utility(best, gain) == pytest.approx(1)
    assert utility(np.zeros(80, bool), gain) == 0
    assert utility(subject == 2, gain) < 0
    # sum over 14..29 by hand: 0 + 1/6 + ... + 1 for 14..20, then 1 + k/9 for k = 1..9 after it
    total = sum(range(7)) / 6 + sum(1 + k / 9 for k in range(1, 10))
    always = total - 0.05 * 14 - 0.05 * 40  # hours 0..13 of the septic patient, and all of the other
    assert utility(np.ones(80, bool), gain) == pytest.approx(always / total)


def test_the_order_of_patients_does_not_matter_and_hours_count_from_anywhere():
    gain = alarm_gain(np.array([7, 7, 3, 3]), np.array([105.0, 106, 5, 6]), np.array([0.0, 1, 0, 0]))
    assert gain.tolist() == pytest.approx([5 / 6, 1, -0.05, -0.05])


def test_the_threshold_is_the_best_of_all_and_equal_probabilities_are_never_parted():
    rng = np.random.default_rng(0)
    prob, gain = rng.integers(0, 20, 300) / 20, rng.normal(size=300)
    tried = {t: utility(prob >= t, gain) for t in np.unique(prob)}
    assert best_threshold(prob, gain) == max(tried, key=tried.get)
    assert best_threshold(np.array([0.3, 0.2]), np.array([-1.0, -1.0])) == np.inf


def predictions(n_subjects=60, seed=0):
    """Two models and two seeds on hourly samples of invented patients, tuning and held out."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(n_subjects):
        turned = 10 if subject % 12 < 2 else 999
        for hour in range(96):
            rows.append((subject, hour, float(hour >= turned)))
    base = pd.DataFrame(rows, columns=["subject_id", "hour", "label"])
    base["prediction_time"] = pd.Timestamp("2000-01-01") + pd.to_timedelta(base.hour, unit="h")
    base["split"] = np.where(base.subject_id % 2, "held_out", "tuning")
    base["sample_id"] = np.arange(len(base))
    base["output"] = "sepsis_2019"
    frames = []
    for model, strength in (("series_only", 2.0), ("prevalence", 0.0)):
        for number in (0, 1):
            prob = 1 / (1 + np.exp(-strength * base.label + rng.normal(size=len(base)) * (strength > 0) + 1))
            frames.append(base.assign(model=model, seed=number, prob=prob, prob_calibrated=np.nan, value=np.nan))
    return pd.concat(frames, ignore_index=True)


def test_the_threshold_comes_from_tuning_and_the_value_from_the_held_out_patients():
    table = predictions()
    found = by_utility(table, "held_out", 200, 0)["series_only"]
    for number, threshold, value in zip((0, 1), found["thresholds"], found["per_seed"], strict=True):
        own = table[(table.model == "series_only") & (table.seed == number)]
        parts = {name: part.sort_values(["subject_id", "hour"]) for name, part in own.groupby("split")}
        gains = {
            name: alarm_gain(part.subject_id.to_numpy(), part.hour.to_numpy(float), part.label.to_numpy())
            for name, part in parts.items()
        }
        assert threshold == best_threshold(parts["tuning"].prob.to_numpy(), gains["tuning"])
        assert value == pytest.approx(utility(parts["held_out"].prob.to_numpy() >= threshold, gains["held_out"]))
    assert found["low"] < found["value"] < found["high"] and 0 < found["alarms"] < 1


def test_metrics_carry_the_utility_of_hourly_sepsis_and_of_nothing_else():
    table = predictions()
    info = RunInfo(utilities={"sepsis_2019": utility_named("physionet2019")})
    metrics = evaluate(table, info=info, n_bootstrap=50)["outputs"]["sepsis_2019"]["utility"]
    assert set(metrics) == {"series_only", "prevalence"}
    assert metrics["series_only"]["value"] > metrics["prevalence"]["value"]
    assert "utility" not in evaluate(table.assign(output="other"), info=info, n_bootstrap=20)["outputs"]["other"]


def test_without_tuning_rows_a_run_s_thresholds_are_used_and_without_any_there_is_no_utility():
    table = predictions()
    ours = by_utility(table, "held_out", 50, 0)
    given = {name: values["thresholds"] for name, values in ours.items()}
    alone = table[table.split == "held_out"]
    assert by_utility(alone, "held_out", 50, 0, given) == ours
    assert by_utility(alone, "held_out", 50, 0) == {}


def test_a_model_whose_best_is_to_be_silent_has_a_utility_of_0():
    table = predictions()
    silent = table.assign(prob=1 - table.label)
    found = by_utility(silent[silent.model == "series_only"], "held_out", 20, 0)["series_only"]
    assert found["thresholds"] == [None, None] and found["value"] == 0 and found["alarms"] == 0


def test_the_example_of_the_challenges_own_scorer_gives_its_figure():
    """Labels 0 0 0 0 1 1 and alarms 0 0 1 1 1 1 are worth 3.388888888888889 (physionetchallenges/evaluation-2019).

    Without an alarm the patient is worth -2/9: the label turns in hour 4, so hour 5 is the first that is missed.
    """
    gain = alarm_gain(np.zeros(6, np.int64), np.arange(6.0), np.array([0, 0, 0, 0, 1, 1.0]))
    assert gain[2:].sum() - 2 / 9 == pytest.approx(3.388888888888889)
