"""Every fact of MIMIC-IV becomes available by the rule of its table: just before, on and just after each boundary."""

import pandas as pd
import pytest

from ehrdl.schema import NEVER_INPUT

CHARTED_CREATININE = 220615


# ------------------------------------------------------------------------------------------------ labs and vitals


@pytest.mark.parametrize(
    ("storetime", "available"),
    [
        ("2150-01-02 05:59:59", "2150-01-02 06:00:00"),  # stored before it was drawn: never before its own time
        ("2150-01-02 06:00:00", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:01", "2150-01-02 06:00:01"),
        ("", "2150-01-02 10:00:00"),  # unknown: 4 h
    ],
)
def test_lab_is_available_when_stored_and_never_before_it_was_drawn(mimic, storetime, available):
    events = mimic.lab("2150-01-02 06:00:00", storetime).read()
    assert events.of("LAB//") == ("2150-01-02 06:00:00", available)
    assert mimic.facts["tables"]["hosp.labevents"]["on_fallback"] == (storetime == "")


@pytest.mark.parametrize(
    ("storetime", "available"),
    [
        ("2150-01-02 05:59:59", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:00", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:01", "2150-01-02 06:00:01"),
        ("", "2150-01-02 07:00:00"),  # unknown: 1 h
    ],
)
def test_vital_is_available_when_stored_and_never_before_it_was_charted(mimic, storetime, available):
    events = mimic.chart("2150-01-02 06:00:00", storetime).read()
    assert events.of("CHART//") == ("2150-01-02 06:00:00", available)
    assert mimic.facts["tables"]["icu.chartevents"]["on_fallback"] == (storetime == "")


def test_charted_lab_is_dropped_where_labevents_is_read(mimic):
    mimic.chart(itemid=CHARTED_CREATININE, storetime="")
    assert mimic.read().codes("CHART//") == []


def test_charted_lab_has_the_delay_of_labs_where_labevents_is_not_read(mimic):
    mimic.chart("2150-01-02 06:00:00", "", itemid=CHARTED_CREATININE).chart("2150-01-02 06:00:00", "")
    events = mimic.read(tables=["icu/chartevents"])
    assert events.of("CHART//220615")[1] == "2150-01-02 10:00:00"
    assert events.of("CHART//220045")[1] == "2150-01-02 07:00:00"


def test_lab_without_a_stay_is_kept(mimic):
    assert pd.isna(mimic.lab(hadm_id="").read().row("LAB//").encounter_id)


def test_only_items_of_the_concepts_are_kept(mimic):
    mimic.lab().lab(itemid=51466).chart().chart(itemid=226228)
    assert mimic.read().codes("LAB//") + mimic.read().codes("CHART//") == ["LAB//50912//mg/dL", "CHART//220045//bpm"]


def test_code_carries_the_unit_and_an_empty_unit_is_empty(mimic):
    mimic.lab(valueuom=" mg/dL ").lab("2150-01-03", valueuom="")
    assert mimic.read().codes("LAB//") == ["LAB//50912//", "LAB//50912//mg/dL"]


def test_result_without_a_number_keeps_its_text_and_one_without_either_is_no_event(mimic):
    mimic.lab(value="HEMOLYZED", valuenum="").lab("2150-01-03", value="", valuenum="")
    row = mimic.read().row("LAB//")
    assert (row.text_value, pd.isna(row.numeric_value)) == ("HEMOLYZED", True)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e300"])
def test_number_that_a_float32_cannot_hold_is_kept_as_text(mimic, number):
    row = mimic.lab(value=number).read().row("LAB//")
    assert (row.text_value, pd.isna(row.numeric_value)) == (number, True)


def test_row_without_subject_or_time_is_no_event(mimic):
    assert mimic.lab("", "2150-01-02 07:00:00").lab(subject_id="").read().codes("LAB//") == []


# ------------------------------------------------------------------------------------------------ stays


FACTS = {
    "admission_location": "EMERGENCY ROOM",
    "race": "WHITE",
    "language": "ENGLISH",
    "marital_status": "SINGLE",
    "admission_type": "URGENT",
    "insurance": "Medicare",
    "discharge_location": "HOME",
    "edregtime": "2150-01-01 06:00:00",
    "edouttime": "2150-01-01 11:00:00",
}


def test_what_is_known_at_admission_is_available_then(mimic):
    events = mimic.change("hosp/admissions", **FACTS).read()
    admission = ("2150-01-01 10:00:00", "2150-01-01 10:00:00")
    for code in ("ADMISSION//EMERGENCY ROOM", "RACE//WHITE", "LANGUAGE//ENGLISH", "MARITAL_STATUS//SINGLE"):
        assert events.of(code) == admission
        assert events.row(code).encounter_id == 10


def test_what_is_known_at_discharge_is_not_available_before(mimic):
    events = mimic.change("hosp/admissions", **FACTS).read()
    for code in ("DISCHARGE//HOME", "ADMISSION_TYPE//URGENT", "INSURANCE//Medicare"):
        assert events.of(code) == ("2150-01-05 12:00:00", "2150-01-05 12:00:00")


def test_emergency_room_has_its_own_times(mimic):
    events = mimic.change("hosp/admissions", **FACTS).read()
    assert events.of("ED_IN") == ("2150-01-01 06:00:00", "2150-01-01 06:00:00")
    assert events.of("ED_OUT") == ("2150-01-01 11:00:00", "2150-01-01 11:00:00")


def test_nothing_of_the_end_stands_in_an_event_before_it(mimic):
    """Two hospitals that differ only in how the stay and the ICU stay end are the same until then."""
    mimic.change("hosp/admissions", **FACTS)
    mimic.add(
        "icu/icustays", subject_id=1, hadm_id=10, first_careunit="MICU", last_careunit="MICU", intime="2150-01-02"
    )
    mimic.change("icu/icustays", outtime="2150-01-03 00:00:00", los="1.0")
    one = mimic.read().frame
    mimic.change("icu/icustays", outtime="2150-01-04 00:00:00", last_careunit="SICU", los="2.0")
    end = {"dischtime": "2150-01-06 00:00:00", "deathtime": "2150-01-06 00:00:00", "hospital_expire_flag": 1}
    mimic.change("hosp/admissions", admission_type="ELECTIVE", insurance="Other", discharge_location="DIED", **end)
    other = mimic.change("hosp/patients", dod="2150-01-06").read().frame
    before = [frame[~(frame.available_time >= pd.Timestamp("2150-01-03"))] for frame in (one, other)]
    assert len(before[0]) == 10
    pd.testing.assert_frame_equal(before[0].reset_index(drop=True), before[1].reset_index(drop=True))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"hospital_expire_flag": 1, "discharge_location": "HOME"}, "DISCHARGE//DIED"),
        ({"deathtime": "2150-01-05 11:00:00", "discharge_location": "HOME"}, "DISCHARGE//DIED"),
        ({"discharge_location": "DIED"}, "DISCHARGE//DIED"),
        ({"discharge_location": "HOSPICE"}, "DISCHARGE//HOSPICE"),
        ({"discharge_location": ""}, "DISCHARGE//UNKNOWN"),
    ],
)
def test_a_stay_ended_in_death_by_any_of_three_signs(mimic, end, code):
    assert mimic.change("hosp/admissions", **end).read().codes("DISCHARGE//") == [code]


