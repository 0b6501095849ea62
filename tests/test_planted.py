"""Names and numbers that fewer than ten patients have are in no file of a run's folder, however it read the notes."""

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from ehrdl.cli.commands.train import run as train
from ehrdl.sources.synthetic import write_hospital

pytestmark = pytest.mark.slow

#: How many patients have each: under ten, and enough even where four in ten do not train.
FEW = {f"qzw{n}fewname": n for n in range(1, 10)} | {f"77{n}3190{n}5" * 2: n for n in range(1, 10)}
MANY = {"qzwmanyname": 60}
#: Where else than in its words a hospital can name somebody.
ELSEWHERE = {
    ("hosp/admissions", "race"): "QZWRACE",
    ("hosp/admissions", "language"): "Qzwlanguage",
    ("hosp/admissions", "insurance"): "Qzwinsurance",
    ("hosp/admissions", "admission_type"): "QZWADMISSION",
    ("hosp/admissions", "discharge_location"): "QZWDISCHARGE",
    ("hosp/admissions", "admission_location"): "QZWPLACE",
    ("hosp/transfers", "careunit"): "QzwUnit",
    ("hosp/labevents", "valueuom"): "qzwuom",
    ("hosp/services", "curr_service"): "QZWSERVICE",
    ("note/discharge", "note_type"): "QT",
}
MODELS = {
    "notes": {
        "note": {
            "class_path": "ehrdl.models.notes.transformer.NoteTransformer",
            "init_args": {"width": 16, "heads": 2},
        },
        "words": {"class_path": "ehrdl.models.notes.words.WordEvidence"},
    },
    "both": {"note": None, "words": {"class_path": "ehrdl.models.notes.words.WordEvidence"}},
}


def plant(root: Path) -> None:
    """Give words, numbers, a heading and values of columns to some patients, in every note or row of theirs."""
    draw = np.random.default_rng(0)
    patients = pd.read_csv(root / "hosp" / "patients.csv.gz").subject_id.to_numpy()
    path = root / "note" / "discharge.csv.gz"
    notes = pd.read_csv(path)
    writers = np.intersect1d(patients, notes.subject_id)
    for word, n in (FEW | MANY).items():
        own = notes.subject_id.isin(draw.permutation(writers)[:n])
        notes.loc[own, "text"] = (
            f"Name: {word.title()}\n\n{word.title()}:\nCall {word}.\n\n" + notes.text[own] + f"\nWith {word}, {word}\n"
        )
    notes.to_csv(path, index=False)
    for (table, column), value in ELSEWHERE.items():
        path = root / f"{table}.csv.gz"
        frame = pd.read_csv(path)
        own = frame.subject_id.isin(draw.permutation(np.unique(frame.subject_id))[:8])
        frame[column] = frame[column].astype(object).where(~own, value)
        frame.to_csv(path, index=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    write_hospital(root / "hospital", n_patients=150, seed=4, note_tokens=(40, 80), progress=False)
    plant(root / "hospital")
    for name, model in MODELS.items():
        config = {
            "run": {"name": name, "root": str(root / "runs")},
            "data": {
                "source": {
                    "class_path": "ehrdl.sources.mimic4.source.Mimic4",
                    "init_args": {"root": str(root / "hospital"), "note_root": str(root / "hospital")},
                },
                "prepare": {"cache": str(root / "cache")},
                "notes": {"source": name, "split_sections": True, "vocab_size": 2000},
            },
            "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
            "model": {"class_path": "ehrdl.models.networks.multimodal.MultimodalModel", "init_args": model},
            "trainer": {"max_epochs": 1, "accelerator": "cpu"},
            "logger": {"wandb": True, "mode": "offline"},
        }
        (root / f"{name}.yaml").write_text(yaml.safe_dump(config))
        train(["--config", str(root / f"{name}.yaml")])
    return root / "runs"


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a folder, and what is packed in it, as bytes in lower case."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        name = str(path.relative_to(folder))
        yield name, content.lower()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{name}:{member}", archive.read(member).lower()) for member in archive.namelist())
        elif content[:2] == b"\x1f\x8b":
            yield name, gzip.decompress(content).lower()
        elif path.suffix == ".parquet":
            yield name, json.dumps(pq.read_table(path).to_pylist(), default=str).lower().encode()
        elif path.suffix == ".npy":
            yield name, repr(np.load(io.BytesIO(content)).tolist()).encode()


@pytest.mark.parametrize("name", MODELS)
def test_what_few_patients_have_is_in_no_file_of_the_run(runs, name):
    found = [(file, word) for file, content in contents(runs / name) for word in FEW if word.encode() in content]
    assert found == []


@pytest.mark.parametrize("name", MODELS)
def test_what_few_patients_have_in_other_tables_is_in_no_file_either(runs, name):
    words = [value.lower() for value in ELSEWHERE.values() if value != "QT"] + ["discharge//qt"]
    found = [(file, word) for file, content in contents(runs / name) for word in words if word.encode() in content]
    assert found == []


@pytest.mark.parametrize("name", MODELS)
def test_the_same_search_finds_what_many_patients_have(runs, name):
    files = {file for file, content in contents(runs / name) if b"qzwmanyname" in content}
    assert "tokenizer/tokenizer.json" in files
    assert "models/bag_of_words-readmission.skops:schema.json" in files
    assert "models/tabular_and_words-readmission.skops:schema.json" in files
