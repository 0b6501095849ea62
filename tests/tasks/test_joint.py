"""Tasks joined on the stays and prediction times that they share."""

import json

import pytest

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import SAMPLES, check
from ehrdl.tasks.heart_failure import HeartFailure
from ehrdl.tasks.joint import Joint
from ehrdl.tasks.length_of_stay import LengthOfStay
from ehrdl.tasks.mortality import Mortality
from ehrdl.tasks.readmission import Readmission

NONE, FAILURE = ("ICD10//I10",), ("ICD10//I10", "ICD10//I509")
STAY = {"unit": "hospital", "over_days": [3]}


@pytest.fixture
def two(hospital):
    """Patient 1 with the stays 100 and 101; heart failure is asked of the second alone, which has an earlier one."""
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", codes=NONE, units=[("MICU", "2150-01-01 12:00")])
    return hospital.stay("2150-06-01 10:00", "2150-06-08 22:00", codes=FAILURE)


@pytest.fixture
def joined(two):
    result = two.labelled(Joint([HeartFailure(), LengthOfStay(**STAY)]))
    check(result.samples.assign(split="train"), SAMPLES)
    return result


def test_a_sample_of_any_task_is_one_and_what_was_not_asked_is_unknown(joined):
    samples = joined.samples
    assert samples.encounter_id.tolist() == [100, 101] and samples.sample_id.tolist() == [0, 1]
    assert samples.label_heart_failure.fillna(-1).tolist() == [-1, 1]
    assert samples.status_heart_failure.tolist() == ["not_asked", "positive"]
    assert samples.label_length_of_stay.tolist() == [3.0, 6.5]
    assert samples.label_over_3_days.tolist() == [0, 1]
    assert samples.status_length_of_stay.tolist() == ["observed", "observed"]


@pytest.mark.parametrize("turned", [False, True])
def test_labels_stand_in_the_order_of_the_outputs(two, turned):
    tasks = [HeartFailure(), LengthOfStay(**STAY)]
    result = two.labelled(Joint(tasks[::-1] if turned else tasks))
    names = [output.name for output in result.outputs]
    assert names[0] == ("length_of_stay" if turned else "heart_failure")
    assert [name for name in result.samples if name.startswith("label_")] == [f"label_{name}" for name in names]


def test_groups_are_those_of_any_task(joined):
    samples = joined.samples
    assert samples.group_sex.tolist() == ["F", "F"] and samples.group_age_band.tolist() == ["45-64", "45-64"]
    assert samples.group_care_unit.tolist() == ["MICU", "no ICU"]
    assert samples.group_discharge.tolist() == ["alive", "alive"]


def test_each_flow_chart_is_kept_under_the_name_of_its_task(two, joined):
    alone = two.labelled(HeartFailure()).flow
    charts = {}
    for step in joined.flow:
        charts.setdefault(step.task, []).append((step.step, step.admissions, step.subjects))
    assert list(charts) == ["heart_failure", "length_of_stay", "all tasks"]
    assert charts["heart_failure"] == [(step.step, step.admissions, step.subjects) for step in alone]
    assert charts["all tasks"] == [("joined", 2, 1)]


def test_what_one_task_hides_is_hidden_for_all_and_every_caveat_is_printed(two, joined):
    parts = [two.labelled(task) for task in (HeartFailure(), LengthOfStay(**STAY))]
    assert set(joined.hidden_codes) == {code for part in parts for code in part.hidden_codes}
    assert set(joined.notes["caveats"]) > {line for part in parts for line in part.notes["caveats"]}
    counted = {"heart_failure": 1, "length_of_stay": 2, "of every task": 1, "of any task": 2}
    assert joined.notes["samples"] == counted
    assert joined.notes["heart_failure"]["coded_in_any_position"] == 1
    json.dumps(joined.notes, allow_nan=False)


def test_tasks_that_share_no_prediction_time_are_refused(two):
    task = Joint([HeartFailure(), LengthOfStay(**STAY, hours=12)])
    with pytest.raises(
        ConfigError, match=r"task\.tasks: length_of_stay has no stay and prediction time in common with he"
    ):
        two.labelled(task)


def test_two_outputs_of_one_name_are_refused(two):
    task = Joint([HeartFailure(), HeartFailure(cohort="all")])
    with pytest.raises(
        ConfigError, match=r"heart_failure and heart_failure both have an output heart_failure; give one"
    ):
        two.labelled(task)


def test_a_single_task_is_no_joint_one():
    with pytest.raises(ConfigError, match=r"task\.tasks: 1 task; give at least two"):
        Joint([HeartFailure()])


def test_a_task_that_finds_nobody_says_so(two):
    with pytest.raises(SchemaError, match=r"task\.heart_failure: no stay is left"):
        two.labelled(Joint([LengthOfStay(**STAY), HeartFailure(min_age=110)]))


def test_each_output_keeps_the_ceiling_of_its_task(hospital):
    """A stay of four days is at its discharge when another of that hour of its life is predicted too."""
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-06-01 10:00", "2150-06-08 22:00")
    task = Joint([LengthOfStay(unit="hospital", hours=96), Readmission()])
    with pytest.raises(ConfigError, match="no stay and prediction time in common"):  # who has left is not predicted
        hospital.labelled(task)
    assert task.ceiling("readmission") == 0.85 and task.ceiling("length_of_stay") is None


@pytest.mark.parametrize("turned", [False, True])
def test_auxiliary_labels_stand_behind_those_of_all_outputs(two, turned):
    two.event(1, "2150-06-01 10:00", "ICU_IN//MICU", 101)
    tasks = [Mortality(hours=24, auxiliary=["death_30d"]), LengthOfStay(**STAY)]
    result = two.labelled(Joint(tasks[::-1] if turned else tasks))
    outputs = [output.name for output in result.outputs]
    assert sorted(outputs) == ["length_of_stay", "mortality", "over_3_days"]
    assert [output.name for output in result.auxiliary] == ["death_30d"]
    labels = [name for name in result.samples if name.startswith("label_")]
    assert labels == [f"label_{name}" for name in [*outputs, "death_30d"]]


def test_an_auxiliary_output_and_an_output_of_one_name_are_refused(two):
    two.event(1, "2150-06-01 10:00", "ICU_IN//MICU", 101)
    task = Joint([Mortality(hours=24, auxiliary=["length_of_stay"]), LengthOfStay(**STAY)])
    with pytest.raises(ConfigError, match=r"mortality and length_of_stay both have an output length_of_stay"):
        two.labelled(task)
