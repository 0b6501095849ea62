import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ehrdl.errors import LeakageError, SchemaError
from ehrdl.schema import EVENTS, PREDICTIONS, SAMPLES, OutputSpec, check

DAY = pd.to_datetime(["2150-01-01", "2150-01-02", "2150-01-01"])


def events(**changes):
    columns = {
        "subject_id": [1, 1, 2],
        "time": DAY,
        "code": ["A", "B", "A"],
        "numeric_value": [1.5, np.nan, 2.0],
        "text_value": [None, "note", None],
        "available_time": DAY,
        "encounter_id": pd.array([10, None, 20], dtype="Int64"),
    }
    return pd.DataFrame(columns | changes)


def samples(**changes):
    columns = {
        "sample_id": [0, 1, 2],
        "subject_id": [1, 1, 2],
        "encounter_id": pd.array([10, 11, None], dtype="Int64"),
        "prediction_time": DAY,
        "split": ["train", "train", "held_out"],
        "label_readmission": [0.0, 1.0, np.nan],
        "status_readmission": ["negative", "positive", "censored"],
        "group_sex": ["F", None, "M"],
    }
    return pd.DataFrame(columns | changes)


def predictions(**changes):
    columns = {
        "sample_id": [0],
        "subject_id": [1],
        "prediction_time": DAY[:1],
        "model": ["fused"],
        "seed": [0],
        "split": ["held_out"],
        "output": ["readmission"],
        "label": [1.0],
        "prob": [0.3],
        "prob_calibrated": [None],
    }
    return pd.DataFrame(columns | changes)


def test_tables_get_their_declared_types():
    table = check(events(), EVENTS)
    assert table.schema.types == [column.type for column in EVENTS.columns]
    assert check(samples(), SAMPLES).schema.field("label_readmission").type == pa.float32()
    assert check(predictions(), PREDICTIONS).num_rows == 1


@pytest.mark.parametrize(("table", "schema"), [(events, EVENTS), (samples, SAMPLES), (predictions, PREDICTIONS)])
def test_every_declared_column_is_required_by_name(table, schema):
    for name in [column.name for column in schema.columns if not column.optional]:
        with pytest.raises(SchemaError, match=f"^{schema.name}: column {name} is missing$"):
            check(table().drop(columns=name), schema)


@pytest.mark.parametrize(("table", "schema"), [(events, EVENTS), (samples, SAMPLES), (predictions, PREDICTIONS)])
def test_empty_tables_pass(table, schema):
    assert check(table().iloc[:0], schema).num_rows == 0


def test_a_column_that_no_table_declares_is_refused():
    with pytest.raises(SchemaError, match="column dose is not part of the table"):
        check(events(dose=1.0), EVENTS)


def test_a_null_is_named_with_its_row_and_subject():
    with pytest.raises(SchemaError, match=r"EVENTS: column code, row 2 \(subject 2\): None is null"):
        check(events(code=["A", "B", None]), EVENTS)


def test_a_time_with_a_zone_is_refused():
    with pytest.raises(SchemaError, match="column time has the time zone UTC"):
        check(events(time=DAY.tz_localize("UTC")), EVENTS)


def test_text_is_never_parsed_into_numbers():
    with pytest.raises(SchemaError, match="column subject_id is text, not int64"):
        check(events(subject_id=["1", "1", "2"]), EVENTS)


def test_a_column_that_cannot_be_cast_is_one_error_of_schema():
    with pytest.raises(SchemaError, match="column subject_id is list"):
        check(events(subject_id=[[1], [1], [2]]), EVENTS)
    with pytest.raises(SchemaError, match=r"column subject_id is double, not int64"):
        check(events(subject_id=[1.0, 1.5, 2.0]), EVENTS)


def test_a_fact_available_before_it_happened_is_a_leak():
    with pytest.raises(LeakageError, match=r"column available_time, row 1 \(subject 1\).*before it happened"):
        check(events(available_time=DAY - pd.to_timedelta([0, 1, 0], unit="us")), EVENTS)