def test_expire_flag_is_no_event(mimic):
    codes = mimic.change("hosp/admissions", hospital_expire_flag=1).read().codes()
    assert not [code for code in codes if "EXPIRE" in code.upper()]


def test_icu_stay_is_two_events(mimic):
    facts = {"first_careunit": "MICU", "last_careunit": "SICU", "intime": "2150-01-02 01:00:00"}
    events = mimic.add("icu/icustays", subject_id=1, hadm_id=10, outtime="2150-01-03 02:00:00", **facts).read()
    assert events.of("ICU_IN//MICU") == ("2150-01-02 01:00:00",) * 2
    assert events.of("ICU_OUT//SICU") == ("2150-01-03 02:00:00",) * 2


def test_icu_stay_that_has_not_ended_has_no_end(mimic):
    facts = {"first_careunit": "MICU", "last_careunit": "SICU", "intime": "2150-01-02 01:00:00"}
    assert mimic.add("icu/icustays", subject_id=1, hadm_id=10, **facts).read().codes("ICU") == ["ICU_IN//MICU"]


def test_service_starts_at_its_transfer(mimic):
    mimic.add("hosp/services", subject_id=1, hadm_id=10, transfertime="2150-01-02 03:00:00", curr_service="MED")
    assert mimic.read().of("SERVICE_IN//MED") == ("2150-01-02 03:00:00",) * 2


