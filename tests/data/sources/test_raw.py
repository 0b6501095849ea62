"""A damaged table is one line that names the file and, where there is one, the row, the column and the value."""

import gzip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import read_events
from ehrdl.engine.options import Prepare
from ehrdl.errors import SchemaError
from ehrdl.sources.mimic4.source import Mimic4


def failure(mimic, **options):
    """The message of the failing read; nothing half-written may be left in the cache."""
    cache = mimic.root.parent / "cache"
    with pytest.raises(SchemaError) as caught:
        read_events(DataConfig(Mimic4(str(mimic.root), **options), prepare=Prepare(cache=str(cache), workers=1)))
    # what is left are locks, and other tables that were read whole
    assert [path.name for path in cache.glob("*") if path.name != ".locks" and not path.name.startswith("table-")] == []
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message.replace(f"{mimic.root}/", "")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"charttime": "02/01/2150"}, "row 2, column charttime: '02/01/2150' is not a time without a zone, such as"),
        ({"charttime": "2150-13-01 00:00:00"}, "row 2, column charttime: '2150-13-01 00:00:00' is not a time"),
        ({"charttime": "2150-02-30 00:00:00"}, "row 2, column charttime: '2150-02-30 00:00:00' is not a time"),
        ({"storetime": "2150-01-02 06:00:00+02"}, "row 2, column storetime: '2150-01-02 06:00:00+02' is not a time"),
        ({"storetime": "2150-01-02 06:00-05"}, "row 2, column storetime: '2150-01-02 06:00-05' is not a time without"),
        ({"storetime": "2150-01-02T06:00:00Z"}, "row 2, column storetime: '2150-01-02T06:00:00Z' is not a time"),
        ({"storetime": "2150-01-02 06:00:00 UTC"}, "row 2, column storetime: '2150-01-02 06:00:00 UTC' is not a time"),
        ({"valuenum": "1,5"}, "row 2, column valuenum: '1,5' is not a number"),
        ({"valuenum": "x" * 5000}, f"row 2, column valuenum: '{'x' * 60}…' is not a number"),
        ({"valuenum": "1\x00"}, r"row 2, column valuenum: '1\x00' is not a number"),
        ({"valuenum": "1\n2"}, r"row 2, column valuenum: '1\n2' is not a number"),
        ({"subject_id": "P1"}, "row 2, column subject_id: 'P1' is not a whole number"),
        ({"itemid": "creatinine"}, "row 2, column itemid: 'creatinine' is not a whole number"),
        (
            {"subject_id": "-1"},
            "row 2, column subject_id: '-1' is not a whole number from 0 to 9,223,372,036,854,775,807",
        ),
        (
            {"subject_id": "9223372036854775808"},
            "row 2, column subject_id: '9223372036854775808' is not a whole number",
        ),
        ({"subject_id": "1e3"}, "row 2, column subject_id: '1e3' is not a whole number"),
        ({"subject_id": "1.5"}, "row 2, column subject_id: '1.5' is not a whole number"),
        ({"hadm_id": "0x10"}, "row 2, column hadm_id: '0x10' is not a whole number"),
        ({"valueuom": "m\x00l"}, "row 2, column valueuom: holds a NUL byte, which no text has; copy the file again"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_cell_that_does_not_fit_is_named_with_its_row(mimic, cells, expected, suffix):
    mimic.lab().lab(**cells).lab().write()
    if suffix == ".parquet":  # all text, as of a hospital that never typed its columns
        path = mimic.root / "hosp/labevents.csv"
        pd.DataFrame(mimic.rows["hosp/labevents"]).astype("string").to_parquet(path.with_suffix(".parquet"))
        path.unlink()
    assert failure(mimic).startswith(f"hosp/labevents{suffix}: {expected}")


@pytest.mark.parametrize("number", ["1.0", "1.", " 1 ", "01"])
def test_whole_number_as_another_program_writes_it_is_read(mimic, number):
    """A gap in a column makes pandas write 10 as 10.0."""
    events = mimic.lab().lab(subject_id=number).read()
    assert events.frame.subject_id[events.frame.code.str.startswith("LAB")].tolist() == [1, 1]


@pytest.mark.parametrize("year", ["99999", "-5", "2150.5"])
def test_year_that_no_calendar_has_is_named_with_its_row(mimic, year):
    mimic.patient(2, anchor_year=year).write()
    expected = f"row 2, column anchor_year: '{year}' is not a whole number from 0 to 32,767"
    assert failure(mimic) == f"hosp/patients.csv: {expected}"


def as_parquet(mimic, column, cells):
    """Labs in Parquet whose `column` holds these cells, a row each."""
    for _ in cells:
        mimic.lab()
    path = mimic.write() / "hosp/labevents.csv"
    table = pa.Table.from_pandas(pd.read_csv(path, dtype={"value": str}), preserve_index=False)
    pq.write_table(table.set_column(table.column_names.index(column), column, cells), path.with_suffix(".parquet"))
    path.unlink()
    return mimic


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("subject_id", pa.array([1.0, 1.5]), "row 2, column subject_id: '1.5' is not a whole number from 0 to"),
        ("subject_id", pa.array([1.0, float("nan")]), "column subject_id: 'nan' is not a whole number from 0 to"),
        ("subject_id", pa.array([1, -1]), "row 2, column subject_id: '-1' is not a whole number from 0 to"),
        (
            "itemid",
            pa.array([1, 2**63], pa.uint64()),
            "row 2, column itemid: '9223372036854775808' is not a whole number",
        ),
        ("hadm_id", pa.array([True, False]), "column hadm_id is bool, not a whole number"),
        ("value", pa.array([b"1", b"\xb5"]), "column value is binary, not text"),
        ("value", pa.array([["1"], ["2"]]), "column value is list<element: string>, not text"),
        ("valuenum", pa.array([b"1", b"2"]), "column valuenum is binary, not a number"),
    ],
)
def test_parquet_column_that_holds_something_else_is_named(mimic, column, cells, expected):
    assert failure(as_parquet(mimic, column, cells)).startswith(f"hosp/labevents.parquet: {expected}")