def test_a_static_fact_has_neither_time():
    static = [pd.NaT, DAY[1], DAY[2]]
    assert check(events(time=static, available_time=static), EVENTS)["time"].null_count == 1
    with pytest.raises(SchemaError, match=r"row 0.*must both be null"):
        check(events(time=static), EVENTS)


def test_events_out_of_subject_order_name_the_first_bad_row():
    with pytest.raises(SchemaError, match=r"column subject_id, row 2 \(subject 0\): 0 is out of order"):
        check(events(subject_id=[1, 1, 0]), EVENTS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample_id": [0, 2, 1]}, "sample_id, row 1 .*: 2 is not the row number"),
        ({"subject_id": [2, 2, 1]}, "row 2 .* is out of order"),
        ({"prediction_time": DAY[::-1].sort_values()[::-1]}, "row 1 .* is out of order"),
        ({"split": ["train", "train", "test"]}, "split, row 2 .*: 'test' is not one of"),
        ({"status_readmission": ["negative", "dead", "death"]}, "status_readmission, row 1 .*: 'dead' is not one of"),
    ],
)
def test_samples_name_the_first_row_that_breaks_a_rule(changes, says):
    with pytest.raises(SchemaError, match=says):
        check(samples(**changes), SAMPLES)


def test_samples_at_one_time_are_ordered_by_encounter():
    at_once = samples(prediction_time=DAY[:1].repeat(3))
    check(at_once, SAMPLES)
    with pytest.raises(SchemaError, match=r"row 1 .* is out of order"):
        check(at_once.assign(encounter_id=[11, 10, 20]), SAMPLES)


def test_a_subject_in_two_splits_is_a_leak():
    with pytest.raises(LeakageError, match="subject 1 stands in two splits"):
        check(samples(split=["train", "tuning", "held_out"]), SAMPLES)


@pytest.mark.parametrize("prob", [-0.1, 1.1])
def test_a_probability_outside_0_and_1_is_refused(prob):
    for name in ("prob", "prob_calibrated"):
        with pytest.raises(SchemaError, match=f"column {name}, row 0 .*is not a probability"):
            check(predictions(**{name: [prob]}), PREDICTIONS)


def test_an_undefined_probability_is_refused():
    table = check(predictions(), PREDICTIONS)
    broken = table.set_column(table.column_names.index("prob"), "prob", pa.array([float("nan")]))
    with pytest.raises(SchemaError, match="is not a probability"):
        check(broken, PREDICTIONS)


def test_an_output_is_plain_values():
    assert OutputSpec("readmission").to_dict() == {"name": "readmission", "kind": "binary", "unit": ""}


def numbers(**changes):
    """A prediction of a binary output, and one of a number."""
    table = pd.concat([predictions(), predictions()], ignore_index=True)
    columns = {"output": ["death", "days"], "prob": [0.3, np.nan], "value": [np.nan, 2.5]}
    return table.assign(**(columns | changes), prob_calibrated=np.nan)


def test_a_predicted_number_stands_in_value_and_has_no_probability():
    table = check(numbers(), PREDICTIONS)
    assert table["prob"].to_pylist() == [0.3, None]
    assert table["value"].to_pylist() == [None, 2.5]


def test_predictions_without_the_column_value_are_read_as_before():
    table = check(predictions(), PREDICTIONS)
    assert table["value"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": [np.nan, np.nan]}, "column prob, row 1 .*None and value are both null"),
        ({"prob": [0.3, 0.5]}, "column value, row 1 .*2.5 stands beside a prob"),
        ({"output": ["days", "days"]}, "column prob, row 0 .*0.3 is of an output that other rows predict a value of"),
        ({"value": [np.nan, np.inf]}, "column value, row 1 .*inf is not a finite number"),
    ],
)
def test_a_row_predicts_a_probability_or_a_number_and_its_output_says_which(changes, says):
    with pytest.raises(SchemaError, match=says):
        check(numbers(**changes), PREDICTIONS)
