"""One test a rule of the heart failure task, on patients made by hand, just inside and just outside each boundary."""

import json
from itertools import pairwise

import pandas as pd
import pytest

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import SAMPLES, check
from ehrdl.tasks.heart_failure import HeartFailure

EARLIER = ("2150-01-01 10:00", "2150-01-05 10:00")
INDEX = ("2150-06-01 10:00", "2150-06-05 10:00")
T0 = "2150-06-02 10:00"
NONE, FAILURE = ("ICD10//I10",), ("ICD10//I10", "ICD10//I509")
PREDICTED = {100: "first stay", 101: "incident"}


@pytest.fixture
def returning(hospital):
    """Patient 1 with the stays 100, in which no heart failure was coded, and 101, in which it was."""
    return hospital.stay(*EARLIER, codes=NONE).stay(*INDEX, codes=FAILURE)


def test_the_prediction_is_made_24_hours_after_admission(returning):
    result = returning.diagnose()
    assert result.samples["prediction_time"].tolist() == [pd.Timestamp(T0)]
    assert (result.labels, result.statuses) == ({101: 1.0}, {101: "positive"})


def test_the_hours_are_an_option(returning):
    assert returning.diagnose(hours=6).samples["prediction_time"].tolist() == [pd.Timestamp("2150-06-01 16:00")]


CODES = {
    1.0: "ICD10//I50 ICD10//I509 ICD10//I5033 ICD10//I110 ICD10//I130 ICD10//I132 ICD10//I0981 "
    "ICD9//428 ICD9//4280 ICD9//42833 ICD9//40201 ICD9//40211 ICD9//40291 "
    "ICD9//40401 ICD9//40403 ICD9//40411 ICD9//40413 ICD9//40491 ICD9//40493 ICD9//39891",
    0.0: "ICD10//I51 ICD10//I499 ICD10//I119 ICD10//I131 ICD10//I1310 ICD10//I0989 ICD10//I0980 ICD10//4280 "
    "ICD9//4270 ICD9//4290 ICD9//40200 ICD9//40210 ICD9//40290 ICD9//40400 ICD9//40402 ICD9//40412 ICD9//40492 "
    "ICD9//39890 ICD9//I509",
}


@pytest.mark.parametrize("label", CODES)
def test_heart_failure_is_these_codes_of_these_versions(empty_hospital, label):
    codes = CODES[label].split()
    for subject, code in enumerate(codes):
        empty_hospital.patient(subject).stay(*EARLIER, codes=NONE, subject=subject)
        empty_hospital.stay(*INDEX, codes=("ICD10//I10", code), subject=subject)
    assert list(empty_hospital.diagnose().labels.values()) == [label] * len(codes)


def test_any_position_counts_unless_the_principal_alone_is_asked_for(returning):
    returning.stay("2150-09-01 10:00", "2150-09-05 10:00", codes=NONE)
    returning.patient(2).stay(*EARLIER, codes=NONE, subject=2).stay(
        *INDEX, codes=("ICD9//4280", "ICD9//4019"), subject=2
    )
    assert returning.diagnose().labels == {101: 1.0, 104: 1.0}
    result = returning.diagnose(position="principal")
    assert result.labels == {101: 0.0, 104: 1.0}
    assert (result.notes["coded_in_any_position"], result.notes["coded_as_principal"]) == (2, 1)


@pytest.mark.parametrize(("born", "kept"), [(2132, True), (2133, False)])
def test_age_is_the_difference_of_years(empty_hospital, born, kept):
    hospital = empty_hospital.patient(born=born).patient(2)
    for subject in (1, 2):
        hospital.stay(*EARLIER, codes=NONE, subject=subject).stay(*INDEX, subject=subject)
    result = hospital.diagnose()
    assert list(result.labels) == ([101, 103] if kept else [103])
    assert result.counts["age"] == ((4, 2) if kept else (2, 1))


@pytest.mark.parametrize(("discharged", "kept"), [(T0, False), ("2150-06-02 10:01", True)])
def test_who_has_left_by_t0_is_not_predicted(returning, discharged, kept):
    returning.stay("2150-06-01 10:00", discharged, codes=NONE, subject=2).patient(2)
    returning.stay(*EARLIER, codes=NONE, subject=2)
    assert (102 in returning.diagnose().labels) is kept


@pytest.mark.parametrize(("died", "kept"), [(T0, False), ("2150-06-02 10:01", True)])
def test_who_has_died_by_t0_is_not_predicted(hospital, died, kept):
    """The discharge is at midnight, before the death: the stay ends with the later of the two."""
    hospital.stay(*EARLIER, codes=NONE).stay(INDEX[0], "2150-06-02 00:00", to="DIED", deathtime=died)
    hospital.patient(2).stay(*EARLIER, codes=NONE, subject=2).stay(*INDEX, subject=2)
    result = hospital.diagnose()
    assert result.labels == ({101: 1.0, 103: 1.0} if kept else {103: 1.0})
    assert result.notes["died_in_the_stay"] == kept


