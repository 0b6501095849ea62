"""Hourly sepsis of the challenge: which hours are samples, and their labels."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from ehrdl.errors import SchemaError
from ehrdl.tasks.sepsis2019 import HourlySepsis

START = pd.Timestamp("2000-01-01")


def events(**records):
    """EVENTS of records: labels an hour, from hour 1; None = no label there."""
    rows = []
    for name, labels in records.items():
        subject = int(name.removeprefix("p"))
        rows += [
            (subject, pd.NaT, "GENDER//F", None, None),
            (subject, START - pd.Timedelta(days=50 * 365.25), "MEDS_BIRTH", None, None),
        ]
        for hour, label in enumerate(labels, 1):
            at = START + pd.Timedelta(hours=hour)
            rows += [(subject, at, "P19//ICULOS//h", hour, subject), (subject, at, "P19//Unit//SICU", 1, subject)]
            if label is not None:
                rows.append((subject, at, "SEPSIS_LABEL", label, subject))
    frame = pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value", "encounter_id"])
    return frame.astype({"encounter_id": "Int64", "numeric_value": "float32"}).assign(available_time=frame.time)


def label(frame, **options):
    with duckdb.connect() as con:
        return HourlySepsis(**options).label(con.from_df(frame))


SEPTIC = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]  # the label turns at hour 3, so the onset is hour 9


def test_every_hour_up_to_the_onset_is_a_sample_with_the_label_that_was_shipped():
    result = label(events(p1=SEPTIC, p2=[0, 0, 0]))
    own = result.samples[result.samples.subject_id == 1]
    assert ((own.prediction_time - START) / pd.Timedelta(hours=1)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert own["label_sepsis_2019"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert (result.samples.subject_id == 2).sum() == 3
    assert [step.admissions for step in result.flow] == [15, 12]
    assert result.hidden_codes == ("SEPSIS_LABEL",)


def test_hours_after_the_onset_are_kept_on_demand():
    result = label(events(p1=SEPTIC), after_onset=True)
    assert len(result.samples) == 12 and [step.admissions for step in result.flow] == [12]


def test_an_hour_without_a_label_is_unknown():
    result = label(events(p1=[0, None, 1]))
    np.testing.assert_array_equal(result.samples["label_sepsis_2019"], [0, np.nan, 1])
    assert result.samples["status_sepsis_2019"].tolist() == ["negative", "censored", "positive"]
    assert result.notes["label_unknown"] == 1


def test_groups_and_order_are_there():
    samples = label(events(p2=[0, 0], p1=[0])).samples
    assert samples.subject_id.tolist() == [1, 2, 2] and samples.sample_id.tolist() == [0, 1, 2]
    groups = samples.filter(like="group_").iloc[0].to_dict()
    assert groups == {"group_sex": "F", "group_age_band": "45-64", "group_care_unit": "SICU"}


def test_a_source_without_hours_is_refused():
    frame = events(p1=[0])
    with pytest.raises(SchemaError, match="the source has no ICULOS; use Physionet2019"):
        label(frame[frame.code != "P19//ICULOS//h"])
