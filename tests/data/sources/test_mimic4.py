"""MIMIC-IV becomes EVENTS by the availability table, whatever the file format, the row order and the machine."""

import os
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from ehrdl.clinical import concepts
from ehrdl.data.events import validate
from ehrdl.data.sources.mimic4 import Mimic4
from ehrdl.engine import Prepare
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import NEVER_INPUT
from tests.data.sources.conftest import CHARTED_CREATININE, COLUMNS, Events

DEMO = Path(os.environ.get("EHRDL_DATA", "../shared/data")) / "mimic-iv-demo-2.2"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}")


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
    for table in ("discharge", "radiology"):
        mimic.rows.pop(f"note/{table}")
    mimic.lab().read()
    assert [line.split(":")[0] for line in mimic.facts["missing"]] == ["note/discharge", "note/radiology"]
    assert "note/discharge: not under" in capsys.readouterr().err


def test_notes_may_lie_in_a_folder_of_their_own(mimic, tmp_path):
    mimic.note().write()
    (tmp_path / "notes").mkdir()
    (mimic.root / "note").rename(tmp_path / "notes" / "note")
    assert mimic.read(write=False, note_root=str(tmp_path / "notes")).codes("NOTE//") == ["NOTE//discharge//DS"]


# ------------------------------------------------------------------------------------------------ EVENTS


@pytest.fixture
def full(mimic):
    """Twelve patients with something in every table, ties and nulls included."""
    for subject in range(2, 13):
        stay = 10 * subject
        ids = {"subject_id": subject, "hadm_id": stay}
        mimic.patient(subject, dod="2150-03-01" if subject % 3 == 0 else "").stay(subject, stay, **FACTS)
        mimic.add("hosp/services", **ids, transfertime="2150-01-01 10:00:00", curr_service="MED")
        for number, code in enumerate(("I500", "N179"), 1):
            mimic.add("hosp/diagnoses_icd", **ids, seq_num=number, icd_code=code, icd_version=10)
        mimic.add("icu/icustays", **ids, stay_id=stay, first_careunit="MICU", last_careunit="MICU")
        mimic.change("icu/icustays", intime="2150-01-01 11:00:00", outtime="2150-01-02 11:00:00", los=1.0)
        for value in ("1.5", "1.5", "0.9"):  # two alike, and a third at the same time
            mimic.lab(value=value, **ids).chart(value=value, **ids)
        mimic.lab(storetime="", value="___", valuenum="", **ids | {"hadm_id": ""})
        mimic.note(**ids, text=TEXT).note(**ids, storetime="", table="radiology", note_type="RR")
    return mimic


def test_events_are_valid_meds_in_total_order_with_a_subject_in_one_shard(full):
    events = full.read()
    assert validate(events.out) == {"rows": len(events.frame), "subjects": 12, "codes": events.frame.code.nunique()}


def test_bytes_are_the_same_for_any_number_of_workers_and_any_row_order(full):
    one = full.read().bytes()
    assert full.read(workers=2).bytes() == one
    full.write(shuffled=True)
    assert full.read(write=False).bytes() == one


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet"])
def test_compressed_csv_and_parquet_give_the_same_events(full, suffix, tmp_path):
    one = full.read().bytes()
    full.root = tmp_path / "other"
    full.write(suffix)
    assert full.read(write=False).bytes() == one


