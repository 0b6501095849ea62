"""Drugs and cultures of MIMIC-IV become available by their rules: just before, on and just after each boundary."""

import pandas as pd
import pytest

pytestmark = pytest.mark.slow  # many small hospitals, each read whole

DAY_END = "2150-01-02 23:59:59.999999"


# ------------------------------------------------------------------------------------------------ prescriptions


@pytest.mark.parametrize(
    ("ordertime", "entertime", "available"),
    [
        ("2150-01-02 07:59:59", "2150-01-02 12:00:00", "2150-01-02 08:00:00"),  # ordered before it starts
        ("2150-01-02 08:00:00", "2150-01-02 12:00:00", "2150-01-02 08:00:00"),
        ("2150-01-02 08:00:01", "2150-01-02 07:00:00", "2150-01-02 08:00:01"),  # the order's time, not the pharmacy's
        ("", "2150-01-02 07:59:59", "2150-01-02 08:00:00"),
        ("", "2150-01-02 08:00:01", "2150-01-02 08:00:01"),
        ("", "", DAY_END),
    ],
)
def test_drug_starts_when_it_was_ordered_and_never_before_its_own_start(mimic, ordertime, entertime, available):
    mimic.drug("2150-01-02 08:00:00", poe_id="1-7", pharmacy_id=3)
    mimic.add("hosp/poe", poe_id="1-7", ordertime=ordertime).add("hosp/poe", poe_id="1-8", ordertime="2150-01-01")
    mimic.add("hosp/pharmacy", pharmacy_id=3, entertime=entertime)
    assert mimic.read().of("DRUG_START//Furosemide//IV") == ("2150-01-02 08:00:00", available)
    assert mimic.facts["tables"]["hosp.prescriptions"]["on_fallback"] == (ordertime == entertime == "")


def test_drug_of_no_known_order_starts_at_the_end_of_its_day(mimic):
    mimic.drug("2150-01-02 00:00:00", poe_id="1-7").drug("2150-01-03 23:00:00", poe_id="", drug="Aspirin")
    events = mimic.read()
    assert events.of("DRUG_START//Furosemide")[1] == DAY_END
    assert events.of("DRUG_START//Aspirin")[1] == "2150-01-03 23:59:59.999999"


def test_order_that_stands_twice_counts_from_its_later_time_and_gives_one_event(mimic):
    mimic.drug(poe_id="1-7")
    for ordertime in ("2150-01-02 10:00:00", "2150-01-02 09:00:00"):
        mimic.add("hosp/poe", poe_id="1-7", ordertime=ordertime)
    assert mimic.read().of("DRUG_START//")[1] == "2150-01-02 10:00:00"


@pytest.mark.parametrize(
    ("stoptime", "kept"),
    [
        ("2150-01-02 07:59:59", False),
        ("2150-01-02 08:00:00", True),
        ("2150-01-02 08:00:01", True),
        ("", False),
    ],
)
def test_drug_stops_at_its_stoptime_and_a_stop_before_the_start_is_none(mimic, stoptime, kept):
    events = mimic.drug("2150-01-02 08:00:00", stoptime).read()
    assert events.codes("DRUG_START//") == ["DRUG_START//Furosemide//IV"]
    assert events.codes("DRUG_STOP//") == (["DRUG_STOP//Furosemide//IV"] if kept else [])
    if kept:
        assert events.of("DRUG_STOP//") == (stoptime, stoptime)


def test_start_of_a_drug_is_the_same_whenever_it_stops(mimic):
    one = mimic.drug(dose_val_rx="40", dose_unit_rx="mg").read().row("DRUG_START//")
    other = mimic.change("hosp/prescriptions", stoptime="2150-01-03 08:00:00").read().row("DRUG_START//")
    pd.testing.assert_series_equal(one, other)
    assert (one.numeric_value, one.text_value) == (40, "40 mg")


def test_dose_that_is_no_number_stays_as_text(mimic):
    row = mimic.drug(dose_val_rx="1-2", dose_unit_rx="TAB", route="").read().row("DRUG_START//Furosemide//")
    assert (pd.isna(row.numeric_value), row.text_value) == (True, "1-2 TAB")


def test_prescriptions_bring_the_times_of_orders_with_them_and_orders_alone_are_no_events(mimic):
    mimic.drug(poe_id="1-7").add("hosp/poe", poe_id="1-7", ordertime="2150-01-02 10:00:00")
    assert mimic.read(tables=["hosp/prescriptions"]).of("DRUG_START//")[1] == "2150-01-02 10:00:00"
    assert set(mimic.facts["tables"]) == {"hosp.admissions", "hosp.patients", "hosp.prescriptions"}
    assert mimic.read(tables=["hosp/poe"]).codes("DRUG") == []


def test_hospital_without_orders_is_read_and_told(mimic, capsys):
    assert mimic.drug().read(tables=["hosp/prescriptions"]).of("DRUG_START//")[1] == DAY_END
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("hosp/poe, hosp/pharmacy: not under ")
    assert line.endswith("the run goes on without; a prescription counts from the end of its day")


# ------------------------------------------------------------------------------------------------ administration