@pytest.mark.parametrize(("days", "available"), [(7, "2150-01-12 12:00:00"), (0, "2150-01-05 12:00:00")])
def test_diagnoses_come_with_the_coding_lag_after_discharge(mimic, days, available):
    mimic.add("hosp/diagnoses_icd", subject_id=1, hadm_id=10, seq_num=1, icd_code="I50.0 ", icd_version=10)
    events = mimic.read(coding_lag_days=days)
    assert events.of("DIAGNOSIS//ICD10//I500") == ("2150-01-05 12:00:00", available)
    assert events.row("DIAGNOSIS//").numeric_value == 1


def test_diagnosis_keeps_its_version_and_its_leading_zeros(mimic):
    for code, version in (("V271", 9), ("V271", 10), ("0389", 9)):
        mimic.add("hosp/diagnoses_icd", subject_id=1, hadm_id=10, seq_num=1, icd_code=code, icd_version=version)
    codes = ["DIAGNOSIS//ICD10//V271", "DIAGNOSIS//ICD9//0389", "DIAGNOSIS//ICD9//V271"]
    assert mimic.read().codes("DIAGNOSIS//") == codes


# ------------------------------------------------------------------------------------------------ patients


def test_birth_is_new_year_of_the_anchor_year_less_the_anchor_age(mimic):
    assert mimic.read().of("MEDS_BIRTH") == ("2090-01-01 00:00:00",) * 2


def test_sex_is_static(mimic):
    assert mimic.read().of("GENDER//F") == ("NaT", "NaT")


@pytest.mark.parametrize(
    ("dod", "deathtime", "time"),
    [
        ("2150-01-05", "2150-01-05 11:00:00", "2150-01-05 11:00:00"),
        ("2150-02-01", "", "2150-02-01 23:59:59.999999"),
        ("2150-02-01 00:00:00", "", "2150-02-01 23:59:59.999999"),
    ],
)
def test_death_is_the_deathtime_else_the_end_of_the_day(mimic, dod, deathtime, time):
    mimic.change("hosp/patients", dod=dod).change("hosp/admissions", deathtime=deathtime)
    assert mimic.read().of("MEDS_DEATH") == (time, time)


def test_a_stay_without_a_patient_hides_no_other_patients_death(mimic):
    mimic.change("hosp/patients", dod="2150-02-01").stay("", 99, deathtime="2150-01-05 11:00:00")
    assert mimic.read().of("MEDS_DEATH")[0] == "2150-02-01 23:59:59.999999"


def test_two_stays_that_end_in_one_death_give_one_event_of_the_first(mimic):
    mimic.change("hosp/admissions", deathtime="2150-01-05 11:00:00").stay(1, 9, deathtime="2150-01-05 11:00:00")
    assert mimic.read().row("MEDS_DEATH").encounter_id == 9


def test_year_group_and_death_are_never_inputs(mimic):
    events = mimic.change("hosp/patients", dod="2150-02-01").read()
    assert set(NEVER_INPUT) <= {code.split("//")[0] for code in events.codes()}
    assert not [code for code in events.codes() if "2150-02-01" in code or "DOD" in code]


# ------------------------------------------------------------------------------------------------ notes


