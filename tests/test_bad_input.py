"""What users get wrong, through the command line: one line each that names it, status 2, nothing left behind."""

import csv
import gzip
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ehrdl.cli.main import main
from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import read_events
from ehrdl.engine.options import Prepare
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import write_hospital

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow  # seventy runs of the command line


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    root = tmp_path_factory.mktemp("good") / "hospital"
    write_hospital(root, n_patients=80, seed=2, progress=False)
    return root


@pytest.fixture
def config(tmp_path):
    """A configuration that is right, for a test to spoil."""
    network = {
        "note": {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": {"width": 8}},
        "series": {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 4, "bin_hours": 24}},
    }
    return {
        "run": {"name": "run", "root": str(tmp_path / "runs")},
        "data": {
            "source": {
                "class_path": "ehrdl.sources.mimic4.source.Mimic4",
                "init_args": {"root": str(tmp_path / "hospital")},
            },
            "notes": {"vocab_size": 300},
            "prepare": {"cache": str(tmp_path / "cache"), "n_shards": 1},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {"class_path": "ehrdl.models.networks.multimodal.MultimodalModel", "init_args": network},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "audit": False,
        "baselines": ["prevalence"],
    }


@pytest.fixture
def refusal(tmp_path, capsys, config):
    """The one line of a configuration that is refused."""

    def run(*argv):
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        with pytest.raises(SystemExit) as caught:
            main(["train", "--config", str(file), *argv])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ehrdl: ")]
        assert caught.value.code == 2 and len(lines) == 1
        assert not (tmp_path / "runs").exists()
        assert not list(tmp_path.glob("cache/.*.part"))
        return lines[0]

    return run


def text_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)


def rows_of(path):
    return list(csv.reader(io.StringIO(text_of(path), newline="")))


def write_rows(path, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write(path, text.getvalue())


def with_cell(column, value, row=3):
    """Put a value into a column of a row (from 1)."""

    def spoil(path):
        rows = rows_of(path)
        rows[row][rows[0].index(column)] = value
        write_rows(path, rows)

    return spoil


def with_bytes(column, value, row=3):
    """The same with bytes that no CSV writer would write."""

    def spoil(path):
        with_cell(column, "PLACE", row)(path)
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"PLACE", value)))

    return spoil


def with_row(change, row=3):
    """Put what `change` makes of the header and a row in the place of that row."""

    def spoil(path):
        rows = rows_of(path)
        rows[row] = change(rows[0], rows[row])
        write_rows(path, rows)

    return spoil


def with_delimiter(delimiter):
    return lambda path: write(path, text_of(path).replace(",", delimiter))


def without_column(column):
    def spoil(path):
        head, rest = text_of(path).split("\n", 1)
        write(path, head.replace(column, "gone") + "\n" + rest)

    return spoil


def column_twice(path):
    write_rows(path, [[*row, row[0]] for row in rows_of(path)])


def row_twice(path):
    head, first, rest = text_of(path).split("\n", 2)
    write(path, "\n".join([head, first, first, rest]))


def note_twice(path):
    text = text_of(path)
    head = text.index("\n") + 1
    write(path, text + text[head:])


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def corrupt(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(data))


def cut_in_a_note(path):
    write(path, text_of(path).rstrip()[:-30])


