"""Infusions, outputs, procedures, transfers, codes and outpatient measurements become available by their rules."""

import pandas as pd
import pytest

pytestmark = pytest.mark.slow  # many small hospitals, each read whole

STAY = {"subject_id": 1, "hadm_id": 10}
LATE = "2150-01-05 12:00:00"


# ------------------------------------------------------------------------------------------------ spans

SPANS = {"infusion": "INPUT", "procedure": "PROCEDURE"}
TABLES = {"infusion": "icu/inputevents", "procedure": "icu/procedureevents"}


@pytest.mark.parametrize("kind", SPANS)
@pytest.mark.parametrize(
    ("storetime", "start", "end"),
    [
        ("2150-01-02 05:59:59", "2150-01-02 06:00:00", "2150-01-02 09:00:00"),
        ("2150-01-02 06:00:00", "2150-01-02 06:00:00", "2150-01-02 09:00:00"),
        ("2150-01-02 06:00:01", "2150-01-02 06:00:01", "2150-01-02 09:00:00"),
        ("2150-01-02 08:59:59", "2150-01-02 08:59:59", "2150-01-02 09:00:00"),
        ("2150-01-02 09:00:01", "2150-01-02 09:00:01", "2150-01-02 09:00:01"),
        ("", "2150-01-02 07:00:00", "2150-01-02 10:00:00"),
    ],
)
def test_start_and_end_are_each_available_when_stored_and_never_before_their_time(mimic, kind, storetime, start, end):
    events = getattr(mimic, kind)(storetime=storetime).read()
    assert events.of(f"{SPANS[kind]}_START//") == ("2150-01-02 06:00:00", start)
    assert events.of(f"{SPANS[kind]}_END//") == ("2150-01-02 09:00:00", end)
    fallbacks = mimic.facts["tables"][TABLES[kind].replace("/", ".")]["on_fallback"]
    assert fallbacks == (2 if storetime == "" else 0)


@pytest.mark.parametrize("kind", SPANS)
def test_start_tells_nothing_of_the_end(mimic, kind):
    one = getattr(mimic, kind)().read().row(f"{SPANS[kind]}_START//")
    late = {
        "endtime": LATE,
        "amount": 99,
        "amountuom": "mL",
        "value": 9,
        "valueuom": "day",
        "statusdescription": "Paused",
    }
    columns = mimic.columns[TABLES[kind]]
    mimic.change(TABLES[kind], **{name: cell for name, cell in late.items() if name in columns})
    pd.testing.assert_series_equal(one, mimic.read().row(f"{SPANS[kind]}_START//"))
    assert pd.isna(one.text_value)


def test_infusion_starts_with_its_rate_and_ends_with_its_amount_and_status(mimic):
    events = mimic.infusion().read()
    start, end = events.row("INPUT_START//221906//mcg/kg/min"), events.row("INPUT_END//221906//mg")
    assert start.numeric_value == pytest.approx(0.1)
    assert (end.numeric_value, end.text_value) == (pytest.approx(1.4), "Stopped")


def test_bolus_has_no_rate_and_a_span_without_an_end_has_none(mimic):
    mimic.infusion(rate="", rateuom="", endtime="").procedure(endtime="")
    events = mimic.read()
    assert events.codes("INPUT") == ["INPUT_START//221906//"]
    assert events.codes("PROCEDURE") == ["PROCEDURE_START//225792"]
    assert pd.isna(events.row("INPUT_START//").numeric_value)


@pytest.mark.parametrize(
    ("weight", "item", "unit"),
    [(1, 221906, "mcg/kg/min"), (80, 221906, "mg/kg/min"), ("", 221906, "mg/kg/min"), (1, 221289, "mg/kg/min")],
)
def test_norepinephrine_in_mg_for_a_weight_of_1_is_in_mcg(mimic, weight, item, unit):
    mimic.infusion(itemid=item, rateuom="mg/kg/min", patientweight=weight)
    assert mimic.read().codes("INPUT_START//") == [f"INPUT_START//{item}//{unit}"]


def test_procedure_starts_bare_and_ends_with_its_duration_and_status(mimic):
    events = mimic.procedure().read()
    start, end = events.row("PROCEDURE_START//225792"), events.row("PROCEDURE_END//225792//min")
    assert (start.code, pd.isna(start.numeric_value)) == ("PROCEDURE_START//225792", True)
    assert (end.numeric_value, end.text_value) == (180, "FinishedRunning")


def test_every_infusion_is_kept_and_of_procedures_and_outputs_the_items_of_the_concepts(mimic):
    for kind, unknown in (("infusion", 225943), ("procedure", 225459)):
        getattr(getattr(mimic, kind)(), kind)(itemid=unknown)
    for item in (226559, 226633):
        cells = {"itemid": item, "value": 60, "valueuom": "ml", "charttime": "2150-01-02 06:00:00"}
        mimic.add("icu/outputevents", **STAY, **cells)
    codes = mimic.read().codes()
    assert [code for code in codes if code.startswith(("INPUT", "OUTPUT", "PROCEDURE"))] == [
        "INPUT_END//221906//mg",
        "INPUT_END//225943//mg",
        "INPUT_START//221906//mcg/kg/min",
        "INPUT_START//225943//mcg/kg/min",
        "OUTPUT//226559//ml",
        "PROCEDURE_END//225792//min",
        "PROCEDURE_START//225792",
    ]


