"""A MEDS dataset that a test writes down row by row becomes EVENTS."""

import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.errors import SchemaError
from ehrdl.events.writer import validate
from ehrdl.schema import EVENTS
from ehrdl.sources.meds.source import Meds


@pytest.fixture
def stay(meds):
    """A woman, her birth, and a stay with a lab."""
    meds.file(
        (1, None, "GENDER//F"),
        (1, "01-01 10:00", "ADMISSION//EMERGENCY ROOM"),
        (1, "01-02 06:00", "LAB//50912//mg/dL", {"numeric_value": 1.5}),
        (1, "01-05 12:00", "DISCHARGE//HOME"),
    )
    return meds


def waits(frame):
    """Hours from time to available_time by code."""
    hours = (frame.available_time - frame.time) / pd.Timedelta(hours=1)
    return dict(zip(frame.code, hours, strict=True))


def test_a_dataset_without_any_optional_column_is_read(meds):
    meds.file((1, None, "GENDER//F"), (1, "01-02 06:00", "LAB//50912//mg/dL"))
    frame = meds.read()
    assert frame.columns.tolist() == EVENTS.names()
    assert frame.code.tolist() == ["GENDER//F", "LAB//50912//mg/dL"]
    assert frame[["numeric_value", "text_value", "encounter_id"]].isna().all(axis=None)
    assert validate(meds.events) == {"rows": 2, "subjects": 1, "codes": 2, "repeated": {}}


def test_files_in_folders_of_any_depth_are_all_read_and_a_column_may_be_in_some_alone(meds):
    meds.file((1, "01-02 06:00", "LAB//1//", {"numeric_value": 2.0}), name="0")
    meds.file((2, "01-02 06:00", "LAB//1//", {"text_value": "high"}), name="train/0")
    meds.file((3, "01-02 06:00", "LAB//1//"), name="held_out/a/0")
    frame = meds.read()
    assert frame.subject_id.tolist() == [1, 2, 3]
    assert frame.numeric_value.tolist()[0] == 2.0 and frame.text_value.tolist()[1] == "high"
    assert meds.facts["tables"]["data"]["files"] == 3


def test_the_same_values_in_other_types_give_the_same_events(meds):
    """A file each: plain, long texts, a dictionary, wide numbers, and narrow ones with times to the nanosecond."""
    kinds = (
        {},
        {"code": pa.large_string(), "text_value": pa.string()},
        {"code": pa.dictionary(pa.int32(), pa.string()), "text_value": pa.null()},
        {"numeric_value": pa.float64(), "subject_id": pa.int32()},
        {"numeric_value": pa.int64(), "time": pa.timestamp("ns")},
    )
    for subject, types in enumerate(kinds):
        static = (subject, None, "GENDER//F", {"text_value": None})
        meds.file(static, (subject, "01-02 06:00", "LAB//1//", {"numeric_value": 2}), name=str(subject), types=types)
    first, *others = (rows.drop(columns="subject_id") for _, rows in meds.read().groupby("subject_id"))
    for rows in others:
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), first)


def test_a_file_without_a_row_is_no_fault(meds):
    path = meds.file(LAB, name="0")
    pq.write_table(pq.read_table(path).slice(0, 0), path.with_name("1.parquet"))
    assert len(meds.read()) == 1


def test_extension_columns_and_an_odd_name_do_no_harm(meds):
    meds.root = meds.root.with_name("it's a 'folder'")
    meds.file((1, "01-02 06:00", "LAB//1//", {"priority": "STAT", 'odd "name"': 3}))
    assert len(meds.read()) == 1


def test_a_number_that_is_none_becomes_null(meds):
    meds.file(
        (1, "01-02 06:00", "LAB//1//"), (1, "01-02 07:00", "LAB//1//"), numeric_value=pa.array([float("nan"), 1e300])
    )
    assert meds.read().numeric_value.isna().all()


@pytest.mark.slow
def test_the_same_events_whatever_the_number_of_workers(meds):
    for subject in range(1, 8):
        meds.file(
            *[(subject, f"01-0{day} 06:00", "LAB//1//", {"numeric_value": day}) for day in range(1, 6)],
            name=f"{subject}",
        )
    meds.read()
    one = {file.name: file.read_bytes() for file in (meds.events / "data").iterdir()}
    shutil.rmtree(meds.cache)
    meds.read(workers=2)
    assert {file.name: file.read_bytes() for file in (meds.events / "data").iterdir()} == one


LAB = (1, "01-02 06:00", "LAB//1//")

# ------------------------------------------------------------------------------------------------ available_time