@pytest.mark.parametrize(("died", "kept"), [(T0, False), ("2150-06-02 10:01", True)])
def test_a_death_before_a_late_discharge_counts_too(hospital, died, kept):
    hospital.stay(*EARLIER, codes=NONE).stay(*INDEX, to="DIED", deathtime=died)
    hospital.patient(2).stay(*EARLIER, codes=NONE, subject=2).stay(*INDEX, subject=2)
    result = hospital.diagnose()
    assert (101 in result.labels) is kept
    assert result.counts["in hospital"][0] - result.counts["alive"][0] == (not kept)


def test_an_earlier_heart_failure_code_in_any_position_is_prevalent(hospital):
    hospital.patient(2).stay(*EARLIER, codes=FAILURE).stay(*INDEX).stay(*EARLIER, codes=NONE, subject=2)
    hospital.stay(*INDEX, codes=FAILURE, subject=2).stay("2150-09-01 10:00", "2150-09-05 10:00", subject=2)
    for position in ("any", "principal"):
        result = hospital.diagnose(position=position, cohort="all")
        assert list(result.labels) == [100, 102, 103]
        assert result.counts["no earlier heart failure"] == (3, 2)


def test_a_code_of_a_later_stay_is_no_history(hospital):
    hospital.stay(*EARLIER, codes=NONE).stay(*INDEX, codes=NONE).stay("2150-09-01 10:00", "2150-09-05 10:00")
    assert hospital.diagnose().labels == {101: 0.0, 102: 1.0}


@pytest.mark.parametrize(("cohort", "expected"), [("incident", [101]), ("first_stay", [100]), ("all", [100, 101])])
def test_first_stays_are_a_stratum_of_their_own(returning, cohort, expected):
    result = returning.diagnose(cohort=cohort)
    assert list(result.labels) == expected
    strata = result.samples.get("group_stratum", pd.Series(dtype=object)).tolist()
    assert strata == ([PREDICTED[stay] for stay in expected] if cohort == "all" else [])


@pytest.mark.parametrize(("ends", "kept"), [(T0, True), ("2150-06-02 10:01", False)])
def test_a_stay_that_ends_after_t0_is_no_earlier_stay(hospital, ends, kept):
    """Stays that overlap: what is coded at the end of the other one is not known to have happened at t0."""
    hospital.stay("2150-05-20 10:00", ends, codes=NONE).stay(*INDEX)
    assert 101 in hospital.diagnose(cohort="incident" if kept else "first_stay").labels


@pytest.mark.parametrize(("ends", "prevalent"), [(T0, True), ("2150-06-02 10:01", False)])
def test_codes_of_a_stay_that_passes_the_patient_on_are_history_from_its_end(hospital, ends, prevalent):
    hospital.stay("2150-05-20 10:00", ends, codes=FAILURE).stay(*INDEX)
    assert (101 in hospital.diagnose(cohort="all").labels) is not prevalent


def test_of_two_stays_that_begin_together_neither_is_the_earlier(hospital):
    hospital.stay(*INDEX, codes=NONE).stay(INDEX[0], "2150-06-06 10:00", codes=FAILURE)
    assert hospital.diagnose(cohort="first_stay").labels == {100: 0.0, 101: 1.0}


def test_history_equals_a_plain_loop_over_all_pairs_of_stays(empty_hospital):
    import numpy as np

    rng = np.random.default_rng(0)
    expected = {}
    for subject in range(30):
        empty_hospital.patient(subject)
        stays = []
        for _ in range(8):
            begin = pd.Timestamp("2150-01-01") + pd.Timedelta(hours=int(rng.integers(0, 40)) * 12)
            end = begin + pd.Timedelta(hours=int(rng.integers(1, 10)) * 12)
            coded = bool(rng.random() < 0.15)
            stays.append((begin, end, coded, 100 + empty_hospital.stays))
            empty_hospital.stay(str(begin), str(end), codes=FAILURE if coded else NONE, subject=subject)
        for begin, end, coded, stay in stays:
            t0 = begin + pd.Timedelta(hours=24)
            earlier = [other for other in stays if other[0] < begin and other[1] <= t0]
            if end > t0 and earlier and not any(other[2] for other in earlier):
                expected[stay] = float(coded)
    assert 30 < len(expected) < 200
    assert empty_hospital.diagnose().labels == expected


NOTE = "NOTE//radiology//RR"
EVIDENCE = {
    "note": [
        (NOTE, text) for text in ("c/w CHF.", "No evidence of congestive heart\nfailure.", "known HFpEF", "hfref")
    ],
    "nt_probnp": [("LAB//50963//pg/mL", None), ("LAB//50963//", None)],
    "iv_loop_diuretic": [
        *[
            ("INPUT_START//221794//mg/hour", None),
            ("INPUT_START//229639//", None),
            ("DRUG_START//Furosemide//IV", None),
        ],
        *[("DRUG_START//Bumetanide//IV DRIP", None)],
    ],
    "none": [
        *[
            (NOTE, "Respiratory failure. Heart size normal."),
            (NOTE, "renal failure, CHFX"),
            ("LAB//51921//pg/mL", None),
        ],
        *[
            ("DRUG_START//Furosemide//PO", None),
            ("EMAR//Furosemide//Administered", None),
            ("INPUT_START//225798//", None),
        ],
    ],
}