TABLES = [
    ("hosp/labevents", truncated, ["labevents.csv.gz", "gzip stream is damaged or truncated"]),
    ("hosp/labevents", corrupt, ["labevents.csv.gz"]),
    ("hosp/admissions", lambda path: path.write_bytes(bytes(range(128, 256))), ["admissions.csv.gz", "is not UTF-8"]),
    ("hosp/admissions", lambda path: path.write_bytes(b""), ["admissions.csv.gz", "is empty"]),
    ("hosp/admissions", lambda path: write(path, text_of(path).split("\n")[0] + "\n"), ["admissions", "has no rows"]),
    ("hosp/admissions", Path.unlink, ["hosp/admissions.csv.gz", "the table is missing"]),
    ("hosp/admissions", without_column("dischtime"), ["admissions.csv.gz", "column dischtime is missing"]),
    ("hosp/admissions", with_cell("admittime", "yesterday"), ["row 3, column admittime", "'yesterday' is not a time"]),
    (
        "hosp/admissions",
        with_cell("admittime", "2150-01-01 10:00:00+05:30"),
        ["row 3, column admittime", "+05:30' is not a time without a zone"],
    ),
    ("hosp/admissions", row_twice, ["admissions.csv.gz", "hadm_id", "stands in 2 rows"]),
    ("hosp/labevents", with_cell("valuenum", "12,5".replace(",", "·")), ["row 3, column valuenum", "is not a number"]),
    ("hosp/labevents", with_cell("itemid", "sodium"), ["row 3, column itemid", "'sodium' is not a whole number"]),
    ("hosp/patients", with_cell("anchor_age", "old"), ["patients.csv.gz: row 3, column anchor_age", "'old'"]),
    ("note/discharge", note_twice, ["discharge.csv.gz", "note_id", "stands in 2 rows"]),
    ("hosp/labevents", lambda path: path.write_bytes(gzip.compress(b"")), ["labevents.csv.gz", "is empty"]),
    ("note/discharge", lambda path: path.write_bytes(b""), ["discharge.csv.gz", "is empty"]),
    ("hosp/patients", with_delimiter(";"), ["patients.csv.gz", "are its columns separated by commas?"]),
    ("hosp/labevents", with_delimiter("\t"), ["labevents.csv.gz", "are its columns separated by commas?"]),
    ("hosp/labevents", with_row(lambda head, _: head), ["labevents.csv.gz: row 3, column", "is not a whole number"]),
    ("hosp/diagnoses_icd", column_twice, ["diagnoses_icd.csv.gz: column", "stands 2 times; remove all but one"]),
    ("note/discharge", with_bytes("text", b"caf\xe9"), ["discharge.csv.gz: row 3 is not UTF-8 text", "iconv"]),
    ("hosp/patients", without_column("gender"), ["patients.csv.gz: column gender is missing"]),
    (
        "hosp/services",
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        ["services.csv.gz: the gzip stream is damaged"],
    ),
    ("hosp/labevents", with_cell("charttime", "2150-01-01T10:00:00Z"), ["row 3, column charttime", "without a zone"]),
    ("hosp/labevents", with_cell("subject_id", "9" * 20), ["row 3, column subject_id", "is not a whole number from 0"]),
    (
        "hosp/labevents",
        with_cell("subject_id", "-1"),
        ["row 3, column subject_id", "'-1' is not a whole number from 0"],
    ),
    ("hosp/admissions", with_cell("hadm_id", "1e3"), ["row 3, column hadm_id", "'1e3' is not a whole number"]),
    ("hosp/patients", with_cell("subject_id", "1.5"), ["row 3, column subject_id", "'1.5' is not a whole number"]),
    ("hosp/labevents", with_cell("itemid", "0x10"), ["row 3, column itemid", "'0x10' is not a whole number"]),
    ("note/discharge", with_cell("text", "a\0b"), ["discharge.csv.gz: row 3, column text: holds a NUL byte"]),
    (
        "hosp/diagnoses_icd",
        with_cell("icd_code", "I1\0"),
        ["diagnoses_icd.csv.gz: row 3, column icd_code: holds a NUL"],
    ),
    (
        "hosp/admissions",
        with_row(lambda _, row: row[:-2]),
        ["admissions.csv.gz: row 3 has 14 columns", "the header has 16"],
    ),
    ("hosp/labevents", with_row(lambda _, row: [*row, "x"]), ["labevents.csv.gz: row 3 has", "is a comma or a quote"]),
    (
        "hosp/admissions",
        with_bytes("race", b'"WHITE'),
        ["admissions.csv.gz: row 3 has", "is a comma or a quote missing?"],
    ),
    ("note/discharge", cut_in_a_note, ["discharge.csv.gz: row", "a quote is opened and never closed"]),
]