def test_delays_stand_in_for_an_available_time_that_the_dataset_lacks(meds, capsys):
    codes = ("ADMISSION//X", "LAB//1//", "CHART//1//", "DIAGNOSIS//ICD10//I50.9", "ODD//1")
    meds.file((1, None, "GENDER//F"), *[(1, "01-02 06:00", code) for code in codes])
    frame = meds.read(default_delay_hours=2.5)
    assert waits(frame[1:]) == {
        "ADMISSION//X": 0,
        "LAB//1//": 4,
        "CHART//1//": 1,
        "DIAGNOSIS//ICD10//I509": 168,
        "ODD//1": 2.5,
    }
    assert frame.available_time.isna().tolist() == [True, *[False] * 5]
    counts = meds.facts["tables"]["data"]
    assert (counts["on_fallback"], counts["timed_by_policy"]) == (1, 5)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("available_time")]
    assert line == (
        "available_time: 1 rows match no pattern of delays and wait 2.5 h, the default: ODD (1); "
        "give them a delay in data.source.delays"
    )
    assert line in meds.facts["missing"]


def test_an_available_time_of_the_dataset_is_used_as_it_is_and_delays_where_it_is_null(meds):
    meds.file(
        (1, "01-02 06:00", "LAB//1//", {"available_time": "01-02 06:20"}),
        (1, "01-02 06:00", "LAB//2//", {"available_time": None}),
        (1, "01-02 06:00", "ODD//1", {"available_time": "01-02 06:00"}),
    )
    assert waits(meds.read()) == {"LAB//1//": pytest.approx(1 / 3), "LAB//2//": 4, "ODD//1": 0}
    counts = meds.facts["tables"]["data"]
    assert (counts["on_fallback"], counts["timed_by_policy"]) == (0, 1)


# ------------------------------------------------------------------------------------------------ codes


def test_codes_are_renamed_and_descriptions_go_along(meds):
    meds.file((1, "01-01 10:00", "IN//ELECTIVE//HOME"), (1, "01-02 06:00", "X1"), (1, "01-02 06:00", "Y"))
    meds.metadata("codes", code=["X1", "unused"], description=["Creatinine", None])
    frame = meds.read(
        rename={"IN//(.*)//(.*)": [r"ADMISSION//\2", r"ADMISSION_TYPE//\1"], "X1": "LAB//50912//mg/dL", "Y": []}
    )
    assert frame.code.tolist() == ["ADMISSION//HOME", "ADMISSION_TYPE//ELECTIVE", "LAB//50912//mg/dL"]
    codes = pd.read_parquet(meds.events / "metadata" / "codes.parquet").set_index("code").description
    assert codes["LAB//50912//mg/dL"] == "Creatinine" and not codes["ADMISSION//HOME"]
    assert meds.facts["tables"]["data"] | {"rows": 3, "dropped": 1} == meds.facts["tables"]["data"]


def test_a_column_of_the_row_goes_into_its_code(meds):
    meds.file(
        (1, "01-02 06:00", "INFUSION//221906", {"unit": "mcg/kg/min"}),
        (1, "01-02 07:00", "INFUSION//221906", {"unit": None}),
    )
    meds.file((2, "01-02 06:00", "INFUSION//221906"), name="1")
    frame = meds.read(rename={r"INFUSION//(\d+)": r"INPUT_START//\1//{unit}"})
    assert [code.split("//")[2] for code in frame.code] == ["mcg/kg/min", "", ""]


def test_notes_are_rows_whose_text_is_a_body(meds):
    meds.file((1, "01-02 06:00", "Discharge summary", {"text_value": "Well."}))
    assert meds.read(notes=["Discharge .*"]).code.tolist() == ["NOTE//Discharge summary"]


# ------------------------------------------------------------------------------------------------ stays


def test_a_named_column_is_the_stay(meds):
    meds.file(
        (1, "01-02 06:00", "LAB//1//", {"hadm_id": 20, "encounter_id": 7}),
        (1, "01-02 07:00", "LAB//1//", {"hadm_id": None}),
    )
    assert meds.read(encounter="hadm_id").encounter_id.tolist()[0] == 20
    assert meds.read(encounter="hadm_id").encounter_id.isna().tolist() == [False, True]
    assert meds.read().encounter_id.tolist()[0] == 7


def test_a_stay_that_is_written_as_a_number_of_another_type_is_a_whole_number(meds):
    for values in (pa.array([20.0, None]), pa.array(["20", None])):
        meds.file((1, "01-02 06:00", "LAB//1//"), (1, "01-02 07:00", "LAB//1//"), visit=values)
        assert meds.read(encounter="visit").encounter_id.tolist()[0] == 20


def numbered(meds, *rows):
    meds.file(*rows)
    frame = meds.read()
    return [None if pd.isna(stay) else int(stay) for stay in frame.encounter_id]


