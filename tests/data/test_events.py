import datetime

import duckdb
import meds
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ehrdl.engine.files import read_json
from ehrdl.engine.options import Prepare
from ehrdl.errors import LeakageError, SchemaError
from ehrdl.events.writer import EventsWriter, subject_ids, validate
from ehrdl.schema import EVENTS_ORDER
from ehrdl.splits.subjects import Split, assign

ROWS = """
    SELECT * FROM (VALUES
        (7, TIMESTAMP '2150-01-02', 'B', 1.5, NULL, TIMESTAMP '2150-01-03', 70, false),
        (7, TIMESTAMP '2150-01-02', 'A', NULL, 'text', TIMESTAMP '2150-01-03', NULL, true),
        (7, TIMESTAMP '2150-01-02', 'C', 2.0, NULL, TIMESTAMP '2150-01-02', 70, false),
        (7, NULL, 'GENDER//F', NULL, NULL, NULL, NULL, false),
        (-3, TIMESTAMP '2150-01-01', 'A', 1.0, NULL, TIMESTAMP '2150-01-01', 30, false),
        (4611686018427387904, TIMESTAMP '2150-01-01', 'A', 1.0, NULL, TIMESTAMP '2150-01-01', 40, false)
    ) AS t(subject_id, time, code, numeric_value, text_value, available_time, encounter_id, fallback)
"""
TYPED = f"""
    SELECT subject_id::BIGINT AS subject_id, time, code, numeric_value::FLOAT AS numeric_value,
        text_value::VARCHAR AS text_value, available_time, encounter_id::BIGINT AS encounter_id, fallback FROM ({ROWS})
"""


def write(out, n_shards=3, workers=1, select=TYPED):
    writer = EventsWriter(out, Prepare(n_shards=n_shards, workers=workers))
    with duckdb.connect() as con:
        writer.stage(con, "hosp.labevents", select)
        writer.stage(con, "hosp.empty", f"{select} WHERE false")
    writer.finish(lambda code: f"this is {code}", "a hospital")
    return writer


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "events")
    return tmp_path / "events"


def rows_of(folder):
    tables = [pq.read_table(file) for file in sorted((folder / "data").glob("*.parquet"))]
    return [row for table in tables for row in table.select(list(EVENTS_ORDER)).to_pylist()]


def rewrite(folder, change):
    """Apply `change` to the rows of subject 7, the last of its shard."""
    for file in (folder / "data").glob("*.parquet"):
        table = pq.read_table(file)
        if 7 in table["subject_id"].to_pylist():
            pq.write_table(change(table.filter(pc.equal(table["subject_id"], 7))), file)
            return file.name
    raise AssertionError


def test_what_is_written_is_a_valid_meds_dataset(folder):
    assert validate(folder) == {"rows": 6, "subjects": 3, "codes": 4, "repeated": {}}
    for file in (folder / "data").iterdir():
        meds.DataSchema.validate(pq.read_table(file))  # as any other tool would read it
    codes = pq.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    meds.SubjectSplitSchema.validate(pq.read_table(folder / meds.subject_splits_filepath))
    assert codes["description"].to_pylist() == ["this is A", "this is B", "this is C", "this is GENDER//F"]
    assert read_json(folder / meds.dataset_metadata_filepath)["dataset_name"] == "a hospital"
    splits = pq.read_table(folder / meds.subject_splits_filepath)
    assert splits["split"].to_pylist() == assign(subject_ids(folder), Split()).tolist()
    assert sorted(path.name for path in folder.iterdir()) == ["data", "metadata"]


def test_rows_are_in_the_total_order_with_static_facts_first(folder):
    ours = [row for row in rows_of(folder) if row["subject_id"] == 7]
    assert [row["code"] for row in ours] == ["GENDER//F", "C", "A", "B"]
    assert ours[1]["available_time"] == datetime.datetime(2150, 1, 2)


def test_no_row_is_lost_whatever_the_number_of_a_subject(folder):
    assert subject_ids(folder).tolist() == [-3, 7, 2**62]


def test_rows_and_fallbacks_are_counted_a_table_each(tmp_path):
    counts = write(tmp_path / "events").counts
    assert counts == {"hosp.labevents": {"rows": 6, "on_fallback": 1}, "hosp.empty": {"rows": 0, "on_fallback": 0}}


def test_shards_and_processes_hold_the_same_rows(tmp_path):
    write(tmp_path / "one", n_shards=1)
    write(tmp_path / "many", n_shards=5, workers=2)
    assert validate(tmp_path / "many") == validate(tmp_path / "one")
    key = lambda row: (row["subject_id"], row["code"])  # noqa: E731
    assert sorted(rows_of(tmp_path / "one"), key=key) == sorted(rows_of(tmp_path / "many"), key=key)


def test_the_same_rows_in_another_order_give_the_same_bytes(tmp_path):
    write(tmp_path / "a", n_shards=2)
    write(tmp_path / "b", n_shards=2, select=f"SELECT * FROM ({TYPED} ORDER BY code DESC)")
    for file in sorted((tmp_path / "a" / "data").iterdir()):
        assert pq.read_table(file).equals(pq.read_table(tmp_path / "b" / "data" / file.name))


def test_a_folder_without_data_is_no_events_folder(tmp_path):
    with pytest.raises(SchemaError, match="this is not an EVENTS folder"):
        validate(tmp_path)


def test_unsorted_rows_are_refused_with_their_place(folder):
    name = rewrite(folder, lambda table: table.take([0, 1, 3, 2]))
    with pytest.raises(SchemaError, match=rf"{name}: row 3 is out of order"):
        validate(folder)