def read(root, cache):
    """EVENTS, as bytes, through the steps that the command line takes."""
    folder = read_events(DataConfig(Mimic4(str(root)), prepare=Prepare(cache=str(cache), n_shards=1)))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def clean(hospital, tmp_path_factory):
    return read(hospital, tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize(("table", "spoil", "words"), TABLES)
def test_a_table_that_is_wrong_is_named_and_once_mended_nothing_is_left_of_it(
    hospital, clean, tmp_path, refusal, table, spoil, words
):
    shutil.copytree(hospital, tmp_path / "hospital")
    spoil(tmp_path / "hospital" / f"{table}.csv.gz")
    line = refusal()
    for word in words:
        assert word in line
    shutil.copy2(hospital / f"{table}.csv.gz", tmp_path / "hospital" / f"{table}.csv.gz")
    assert read(tmp_path / "hospital", tmp_path / "cache") == clean


def test_a_damaged_table_of_concepts_is_named_with_its_line(hospital, tmp_path, config, refusal):
    (tmp_path / "hospital").symlink_to(hospital)
    shipped = (ROOT / "ehrdl" / "clinical" / "concepts.csv").read_text(encoding="utf-8")
    file = tmp_path / "concepts.csv"
    config["data"]["source"]["init_args"]["concepts"] = config["data"]["concepts"] = str(file)
    for text, words in (
        (shipped.replace("Sodium", "S\xf8dium", 1).encode("latin-1"), "concepts.csv: line 2: is not UTF-8 text"),
        (shipped.replace(",", ";").encode(), "concepts.csv: line 1: column code stands 0 times"),
        (shipped.rstrip().encode() + b',"', "concepts.csv: line"),
    ):
        file.write_bytes(text)
        assert words in refusal()


SOURCE, MODEL = "data.source.init_args", "model.init_args.note.init_args"
KEYS = [
    (f"{SOURCE}.root", "/nowhere/at/all", ["data.source.root", "/nowhere/at/all does not exist"]),
    (f"{SOURCE}.tables", ["hosp/labs"], ["data.source.tables", "'hosp/labs' is not one of"]),
    ("data.windw", {}, ["data.windw", "did you mean window?"]),
    ("data.window.series_hours", "two days", ["data.window.series_hours", "expected float"]),
    ("data.split.held_out", 1.2, ["data.split.held_out", "1.2"]),
    ("data.notes.tokenizer", "/no/such-tokenizer", ["data.notes.tokenizer", "/no/such-tokenizer"]),
    (f"{MODEL}.pretrained", "/no/such-encoder", ["NoteTransformer: pretrained '/no/such-encoder' cannot be loaded"]),
    ("task.class_path", "ehrdl.tasks.readmission.Nothing", ["task.class_path", "there are", "Readmission"]),
    (
        "model.class_path",
        "ehrdl.models.notes.transformer.NoteTransformer",
        ["model.class_path", "there are", "MultimodalModel"],
    ),
    (
        "model.init_args.series.class_path",
        "ehrdl.models.fusion.simple.GatedFusion",
        ["series.class_path", "SeriesGRU"],
    ),
    ("task.init_args.horizon_days", -3, ["task.init_args.horizon_days", "-3"]),
    ("task.init_args.min_age", 119, ["no index stay is left", "age: 0 after"]),
    ("trainer.max_epoch", 3, ["trainer.max_epoch", "not an argument"]),
    ("trainer.precision", "16-mixed", ["trainer.precision", "needs a GPU"]),
    ("trainer.accelerator", "abacus", ["trainer", "abacus"]),
    ("trainer.strategy", "imaginary", ["trainer", "imaginary"]),
    ("baselines", ["oracle"], ["baselines", "'oracle' is not one of"]),
    ("seeds", [], ["seeds", "is empty"]),
    ("optim.lr", 0, ["optim.lr", "is not above 0"]),
    ("run.name", "a/b", ["run.name", "is not a folder name"]),
]


@pytest.mark.parametrize(("key", "value", "words"), KEYS)
def test_a_key_that_is_wrong_is_named_with_its_value(hospital, tmp_path, config, refusal, key, value, words):
    (tmp_path / "hospital").symlink_to(hospital)
    inner = config
    *path, last = key.split(".")
    for name in path:
        inner = inner.setdefault(name, {})
    inner[last] = value
    line = refusal()
    for word in words:
        assert word in line


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_will_not_do_is_said_before_the_tables_are_read(hospital, tmp_path, config, refusal, small_disk):
    (tmp_path / "hospital").symlink_to(hospital)
    config["data"]["prepare"]["cache"] = str(small_disk / "cache")
    assert "GB of disk are needed under" in refusal()


def test_a_full_disk_is_said_and_the_next_run_starts_clean(
    hospital, tmp_path, config, refusal, small_disk, monkeypatch
):
    for name in ("_DISK_STAGED", "_DISK_AFTER"):  # so that it is found out in the middle
        monkeypatch.setattr(f"ehrdl.sources.mimic4.source.{name}", 0)
    (tmp_path / "hospital").symlink_to(hospital)
    config["data"]["prepare"]["cache"] = str(small_disk / "cache")
    line = refusal()
    assert "the disk is full" in line and "data.prepare.cache" in line
    assert [path.name for path in (small_disk / "cache").iterdir() if not path.name.startswith("table-")] == [".locks"]


def test_a_preparation_that_is_killed_leaves_nothing_that_is_read(hospital, tmp_path, config):
    """SIGKILL in the middle of reading; the same command then works, from clean data."""
    (tmp_path / "hospital").symlink_to(hospital)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(file)]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("cache/.events-*.part/*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs" / "run").exists()
    assert not [path for path in (tmp_path / "cache").glob("events-*") if path.is_dir()]
    main(["train", "--config", str(file)])
    assert (tmp_path / "runs" / "run" / "report.html").is_file()
    assert not list(tmp_path.glob("cache/.*.part"))
