"""One test a rule of the length of stay, on patients made by hand."""

import json

import pandas as pd
import pytest

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import SAMPLES, OutputSpec, check
from ehrdl.tasks.length_of_stay import IcuStays, LengthOfStay

ADMIT, T0 = "2150-06-01 10:00", "2150-06-02 10:00"


def icu(hospital, intime, outtime, encounter, unit="MICU", subject=1):
    """An ICU stay of a hospital stay; no outtime: it has not ended in the data."""
    hospital.event(subject, intime, f"ICU_IN//{unit}", encounter)
    return hospital.event(subject, outtime, f"ICU_OUT//{unit}", encounter) if outtime else hospital


def stays(hospital, **options):
    result = hospital.labelled(LengthOfStay(**options))
    check(result.samples.assign(split="train"), SAMPLES)
    return result


def values(result, output="length_of_stay"):
    return result.samples.set_index("encounter_id")[f"label_{output}"].to_dict()


def test_it_is_the_days_from_the_prediction_time_to_the_end_of_the_hospital_stay(hospital):
    result = stays(hospital.stay(ADMIT, "2150-06-06 22:00"), unit="hospital")
    assert result.samples.prediction_time.tolist() == [pd.Timestamp(T0)]
    assert values(result) == {100: 4.5}
    assert result.outputs == [
        OutputSpec("length_of_stay", "regression", "d"),
        OutputSpec("over_3_days"),
        OutputSpec("over_7_days"),
    ]
    assert (values(result, "over_3_days"), values(result, "over_7_days")) == ({100: 1.0}, {100: 0.0})
    assert result.statuses == {100: "observed"}
    assert result.samples.status_over_3_days.tolist() == ["positive"]
    assert result.samples.status_over_7_days.tolist() == ["negative"]


def test_exactly_so_many_days_are_not_more(hospital):
    hospital.stay(ADMIT, "2150-06-05 10:00").stay("2150-07-01 10:00", "2150-07-05 10:01")
    assert values(stays(hospital, unit="hospital"), "over_3_days") == {100: 0.0, 101: 1.0}


def test_the_icu_stay_ends_with_the_unit_or_on_request_with_the_discharge(hospital):
    icu(hospital.stay("2150-05-30 10:00", "2150-06-10 10:00"), ADMIT, "2150-06-04 10:00", 100)
    assert values(stays(hospital)) == {100: 2.0}
    assert values(stays(hospital, icu=IcuStays(until="discharge"))) == {100: 8.0}
    assert stays(hospital).counts["ICU stays"] == (1, 1)


def test_only_the_first_icu_stay_counts_unless_all_are_asked_for(hospital):
    hospital.stay("2150-05-30 10:00", "2150-06-20 10:00")
    icu(hospital, ADMIT, "2150-06-04 10:00", 100)
    icu(hospital, "2150-06-08 10:00", "2150-06-12 10:00", 100, "SICU")
    assert stays(hospital).samples.label_length_of_stay.tolist() == [2.0]
    every = stays(hospital, icu=IcuStays(first_only=False))
    assert every.samples.label_length_of_stay.tolist() == [2.0, 3.0]
    assert every.samples.group_care_unit.tolist() == ["MICU", "SICU"]
    assert "first ICU stay" not in every.counts


def test_an_icu_stay_without_an_end_does_not_take_the_next_ones(hospital):
    hospital.stay("2150-05-30 10:00", "2150-06-20 10:00")
    icu(hospital, ADMIT, None, 100)
    icu(hospital, "2150-06-08 10:00", "2150-06-12 10:00", 100)
    result = stays(hospital, icu=IcuStays(first_only=False))
    assert result.samples.status_length_of_stay.tolist() == ["censored", "observed"]
    assert result.samples.label_length_of_stay.isna().tolist() == [True, False]


def test_step_down_units_are_left_out_on_request(hospital):
    icu(hospital.stay("2150-05-30 10:00", "2150-06-20 10:00"), ADMIT, "2150-06-04 10:00", 100, "Neuro Stepdown")
    icu(hospital.stay("2150-08-01 10:00", "2150-08-20 10:00"), "2150-08-01 10:00", "2150-08-04 10:00", 101)
    assert list(values(stays(hospital))) == [100, 101]
    assert list(values(stays(hospital, icu=IcuStays(drop_stepdown=True)))) == [101]


