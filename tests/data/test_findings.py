"""What EVENTS cannot mean, on a small hospital in which one thing at a time is wrong."""

from collections import Counter
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.clinical import concepts
from ehrdl.data.series import store
from ehrdl.data.series.findings import find_in_series
from ehrdl.engine.options import Prepare
from ehrdl.events.findings import _unknown_words, find_in_events, find_repeated
from ehrdl.schema import EVENTS

DAY = timedelta(days=1)
N = 40


def stay(subject):
    """The rows of one patient: subject_id, time, code, numeric_value, encounter_id."""
    start = datetime(2150, 3, 1, 10) + subject * DAY
    return [
        (subject, None, "GENDER//F" if subject % 2 else "GENDER//M", None, None),
        (subject, datetime(2100, 1, 1), "MEDS_BIRTH", None, None),
        (subject, start, "ADMISSION//EMERGENCY ROOM", None, subject),
        (subject, start + DAY, "LAB//50983//mEq/L", 140.0, subject),
        (subject, start, "SERVICE_IN//MED", None, subject),
        (subject, start + 3 * DAY, "ADMISSION_TYPE//EW EMER.", None, subject),
        (subject, start + 3 * DAY, "DISCHARGE//HOME", None, subject),
        (subject, start + 3 * DAY, "DIAGNOSIS//ICD10//I500", 1.0, subject),
        (subject, start + 100 * DAY, "MEDS_DEATH", None, None),
    ]


def write(folder, change=lambda rows: rows):
    rows = [row for subject in range(1, N + 1) for row in change(stay(subject))]
    frame = pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value", "encounter_id"])
    frame["encounter_id"] = frame["encounter_id"].astype("Int64")
    frame["available_time"], frame["text_value"] = frame["time"], None
    schema = pa.schema([(column.name, column.type) for column in EVENTS.columns])
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False), folder / "data/0.parquet")
    return folder


def swap(code, new=None, shift=None, encounter=True, number=None):
    """A change of the rows whose code begins so."""

    def change(rows):
        return [
            (who, time + shift if shift else time, new or name, number or value, stay if encounter else None)
            if name.startswith(code)
            else (who, time, name, value, stay)
            for who, time, name, value, stay in rows
        ]

    return change


def drop(code):
    return lambda rows: [row for row in rows if not row[2].startswith(code)]


@pytest.fixture
def prepare(tmp_path):
    return Prepare(cache=str(tmp_path / "cache"), workers=1)


def test_a_clean_hospital_gives_no_finding(tmp_path, prepare):
    assert find_in_events(write(tmp_path / "events"), prepare) == []


@pytest.mark.parametrize(
    ("change", "column", "says"),
    [
        (swap("MEDS_BIRTH", shift=-100 * 365 * DAY), "MEDS_BIRTH", "above 120 years"),
        (swap("MEDS_BIRTH", shift=60 * 366 * DAY), "MEDS_BIRTH", "before the patient's birth"),
        (drop("MEDS_BIRTH"), "MEDS_BIRTH", "without a date of birth"),
        (swap("GENDER", "GENDER//X"), "GENDER", "other than F and M"),
        (drop("GENDER"), "GENDER", "have no sex"),
        (swap("MEDS_DEATH", shift=-200 * DAY), "MEDS_DEATH", "begin after that day"),
        (swap("DISCHARGE", shift=-4 * DAY), "DISCHARGE", "before their admission"),
        (swap("DISCHARGE", shift=30 * 365 * DAY), "DISCHARGE", "longer than 366 days"),
        (swap("LAB", shift=-350 * 365 * DAY, encounter=False), "time", "outside the years 1900 to 2250"),
        (swap("LAB", shift=200 * 365 * DAY, encounter=False), "time", "outside the years 1900 to 2250"),
        (
            swap("LAB", shift=30 * 365 * DAY, encounter=False),
            "time",
            "over 10 years after the patient's last discharge",
        ),
        (swap("LAB", shift=-timedelta(hours=10)), "time", "are at 00:00"),
        (swap("DIAGNOSIS", "DIAGNOSIS//ICD10//___"), "DIAGNOSIS", "no form of ICD"),
        (swap("ADMISSION//", encounter=False), "encounter_id", "belong to no stay"),
        (swap("SERVICE_IN", "SERVICE_IN//Cardiology"), "SERVICE_IN", "no rule of a cohort knows ('Cardiology')"),
        (swap("DIAGNOSIS", "DIAGNOSIS//ICD11//I500"), "DIAGNOSIS", "neither ICD9 nor ICD10"),
        (swap("DIAGNOSIS", number=2.0), "DIAGNOSIS", "no diagnosis in first place"),
        (swap("DIAGNOSIS", "DIAGNOSIS//ICD9//8"), "DIAGNOSIS", "too short"),
        (
            swap("ADMISSION_TYPE", "ADMISSION_TYPE//INPATIENT"),
            "ADMISSION_TYPE",
            "no rule of a cohort knows ('INPATIENT')",
        ),
        (swap("DISCHARGE", "DISCHARGE//Nach Hause"), "DISCHARGE", "no rule of a cohort knows ('Nach Hause')"),
    ],
)
def test_a_column_that_cannot_be_is_one_loud_finding(tmp_path, prepare, change, column, says):
    (found,) = find_in_events(write(tmp_path / "events", change), prepare)
    assert (found.table, found.column, found.is_loud) == ("EVENTS", column, True)
    assert says in found.what
    assert found.n == N


