"""Readmission predicted 24 h after discharge, and returns to the emergency department alone."""

import pandas as pd
import pytest

DISCHARGED = ("2150-01-01 10:00", "2150-01-05 10:00")


def two_patients(hospital, dod=None):
    """Patient 1, whose stay 100 is looked at, and patient 2, whose stay 101 keeps the cohort from being empty."""
    return hospital.patient(dod=dod).patient(2).stay(*DISCHARGED).stay(*DISCHARGED, subject=2)


def test_the_prediction_is_made_24_hours_after_discharge(hospital):
    samples = hospital.stay(*DISCHARGED).label(variant="note_complete").samples
    assert samples["prediction_time"].tolist() == [pd.Timestamp("2150-01-06 10:00")]


@pytest.mark.parametrize(("returned", "kept"), [("2150-01-06 10:00", False), ("2150-01-06 10:01", True)])
@pytest.mark.parametrize("kind", ["EW EMER.", "ELECTIVE"])
def test_who_is_readmitted_at_or_before_t0_is_left_out(empty_hospital, returned, kept, kind):
    hospital = two_patients(empty_hospital).stay(returned, "2150-01-09 10:00", kind=kind)
    result = hospital.label(variant="note_complete")
    assert result.labels == ({100: float(kind == "EW EMER."), 101: 0.0, 102: 0.0} if kept else {101: 0.0, 102: 0.0})
    assert result.counts["excluded: delivery"] == (3, 2)
    assert result.counts["at risk at t0"] == ((3, 2) if kept else (2, 2))
    assert "at risk at t0" not in hospital.label().counts


@pytest.mark.parametrize(("dod", "kept"), [("2150-01-06", False), ("2150-01-07", True)])
def test_who_died_on_the_day_of_t0_or_before_is_left_out(empty_hospital, dod, kept):
    result = two_patients(empty_hospital, dod).label(variant="note_complete")
    assert result.statuses == ({100: "death", 101: "negative"} if kept else {101: "negative"})


@pytest.mark.parametrize(("returned", "label"), [("2150-02-04 10:00", 1.0), ("2150-02-04 10:01", 0.0)])
def test_the_horizon_still_counts_from_the_discharge(hospital, returned, label):
    hospital.stay(*DISCHARGED).stay(returned, "2150-02-20 10:00")
    assert hospital.label(variant="note_complete").labels[100] == label


@pytest.mark.parametrize(("options", "kept"), [({}, True), ({"emergency_return": "composite"}, False)])
def test_a_return_for_observation_by_t0_matters_only_where_it_is_an_outcome(empty_hospital, options, kept):
    hospital = two_patients(empty_hospital).stay("2150-01-06 09:00", "2150-01-06 20:00", kind="EU OBSERVATION")
    assert (100 in hospital.label(variant="note_complete", **options).labels) is kept


def test_counts_are_of_the_index_stays_that_are_left(empty_hospital):
    hospital = two_patients(empty_hospital, dod="2150-01-06")
    hospital.stay("2150-03-01 10:00", "2150-03-05 10:00", subject=2, summary="2150-03-06 10:00")
    notes = hospital.label(variant="note_complete").notes
    assert notes["died_within_horizon"] == 0
    assert notes["summary_stored"] == {"by dischtime": 0.0, "within 24 h": 0.5, "later": 0.0, "never": 0.5}


EMERGENCY = "TRANSFER_IN//Emergency Department"


@pytest.mark.parametrize(
    ("visit", "counted"),
    [("2150-01-05 10:00", 0), ("2150-01-05 10:01", 1), ("2150-02-04 10:00", 1), ("2150-02-04 10:01", 0)],
)
def test_an_emergency_visit_without_a_stay_is_an_emergency_only_return(hospital, visit, counted):
    hospital.stay(*DISCHARGED).event(1, visit, EMERGENCY)
    result = hospital.label()
    assert (result.labels, result.notes["emergency_only_return"]) == ({100: 0.0}, counted)
    assert hospital.label(emergency_return="composite").labels == {100: float(counted)}


def test_an_emergency_visit_of_a_stay_another_patient_or_after_a_planned_return_is_none(hospital):
    hospital.patient(2).stay(*DISCHARGED).event(1, "2150-01-06 10:00", EMERGENCY, encounter=100)
    hospital.event(2, "2150-01-06 10:00", EMERGENCY).event(1, "2150-01-06 11:00", "TRANSFER_IN//Medicine")
    hospital.stay("2150-01-10 10:00", "2150-01-12 10:00", kind="ELECTIVE").event(1, "2150-01-13 10:00", EMERGENCY)
    assert hospital.label(emergency_return="composite").labels == {100: 0.0, 101: 1.0}


def test_the_report_can_tell_observation_admits_apart(hospital):
    hospital.stay(*DISCHARGED, kind="OBSERVATION ADMIT").stay("2150-03-01 10:00", "2150-03-05 10:00")
    assert hospital.label().samples["group_observation_admit"].tolist() == ["yes", "no"]
