"""Readmission in Diabetes-130: who is at risk, what the label is, and what of earlier stays is known."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from ehrdl.errors import SchemaError
from ehrdl.tasks.diabetes import DEAD, HOSPICE, DiabetesReadmission


def events(*stays):
    """EVENTS of stays (subject, encounter, disposition, readmitted or None), a day each."""
    rows, place = [], {}
    for subject, encounter, disposition, readmitted in stays:
        day = pd.Timestamp("2000-01-01") + pd.Timedelta(days=place.get(subject, 0))
        place[subject] = place.get(subject, 0) + 1
        facts = [
            (f"DISPOSITION//{disposition}", 12, None),
            ("STAY//age//years", 0, 75.0),
            ("RACE//Asian", 0, None),
            ("PAYER//MC", 0, None),
        ]
        if readmitted is not None:
            facts.append((f"READMITTED//{readmitted}", 18, None))
        rows += [(subject, day + pd.Timedelta(hours=hour), code, value, encounter) for code, hour, value in facts]
        rows.append((subject, pd.NaT, "GENDER//F", None, None))
    columns = ["subject_id", "time", "code", "numeric_value", "encounter_id"]
    frame = pd.DataFrame(rows, columns=columns).assign(available_time=lambda f: f.time)
    return frame.astype({"encounter_id": "Int64", "numeric_value": "float32"})


def label(frame, **options):
    with duckdb.connect() as con:
        return DiabetesReadmission(**options).label(con.from_df(frame))


def test_only_an_admission_within_30_days_is_positive_and_what_the_table_does_not_say_is_unknown():
    result = label(events((1, 10, 1, "<30"), (2, 20, 1, ">30"), (3, 30, 3, "NO"), (4, 40, 1, None)))
    samples = result.samples
    assert samples.encounter_id.tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(samples.label_diabetes_readmission, [1, 0, 0, np.nan])
    assert samples.status_diabetes_readmission.tolist() == ["positive", "negative", "negative", "censored"]
    assert set(samples.prediction_time) == {pd.Timestamp("2000-01-01 12:00")}


def test_the_dead_and_those_in_hospice_are_left_out_and_counted():
    stays = [(number, number, code, "NO") for number, code in enumerate((*DEAD, *HOSPICE, 1, 6, 18), 1)]
    result = label(events(*stays))
    assert [step.admissions for step in result.flow] == [9, 5, 3]
    assert sorted(DEAD + HOSPICE) == ["11", "13", "14", "19", "20", "21"]
    with pytest.raises(SchemaError, match="no stay is left"):
        label(events((1, 10, 11, "NO")))


def test_groups_are_those_of_the_table():
    samples = label(events((1, 10, 1, "NO"))).samples
    groups = samples.filter(like="group_").iloc[0].to_dict()
    assert groups == {"group_sex": "F", "group_age_band": "70-79", "group_race": "Asian", "group_insurance": "MC"}


def test_past_outcomes_are_inputs_unless_the_task_hides_them():
    frame = events((1, 10, 1, "<30"), (1, 11, 1, "NO"))
    assert label(frame).hidden_codes == ()
    assert label(frame, past_outcomes=False).hidden_codes == ("READMITTED//",)


def test_every_stay_of_a_patient_is_a_sample_in_order():
    samples = label(events((1, 10, 1, "<30"), (1, 11, 1, "<30"), (1, 12, 1, "NO"))).samples
    assert samples.sample_id.tolist() == [0, 1, 2]
    assert samples.prediction_time.is_monotonic_increasing and samples.encounter_id.tolist() == [10, 11, 12]
