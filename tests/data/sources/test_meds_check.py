"""What is wrong with a MEDS dataset, or said of it wrongly, is one line that names the file and the row."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.errors import ConfigError, LeakageError, SchemaError

LAB = (1, "01-02 06:00", "LAB//1//")


@pytest.fixture
def stay(meds):
    """A woman and a lab."""
    meds.file((1, None, "GENDER//F"), LAB)
    return meds


def refused(meds, error=SchemaError, **options):
    with pytest.raises(error) as caught:
        meds.read(**options)
    assert "\n" not in str(caught.value)
    assert not list(meds.cache.glob("events-*"))
    return str(caught.value)


ROWS = {
    "time order": (
        ((1, "01-02 06:00", "A"), (1, "01-02 05:00", "B")),
        "row 1 (subject 1) is out of order: its time is",
    ),
    "subjects apart": (
        (LAB, (2, "01-02 06:00", "A"), LAB),
        "row 2 (subject 1) is out of order: the subject's rows are",
    ),
    "no subject": (((None, "01-02 06:00", "A"),), "row 0 (subject None) has no subject_id"),
    "no code": ((LAB, (1, "01-02 06:00", None)), "row 1 (subject 1) has no code"),
    "static": (
        ((1, None, "A", {"available_time": "01-02 06:00"}),),
        "row 0 (subject 1) has an available_time but no time",
    ),
}


@pytest.mark.parametrize(("rows", "says"), ROWS.values(), ids=ROWS)
def test_a_wrong_row_is_named_with_its_file_and_subject(meds, rows, says):
    path = meds.file(*rows)
    assert refused(meds).startswith(f"{path}: {says}")


def test_a_fact_that_is_available_before_it_happened_is_a_leak(meds):
    path = meds.file((1, "01-01 06:00", "A"), (1, "01-02 06:00", "A", {"available_time": "01-02 05:59"}))
    says = f"{path}: row 1 (subject 1) has an available_time before its time: it would be seen before it happened"
    assert refused(meds, LeakageError) == says


def test_order_is_kept_over_the_blocks_that_a_file_is_read_in(meds, monkeypatch):
    monkeypatch.setattr("ehrdl.sources.meds.check._ROWS_A_BLOCK", 2)
    times = ["01-01 06:00", "01-02 06:00", "01-03 06:00", "01-02 23:00", "01-04 06:00"]
    path = meds.file(*[(1, time, "A") for time in times])
    assert refused(meds).startswith(f"{path}: row 3 (subject 1) is out of order")
    path = meds.file(*[(subject, "01-02 06:00", "A") for subject in (1, 1, 1, 2, 1)])
    assert refused(meds).startswith(f"{path}: row 4 (subject 1) is out of order")


def test_static_rows_may_stand_after_the_others(meds):
    meds.file(LAB, (1, None, "GENDER//F"), (2, None, "GENDER//M"))
    assert meds.read().code.tolist() == ["GENDER//F", "LAB//1//", "GENDER//M"]


TYPES_REFUSED = {
    "zone": ({"time": pa.timestamp("us", "Europe/London")}, "column time has the time zone Europe/London"),
    "subject": ({"subject_id": pa.string()}, "column subject_id is string; it must hold whole numbers"),
    "time": ({"time": pa.date32()}, "column time is date32"),
    "code": ({"code": pa.int64()}, "column code is int64; it must hold text"),
    "number": ({"numeric_value": pa.string()}, "column numeric_value is string; it must hold numbers"),
    "text": ({"text_value": pa.int64()}, "column text_value is int64; it must hold text"),
    "available": (
        {"available_time": pa.string()},
        "column available_time is string; it must hold times without a zone",
    ),
}


@pytest.mark.parametrize(("types", "says"), TYPES_REFUSED.values(), ids=TYPES_REFUSED)
def test_a_column_of_a_wrong_type_is_refused(meds, types, says):
    [name] = types
    path = meds.file(LAB, **{name: pa.nulls(1, types[name])})
    assert refused(meds).startswith(f"{path}: {says}")


def test_a_missing_column_is_refused(meds):
    path = meds.file(LAB)
    pq.write_table(pq.read_table(path).drop_columns(["time"]), path)
    assert refused(meds) == f"{path}: column time is missing (the file has subject_id, code)"


@pytest.mark.parametrize("spoil", [lambda data: b"PAR1 junk", lambda data: data[:-9], lambda data: b""])
def test_a_damaged_file_is_refused(meds, spoil):
    path = meds.file(LAB)
    path.write_bytes(spoil(path.read_bytes()))
    line = refused(meds)
    assert line.startswith(f"{path}: cannot be read as parquet") and line.endswith("copy the file again")


def test_a_damaged_page_is_refused_and_nothing_is_left(meds):
    path = meds.file(*[(1, "01-02 06:00", "NOTE//a", {"text_value": f"{n} words" * 50}) for n in range(200)])
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    path.write_bytes(bytes(data))
    assert refused(meds).startswith(f"{path}: ")
    assert not list(meds.cache.glob("meds-*"))


def test_a_subject_in_two_files_is_refused(meds):
    first, second = meds.file(LAB, name="a/0"), meds.file((2, "01-02 06:00", "A"), LAB, name="b/0")
    assert refused(meds) == f"{second}: subject 1 stands in {first} too"


def test_equal_rows_are_counted_and_kept(meds, capsys, monkeypatch):
    monkeypatch.setattr("ehrdl.sources.meds.check._ROWS_A_BLOCK", 2)
    other = (1, "01-02 06:00", "LAB//2//")
    meds.file(LAB, other, LAB, other, (1, "01-02 07:00", "LAB//1//"), (1, "01-02 08:00", "LAB//1//"))
    assert len(meds.read()) == 6
    assert meds.facts["tables"]["data"]["duplicates"] == 2
    assert f"{meds.root}: 2 rows are equal to another row; they are kept" in capsys.readouterr().err


def test_a_stay_that_is_no_number_is_refused(meds):
    path = meds.file(LAB, visit=pa.array(["V1"]))
    line = refused(meds, encounter="visit")
    assert line.startswith(f"{path}: column visit holds no whole numbers") and "null to number the stays" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encounter": "visit_id"}, "data.source.encounter: no file has the column visit_id; null numbers"),
        ({"rename": {"LAB.*": "LAB//{unit}"}}, "data.source.rename: no file under .* has the column {unit}"),
    ],
)
def test_a_column_that_no_file_has_is_refused_by_its_key(stay, options, says):
    with pytest.raises(ConfigError, match=says):
        stay.read(**options)


def test_a_root_that_is_none_is_refused(meds):
    assert refused(meds) == f"data.source.root: the folder {meds.root} does not exist; give the one that holds data/"
    meds.root.mkdir()
    assert refused(meds) == f"{meds.root}: no data/**/*.parquet; this is not a MEDS dataset"


def test_a_rename_that_leaves_nothing_is_refused(stay):
    assert "no row is left to read" in refused(stay, rename={".*": []})


def test_a_subject_in_two_splits_is_a_leak(stay):
    stay.splits(train=[1], held_out=[1, 2])
    line = refused(stay, LeakageError)
    assert line.endswith("subject_splits.parquet: subject 1 stands in two splits, held_out and train")
