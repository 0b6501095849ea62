"""The ledger of held-out samples: the same question asked of the same patients is known, however they are stored."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ehrdl.data.prepare import find_samples, read_events
from ehrdl.runs.ledger import asked_digest, enter, held_out, same_data
from ehrdl.tasks.readmission import Readmission

OUTPUTS = ["death", "stay"]


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    n = 50
    return pd.DataFrame(
        {
            "sample_id": np.arange(n),
            "subject_id": np.arange(n, dtype=np.int64) // 2,
            "prediction_time": pd.Timestamp("2150-01-01") + pd.to_timedelta(np.arange(n), unit="h"),
            "label_death": np.where(np.arange(n) < 5, np.nan, rng.integers(0, 2, n)).astype(np.float32),
            "label_stay": rng.gamma(2.0, 2.0, n).astype(np.float32),
            "label_extra": rng.integers(0, 2, n).astype(np.float32),
            "split": np.where(np.arange(n) // 2 % 2, "train", "held_out"),
        }
    )


def test_shards_change_the_events_folder_and_not_what_was_asked(hospital, tmp_path):
    other = replace(hospital.config, prepare=replace(hospital.config.prepare, cache=str(tmp_path), n_shards=3))
    events = read_events(other)
    again = find_samples(events, Readmission())
    assert events.name != hospital.events.name
    found = [asked_digest(result.samples, ["readmission"]) for result in (hospital.result, again)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.sample(frac=1, random_state=1),
        lambda s: s.assign(split="train", sample_id=0, group_sex="F"),
        lambda s: s.assign(label_death=0.0),
        lambda s: s.assign(prediction_time=s.prediction_time.astype("datetime64[ns]")),
    ],
    ids=["order", "split and groups", "labels", "finer clock"],
)
def test_what_changes_neither_whom_nor_what_is_asked_is_the_same(samples, change):
    assert asked_digest(change(samples), OUTPUTS) == asked_digest(samples, OUTPUTS[::-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.iloc[1:],
        lambda s: s.assign(subject_id=s.subject_id + 1),
        lambda s: s.assign(prediction_time=s.prediction_time + pd.Timedelta("1us")),
    ],
    ids=["samples", "subjects", "times"],
)
def test_other_patients_or_times_are_other_data_and_other_outputs_another_question(samples, change):
    assert asked_digest(change(samples), OUTPUTS) != asked_digest(samples, OUTPUTS)
    assert asked_digest(samples, OUTPUTS[:1]) != asked_digest(samples, OUTPUTS)


def test_the_ledger_finds_other_settings_of_the_same_samples_in_another_events_folder(samples, tmp_path):
    def scored(name, events, lr, of=samples):
        own = held_out(tmp_path / name, {"seeds": [0], "optim": {"lr": lr}}, events, "stay", of, OUTPUTS)
        enter(tmp_path, own)
        return [row["run"] for row in own["others"]]

    assert scored("first", "events-a", 0.1) == []
    assert scored("touched", "events-b", 0.2) == ["first"]
    assert scored("others", "events-c", 0.3, samples.assign(subject_id=samples.subject_id + 1)) == []


def test_records_of_older_versions_are_told_apart_by_the_events_folder():
    old, new = {"events": "a"}, {"events": "a", "asked": "x"}
    assert same_data(old, new) and same_data(new, old) and same_data(old, old)
    assert not same_data(old, new | {"events": "b"}) and not same_data(old, {"events": "b"})
    assert same_data(new, new | {"events": "b"}) and not same_data(new, {"events": "b", "asked": "y"})