def test_a_subject_in_two_shards_is_refused(folder):
    name = rewrite(folder, lambda table: table.slice(0, 2))
    pq.write_table(pq.read_table(folder / "data" / name), folder / "data" / "9.parquet")
    with pytest.raises(SchemaError, match=rf"9\.parquet: subject 7 stands in .*{name} too"):
        validate(folder)


def test_a_code_without_metadata_is_refused(folder):
    path = folder / meds.code_metadata_filepath
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table["code"], "B")), path)
    with pytest.raises(SchemaError, match=r"codes\.parquet: code B is missing"):
        validate(folder)


@pytest.mark.parametrize("name", ["time", "available_time"])
def test_a_time_with_a_zone_is_refused(folder, name):
    def zoned(table):
        place = table.column_names.index(name)
        return table.set_column(place, name, pc.assume_timezone(table[name], "Europe/Berlin"))

    rewrite(folder, zoned)
    with pytest.raises(SchemaError, match=rf"column {name} has the time zone Europe/Berlin"):
        validate(folder)


def test_a_fact_available_before_it_happened_is_a_leak(folder):
    def early(table):
        place = table.column_names.index("available_time")
        hour = pa.scalar(datetime.timedelta(days=2), pa.duration("us"))
        return table.set_column(place, "available_time", pc.subtract(table["available_time"], hour))

    rewrite(folder, early)
    with pytest.raises(LeakageError, match="the fact would be seen before it happened"):
        validate(folder)


def test_a_missing_column_is_refused(folder):
    rewrite(folder, lambda table: table.drop_columns(["available_time"]))
    with pytest.raises(SchemaError, match="EVENTS: column available_time is missing"):
        validate(folder)


def test_a_subject_in_two_splits_is_a_leak(folder):
    path = folder / meds.subject_splits_filepath
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    with pytest.raises(LeakageError, match="a subject stands in two splits"):
        validate(folder)


def test_the_synthetic_hospital_is_valid(hospital):
    found = validate(hospital.events)
    assert found["subjects"] == 300
    assert found["rows"] == sum(count["rows"] for count in hospital.prepared.facts["tables"].values())


def test_subjects_are_spread_over_the_shards(hospital):
    shards = [len(np.unique(pq.read_table(f)["subject_id"])) for f in (hospital.events / "data").glob("*.parquet")]
    assert len(shards) == hospital.config.prepare.shards(0) == 4
    assert max(shards) < 2 * min(shards)


PLAIN = {
    "subject_id": "7", "time": "TIMESTAMP '2150-01-02'", "code": "'A'", "numeric_value": "1.5::FLOAT",
    "text_value": "'x'", "available_time": "TIMESTAMP '2150-01-03'", "encounter_id": "70::BIGINT",
}  # fmt: skip


def selected(**changed):
    return "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in (PLAIN | changed).items() if sql)


@pytest.mark.parametrize(
    ("changed", "becomes"),
    [
        ({"encounter_id": "NULL"}, {"encounter_id": None}),
        ({"encounter_id": "70::INTEGER", "subject_id": "7::DECIMAL(10, 2)"}, {}),
        ({"encounter_id": "70::HUGEINT", "subject_id": "7.0::DOUBLE"}, {}),
        ({"numeric_value": "1.5"}, {}),
        ({"numeric_value": "NULL", "text_value": "NULL"}, {"numeric_value": None, "text_value": None}),
        ({"time": "NULL", "available_time": "NULL"}, {"time": None, "available_time": None}),
        ({"time": "DATE '2150-01-02'", "available_time": "TIMESTAMP_NS '2150-01-03'"}, {}),
        ({"code": "'A'::ENUM('A')", "text_value": "'x'::VARCHAR"}, {}),
        ({"more": "1"}, {}),
    ],
)
def test_what_a_source_selects_is_cast_to_the_types_of_events(tmp_path, changed, becomes):
    plain, other = tmp_path / "plain", tmp_path / "other"
    write(plain, select=selected())
    write(other, select=selected(**changed))
    assert rows_of(other) == [row | becomes for row in rows_of(plain)]
    assert validate(other)["rows"] == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"encounter_id": None}, "column encounter_id is missing (its SQL selects subject_id, "),
        ({"encounter_id": "'70'"}, "column encounter_id is VARCHAR; it must hold whole numbers"),
        ({"encounter_id": "DATE '2150-01-02'"}, "column encounter_id is DATE; it must hold whole numbers"),
        ({"encounter_id": "70.5"}, "column encounter_id: 70.5 is none of whole numbers"),
        ({"subject_id": "1e30"}, "column subject_id: 1e+30 is none of whole numbers"),
        ({"subject_id": "NULL"}, "column subject_id: a row has none"),
        ({"numeric_value": "'1.5'"}, "column numeric_value is VARCHAR; it must hold numbers"),
        ({"numeric_value": "1e300"}, "column numeric_value: 1e+300 is none of numbers"),
        (
            {"time": "TIMESTAMPTZ '2150-01-02 00:00:00+00'"},
            "column time is TIMESTAMP WITH TIME ZONE; it must hold times",
        ),
        ({"code": "50912"}, "column code is INTEGER; it must hold text"),
        ({"code": "NULL"}, "column code: a row has none"),
        ({"fallback": "1"}, "column fallback is INTEGER; it must hold true or false"),
    ],
)
def test_what_cannot_be_cast_is_refused_by_table_and_column(tmp_path, changed, says):
    with pytest.raises(SchemaError) as caught:
        write(tmp_path / "events", select=selected(**changed))
    assert str(caught.value).startswith(f"table hosp.labevents: {says}") and "\n" not in str(caught.value)