@pytest.mark.parametrize(
    "cells", [pa.array([1.0, 1.0]), pa.array([1, 1], pa.uint8()), pa.array([1, 1]).cast(pa.decimal128(21, 2))]
)
def test_parquet_column_of_whole_numbers_is_read_whatever_its_type(mimic, cells):
    assert len(as_parquet(mimic, "subject_id", cells).read(write=False).codes("LAB//")) == 2


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_column_of_text_is_read_in_any_layout(mimic, kind):
    events = as_parquet(mimic, "valueuom", pa.array(["mg/dL", None]).cast(kind)).read(write=False)
    assert "LAB//50912//mg/dL" in set(events.codes("LAB//"))


def test_parquet_column_without_a_single_value_is_read(mimic):
    events = as_parquet(mimic, "storetime", pa.nulls(2)).read(write=False)
    assert set(events.frame.available_time[events.frame.code.str.startswith("LAB")].astype("str")) == {
        "2150-01-02 10:00:00"
    }


def test_parquet_column_that_stands_twice_is_named(mimic):
    path = mimic.lab().write() / "hosp/labevents.csv"
    table = pa.Table.from_pandas(pd.read_csv(path), preserve_index=False)
    pq.write_table(table.append_column("itemid", table["itemid"]), path.with_suffix(".parquet"))
    path.unlink()
    assert failure(mimic) == "hosp/labevents.parquet: column itemid stands 2 times; remove all but one"


def test_parquet_column_of_times_with_a_zone_is_refused(mimic):
    path = mimic.lab().write() / "hosp/labevents.csv"
    frame = pd.read_csv(path)
    frame["charttime"] = pd.to_datetime(frame.charttime, utc=True)
    frame.to_parquet(path.with_suffix(".parquet"))
    path.unlink()
    expected = "column charttime is timestamp[us, tz=UTC], not a time without a zone, such as 2150-12-31 23:59:00"
    assert failure(mimic) == f"hosp/labevents.parquet: {expected}"


def test_parquet_column_of_numbers_is_no_time(mimic):
    path = mimic.lab().write() / "hosp/labevents.csv"
    pd.read_csv(path).assign(charttime=1.0).to_parquet(path.with_suffix(".parquet"))
    path.unlink()
    assert "labevents.parquet: column charttime is double, not a time without a zone" in failure(mimic)


def damage(mimic, content, name="hosp/labevents.csv"):
    mimic.lab().write()
    (mimic.root / "hosp/labevents.csv").unlink()
    (mimic.root / name).write_bytes(content)
    return failure(mimic)