# ------------------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("storetime", "available"),
    [
        ("2150-01-02 05:59:59", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:00", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:01", "2150-01-02 06:00:01"),
        ("", "2150-01-02 07:00:00"),
    ],
)
def test_output_is_available_when_stored_and_never_before_it_was_charted(mimic, storetime, available):
    cells = {"itemid": 226559, "value": 60, "valueuom": "ml", "storetime": storetime}
    events = mimic.add("icu/outputevents", **STAY, charttime="2150-01-02 06:00:00", **cells).read()
    assert events.of("OUTPUT//226559//ml") == ("2150-01-02 06:00:00", available)
    assert events.row("OUTPUT//").numeric_value == 60
    assert mimic.facts["tables"]["icu.outputevents"]["on_fallback"] == (storetime == "")


# ------------------------------------------------------------------------------------------------ transfers


def test_transfer_is_an_arrival_in_a_unit_and_a_departure_from_it(mimic):
    span = {"intime": "2150-01-01 11:00:00", "outtime": "2150-01-02 11:00:00"}
    events = mimic.add("hosp/transfers", **STAY, eventtype="admit", careunit="Medicine", **span).read()
    assert events.of("TRANSFER_IN//Medicine") == ("2150-01-01 11:00:00",) * 2
    assert events.of("TRANSFER_OUT//Medicine") == ("2150-01-02 11:00:00",) * 2


def test_discharge_row_of_transfers_is_dropped_and_a_visit_to_the_emergency_room_without_a_stay_is_kept(mimic):
    visit = {"intime": "2149-01-01 11:00:00", "outtime": "2149-01-01 15:00:00"}
    mimic.add("hosp/transfers", subject_id=1, eventtype="ED", careunit="Emergency Department", **visit)
    mimic.add("hosp/transfers", **STAY, eventtype="discharge", careunit="", intime="2150-01-05 12:00:00")
    events = mimic.read()
    assert events.codes("TRANSFER") == ["TRANSFER_IN//Emergency Department", "TRANSFER_OUT//Emergency Department"]
    assert pd.isna(events.row("TRANSFER_IN//").encounter_id)


def test_arrival_in_a_unit_is_the_same_however_long_the_patient_stays(mimic):
    mimic.add("hosp/transfers", **STAY, eventtype="admit", careunit="Medicine", intime="2150-01-01 11:00:00")
    one = mimic.change("hosp/transfers", outtime="2150-01-02 11:00:00").read().row("TRANSFER_IN//")
    other = mimic.change("hosp/transfers", outtime="2150-01-04 11:00:00").read().row("TRANSFER_IN//")
    pd.testing.assert_series_equal(one, other)


# ------------------------------------------------------------------------------------------------ codes

CODED = {
    "hosp/procedures_icd": ({"seq_num": 2, "icd_code": "02HV33Z", "icd_version": 10}, "PROCEDURE//ICD10//02HV33Z"),
    "hosp/drgcodes": ({"drg_type": "HCFA", "drg_code": "054", "description": "NEOPLASMS"}, "DRG//HCFA//054"),
    "hosp/hcpcsevents": ({"hcpcs_cd": "g0378", "seq_num": 1}, "HCPCS//G0378"),
}


@pytest.mark.parametrize("table", CODED)
@pytest.mark.parametrize(("days", "available"), [(7, "2150-01-12 12:00:00"), (0, "2150-01-05 12:00:00")])
def test_codes_of_a_stay_come_with_the_coding_lag_whatever_the_chart_date_says(mimic, table, days, available):
    cells, code = CODED[table]
    dated = {"chartdate": "2150-01-02"} if "chartdate" in mimic.columns[table] else {}
    events = mimic.add(table, **STAY, **cells, **dated).read(coding_lag_days=days)
    assert events.of(code) == ("2150-01-05 12:00:00", available)
    assert events.row(code).code == code


# ------------------------------------------------------------------------------------------------ outpatients


@pytest.mark.parametrize("chartdate", ["2150-01-02", "2150-01-02 00:00:00"])
def test_outpatient_measurement_is_available_at_the_end_of_its_day(mimic, chartdate):
    weight = {"result_name": "Weight (Lbs)", "result_value": "127.5"}
    events = mimic.add("hosp/omr", subject_id=1, chartdate=chartdate, **weight).read()
    assert events.of("OMR//Weight (Lbs)//") == ("2150-01-02 23:59:59.999999",) * 2
    assert events.row("OMR//").numeric_value == 127.5


@pytest.mark.parametrize(
    ("value", "codes", "numbers"),
    [
        ("110/70", ["OMR//Blood Pressure diastolic//mmHg", "OMR//Blood Pressure systolic//mmHg"], [70, 110]),
        (" 110 / 70 ", ["OMR//Blood Pressure diastolic//mmHg", "OMR//Blood Pressure systolic//mmHg"], [70, 110]),
        ("110/", ["OMR//Blood Pressure//"], [None]),
        ("", [], []),
    ],
)
def test_a_blood_pressure_is_two_values(mimic, value, codes, numbers):
    mimic.add("hosp/omr", subject_id=1, chartdate="2150-01-02", result_name="Blood Pressure", result_value=value)
    found = mimic.read().frame.query("code.str.startswith('OMR')").sort_values("code")
    assert found.code.tolist() == codes
    assert [None if pd.isna(number) else number for number in found.numeric_value] == numbers
    assert found.text_value.dropna().tolist() == (["110/"] if numbers == [None] else [])