@pytest.mark.parametrize(
    ("storetime", "available"),
    [
        ("2150-01-02 05:59:59", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:00", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:01", "2150-01-02 06:00:01"),
        ("", "2150-01-02 07:00:00"),
    ],
)
def test_administration_is_available_when_stored_and_never_before_it_was_charted(mimic, storetime, available):
    cells = {"medication": "CefePIME", "event_txt": "Administered", "scheduletime": "2150-01-02 05:00:00"}
    mimic.add("hosp/emar", subject_id=1, hadm_id=10, charttime="2150-01-02 06:00:00", storetime=storetime, **cells)
    assert mimic.read().of("EMAR//Administered//CefePIME") == ("2150-01-02 06:00:00", available)
    assert mimic.facts["tables"]["hosp.emar"]["on_fallback"] == (storetime == "")


def test_administration_without_a_name_or_an_event_is_unknown(mimic):
    ids = {"subject_id": 1, "hadm_id": 10, "charttime": "2150-01-02 06:00:00"}
    mimic.add("hosp/emar", **ids, event_txt=" in Other Location").add("hosp/emar", **ids, medication="Heparin")
    assert mimic.read().codes("EMAR//") == ["EMAR//UNKNOWN//Heparin", "EMAR//in Other Location//UNKNOWN"]


# ------------------------------------------------------------------------------------------------ cultures


@pytest.mark.parametrize(("charttime", "taken"), [("2150-01-02 06:00:00", "2150-01-02 06:00:00"), ("", DAY_END)])
def test_specimen_is_taken_at_charttime_else_at_the_end_of_its_day(mimic, charttime, taken):
    assert mimic.culture(charttime).read().of("MICRO_TAKEN//BLOOD CULTURE") == (taken, taken)


@pytest.mark.parametrize(
    ("charttime", "storetime", "storedate", "available"),
    [
        ("2150-01-02 06:00:00", "2150-01-02 05:59:59", "", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:00", "2150-01-02 06:00:00", "", "2150-01-02 06:00:00"),
        ("2150-01-02 06:00:00", "2150-01-02 06:00:01", "2150-01-09", "2150-01-02 06:00:01"),
        ("2150-01-02 06:00:00", "", "2150-01-04 00:00:00", "2150-01-04 23:59:59.999999"),
        ("2150-01-02 06:00:00", "", "2150-01-01 00:00:00", "2150-01-02 06:00:00"),  # never before it was taken
        ("2150-01-02 06:00:00", "", "", "2150-01-09 06:00:00"),
        ("", "2150-01-02 12:00:00", "", DAY_END),
        ("", "2150-01-03 00:00:00", "", "2150-01-03 00:00:00"),
        ("", "", "2150-01-02 00:00:00", DAY_END),
        ("", "", "", "2150-01-09 23:59:59.999999"),
    ],
)
def test_result_is_available_when_stored_and_never_before_the_specimen_was_taken(
    mimic, charttime, storetime, storedate, available
):
    events = mimic.culture(charttime, storetime, storedate=storedate).read()
    assert events.of("MICRO_RESULT//") == (available, available)
    fallbacks = (charttime == "") + (storetime == "")
    assert mimic.facts["tables"]["hosp.microbiologyevents"]["on_fallback"] == fallbacks


def test_taking_a_specimen_tells_nothing_of_what_grew(mimic):
    """A resistant organism is many rows of one specimen; until the result a sterile culture looks the same."""
    sterile = mimic.culture().read().frame.query("code.str.startswith('MICRO_TAKEN')").reset_index(drop=True)
    mimic.change("hosp/microbiologyevents", org_name="ESCHERICHIA COLI", ab_name="AMPICILLIN", interpretation="R")
    mimic.culture(org_name="ESCHERICHIA COLI", ab_name="CEFEPIME", interpretation="S", test_name="GRAM STAIN")
    events = mimic.read()
    taken = events.frame.query("code.str.startswith('MICRO_TAKEN')").reset_index(drop=True)
    pd.testing.assert_frame_equal(taken, sterile)
    results = events.frame.query("code.str.startswith('MICRO_RESULT')")
    assert results.code.tolist() == [
        "MICRO_RESULT//Blood Culture, Routine//ESCHERICHIA COLI",
        "MICRO_RESULT//GRAM STAIN//ESCHERICHIA COLI",
    ]
    assert results.text_value.tolist() == ["BLOOD CULTURE: AMPICILLIN R", "BLOOD CULTURE: CEFEPIME S"]


def test_two_specimens_of_one_time_are_taken_twice(mimic):
    mimic.culture().culture(micro_specimen_id=6).culture(micro_specimen_id="").culture(micro_specimen_id="")
    assert len(mimic.read().codes("MICRO_TAKEN//")) == 3  # unnumbered rows of one time may be one specimen


@pytest.mark.parametrize(
    ("test", "comments", "grew", "text"),
    [
        ("Blood Culture, Routine", "NO GROWTH.  ", "NEGATIVE", "BLOOD CULTURE: NO GROWTH."),
        ("Blood Culture, Routine", "", "NEGATIVE", "BLOOD CULTURE"),
        ("Blood Culture, Routine", "TEST CANCELLED, PATIENT CREDITED.", "CANCELLED", None),
        (
            "GRAM STAIN",
            "GRAM POSITIVE COCCI.",
            "",
            "BLOOD CULTURE: GRAM POSITIVE COCCI.",
        ),  # no organism, and not negative
    ],
)
def test_only_a_culture_that_names_no_organism_is_negative(mimic, test, comments, grew, text):
    row = mimic.culture(test_name=test, comments=comments).read().row("MICRO_RESULT//")
    assert row.code == f"MICRO_RESULT//{test}//{grew}"
    assert row.text_value == (text or f"BLOOD CULTURE: {comments}")
