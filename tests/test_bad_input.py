"""What users get wrong, through the command line: one line each that names it, status 2, nothing left behind."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ehrdl.cli import main
from ehrdl.data.sources.synthetic import write_hospital

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow  # forty runs of the command line


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    root = tmp_path_factory.mktemp("good") / "hospital"
    write_hospital(root, n_patients=80, seed=2, progress=False)
    return root


@pytest.fixture
def config(tmp_path):
    """A configuration that is right, for a test to spoil."""
    network = {
        "note": {"class_path": "ehrdl.models.note.NoteTransformer", "init_args": {"width": 8}},
        "series": {"class_path": "ehrdl.models.series.SeriesGRU", "init_args": {"hidden": 4, "bin_hours": 24}},
    }
    return {
        "run": {"name": "run", "root": str(tmp_path / "runs")},
        "data": {
            "source": {
                "class_path": "ehrdl.data.sources.mimic4.Mimic4",
                "init_args": {"root": str(tmp_path / "hospital")},
            },
            "notes": {"vocab_size": 300},
            "prepare": {"cache": str(tmp_path / "cache"), "n_shards": 1},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {"class_path": "ehrdl.models.multimodal.MultimodalModel", "init_args": network},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
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
        assert [path.name for path in tmp_path.glob("cache/.*") if path.name != ".locks"] == []
        return lines[0]

    return run


def text_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)


def with_cell(column, value, row=3):
    """Put a value into a column of a row (from 1)."""

    def spoil(path):
        lines = text_of(path).splitlines(keepends=True)
        cells = lines[row].rstrip("\n").split(",")
        cells[lines[0].rstrip("\n").split(",").index(column)] = value
        lines[row] = ",".join(cells) + "\n"
        write(path, "".join(lines))

    return spoil


def without_column(column):
    def spoil(path):
        head, rest = text_of(path).split("\n", 1)
        write(path, head.replace(column, "gone") + "\n" + rest)

    return spoil


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


TABLES = [
    ("hosp/labevents", truncated, ["labevents.csv.gz", "gzip stream is damaged or truncated"]),
    ("hosp/labevents", corrupt, ["labevents.csv.gz"]),
    ("hosp/admissions", lambda path: path.write_bytes(os.urandom(500)), ["admissions.csv.gz", "cannot be read"]),
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
]


@pytest.mark.parametrize(("table", "spoil", "words"), TABLES)
def test_a_table_that_is_wrong_is_named_with_its_row_and_column(hospital, tmp_path, refusal, table, spoil, words):
    shutil.copytree(hospital, tmp_path / "hospital")
    spoil(tmp_path / "hospital" / f"{table}.csv.gz")
    line = refusal()
    for word in words:
        assert word in line


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
    ("model.class_path", "ehrdl.models.note.NoteTransformer", ["model.class_path", "there are", "MultimodalModel"]),
    ("task.init_args.horizon_days", -3, ["task.horizon_days", "-3"]),
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


def test_a_full_disk_is_said_and_the_next_run_starts_clean(hospital, tmp_path, config, refusal, small_disk):
    (tmp_path / "hospital").symlink_to(hospital)
    config["data"]["prepare"]["cache"] = str(small_disk / "cache")
    line = refusal()
    assert "the disk is full" in line and "data.prepare.cache" in line
    assert not [path for path in (small_disk / "cache").iterdir() if path.is_dir()]


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
    assert not (tmp_path / "runs").exists()
    assert not [path for path in (tmp_path / "cache").glob("events-*") if path.is_dir()]
    main(["train", "--config", str(file)])
    assert (tmp_path / "runs" / "run" / "report.html").is_file()
    assert [path.name for path in tmp_path.glob("cache/.*") if path.name != ".locks"] == []