def test_an_event_far_outside_the_stay_that_it_names_is_told(tmp_path, prepare):
    (found,) = find_in_events(write(tmp_path / "events", swap("LAB", shift=-3700 * DAY)), prepare)
    assert (found.column, found.n, found.is_loud) == ("encounter_id", N, True)
    assert "outside the stay that they name" in found.what


def test_an_age_of_0_is_told_and_never_loud_since_newborns_have_it(tmp_path, prepare):
    (found,) = find_in_events(write(tmp_path / "events", swap("MEDS_BIRTH", shift=18263 * DAY)), prepare)
    assert (found.column, found.n, found.is_loud) == ("MEDS_BIRTH", N, False)
    assert "in the year of birth" in found.what


@pytest.mark.parametrize("word", ["ew emer.", "EW EMER. ", " EW\u00a0EMER.", "EW  EMER."])
def test_a_known_word_is_known_however_it_is_written(tmp_path, prepare, word):
    assert find_in_events(write(tmp_path / "events", swap("ADMISSION_TYPE", f"ADMISSION_TYPE//{word}")), prepare) == []


def test_a_word_that_few_have_is_counted_and_not_named(tmp_path, prepare):
    def change(rows):
        return swap("ADMISSION_TYPE", "ADMISSION_TYPE//Mr Miller")(rows) if rows[0][0] <= 9 else rows

    (found,) = find_in_events(write(tmp_path / "events", change), prepare)
    assert found.n == 9 and "Miller" not in found.what


def test_a_second_run_reports_the_same_from_the_cache(tmp_path, prepare):
    events = write(tmp_path / "events", swap("GENDER", "GENDER//X"))
    first = find_in_events(events, prepare)
    (events / "data/0.parquet").unlink()
    assert find_in_events(events, prepare) == first


def test_a_table_that_was_appended_to_itself_is_loud_and_a_few_equal_rows_are_not_worth_a_line():
    found = find_repeated({"LAB": [100, 200], "EMAR": [3, 200], "CHART": [1, 200]})
    assert [(one.column, one.n, one.of, one.is_loud) for one in found] == [
        ("LAB", 100, 200, True),
        ("EMAR", 3, 200, False),
    ]


def test_values_out_of_range_and_in_unknown_units_are_findings_of_their_channel(tmp_path, prepare):
    def change(rows):
        who = rows[0][0]
        rows = swap("LAB", number=9000.0)(rows) if who <= 20 else rows
        return swap("LAB", "LAB//50983//stone")(rows) if who > 30 else rows

    known = concepts.load()
    (tmp_path / "series").mkdir()
    store.build(write(tmp_path / "events", change), known, tmp_path / "series", prepare)
    out, unit = find_in_series(store.open_store(tmp_path / "series", known), known)
    assert (out.column, out.n, out.of, out.is_loud) == ("sodium", 20, 30, True)
    assert (unit.column, unit.n, unit.of, unit.is_loud) == ("sodium", 10, 20, True)
    assert "plausible range" in out.what and "unit" in unit.what


def test_a_word_is_named_by_its_patients_and_not_by_its_stays():
    rows = {"Nach Hause": (40, 12), "Mrs Smith": (30, 2)}
    stays, patients = (Counter({word: counts[i] for word, counts in rows.items()}) for i in (0, 1))
    found = _unknown_words("DISCHARGE", stays, patients)
    assert found.what == "stays have a word that no rule of a cohort knows ('Nach Hause')"
    assert (found.n, found.of) == (70, 70)
