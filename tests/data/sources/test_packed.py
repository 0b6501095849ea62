"""A table is read however it is compressed and whatever its name says, or one line says what lies there."""

import bz2
import gzip
import lzma
import shutil
import zipfile

import pyarrow as pa
import pytest

from ehrdl.errors import SchemaError
from ehrdl.sources.packed import find_all

HEADER = b"subject_id,hadm_id,itemid,charttime,storetime,value,valuenum,valueuom\n"
ROW = b"1,10,50912,2150-01-02 06:00:00,2150-01-02 07:00:00,1,1,mg/dL\n"
TEXT = HEADER + ROW + ROW


def zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


@pytest.fixture
def labs(mimic):
    """Writes labevents in some form, and reads the hospital."""
    mimic.lab().write()
    (mimic.root / "hosp/labevents.csv").unlink()

    def read(name, content, **options):
        (mimic.root / "hosp" / name).write_bytes(content)
        return mimic.read(write=False, **options)

    return read


def message(labs, name, content, **options):
    with pytest.raises(SchemaError) as caught:
        labs(name, content, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labevents.csv.gz", gzip.compress(TEXT)),
        ("labevents.csv.gz", gzip.compress(HEADER + ROW) + gzip.compress(ROW)),
        ("labevents.csv.gz", TEXT),  # which someone unpacked and did not rename
        ("labevents.csv", gzip.compress(TEXT)),
        ("labevents.csv.zst", zstd(TEXT)),
        ("labevents.csv.zst", zstd(HEADER + ROW) + zstd(ROW)),
        ("labevents.csv.bz2", bz2.compress(TEXT)),
        ("labevents.csv.bz2", bz2.compress(HEADER + ROW) + bz2.compress(ROW)),
        ("labevents.CSV", TEXT),
        ("LABEVENTS.csv.GZ", gzip.compress(TEXT)),
        ("labevents.csv", b"\xef\xbb\xbf" + TEXT.replace(b"\n", b"\r\n")),
    ],
)
def test_a_table_is_read_by_its_content(labs, name, content):
    assert len(labs(name, content).codes("LAB//50912")) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "labevents.csv.gz",
            gzip.compress(gzip.compress(TEXT)),
            "compressed twice, the second time with gzip; run gunzip",
        ),
        ("labevents.csv.gz", gzip.compress(TEXT) + b"and more", "something else follows the end of its gzip stream"),
        ("labevents.csv.gz", gzip.compress(TEXT) + b"\0" * 512, "something else follows the end of its gzip stream"),
        ("labevents.csv.gz", gzip.compress(TEXT)[:-4], "the gzip stream is damaged or truncated within its first"),
        ("labevents.csv.zst", zstd(TEXT) + b"and more", "something else follows the end of its zstd stream"),
        ("labevents.csv.zst", zstd(TEXT)[:-4], "the zstd stream is damaged or truncated"),
        ("labevents.csv.bz2", bz2.compress(TEXT)[:-4], "the bz2 stream is damaged or truncated"),
        ("labevents.csv", lzma.compress(TEXT), "is compressed with xz; run xz -d"),
        ("labevents.csv", TEXT.decode().encode("utf-16"), "is UTF-16 text; convert the file"),
        ("labevents.csv", TEXT.replace(b",", b";"), "are its columns separated by commas?"),
        ("labevents.csv", b"PAR1...", "is a Parquet file; give it the ending .parquet"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(labs, name, content, says):
    line = message(labs, name, content)
    assert f"{name}: " in line and says in line


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("labevents.csv.xz", "run xz -d on it"),
        ("labevents.zip", "unzip it"),
        ("labevents.tsv", "save it as a comma-separated .csv"),
        ("labevents.txt", "name it .csv if it is separated by commas"),
        ("labevents.xlsx", "save it as .csv.gz"),
    ],
)
def test_a_table_that_lies_there_unread_is_named(labs, capsys, name, advice):
    labs(name, TEXT)  # the vital signs are still there
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lies there" in line]
    assert f"hosp/{name} lies there, but is not read" in line and advice in line
    assert advice in message(labs, name, TEXT, tables=["hosp/labevents"])


def test_of_two_files_the_one_that_is_read_is_said(labs, mimic, capsys):
    (mimic.root / "hosp/labevents.csv.gz").write_bytes(gzip.compress(HEADER + ROW))
    assert len(labs("labevents.csv", TEXT).codes("LAB//50912")) == 1
    assert "labevents.csv.gz is read, and labevents.csv beside it is not" in capsys.readouterr().err


def test_folders_in_another_case_are_read(mimic):
    mimic.lab().write()
    (mimic.root / "hosp").rename(mimic.root / "HOSP")
    assert len(mimic.read(write=False).codes("LAB//")) == 1


def test_a_root_that_is_a_level_too_high_or_too_low_is_named(mimic, tmp_path):
    mimic.lab().write()
    shutil.copytree(mimic.root, tmp_path / "above" / "2.2")
    mimic.root = tmp_path / "above"
    with pytest.raises(SchemaError, match=r"it lies in .*above/2.2; give that folder"):
        mimic.read(write=False)
    mimic.root = tmp_path / "above" / "2.2" / "hosp"
    with pytest.raises(SchemaError, match=r"lies in .*hosp itself; give the folder above it, .*above/2.2"):
        mimic.read(write=False)


def test_what_macos_leaves_beside_a_file_is_no_table(tmp_path):
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp/._labevents.csv").write_bytes(b"\0\5\x16\7")
    assert find_all(tmp_path, "hosp/labevents") == []


def test_a_zip_under_the_name_of_a_csv_is_named(labs, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("labevents.csv", TEXT)
    assert "is a zip archive" in message(labs, "labevents.csv", (tmp_path / "x.zip").read_bytes())


@pytest.mark.parametrize("word", ["NULL", "NA", r"\N", "None"])
def test_null_words_can_be_declared_and_are_suggested(labs, word):
    text = TEXT.replace(b",1,1,", f",{word},{word},".encode())
    line = message(labs, "labevents.csv", text)
    assert f"column valuenum: {word!r} is not a number; if it stands for an absent value, " in line
    assert f"set data.source.null_words: ['{word}']" in line
    assert labs("labevents.csv", text, null_words=[word]).codes("LAB//50912") == []


def test_null_words_hold_for_parquet_too(mimic):
    import pandas as pd

    mimic.lab().lab(storetime="NULL").write()
    path = mimic.root / "hosp/labevents.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).to_parquet(path.with_suffix(".parquet"))
    path.unlink()
    assert len(mimic.read(write=False, null_words=["NULL"]).codes("LAB//")) == 2