def test_stays_are_numbered_from_admissions_and_discharges(meds):
    assert numbered(
        meds,
        (1, None, "GENDER//F"),
        (1, "01-01 09:59", "LAB//1//"),
        (1, "01-01 10:00", "ADMISSION//X"),
        (1, "01-02 06:00", "LAB//1//"),
        (1, "01-05 12:00", "DIAGNOSIS//ICD10//I509"),
        (1, "01-05 12:00", "DISCHARGE//HOME"),
        (1, "01-05 12:01", "LAB//1//"),
        (1, "02-01 10:00", "ADMISSION//X"),
        (1, "02-09 10:00", "LAB//1//"),
        (2, "01-01 10:00", "ADMISSION"),
        (2, "01-02 10:00", "DISCHARGE"),
    ) == [None, None, 1, 1, 1, 1, None, 2, 2, 1, 1]


def test_where_two_stays_touch_the_moment_belongs_to_the_first_but_for_the_admission(meds):
    assert numbered(
        meds,
        (1, "01-01 10:00", "ADMISSION//X"),
        (1, "01-05 12:00", "ADMISSION//X"),
        (1, "01-05 12:00", "DIAGNOSIS//ICD10//I509"),
        (1, "01-05 12:00", "DISCHARGE//HOME"),
        (1, "01-05 12:01", "LAB//1//"),
        (1, "01-06 12:00", "DISCHARGE//HOME"),
        (1, "01-07 12:00", "LAB//1//"),
    ) == [1, 2, 1, 1, 2, 2, None]


def test_stays_that_overlap_are_paired_in_order(meds):
    """As after a transfer within the hospital: each stay keeps its own end, and what happens then belongs to it."""
    assert numbered(
        meds,
        (1, "01-01 10:00", "ADMISSION//X"),
        (1, "01-05 10:00", "ADMISSION//X"),
        (1, "01-05 10:00", "RACE//ASIAN"),
        (1, "01-05 11:00", "LAB//1//"),
        (1, "01-05 12:00", "DIAGNOSIS//ICD10//I509"),
        (1, "01-05 12:00", "DISCHARGE//HOME"),
        (1, "01-05 13:00", "LAB//1//"),
        (1, "01-09 12:00", "DISCHARGE//HOME"),
        (1, "02-01 10:00", "ADMISSION//X"),
        (1, "02-03 10:00", "LAB//1//"),
    ) == [1, 2, 2, 2, 1, 1, 2, 2, 3, 3]


def test_a_stay_without_a_discharge_ends_before_the_next_admission(meds):
    assert numbered(
        meds,
        (1, "01-01 10:00", "ADMISSION//X"),
        (1, "01-03 10:00", "LAB//1//"),
        (1, "02-01 10:00", "ADMISSION//X"),
        (1, "02-01 10:00", "LAB//1//"),
        (1, "02-02 10:00", "DISCHARGE//X"),
    ) == [1, 1, 2, 2, 2]


# ------------------------------------------------------------------------------------------------ splits


def test_the_splits_of_the_dataset_are_those_of_events_and_may_name_subjects_without_data(stay):
    stay.splits(train=[2, 1], held_out=[9])
    stay.read()
    own = pd.read_parquet(stay.events / "metadata" / "subject_splits.parquet")
    assert list(own.itertuples(index=False, name=None)) == [(1, "train"), (2, "train"), (9, "held_out")]


def test_without_splits_of_its_own_subjects_are_drawn_by_their_hash(stay):
    stay.read()
    assert pd.read_parquet(stay.events / "metadata" / "subject_splits.parquet").subject_id.tolist() == [1]
    assert not Meds(str(stay.root)).has_splits()


# ------------------------------------------------------------------------------------------------ the cache


def test_a_file_that_has_not_changed_is_not_read_again(meds):
    meds.file(LAB, name="0")
    meds.file((2, "01-02 06:00", "A"), (2, "01-01 06:00", "A"), name="1")
    with pytest.raises(SchemaError):
        meds.read()
    meds.file((2, "01-02 06:00", "A"), name="1")
    staged = {folder.name for folder in meds.cache.glob("meds-*")}
    assert len(staged) == 1
    times = {folder: (meds.cache / folder / "counts.json").stat().st_mtime_ns for folder in staged}
    assert len(meds.read()) == 2
    assert {folder: (meds.cache / folder / "counts.json").stat().st_mtime_ns for folder in staged} == times
    assert len(list(meds.cache.glob("meds-*"))) == 2


def test_a_build_that_was_stopped_while_it_was_checked_goes_on(stay, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ehrdl.data.prepare.validate", stop)
        with pytest.raises(KeyboardInterrupt):
            stay.read()
    assert list(stay.cache.glob(".events-*"))
    assert len(stay.read()) == 4
    assert not list(stay.events.rglob(".*"))


def test_other_options_make_other_events(stay):
    stay.read()
    first = stay.events
    assert stay.read(delays={"LAB//.*": 5}) is not None and stay.events != first
    stay.read()
    assert stay.events == first
