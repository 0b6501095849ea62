"""MEDS label files become SAMPLES, counted step by step."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import SAMPLES, OutputSpec, check
from ehrdl.tasks.labels import Labels

TYPES = {"boolean_value": pa.bool_(), "integer_value": pa.int64(), "float_value": pa.float32()}
TYPES |= {"categorical_value": pa.string()}


@pytest.fixture
def write(tmp_path):
    """Write a label file of (subject, time, value); returns the folder that holds it."""

    def write(*rows, column="boolean_value", name="0", kind=None, zone=None, **columns):
        subject, time, value = zip(*rows, strict=True) if rows else ((), (), ())
        table = {
            "subject_id": pa.array(subject, pa.int64()),
            "prediction_time": pa.array([pd.Timestamp(t) for t in time], pa.timestamp("us", zone)),
            column: pa.array(value, kind or TYPES[column]),
        }
        path = tmp_path / "labels" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table | columns), path)
        return tmp_path / "labels"

    return write


@pytest.fixture
def two(hospital):
    """Patient 1 with the stays 100 and 101, and patient 2 with none."""
    facts = {"at_admission": {"RACE": "ASIAN"}, "units": [("MICU", "2150-01-02")]}
    hospital.stay("2150-01-01 10:00", "2150-01-05 12:00", **facts)
    hospital.stay("2150-03-01 10:00", "2150-03-05 12:00")
    hospital.patient(2, born=2060, sex="M").event(2, "2150-01-02 06:00", "LAB//1//")
    return hospital


def labelled(hospital, path, **options):
    result = hospital.labelled(Labels(str(path), **options))
    check(result.samples.assign(split="train"), SAMPLES)
    return result


def test_a_label_is_a_sample_of_the_stay_that_is_open_at_its_time(two, write):
    path = write(
        (1, "2150-01-05 12:00", True), (1, "2150-01-03", False), (1, "2150-02-01", None), (2, "2150-01-03", True)
    )
    found = labelled(two, path, output="relapse")
    samples = found.samples
    assert samples.subject_id.tolist() == [1, 1, 1, 2]
    assert samples.label_relapse.fillna(-1).tolist() == [0, 1, -1, 1]
    assert samples.status_relapse.tolist() == ["negative", "positive", "censored", "positive"]
    assert samples.encounter_id.fillna(-1).tolist() == [100, 100, -1, -1]
    assert found.outputs[0].name == "relapse"
    assert (found.notes["unknown_labels"], found.notes["samples_outside_a_stay"]) == (1, 2)
    assert found.notes["prevalence"] == {"all samples": pytest.approx(2 / 3)}


def test_groups_are_those_that_events_know(two, write):
    samples = labelled(two, write((1, "2150-01-03", True), (2, "2150-01-03", True))).samples
    assert samples.group_sex.tolist() == ["F", "M"]
    assert samples.group_age_band.tolist() == ["45-64", "85+"]
    assert samples.group_race.fillna("").tolist() == ["ASIAN", ""]
    assert samples.group_care_unit.tolist() == ["MICU", "no stay"]


def test_an_intensive_care_unit_after_the_prediction_is_not_told_by_its_group(two, write):
    times = ("2150-01-01 23:59", "2150-01-02 00:00", "2150-01-03")
    samples = labelled(two, write(*((1, time, i == 0) for i, time in enumerate(times)))).samples
    assert samples.group_care_unit.tolist() == ["no ICU", "MICU", "MICU"]


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        ("boolean_value", pa.bool_(), (True, False, None)),
        ("integer_value", pa.int64(), (1, 0, None)),
        ("float_value", pa.float32(), (1.0, 0.0, float("nan"))),
        ("float_value", pa.float64(), (1.0, 0.0, None)),
    ],
)
def test_whatever_type_a_binary_label_has_it_is_the_same(two, write, column, kind, values):
    times = ("2150-01-02", "2150-01-03", "2150-01-04")
    rows = [(1, time, value) for time, value in zip(times, values, strict=True)]
    found = labelled(two, write(*rows, column=column, kind=kind)).samples.label_label
    assert found.fillna(-1).tolist() == [1, 0, -1]


def test_value_columns_without_a_value_and_other_columns_are_no_labels(two, write):
    """As `aces-cli` writes its files, one a shard, some of them without a row."""

    def empty(n_rows):
        return {name: pa.nulls(n_rows, kind) for name, kind in TYPES.items() if name != "boolean_value"}

    write((1, "2150-01-02", True), name="train/0", **empty(1), index_timestamp=["x"], trigger=[1])
    write((1, "2150-01-03", None), name="train/1", **empty(1))
    path = write(name="held_out/0", **empty(0))
    assert labelled(two, path).samples.label_label.fillna(-1).tolist() == [1, -1]


def test_unknown_subjects_and_empty_histories_are_steps_of_the_flow_chart(two, write):
    two.rows = [row for row in two.rows if row[:3:2] != (2, "MEDS_BIRTH")]
    path = write(
        (1, "2150-01-03", True),
        (2, "2150-01-02 06:00", True),  # the very time of its first event
        (2, "2150-01-02 05:59", True),  # nothing but its sex, which has no time
        (3, "2150-01-03", True),
        (4, "2150-01-03", False),
    )
    found = labelled(two, path)
    assert found.counts == {"labels": (5, 4), "once": (5, 4), "known subject": (3, 2), "history": (2, 2)}
    assert list(zip(found.samples.subject_id, found.samples.prediction_time.dt.hour, strict=True)) == [(1, 0), (2, 6)]


def test_labels_that_are_left_out_are_named_and_counted(two, write):
    rows = [(subject, "2150-01-03", True) for subject in (1, 11, 12, 13, 14, 15, 16)]
    found = labelled(two, write(*rows, (11, "2150-01-04", True), (1, "2000-01-01", True), (1, "2190-01-01", True)))
    said = {step.step: step.caveat for step in found.flow}
    assert said["known subject"] == "7 labels of subjects not in the data: 11, 12, 13, 14, 15 and 1 more"
    assert said["history"] == "1 labels before the first event of their subjects: 1"
    assert found.notes["samples_after_the_last_event"] == 1


def test_a_column_of_nan_holds_no_label_and_a_nan_among_labels_is_unknown(two, write):
    nan = float("nan")
    path = write((1, "2150-01-02", True), (1, "2150-01-03", None), float_value=pa.array([nan, nan], pa.float64()))
    found = labelled(two, path)
    assert found.samples.label_label.fillna(-1).tolist() == [1, -1]
    assert found.samples.status_label.tolist() == ["positive", "censored"]
    assert {step.step: step.caveat for step in found.flow}["known label"] == "50 % have no known label"
    with pytest.raises(SchemaError, match="holds no value in boolean_value"):
        labelled(two, write((1, "2150-01-02", nan), column="float_value"))


def test_labels_in_a_column_of_another_name_are_named(two, write):
    with pytest.raises(SchemaError, match=r"holds no value in boolean_value, .*; its other columns are label"):
        labelled(two, write((1, "2150-01-02", True), column="label", kind=pa.bool_()))


def test_a_file_without_the_column_of_the_others_is_refused_rather_than_unknown(two, write):
    write((1, "2150-01-02", True), name="a")
    path = write((1, "2150-01-03", True), name="b", column="label", kind=pa.bool_())
    with pytest.raises(SchemaError, match=r"b\.parquet: column boolean_value, which holds the labels of other files"):
        labelled(two, path)


def test_a_column_nearly_of_the_right_name_is_pointed_at(two, tmp_path):
    table = pa.table({"subject": pa.array([1]), "prediction_time": pa.array([pd.Timestamp("2150-01-02")])})
    pq.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(SchemaError, match=r"column subject_id is missing .*did you mean subject\?"):
        labelled(two, tmp_path / "labels.parquet")


@pytest.mark.parametrize(
    ("subject", "time", "value"),
    [
        (pa.array([2**64 - 1], pa.uint64()), pa.array([0], pa.timestamp("us")), pa.array([1.0])),
        (pa.array([1]), pa.array([2**60], pa.timestamp("ms")), pa.array([1.0])),
        (pa.array([1]), pa.array([0], pa.timestamp("us")), pa.array([1e300])),
        (pa.array([1]), pa.array([0], pa.timestamp("us")), pa.array([float("-inf")])),
    ],
)
def test_what_no_table_can_hold_is_one_line(two, tmp_path, subject, time, value):
    table = pa.table({"subject_id": subject, "prediction_time": time, "float_value": value})
    pq.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(SchemaError, match=r"labels\.parquet: .*(out of range|no finite number)"):
        labelled(two, tmp_path / "labels.parquet")


def test_decimals_are_numbers(two, write):
    kind = pa.decimal128(5, 2)
    rows = [(1, "2150-01-02", Decimal("1.00")), (1, "2150-01-03", Decimal("0.00"))]
    assert labelled(two, write(*rows, column="float_value", kind=kind)).samples.label_label.tolist() == [1, 0]


def test_a_beginning_of_codes_that_hides_nothing_is_named(two, write, capsys):
    labelled(two, write((1, "2150-01-03", True)), hidden_codes=["DIAGNOSIS//ICD10//I5O", "DISCHARGE//"])
    said = capsys.readouterr().err
    assert "no code of the data begins with 'DIAGNOSIS//ICD10//I5O'" in said and "DISCHARGE" not in said


def test_files_that_are_no_label_files_are_named(two, write, capsys):
    path = write((1, "2150-01-03", True))
    (path / "labels.csv").write_text("subject_id")
    labelled(two, path)
    assert "labels.csv" in capsys.readouterr().err


def test_equal_labels_are_one_and_are_counted(two, write):
    write((1, "2150-01-03", True), (1, "2150-01-03", True), name="a")
    path = write((1, "2150-01-03", True), (1, "2150-01-04", None), (1, "2150-01-04", None), name="b")
    found = labelled(two, path)
    assert found.counts["labels"] == (5, 1) and found.counts["once"] == (2, 1)
    assert found.notes["equal_labels"] == 3


@pytest.mark.parametrize(("values", "both"), [((True, False), "0 and 1"), ((True, None), "1 and unknown")])
def test_two_labels_of_a_subject_at_one_time_are_refused(two, write, values, both):
    path = write((1, "2150-01-02", True), *[(1, "2150-01-03 06:00", value) for value in values])
    with pytest.raises(SchemaError, match=rf"labels: subject 1 at 2150-01-03 06:00:00 has two labels, {both}"):
        labelled(two, path)


WRONG = {
    "number": (
        {"column": "integer_value"},
        2,
        r"0\.parquet: row 1, column integer_value: 2 is neither 0 nor 1, which task",
    ),
    "fraction": ({"column": "float_value"}, 0.5, r"0\.parquet: row 1, column float_value: 0.5 is neither 0 nor 1"),
    "category": ({"column": "categorical_value"}, "high", r"the labels are in categorical_value; only boolean"),
    "text": ({"kind": pa.string()}, "yes", r"0\.parquet: column boolean_value is string; only boolean labels"),
    "nothing": ({}, None, r"labels: holds no value in boolean_value, integer_value"),
    "two": ({"integer_value": pa.array([1, 1])}, True, "holds labels in boolean_value and integer_value; keep one"),
    "zone": ({"zone": "UTC"}, True, r"0\.parquet: column prediction_time has the time zone UTC; MEDS stores times"),
    "subject": ({"subject_id": pa.array(["1", "2"])}, True, "column subject_id is string; it must hold whole numbers"),
    "time": ({"prediction_time": pa.array([1, 2])}, True, "column prediction_time is int64; it must hold times"),
    "null": ({"subject_id": pa.array([1, None])}, True, r"0\.parquet: row 1 has no subject_id"),
}


@pytest.mark.parametrize(("options", "value", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_binary_label_is_refused_in_one_line(two, write, options, value, says):
    first = {"integer_value": 1, "float_value": 1.0, "categorical_value": "low"}.get(options.get("column"), value)
    path = write((1, "2150-01-02", first), (1, "2150-01-03", value), **options)
    with pytest.raises(SchemaError, match=says) as caught:
        labelled(two, path, kind="binary")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("column", "values"), [("integer_value", (1, 0, 12)), ("float_value", (1.0, 0.0, 2.5))])
def test_numbers_that_are_not_all_0_and_1_are_a_regression_output(two, write, column, values):
    write((1, "2150-01-02", values[0]), (1, "2150-01-03", None), column=column, name="a")
    path = write((1, "2150-01-04", values[1]), (1, "2150-01-05", values[2]), column=column, name="b")
    found = labelled(two, path, output="creatinine", unit="mg/dL")
    assert found.outputs == [OutputSpec("creatinine", "regression", "mg/dL")]
    samples = found.samples
    assert samples.label_creatinine.fillna(-1).tolist() == [values[0], -1, values[1], values[2]]
    assert samples.status_creatinine.tolist() == ["observed", "censored", "observed", "observed"]
    assert found.notes["mean"] == {"all samples": pytest.approx(sum(values) / 3)}


def test_0_and_1_are_binary_unless_numbers_are_asked_for(two, write):
    path = write((1, "2150-01-02", 1), (1, "2150-01-03", 0), column="integer_value")
    assert labelled(two, path).outputs == [OutputSpec("label")]
    assert labelled(two, path, kind="regression").outputs == [OutputSpec("label", "regression")]


def test_what_is_no_finite_number_is_refused(two, write):
    path = write((1, "2150-01-02", 1.5), (1, "2150-01-03", float("inf")), column="float_value")
    with pytest.raises(SchemaError, match=r"0\.parquet: row 1, column float_value: inf is no finite number"):
        labelled(two, path)
    path = write((1, "2150-01-02", True))
    with pytest.raises(
        SchemaError, match=r"the labels are in boolean_value, which is no number for task.kind regressio"
    ):
        labelled(two, path, kind="regression")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "ordinal"}, r"task\.kind: 'ordinal' is not one of auto, binary, regression"),
        ({"kind": "binary", "unit": "d"}, r"task\.unit: 'd' belongs to numbers, not to task\.kind binary"),
    ],
)
def test_options_of_labels_that_cannot_be_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        Labels("labels", **options)


def test_a_file_that_is_none_is_refused(two, tmp_path, write):
    with pytest.raises(ConfigError, match=r"task\.path: .*nowhere does not exist; give a parquet file, or a folder of"):
        labelled(two, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SchemaError, match=r"task\.path: the folder .*empty holds no parquet file"):
        labelled(two, tmp_path / "empty")
    path = write((1, "2150-01-02", True)) / "0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SchemaError, match=r"0\.parquet: cannot be read as parquet"):
        labelled(two, path)
    pq.write_table(pa.table({"subject_id": [1]}), path)
    with pytest.raises(SchemaError, match=r"0\.parquet: column prediction_time is missing \(the file has subject_id\)"):
        labelled(two, path)


def test_a_cohort_without_anyone_is_refused_with_its_flow_chart(two, write):
    with pytest.raises(SchemaError, match=r"no label of .* is left: labels: 1 after, once: 1 after, known subject: 0"):
        labelled(two, write((7, "2150-01-02", True)))


def test_codes_that_define_the_outcome_are_hidden_by_option(two, write):
    assert labelled(two, write((1, "2150-01-02", True)), hidden_codes=["LAB//50912"]).hidden_codes == ("LAB//50912",)


def test_an_output_that_is_no_name_is_refused():
    with pytest.raises(ConfigError, match=r"task\.output: '30 days' is no name"):
        Labels("labels", output="30 days")


def test_labels_need_no_stay_at_all(empty_hospital, write):
    empty_hospital.event(1, "2150-01-01", "LAB//1//")
    samples = labelled(empty_hospital, write((1, "2150-01-02", True))).samples
    assert samples.encounter_id.isna().all() and samples.group_care_unit.tolist() == ["no stay"]
    assert samples.label_label.dtype == np.float32