@pytest.mark.parametrize(
    ("charttime", "storetime", "available"),
    [
        ("2150-01-05 00:00:00", "2150-01-06 09:00:00", "2150-01-06 09:00:00"),
        ("2150-01-05 00:00:00", "2150-01-05 00:00:00", "2150-01-05 00:00:00"),
        ("2150-01-05 00:00:00", "2150-01-04 23:59:59", "2150-01-05 00:00:00"),  # never before its day
        ("2150-01-05", "2150-01-04 23:59:59", "2150-01-05 00:00:00"),  # pandas writes midnights so
        ("2150-01-05 14:00:00", "2150-01-05 13:00:00", "2150-01-05 13:00:00"),
        ("2150-01-05 14:00:00", "2150-01-04 13:00:00", "2150-01-05 00:00:00"),
        ("2150-01-05 00:00:00", "", "2150-01-05 23:59:59.999999"),
        ("2150-01-05 14:00:00", "", "2150-01-05 23:59:59.999999"),
        ("", "2150-01-05 13:00:00", "2150-01-05 13:00:00"),
    ],
)
@pytest.mark.parametrize("table", ["discharge", "radiology"])
def test_note_is_available_when_stored_else_at_the_end_of_its_day(mimic, table, charttime, storetime, available):
    time, seen = mimic.note(charttime, storetime, table).read().of(f"NOTE//{table}//DS")
    assert seen == available
    assert pd.Timestamp(time) == min(pd.Timestamp(charttime or storetime), pd.Timestamp(available))


def test_addendum_is_an_event_of_its_own(mimic):
    mimic.note().note("2150-01-07 00:00:00", "2150-01-07 10:00:00", note_type="AD", text="Addendum.")
    events = mimic.read()
    assert events.row("NOTE//discharge//DS").text_value == "Well."
    assert events.of("NOTE//discharge//AD")[1] == "2150-01-07 10:00:00"


def test_report_and_its_addendum_are_events_of_their_own_each_seen_when_it_was_stored(mimic):
    mimic.note("2150-01-05 14:00:00", "2150-01-05 16:00:00", "radiology", note_type="RR", text="Clear.")
    mimic.note("2150-01-05 14:00:00", "2150-01-06 08:00:00", "radiology", note_type="AR", text="Seen again: a nodule.")
    events = mimic.read()
    assert events.of("NOTE//radiology//RR") == ("2150-01-05 14:00:00", "2150-01-05 16:00:00")
    assert events.of("NOTE//radiology//AR") == ("2150-01-05 14:00:00", "2150-01-06 08:00:00")
    assert events.row("NOTE//radiology//RR").text_value == "Clear."
    assert events.row("NOTE//radiology//AR").text_value == "Seen again: a nodule."


def test_radiology_report_from_a_clinic_has_no_stay(mimic):
    assert pd.isna(mimic.note(table="radiology", hadm_id="").read().row("NOTE//").encounter_id)


TEXT = 'He said "no, never",\n\n"""\n1-DS-1,1,10,DS,1,2150-01-05 00:00:00,,"\r\nLVEF 45 % — ___ µg\n'


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_quotes_commas_and_newlines_in_a_note_are_kept(mimic, newline):
    mimic.note(text=TEXT).write(newline=newline)
    assert mimic.read(write=False).row("NOTE//").text_value == TEXT


def test_many_long_notes_are_read_without_losing_the_place(mimic):
    """36 MB of quoted text with lines that look like rows: more than one block of any reader."""
    body = (TEXT + "x" * 200) * 40
    for n in range(3000):
        mimic.note(text=f"{n} {body}")
    found = mimic.read().frame.query("code.str.startswith('NOTE//')")
    assert sorted(found.text_value, key=lambda text: int(text.split()[0])) == [f"{n} {body}" for n in range(3000)]


def test_missing_notes_are_said_and_the_rest_is_read(mimic, capsys):
    mimic.lab().read(tables=["hosp/labevents", "note/discharge", "note/radiology"])
    [line] = mimic.facts["missing"]
    assert line.startswith("note/discharge, note/radiology: not under ")
    assert capsys.readouterr().err == f"{line}\n"


def test_notes_may_lie_in_a_folder_of_their_own(mimic, tmp_path):
    mimic.note().write()
    (tmp_path / "notes").mkdir()
    (mimic.root / "note").rename(tmp_path / "notes" / "note")
    assert mimic.read(write=False, note_root=str(tmp_path / "notes")).codes("NOTE//") == ["NOTE//discharge//DS"]