@pytest.mark.parametrize("kind", EVIDENCE)
def test_evidence_by_t0_excludes_on_request(empty_hospital, kind):
    """Patient 2 n has the evidence at t0, patient 2 n + 1 a minute later."""
    n = len(EVIDENCE[kind])
    for subject in range(2 * n):
        empty_hospital.patient(subject).stay(*EARLIER, codes=NONE, subject=subject).stay(*INDEX, subject=subject)
        code, text = EVIDENCE[kind][subject // 2]
        empty_hospital.event(subject, "2150-06-02 10:01" if subject % 2 else T0, code, text=text)
    result = empty_hospital.diagnose(exclude_evidence=True)
    kept = range(2 * n) if kind == "none" else range(1, 2 * n, 2)
    assert result.samples["subject_id"].tolist() == list(kept)
    dropped = {step.step: before.admissions - step.admissions for before, step in pairwise(result.flow)}
    assert {step: dropped[f"evidence: {step}"] for step in ("note", "nt_probnp", "iv_loop_diuretic")} == {
        step: n * (step == kind) for step in ("note", "nt_probnp", "iv_loop_diuretic")
    }
    assert len(empty_hospital.diagnose().samples) == 2 * n


def test_evidence_is_what_happened_but_a_note_counts_once_it_can_be_read(returning):
    """A drug charted late had been given; the summary of the day of discharge had not been written."""
    late = "2150-06-02 22:00"
    returning.event(1, "2150-06-02 00:00", "NOTE//discharge//DS", text="Acute heart failure", available=late)
    assert 101 in returning.diagnose(exclude_evidence=True).labels
    returning.event(1, "2150-06-02 09:00", "INPUT_START//221794//mg/hour", available=late)
    with pytest.raises(SchemaError, match=r"evidence: note: 1 after.*evidence: iv_loop_diuretic: 0 after"):
        returning.diagnose(exclude_evidence=True)


def test_evidence_of_another_patient_is_none(returning):
    returning.patient(2).event(2, "2150-06-01 12:00", "LAB//50963//pg/mL")
    assert 101 in returning.diagnose(exclude_evidence=True).labels


def test_no_code_of_a_stay_is_an_input_and_the_caveats_are_printed(returning):
    result = returning.diagnose()
    assert {"DIAGNOSIS//", "DRG//", "PROCEDURE//ICD", "HCPCS//"} == set(result.hidden_codes)
    printed = " ".join(result.notes["caveats"])
    assert "Before discharge the notes are radiology and earlier summaries" in printed
    assert "The label is a billing code, given after discharge, not an adjudicated diagnosis" in printed
    json.dumps(result.notes, allow_nan=False)


def test_samples_are_samples_in_order_with_their_groups(returning):
    returning.patient(2).stay(*EARLIER, codes=NONE, subject=2).stay(*INDEX, codes=NONE, subject=2)
    result = returning.diagnose(cohort="all")
    check(result.samples.assign(split="train"), SAMPLES)
    assert result.samples["encounter_id"].tolist() == [100, 101, 102, 103]
    assert [output.name for output in result.outputs] == ["heart_failure"]
    assert result.notes["prevalence"] == {
        "stays with an earlier stay": 0.5,
        "first stays (prevalent cases hide in them)": 0.0,
    }


def test_a_stay_that_was_never_coded_is_negative_and_counted(hospital):
    result = hospital.stay(*EARLIER, codes=NONE).stay(*INDEX, codes=()).diagnose()
    assert (result.labels, result.notes["stays_without_any_code"]) == ({101: 0.0}, 1)


def test_a_hospital_without_diagnoses_is_refused(hospital):
    with pytest.raises(SchemaError, match=r"task\.heart_failure: no stay has a DIAGNOSIS code"):
        hospital.stay(*EARLIER, codes=()).stay(*INDEX, codes=()).diagnose()


def test_an_empty_cohort_shows_in_one_line_which_rule_emptied_it(hospital):
    with pytest.raises(SchemaError, match="alive: 1 after, no earlier heart failure: 1 after, incident: 0 after"):
        hospital.stay(*INDEX).diagnose()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hours": 0}, "task.hours: 0 is not above 0"),
        ({"hours": float("nan")}, "task.hours: nan is not finite"),
        ({"hours": 721}, "at most 720"),
        ({"min_age": 121}, "task.min_age: 121 is not between"),
        ({"cohort": "prevalent"}, "task.cohort: 'prevalent' is not one of incident, first_stay, all"),
        ({"position": "second"}, "task.position: 'second' is not one of any, principal"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        HeartFailure(**options)
