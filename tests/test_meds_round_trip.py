"""A hospital's EVENTS, as MEDS datasets that others might hold, read back: with and without our own columns."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from ehrdl.cli.main import main
from ehrdl.data.config import DataConfig
from ehrdl.data.export import export_events
from ehrdl.data.prepare import find_samples, prepare, read_events
from ehrdl.engine.options import Prepare
from ehrdl.schema import SPLITS
from ehrdl.sources.meds.source import Meds
from ehrdl.splits.subjects import Split
from ehrdl.tasks.labels import Labels
from ehrdl.tasks.readmission import Readmission

ROOT = Path(__file__).parents[1]
PEERS = os.environ.get("EHRDL_PEERS")
needs_aces = pytest.mark.skipif(
    not PEERS or subprocess.run([PEERS, "-c", "import aces"], capture_output=True).returncode != 0,
    reason="EHRDL_PEERS names no Python that has es-aces: pip install es-aces==0.7.3 meds-evaluation==0.0.6",
)
EXTENSIONS = ["available_time", "encounter_id"]


@pytest.fixture(scope="module")
def plain(hospital, tmp_path_factory):
    """The small hospital as plain MEDS: no extension column, files in folders by split."""
    root = tmp_path_factory.mktemp("plain")
    shutil.copytree(hospital.events / "metadata", root / "metadata")
    split = pd.read_parquet(root / "metadata" / "subject_splits.parquet").set_index("subject_id").split
    table = pq.read_table(hospital.events / "data").drop_columns(EXTENSIONS)
    names = split.loc[table["subject_id"].to_pandas()].to_numpy()
    for name in SPLITS:
        (root / "data" / name).mkdir(parents=True)
        pq.write_table(table.filter(names == name), root / "data" / name / "0.parquet")
    return root


@pytest.fixture(scope="module")
def config(plain, tmp_path_factory):
    cache = tmp_path_factory.mktemp("plain-cache")
    return DataConfig(Meds(str(plain)), split=Split("source"), prepare=Prepare(cache=str(cache)))


@pytest.fixture(scope="module")
def events(config):
    return read_events(config)


def outcome(result):
    """Labels by subject and prediction time."""
    return result.samples.set_index(["subject_id", "prediction_time"]).iloc[:, 2:4]


def test_our_own_events_come_back_byte_for_byte_and_with_them_every_label(hospital, tmp_path):
    source = Meds(str(hospital.events))
    again = read_events(DataConfig(source, prepare=Prepare(cache=str(tmp_path))))
    for file in (hospital.events / "data").glob("*.parquet"):
        assert (again / "data" / file.name).read_bytes() == file.read_bytes()
    for name in ("codes", "subject_splits"):
        ours, theirs = (pd.read_parquet(folder / "metadata" / f"{name}.parquet") for folder in (hospital.events, again))
        assert ours.astype(str).equals(theirs.astype(str))
    result = find_samples(again, Readmission())
    assert result.samples.equals(hospital.result.samples) and result.flow == hospital.result.flow
    counts = json.loads((again / "source.json").read_text())["tables"]["data"]
    assert (counts["timed_by_policy"], counts["on_fallback"]) == (0, 0)


@pytest.mark.parametrize("variant", ["at_discharge", pytest.param("note_complete", marks=pytest.mark.slow)])
def test_the_stays_of_a_plain_dataset_are_numbered_so_that_its_labels_are_the_same(hospital, events, variant):
    task = Readmission(variant)
    assert outcome(find_samples(events, task)).equals(outcome(find_samples(hospital.events, task)))


def test_a_plain_dataset_is_prepared_with_its_own_split_and_says_what_is_timed_at_a_prediction(config, events, capsys):
    result = find_samples(events, Readmission())
    prepared = prepare(config, events, result)
    own = pd.read_parquet(events / "metadata" / "subject_splits.parquet").set_index("subject_id").split
    assert (prepared.samples.split == prepared.samples.subject_id.map(own)).all()
    assert prepared.spec.modalities == ("note", "series")
    timed = prepared.facts["data"]["timed_at_a_prediction"]
    assert timed["DIAGNOSIS"]["visible"] == 0 < timed["DIAGNOSIS"]["rows"]
    assert timed["DISCHARGE"] == {"rows": len(result.samples), "visible": len(result.samples)}
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: codes are timed")]
    assert "hidden by their delay: DIAGNOSIS (" in line


def test_a_datasets_own_split_is_exported_whole_and_the_export_can_be_read_again(config, tmp_path):
    export_events(config, Readmission(), tmp_path / "out")
    names = "metadata/subject_splits.parquet"
    ours, theirs = (pd.read_parquet(root / names) for root in (Path(config.source.root), tmp_path / "out"))
    assert theirs.equals(ours.sort_values("subject_id", ignore_index=True))
    again = read_events(replace(config, source=Meds(str(tmp_path / "out"))))
    for file in (read_events(config) / "data").glob("*.parquet"):
        assert (again / "data" / file.name).read_bytes() == file.read_bytes()


def write_config(folder, data, task):
    network = {
        "note": {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": {"width": 8}},
        "series": {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 4, "bin_hours": 24}},
    }
    run = {
        "run": {"name": "run", "root": str(folder / "runs")},
        "data": data,
        "task": task,
        "model": {"class_path": "ehrdl.models.networks.multimodal.MultimodalModel", "init_args": network},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 2},
        "baselines": ["prevalence", "logistic_regression", "bag_of_words"],
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(run))
    return file


@pytest.mark.slow
def test_a_plain_dataset_with_label_files_runs_from_end_to_end(plain, hospital, tmp_path):
    labels = hospital.result.samples[["subject_id", "prediction_time"]]
    labels.assign(boolean_value=hospital.result.samples.label_readmission == 1).to_parquet(tmp_path / "labels.parquet")
    data = {
        "source": {"class_path": "ehrdl.sources.meds.source.Meds", "init_args": {"root": str(plain)}},
        "split": {"kind": "source"},
        "notes": {"vocab_size": 300},
        "prepare": {"cache": str(tmp_path / "cache")},
    }
    task = {"path": str(tmp_path / "labels.parquet"), "output": "back_in_30_days"}
    task = {"class_path": "ehrdl.tasks.labels.Labels", "init_args": task}
    main(["train", "--config", str(write_config(tmp_path, data, task))])
    run = tmp_path / "runs" / "run"
    [(name, found)] = json.loads((run / "metrics.json").read_text())["outputs"].items()
    assert name == "back_in_30_days" and (run / "report.html").is_file()
    deep = {"fused", "notes_only", "series_only"}
    assert set(found["models"]) == deep | {"prevalence", "logistic_regression", "bag_of_words"}
    facts = json.loads((run / "manifest.json").read_text())
    assert facts["tables"]["data"]["timed_by_policy"] and "timed_at_a_prediction" in facts["data"]
    steps = json.loads((run / "flow.json").read_text())["steps"]
    assert [step["step"] for step in steps] == ["labels", "once", "known subject", "history"]


# ------------------------------------------------------------------------------------------------ ACES

READMITTED = """
predicates:
  admission: {code: {regex: "^ADMISSION//.*"}}
  discharge: {code: {regex: "^DISCHARGE//.*"}}
