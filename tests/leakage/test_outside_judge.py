"""Another program judges our features: icu-leakage-check finds nothing in them, and finds what is planted."""

import leaking
import numpy as np
import pandas as pd
import pytest
from icu_leakage_check import audit

import ehrdl
from ehrdl.data.dataset import positions
from ehrdl.data.features.table import tabulate
from ehrdl.schema import HELD_OUT, TRAIN
from ehrdl.sources.synthetic import Synthetic

#: It calls the splits by other names.
SPLITS = {"train": "train", "tuning": "valid", "held_out": "test"}


def features(prepared):
    """The table of features of all samples, with what the judge needs to know of them."""
    samples = prepared.samples
    table = tabulate(prepared.dataset, np.arange(len(samples))).drop(columns="text")
    known = {"subject_id": samples.subject_id, "split": samples.split.map(SPLITS), "label": samples.label_readmission}
    return table.assign(**known, sample_id=samples.sample_id, prediction_time=samples.prediction_time)


def facts(prepared):
    """Every fact that a sample sees, with its times: the events that its features are built from."""
    dataset, samples = prepared.dataset, prepared.samples
    n = dataset.stop - dataset.start
    at, row = positions(dataset.start, n), np.repeat(np.arange(len(n)), n)
    times = {
        "event_time": dataset.store.time[at].astype("datetime64[us]"),
        "available_time": dataset.store.available[at].astype("datetime64[us]"),
        "index_time": samples.prediction_time.to_numpy()[row],
    }
    return pd.DataFrame({"entity_id": row, "feature": np.array(dataset.store.channel[at]).astype(str)} | times)


def judged(table, **more):
    """The checks that find something, and the features that they name."""
    result = audit(
        table, label="label", split="split", patient_id="subject_id", encounter_id="sample_id",
        index_time="prediction_time", **more,
    )  # fmt: skip
    frame = result.to_frame()
    assert (frame.status == "pass").sum() >= 8  # it did judge
    return {name: part for name, part in frame.groupby("check_id") if part.status.isin(["fail", "warn"]).any()}


@pytest.fixture(scope="module")
def honest(prepared):
    return features(prepared)


def test_it_finds_nothing_in_our_features_and_the_facts_behind_them(honest, prepared):
    assert judged(honest, events=facts(prepared)) == {}


def test_it_finds_facts_after_the_cut(honest, prepared):
    seen = facts(prepared)
    late = seen.assign(
        available_time=seen.available_time.where(seen.index % 50 > 0, seen.index_time + pd.Timedelta("1h"))
    )
    assert judged(honest, events=late).keys() == {"event_timing"}


def test_it_finds_a_split_by_stay(honest):
    draw = np.random.default_rng(0).random(len(honest))
    by_stay = np.select([draw < 0.2, draw < 0.3], ["test", "valid"], "train")
    assert "entity_overlap" in judged(honest.assign(split=by_stay))


def test_it_finds_a_feature_that_is_the_label(honest):
    assert judged(honest.assign(discharge_flag=honest.label)).keys() >= {"single_feature_dominance"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "caught"),
    [
        (Synthetic, set()),
        (leaking.OutcomeAsValue, {"single_feature_dominance"}),
        (leaking.OutcomeAsPresence, {"single_feature_dominance", "missingness_proxy"}),
        (leaking.Doubled, {"duplicate_records"}),
    ],
)
def test_it_finds_what_the_audit_finds_in_the_features_of_the_runs_that_leak(source, caught, tmp_path):
    cohort = ehrdl.load(source(300, seed=1), prepare={"cache": str(tmp_path)}, window=leaking.WINDOW)
    assert {TRAIN, HELD_OUT} < set(cohort.samples.split)
    assert judged(features(cohort.prepared)).keys() == caught
