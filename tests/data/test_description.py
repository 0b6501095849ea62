"""Table 1, dates and predictors: every number is the one that a reader would compute by hand from what models see."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.description.characteristics import characteristics, column_masks, outcomes, sizes
from ehrdl.data.description.cohort import describe_cohort
from ehrdl.data.description.predictors import STATIC_WORDS, _drawn, predictors
from ehrdl.data.description.setting import dates
from ehrdl.data.description.summary import smd_of_categories, smd_of_numbers
from ehrdl.data.features.static import STATICS
from ehrdl.data.window import Window
from ehrdl.schema import SPLITS, OutputSpec
from ehrdl.sources.synthetic import Synthetic


def test_the_difference_of_two_means_is_that_of_austin_2009():
    rng = np.random.default_rng(0)
    one, other = rng.normal(60, 10, 500), rng.normal(63, 14, 300)

    by_hand = abs(one.mean() - other.mean()) / np.sqrt((one.std(ddof=1) ** 2 + other.std(ddof=1) ** 2) / 2)

    assert smd_of_numbers(one, other) == pytest.approx(by_hand, abs=1e-12)
    assert smd_of_numbers(one, one) == 0
    assert smd_of_numbers(np.ones(3), np.zeros(3)) is None and smd_of_numbers(one[:1], other) is None


def test_the_difference_of_two_proportions_is_that_of_austin_2009():
    p, q = 0.3, 0.42

    found = smd_of_categories(np.array([70, 30]), np.array([58, 42]))

    assert found == pytest.approx((q - p) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2), abs=1e-12)


def test_the_difference_of_several_categories_is_that_of_yang_and_dalton_2012():
    one, other = np.array([20, 30, 50]), np.array([40, 30, 30])
    p, q = one[1:] / 100, other[1:] / 100
    covariance = np.array(
        [
            [(p[0] * (1 - p[0]) + q[0] * (1 - q[0])) / 2, -(p[0] * p[1] + q[0] * q[1]) / 2],
            [-(p[0] * p[1] + q[0] * q[1]) / 2, (p[1] * (1 - p[1]) + q[1] * (1 - q[1])) / 2],
        ]
    )

    by_hand = np.sqrt((p - q) @ np.linalg.inv(covariance) @ (p - q))

    assert smd_of_categories(one, other) == pytest.approx(by_hand, abs=1e-12)
    assert smd_of_categories(one[::-1], other[::-1]) == pytest.approx(by_hand, abs=1e-12)
    assert smd_of_categories(np.array([5, 0, 5]), np.array([10, 0, 10])) == 0
    assert smd_of_categories(np.array([5, 0]), np.array([0, 5])) is None
    assert smd_of_categories(np.array([5, 5]), np.array([0, 0])) is None


@pytest.fixture(scope="module")
def described(hospital):
    return describe_cohort(hospital.prepared, hospital.config.source)


def rows_of(described):
    return {row["name"]: row for row in described["characteristics"]}


def test_table_1_counts_samples_and_patients_by_split_and_outcome(described, prepared):
    samples = prepared.samples
    for split in SPLITS:
        own = samples[samples.split == split]
        assert described["columns"][split] == {"samples": len(own), "patients": own.subject_id.nunique()}
        events = int((own.label_readmission == 1).sum())
        assert described["outcomes"][0]["values"][split]["with"] == events
    with_outcome = samples[(samples.label_readmission == 1) & (samples.split == "train")]
    assert described["columns"]["with:readmission"]["patients"] == with_outcome.subject_id.nunique()


def test_table_1_has_the_quartiles_of_the_age_and_the_counts_of_the_groups(described, prepared):
    samples, rows = prepared.samples, rows_of(described)
    held_out = (samples.split == "held_out").to_numpy()
    age = prepared.dataset.static[held_out, 0].astype(float)

    found = rows["age"]["values"]["held_out"]

    assert [found["q1"], found["median"], found["q3"]] == pytest.approx(np.quantile(age, [0.25, 0.5, 0.75]), rel=1e-5)
    sex = rows["sex"]
    counts = samples.group_sex[held_out].value_counts()
    assert sex["values"]["held_out"]["samples"] == [int(counts[level]) for level in sex["levels"]]
    patients = samples[held_out].groupby("group_sex").subject_id.nunique()
    assert sex["values"]["held_out"]["patients"] == [int(patients[level]) for level in sex["levels"]]


def test_table_1_compares_train_with_held_out_and_with_the_outcome_with_without(described, prepared):
    age, samples = prepared.dataset.static[:, 0].astype(float), prepared.samples
    parts = [age[(samples.split == split).to_numpy()] for split in ("train", "held_out")]
    train = samples.split == "train"
    by_outcome = [age[(train & (samples.label_readmission == label)).to_numpy()] for label in (1, 0)]

    found = rows_of(described)["age"]["smd"]

    assert found["splits"] == pytest.approx(smd_of_numbers(*parts))
    assert found["readmission"] == pytest.approx(smd_of_numbers(*by_outcome))


def test_the_split_parts_of_every_row_add_up_to_all(described):
    for row in described["characteristics"]:
        if row["kind"] == "categories":
            parts = np.array([row["values"][split]["samples"] for split in SPLITS])
            assert parts.sum(axis=0).tolist() == row["values"]["all"]["samples"], row["name"]


def test_earlier_admissions_leave_out_the_stay_of_the_prediction(described, prepared):
    admissions = np.rint(np.expm1(prepared.dataset.static[:, STATICS.index("log_admissions_before")]))

    found = rows_of(described)["earlier_admissions"]["values"]["all"]

    assert admissions.min() == 1
    assert found["median"] == np.median(admissions - 1)


def test_a_predictor_counts_the_samples_in_whose_window_it_was_seen(build):
    store = build.store(
        [
            (1, 1, 1, 2, 140.0),  # sodium, seen by the first sample alone: the second looks back 24 h
            (1, 30, 30, 3, 1.5),  # creatinine
            (2, 5, 12, 2, 130.0),  # becomes available after its sample
        ]
    )
    samples = build.samples([(1, 10), (1, 40), (2, 10)])
    channels = [replace(channel) for channel in store.channels]
    static = np.zeros((3, len(STATICS)), np.float32)
    dataset = SampleDataset(samples, static, store, None, Window(series_hours=24), channels[2:4])

    found = {row["name"]: row for row in predictors(dataset, np.array(["train"] * 3))["series"]}

    assert (found["sodium"]["samples"], found["sodium"]["patients"], found["sodium"]["patients_without"]) == (1, 1, 2)
    assert found["sodium"]["median"] == 140.0 and found["creatinine"]["median"] == 1.5
    assert found["creatinine"]["samples"] == 1


def test_a_predictor_of_the_hospital_is_counted_as_the_loader_sees_it(described, prepared):
    channel = [channel.name for channel in prepared.dataset.channels].index("creatinine")
    has = [(prepared.dataset[row].channel == channel).any() for row in range(len(prepared.samples))]

    found = {row["name"]: row for row in described["predictors"]["series"]}["creatinine"]

    assert found["samples"] == sum(has)
    assert found["patients"] == prepared.samples.subject_id[has].nunique()


def test_quartiles_are_of_the_training_samples_alone(described, prepared):
    channel = [channel.name for channel in prepared.dataset.channels].index("sodium")
    values = []
    for row in prepared.rows("train"):
        items = prepared.dataset[row]
        values.append(items.value[items.channel == channel])

    found = {row["name"]: row for row in described["predictors"]["series"]}["sodium"]

    assert found["median"] == pytest.approx(np.median(np.concatenate(values)), rel=1e-5)


def test_notes_are_counted_by_kind(described, prepared):
    dataset = prepared.dataset
    summaries = [i for i, code in enumerate(dataset.notes.codes) if code == "NOTE//discharge//DS"]
    has = [bool(np.isin(dataset.notes.code[dataset.note_rows(row)], summaries).any()) for row in range(len(dataset))]

    found = {row["name"]: row for row in described["predictors"]["notes"]}["discharge//DS"]

    assert found["samples"] == sum(has) and 10 < found["median"] < 1000


def test_every_static_feature_is_described():
    missing = {name for *_, name in STATIC_WORDS.values()} - {""}
    assert set(STATIC_WORDS) | missing == set(STATICS)


def test_a_large_cohort_is_described_by_whole_patients_drawn_at_random():
    subject = np.repeat(np.arange(1000), 3)

    rows = _drawn(subject, np.arange(3000), 600, seed=0)

    assert len(rows) == 600 and (np.diff(rows) > 0).all()
    assert np.unique(subject[rows], return_counts=True)[1].tolist() == [3] * 200
    assert subject[rows].max() > 900 and _drawn(subject, np.arange(3000), 3000, 0).size == 3000


def test_dates_that_a_source_calls_untrue_have_no_years(described):
    assert described["dates"] == {"kind": "not_real", "years": {}}
    assert described["setting"]["setting"] == Synthetic.setting


class Dated(Synthetic):
    dates = ""


def test_shifted_dates_are_told_by_the_year_groups_of_the_patients(hospital):
    samples = hospital.prepared.samples
    masks = {"all": np.ones(len(samples), bool)}

    found = dates(samples, hospital.events, masks, Dated(n_patients=1))

    first, last = found["years"]["all"]
    assert found["kind"] == "approximate" and 2008 <= first <= last <= 2030


@pytest.mark.parametrize(("year", "kind"), [(2019, "real"), (2150, "not_real")])
def test_dates_without_year_groups_are_true_unless_they_lie_in_the_future(build, tmp_path, year, kind):
    events = build.events(tmp_path, [(1, 1.0, "LAB//1", 1.0, None, 1.0)])
    samples = pd.DataFrame({"subject_id": [1], "prediction_time": [pd.Timestamp(f"{year}-05-01")]})

    found = dates(samples, events, {"all": np.ones(1, bool)}, Dated(n_patients=1))

    assert found == {"kind": kind, "years": {"all": [2019, 2019]} if kind == "real" else {}}


def test_a_number_as_outcome_has_quartiles_and_no_columns_of_its_own(build):
    samples = build.samples([(1, 1), (1, 2), (2, 1)]).assign(split="train", label_days=[1.0, np.nan, 3.0])
    outputs = [OutputSpec("days", "regression", "d")]
    masks = column_masks(samples, outputs)

    [row] = outcomes(samples, outputs, masks)

    assert list(masks) == ["all", "train"] and sizes(samples, masks)["all"] == {"samples": 3, "patients": 2}
    assert row["values"]["all"] == {"known": 2, "unknown": 1, "patients": 2} | {
        "patients_unknown": 1,
        "q1": 1.5,
        "median": 2.0,
        "q3": 2.5,
    }


def test_a_group_of_many_values_keeps_the_frequent_ones(build):
    at = [(i, 1) for i in range(60)]
    samples = build.samples(at).assign(split="train", group_ward=[f"w{i % 50:02}" for i in range(60)])
    static = np.zeros((60, len(STATICS)), np.float32)
    static[:, [STATICS.index("age_missing"), STATICS.index("sex_missing")]] = 1
    dataset = SampleDataset(samples, static, build.store([]), None, Window(), ())

    [row] = characteristics(samples, dataset, column_masks(samples, []), has_stays=False)

    assert row["title"] == "Ward" and len(row["levels"]) == 31 and "other" in row["levels"]
    assert sum(row["values"]["all"]["samples"]) == 60


def test_the_description_is_json_and_the_same_each_time(described, hospital):
    again = describe_cohort(hospital.prepared, hospital.config.source)

    assert json.dumps(again, allow_nan=False) == json.dumps(described, allow_nan=False)