@pytest.mark.parametrize(("discharged", "kept"), [(T0, False), ("2150-06-02 10:01", True)])
def test_who_has_left_by_t0_is_not_predicted(hospital, discharged, kept):
    hospital.stay(ADMIT, discharged).patient(2).stay(ADMIT, "2150-06-09 10:00", subject=2)
    result = stays(hospital, unit="hospital")
    assert (100 in values(result)) is kept
    assert result.counts["in hospital"] == ((2, 2) if kept else (1, 1))


def test_who_has_not_left_in_the_data_is_predicted_and_the_label_is_unknown(hospital):
    hospital.stay(ADMIT, "2150-06-09 10:00")
    hospital.rows = [row for row in hospital.rows if not str(row[2]).startswith("DISCHARGE//")]
    result = stays(hospital, unit="hospital")
    assert result.samples.label_length_of_stay.isna().tolist() == [True]
    assert result.samples.label_over_3_days.isna().tolist() == [True]
    assert result.statuses == {100: "censored"} and result.samples.group_discharge.tolist() == ["still there"]
    assert result.notes["end_not_in_the_data"] == 1
    json.dumps(result.notes, allow_nan=False)


def test_a_death_ends_the_stay_and_is_told_apart_or_unknown(hospital):
    hospital.stay(ADMIT, "2150-06-05 00:00", to="DIED", deathtime="2150-06-05 22:00")
    hospital.patient(2).stay(ADMIT, "2150-06-04 10:00", subject=2)
    result = stays(hospital, unit="hospital")
    assert values(result) == {100: 3.5, 101: 2.0}
    assert result.statuses == {100: "death", 101: "observed"}
    assert result.samples.group_discharge.tolist() == ["died", "alive"]
    assert result.notes["days_left"] == {"mean": 2.75, "median": 2.75, "mean, alive": 2.0, "mean, died": 3.5}
    assert result.notes["died_in_the_stay"] == 1
    unknown = stays(hospital, unit="hospital", death="unknown").samples
    assert unknown.label_length_of_stay.isna().tolist() == [True, False]
    assert unknown.label_over_3_days.isna().tolist() == [True, False]
    assert unknown.status_over_3_days.tolist() == ["death", "negative"]


def test_a_death_after_the_icu_is_no_death_in_the_icu(hospital):
    hospital.stay("2150-05-30 10:00", "2150-06-10 10:00", to="DIED", deathtime="2150-06-10 10:00")
    icu(hospital, ADMIT, "2150-06-04 10:00", 100)
    assert stays(hospital).statuses == {100: "observed"}
    assert stays(hospital, icu=IcuStays(until="discharge")).statuses == {100: "death"}


def test_who_has_died_by_t0_is_not_predicted(hospital):
    hospital.stay(ADMIT, "2150-06-04 10:00", to="DIED", deathtime=T0)
    hospital.patient(2).stay(ADMIT, "2150-06-04 10:00", subject=2)
    result = stays(hospital, unit="hospital")
    assert list(values(result)) == [101] and result.counts["alive"] == (1, 1)


def test_outputs_are_those_that_are_asked_for(hospital):
    hospital.stay(ADMIT, "2150-06-06 22:00")
    assert [output.name for output in stays(hospital, unit="hospital", over_days=[]).outputs] == ["length_of_stay"]
    result = stays(hospital, unit="hospital", days=False, over_days=[2.5])
    assert [output.name for output in result.outputs] == ["over_2_5_days"]
    assert [name for name in result.samples if name.startswith("label_")] == ["label_over_2_5_days"]


def test_an_empty_cohort_shows_in_one_line_which_rule_emptied_it(hospital):
    with pytest.raises(SchemaError, match="ICU stays: 0 after, first ICU stay: 0 after"):
        stays(hospital.stay(ADMIT, "2150-06-06 22:00"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "ward"}, "task.unit: 'ward' is not one of hospital, icu"),
        ({"death": "drop"}, "task.death: 'drop' is not one of keep, unknown"),
        ({"hours": 0}, "task.hours: 0 is not above 0"),
        ({"over_days": [3, 3]}, r"task.over_days: \[3, 3\] holds 3 2 times"),
        ({"over_days": [], "days": False}, "task.days: false leaves no output"),
        ({"unit": "hospital", "icu": IcuStays(drop_stepdown=True)}, "task.icu: belongs to task.unit icu"),
        ({"unit": "hospital", "icu": IcuStays(until="discharge")}, "task.icu: belongs to task.unit icu"),
        ({"min_age": 200}, "task.min_age: 200 is not between"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LengthOfStay(**options)


def test_impossible_icu_stays_are_refused():
    with pytest.raises(ConfigError, match=r"task\.icu\.until: 'death' is not one of unit, discharge"):
        IcuStays(until="death")