TABLE = b"subject_id,hadm_id,itemid,charttime,storetime,value,valuenum,valueuom\n"
ROW = b"1,10,50912,2150-01-02 06:00:00,2150-01-02 07:00:00,1,1,mg/dL\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; copy the file again"),
        (TABLE.rstrip(), "has no rows; copy the file again"),
        (bytes(range(128, 256)) * 20, "the header is not UTF-8 text; convert the file"),
        (b"PK\x03\x04\x14\x00\x06\x00", "is a zip archive (an Excel file is one too); unzip it"),
        (
            TABLE.replace(b"valueuom", b"unit\xe9"),
            "the header is not UTF-8 text; convert the file (iconv -f latin1 -t utf-8)",
        ),
        (TABLE.replace(b",", b";"), "column subject_id is missing (the file has subject_id;hadm_id;itemid;charttime;"),
        (TABLE.replace(b",valuenum", b""), "column valuenum is missing (the file has subject_id, hadm_id, itemid, "),
        (TABLE.replace(b"valuenum", b"value"), "column value stands 2 times"),
        (TABLE.replace(b"valueuom", b"VALUE "), "column value stands 2 times"),
        (TABLE + ROW + ROW[:20] + b"\n", "row 2 has 4 columns, the header has 8"),
        (TABLE + ROW + b"9," + ROW, "row 2 has 9 columns, the header has 8"),
        (TABLE + ROW + ROW.replace(b"mg", b"\xb5g"), "row 2 is not UTF-8 text; convert the file (iconv"),
        (TABLE + ROW + TABLE + ROW, "row 2, column subject_id: 'subject_id' is not a whole number"),
        (TABLE + ROW.replace(b",", b";"), "row 1 has 1 columns, the header has 8; is a comma or a quote missing?"),
        (TABLE + ROW + ROW.replace(b"mg/dL", b'"mg'), "row 2: a quote is opened and never closed; copy the file again"),
        (
            TABLE + ROW + ROW.replace(b",1,1,", b',"1,1,'),
            "row 2 has 6 columns, the header has 8; is a comma or a quote",
        ),
        (TABLE + ROW + b"\0" * 40 + b"\n", "row 2 has 1 columns, the header has 8"),
        (
            TABLE + ROW + b'1,10,50912,,,"' + b"x" * (33 << 20) + b'",,\n',
            "somewhere after row 1 a row is longer than 4 MiB; is a quote not closed?",
        ),
    ],
)
def test_damaged_csv_is_named(mimic, content, expected):
    assert f"hosp/labevents.csv: {expected}" in damage(mimic, content)


def test_hint_for_another_delimiter(mimic):
    assert damage(mimic, TABLE.replace(b",", b"\t")).endswith("; are its columns separated by commas?")


WHOLE = gzip.compress(TABLE + b"".join(ROW.replace(b"1,1,", b"%d,1," % n) for n in range(30000)))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WHOLE[:15], id="cut in the header"),
        pytest.param(WHOLE[: len(WHOLE) // 2], id="cut in the middle"),
        pytest.param(WHOLE[:-8], id="cut before the checksum"),
        pytest.param(WHOLE[:-1], id="cut by one byte"),
        pytest.param(WHOLE[:-6] + b"xx" + WHOLE[-4:], id="wrong checksum"),
        pytest.param(WHOLE + b"and more", id="followed by something else"),
        pytest.param(b"", id="empty"),
    ],
)
def test_damaged_gzip_is_named(mimic, content):
    message = damage(mimic, content, "hosp/labevents.csv.gz")
    assert message.startswith("hosp/labevents.csv.gz: ")
    assert message.endswith("copy the file again")


def test_note_that_is_cut_within_its_quotes_is_named(mimic):
    """Its last row is whole in the number of its cells, and would be read as a shorter note."""
    text = mimic.note(text="One.\nTwo.").note(text="Three.\nFour, and more.").write() / "note/discharge.csv"
    text.write_bytes(text.read_bytes()[:-9])
    assert failure(mimic) == "note/discharge.csv: row 2: a quote is opened and never closed; copy the file again"


@pytest.mark.parametrize(
    ("last", "end"), [(b'"mg/dL"', b""), (b'""', b"\n"), (b'"say ""mg/dL"""', b"\r\n"), (b"mg/dL", b"\n\n")]
)
def test_last_row_is_read_whatever_ends_it(mimic, last, end):
    path = mimic.lab().write() / "hosp/labevents.csv"
    path.write_bytes(TABLE + ROW + ROW.rstrip().replace(b"mg/dL", last) + end)
    assert len(mimic.read(write=False).codes("LAB//")) == 2


@pytest.mark.slow  # twice through 24 MB, five times
def test_damage_far_into_a_file_is_named_with_its_row(mimic):
    path = mimic.lab().write() / "hosp/labevents.csv"
    rows = [TABLE] + [ROW] * 400_000  # 24 MB, more than a block
    for broken, expected in (
        (ROW.replace(b"1,10,", b"0x1,10,"), "row 390000, column subject_id: '0x1' is not a whole number"),
        (ROW.replace(b"mg", b"\xb5g"), "row 390000 is not UTF-8 text"),
        (ROW.replace(b"mg", b"m\0"), "row 390000, column valueuom: holds a NUL byte"),
        (ROW[3:], "row 390000 has 7 columns, the header has 8"),
    ):
        path.write_bytes(b"".join([*rows[:390_000], broken, *rows[390_001:]]))
        assert failure(mimic).startswith(f"hosp/labevents.csv: {expected}")
    path.write_bytes(b"".join([*rows, ROW.replace(b"mg", b'"mg')]))
    assert failure(mimic).startswith("hosp/labevents.csv: row 400001: a quote is opened and never closed")


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: gzip.decompress(data)[:-1] + b",x\n"])
def test_mended_file_gives_what_a_clean_cache_gives(mimic, tmp_path, damage):
    mimic.lab().note().write(".csv.gz")
    path = mimic.root / "hosp/labevents.csv.gz"
    whole = path.read_bytes()

    def read(cache):
        options = Prepare(cache=str(tmp_path / cache), n_shards=1)
        folder = read_events(DataConfig(Mimic4(str(mimic.root)), prepare=options))
        return {file.name: file.read_bytes() for file in folder.rglob("*.parquet")}

    path.write_bytes(damage(whole))
    failure(mimic)
    path.write_bytes(whole)
    assert read("cache") == read("clean")