STYLES = {
    "upper case": {"header": str.upper},
    "Windows": {"newline": "\r\n"},
    "byte order mark": {"bom": True},
    "padded": {"header": lambda name: f" {name} "},
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_header_and_line_ends_make_no_difference(full, style):
    one = full.read().bytes()
    full.write(**style)
    assert full.read(write=False).bytes() == one


def test_order_of_columns_and_unknown_columns_make_no_difference(full):
    one = full.read().bytes()
    for name, columns in COLUMNS.items():
        for row in full.rows[name]:
            row['odd "name", here'] = 'a,"b"\nc'
        full.write_table(name, columns=['odd "name", here', *reversed(columns.split())])
    assert full.read(write=False).bytes() == one


def test_ids_that_pandas_wrote_as_fractions_are_the_same_ids(full):
    one = full.read().bytes()
    for row in full.rows["hosp/labevents"]:
        row["hadm_id"] = f"{row['hadm_id']}.0" if row["hadm_id"] else ""
    assert full.read().bytes() == one


def test_description_of_a_code_is_its_label(full):
    codes = pd.read_parquet(full.read().out / "metadata" / "codes.parquet").set_index("code")
    assert codes.description["LAB//50912//mg/dL"] == "Creatinine"


# ------------------------------------------------------------------------------------------------ the options


def test_tables_that_are_not_wanted_are_not_read(mimic):
    mimic.lab().chart()
    assert mimic.read(tables=["hosp/labevents"]).codes("CHART//") == []
    assert set(mimic.facts["tables"]) == {"hosp.admissions", "hosp.patients", "hosp.labevents"}
    mimic.read(tables=[])
    assert set(mimic.facts["tables"]) == {"hosp.admissions", "hosp.patients"}


def test_own_concepts_choose_the_items_and_may_name_none_of_a_table(mimic, tmp_path):
    header = Path(concepts.__file__).with_name("concepts.csv").read_text(encoding="utf-8").splitlines()[0]
    own = tmp_path / "own.csv"
    own.write_text(f"{header}\nLAB//1,mg,odd,numeric,lab,mg,1,0,0,9,Odd,ehrdl\n", encoding="utf-8")
    mimic.lab(itemid=1, valueuom="mg").lab().chart()
    events = mimic.read(concepts=str(own))
    assert events.codes("LAB//") + events.codes("CHART//") == ["LAB//1//mg"]
    own.write_text(own.read_text(encoding="utf-8").replace("LAB//1", "LAB//x"), encoding="utf-8")
    with pytest.raises(SchemaError, match="item id 'x' is not a whole number"):
        mimic.read(concepts=str(own))


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_coding_lag_that_would_leak_is_refused(days):
    with pytest.raises(ConfigError, match=r"data\.source\.coding_lag_days: .* codes would leak"):
        Mimic4(".", coding_lag_days=days)


def test_table_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"data\.source\.tables: 'hosp/labs' is not one of hosp/patients, "):
        Mimic4(".", tables=["hosp/labs"])


def test_fingerprint_follows_the_files_and_the_options_but_not_the_place(mimic, tmp_path):
    mimic.rows.pop("note/radiology")
    source = Mimic4(str(mimic.write()))
    one = source.fingerprint()
    mimic.root.rename(tmp_path / "moved")
    assert Mimic4(str(tmp_path / "moved")).fingerprint() == one
    assert Mimic4(str(tmp_path / "moved"), coding_lag_days=3).fingerprint() != one
    assert Mimic4(str(tmp_path / "moved"), tables=[]).fingerprint() != one


# ------------------------------------------------------------------------------------------------ the demo


@needs_demo
def test_demo_counts_equal_an_independent_sql(tmp_path):
    Mimic4(str(DEMO)).read(tmp_path / "events", Prepare())
    events = Events(tmp_path / "events")
    validate(events.out)
    known = concepts.load()
    kinds = events.frame.code.str.split("//").str[0].value_counts()

    def kept(table, prefix, categories):
        picked = known.frame[known.frame.base_code.str.startswith(prefix) & known.frame.category.isin(categories)]
        items = ", ".join(sorted(set(picked.base_code.str.split("//").str[1])))
        return f"{table} WHERE itemid IN ({items}) AND (valuenum IS NOT NULL OR value IS NOT NULL)"

    expected = {
        "ADMISSION": "hosp/admissions",
        "DISCHARGE": "hosp/admissions",
        "ED_IN": "hosp/admissions WHERE edregtime IS NOT NULL",
        "MEDS_BIRTH": "hosp/patients",
        "MEDS_DEATH": "hosp/patients WHERE dod IS NOT NULL",
        "ICU_IN": "icu/icustays",
        "ICU_OUT": "icu/icustays",
        "SERVICE_IN": "hosp/services",
        "DIAGNOSIS": "hosp/diagnoses_icd",
        "LAB": kept("hosp/labevents", "LAB//", ["lab", "vital"]),
        "CHART": kept("icu/chartevents", "CHART//", ["vital"]),
    }
    with duckdb.connect() as con:
        for kind, what in expected.items():
            table, _, where = what.partition(" ")
            rows = con.execute(f"SELECT count(*) FROM '{DEMO}/{table}.csv.gz' {where}").fetchall()
            assert kinds[kind] == rows[0][0], kind