trigger: discharge
windows:
  target:
    start: trigger
    end: start + 30d
    start_inclusive: False
    end_inclusive: True
    label: admission
    index_timestamp: start
"""


@pytest.fixture(scope="module")
def cohort(hospital, tmp_path_factory):
    """Label files of `aces-cli` over the small hospital's EVENTS: an admission within 30 days of a discharge."""
    folder = tmp_path_factory.mktemp("aces")
    (folder / "readmitted.yaml").write_text(READMITTED)
    bin = Path(PEERS).parent
    data = hospital.events / "data"
    shards = ",".join(sorted(file.stem for file in data.glob("*.parquet")))
    command = [bin / "aces-cli", "--multirun", "data=sharded", "data.standard=meds", f"data.root={data}"]
    command += [f"data.shard={shards}", f"cohort_dir={folder}", "cohort_name=readmitted"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder / "readmitted"


@needs_aces
@pytest.mark.slow
def test_a_cohort_of_aces_becomes_samples_with_the_labels_that_sql_counts(hospital, cohort):
    found = find_samples(hospital.events, Labels(str(cohort), output="readmitted"))
    query = f"""
        WITH events AS (
            SELECT subject_id, time, split_part(code, '//', 1) AS kind FROM '{hospital.events}/data/*.parquet')
        SELECT DISTINCT subject_id, time, EXISTS (FROM events AS a WHERE a.subject_id = d.subject_id
            AND kind = 'ADMISSION' AND a.time > d.time AND a.time <= d.time + INTERVAL 30 DAY) AS label
        FROM events AS d WHERE kind = 'DISCHARGE' ORDER BY ALL"""
    with duckdb.connect() as con:
        expected = con.execute(query).fetchall()
    samples = found.samples
    ours = zip(samples.subject_id, samples.prediction_time, samples.label_readmitted == 1, strict=True)
    assert list(ours) == expected
    assert 0 < samples.label_readmitted.mean() < 1
    discharged = samples.encounter_id.notna()
    assert discharged.all()


@needs_aces
@pytest.mark.slow
def test_a_cohort_of_aces_is_prepared(hospital, cohort):
    result = find_samples(hospital.events, Labels(str(cohort)))
    assert len(prepare(hospital.config, hospital.events, result).samples) == len(result.samples)