def test_gzip_in_several_members_is_read_whole(mimic):
    path = mimic.lab().write() / "hosp/labevents.csv"
    members = gzip.compress(TABLE + ROW) + gzip.compress(ROW + ROW)
    (mimic.root / "hosp/labevents.csv.gz").write_bytes(members)
    path.unlink()
    assert len(mimic.read(write=False).codes("LAB//")) == 3


@pytest.mark.parametrize("content", [b"", b"PAR1 is not enough", b"no parquet at all"])
def test_damaged_parquet_is_named(mimic, content):
    message = damage(mimic, content, "hosp/labevents.parquet")
    assert message.startswith("hosp/labevents.parquet: cannot be read (")


def test_missing_root_is_named(mimic):
    assert f"data.source.root: the folder {mimic.root} does not exist" in failure(mimic)


def test_missing_note_root_is_an_error_not_a_hospital_without_notes(mimic):
    mimic.write()
    assert "data.source.note_root: the folder nowhere does not exist" in failure(mimic, note_root="nowhere")


@pytest.mark.parametrize(
    ("table", "tables"), [("hosp/patients", None), ("hosp/admissions", []), ("hosp/emar", ["hosp/emar"])]
)
def test_missing_table_that_is_required_or_named_is_an_error(mimic, table, tables):
    path = mimic.write() / f"{table}.csv"
    path.unlink(missing_ok=True)
    message = failure(mimic, tables=tables)
    assert message.startswith(
        f"{table}.csv.gz: the table is missing (looked for .csv.gz, .csv, .parquet, .csv.zst, .csv.bz2)"
    )


def test_tables_that_are_missing_from_the_usual_set_are_said_in_one_line_and_the_rest_is_read(mimic, capsys):
    mimic.lab().write()
    (mimic.root / "icu/chartevents.csv").unlink()
    assert mimic.read(write=False).codes("LAB//") == ["LAB//50912//mg/dL"]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("hosp/transfers, hosp/services, hosp/diagnoses_icd, ")
    assert "icu/chartevents, " in line
    assert "hosp/labevents" not in line
    assert mimic.facts["missing"] == [line]


def test_hospital_without_any_series_is_an_error_unless_the_tables_are_named(mimic):
    for table in ("hosp/labevents", "icu/chartevents"):
        (mimic.write() / f"{table}.csv").unlink()
        mimic.rows.pop(table)
    assert failure(mimic).startswith(
        "hosp/labevents.csv.gz: the table is missing, and icu/chartevents too, so there is no"
    )
    assert mimic.note().read(tables=["note/discharge"]).codes("NOTE//") == ["NOTE//discharge//DS"]


@pytest.mark.parametrize("table", ["hosp/patients", "hosp/admissions"])
def test_table_that_all_others_need_may_not_be_empty(mimic, table):
    mimic.rows[table].clear()
    mimic.write()
    assert failure(mimic) == f"{table}.csv: has no rows"


def test_hospital_without_measurements_is_read_and_told(mimic, capsys):
    assert mimic.read().codes("LAB//") == []
    said = "hosp/labevents, icu/chartevents: gave no event; no rows, or none with an item that the concepts list"
    assert set(capsys.readouterr().err.splitlines()) == {*mimic.facts["missing"]} and mimic.facts["missing"][-1] == said


@pytest.mark.parametrize(
    ("table", "key"),
    [("hosp/patients", "subject_id 1"), ("hosp/admissions", "hadm_id 10"), ("note/discharge", "note_id 1-discharge-0")],
)
def test_row_that_stands_twice_is_named(mimic, table, key):
    mimic.note()
    mimic.rows[table] *= 2
    mimic.write()
    assert failure(mimic) == f"{table}.csv: {key} stands in 2 rows; it must stand in one"


def test_times_of_a_column_of_fixed_width_are_read(mimic):
    mimic.lab(charttime="2150-01-02 06:00:00   ", storetime=" 2150-01-02 07:00:00")
    assert mimic.read().of("LAB//") == ("2150-01-02 06:00:00", "2150-01-02 07:00:00")
