"""The configs of PhysioNet 2019 and Diabetes-130 as a whole, on small data that are written here: split files, report,
and unseen patients scored by the finished run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ehrdl.cli.commands.train import run as train
from ehrdl.cli.main import main
from ehrdl.sources.diabetes130.rows import COLUMNS as UCI_COLUMNS
from ehrdl.sources.physionet2019.files import COLUMNS

MEMBERS = "--combine.members=[series_only,logistic_regression]"
CONFIGS = Path(__file__).parents[1] / "configs" / "benchmarks"
TINY = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--baselines=[prevalence,logistic_regression]",
    "--seeds=[0]",
]


def write_records(folder, first, n, labelled=True):
    """Records of which a third is septic, with a heart that runs ahead of the label."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first)
    for number in range(first, first + n):
        hours = 24
        septic = (number % 3 == 0) & (np.arange(hours) >= 10)
        frame = pd.DataFrame(np.nan, index=range(hours), columns=list(COLUMNS))
        frame["HR"] = np.where(septic, 125, 80) + rng.normal(0, 5, hours).round()
        frame["Age"], frame["Gender"], frame["Unit1"], frame["Unit2"], frame["HospAdmTime"] = 60, 1, 1, 0, -2
        frame["ICULOS"], frame["SepsisLabel"] = np.arange(1, hours + 1), septic.astype(int)
        if not labelled:
            frame = frame.drop(columns="SepsisLabel")
        frame.to_csv(folder / f"p{number:06d}.psv", sep="|", index=False, na_rep="NaN")


def write_table(folder, first, n):
    """Stays, two a patient, of whom those with many earlier visits come back."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first)
    rows = []
    for patient in range(first, first + n):
        for place in range(2):
            visits = int(rng.integers(0, 9))
            rows.append(
                dict.fromkeys(UCI_COLUMNS, "No")
                | dict.fromkeys([name for name, kind in UCI_COLUMNS.items() if kind == "INTEGER"], 1)
                | {"encounter_id": 10 * patient + place, "patient_nbr": patient, "number_inpatient": visits}
                | {"race": "?", "gender": "Female", "age": "[70-80)", "a1cresult": "None", "max_glu_serum": "None"}
                | {"discharge_disposition_id": 11 if patient % 25 == 0 else 1, "diag_1": "428"}
                | {"readmitted": "<30" if visits + rng.normal() > 6 else "NO"}
            )
    pd.DataFrame(rows).to_csv(folder / "diabetic_data.csv", index=False)


def write_split(folder, **parts):
    folder.mkdir()
    for name, records in parts.items():
        (folder / f"{name}.txt").write_text("\n".join(map(str, records)))
    return folder


def run_config(name, root, split, *more):
    where = [f"--run.root={root.parent / 'runs'}", f"--data.prepare.cache={root.parent / 'cache'}"]
    data = [f"--data.source.root={root}", f"--data.split.files={split}"]
    train(["--config", str(CONFIGS / f"{name}.yaml"), *where, *data, *TINY, *more])
    return root.parent / "runs" / name


def predicted(run, root, out):
    argv = ["predict", f"--run={run}", f"--data.source.root={root}", f"--out={out}", "--trainer.accelerator=cpu"]
    main([*argv, f"--data.prepare.cache={out}-cache"])
    return pd.read_parquet(out / "predictions.parquet")


@pytest.fixture(scope="module")
def sepsis(tmp_path_factory):
    root = tmp_path_factory.mktemp("sepsis")
    write_records(root / "data" / "training_setB", 100_001, 60)
    ids = [f"p{number}" for number in range(100_001, 100_061)]
    split = write_split(root / "split", train=ids[:30], tuning=ids[30:45], held_out=[f"{x}.psv" for x in ids[45:]])
    return run_config("physionet2019", root / "data", split, MEMBERS, "--report.min_count=1")


def test_hourly_sepsis_runs_from_its_config_with_the_challenge_s_own_record_names(sepsis):
    table = pd.read_parquet(sepsis / "predictions.parquet")
    assert set(table[table.split == "held_out"].subject_id) == set(range(100_046, 100_061))
    scores = json.loads((sepsis / "metrics.json").read_text())["outputs"]["sepsis_2019"]
    assert scores["models"]["logistic_regression"]["auroc"]["value"] > 0.9  # the heart runs ahead
    assert scores["utility"]["logistic_regression"]["value"] > 0.5
    assert "Utility of alarms" in (sepsis / "report.html").read_text()


def test_unseen_hours_are_scored_and_judged_at_the_run_s_own_thresholds(sepsis, tmp_path):
    write_records(tmp_path / "new" / "set", 100_101, 12)
    table = predicted(sepsis, tmp_path / "new", tmp_path / "out")
    assert set(table.subject_id) == set(range(100_101, 100_113)) and set(table.split) == {"held_out"}
    main(["report", str(tmp_path / "out" / "predictions.parquet")])
    ours = json.loads((sepsis / "metrics.json").read_text())["outputs"]["sepsis_2019"]["utility"]
    theirs = json.loads((tmp_path / "out" / "metrics.json").read_text())["outputs"]["sepsis_2019"]["utility"]
    assert {name: values["thresholds"] for name, values in theirs.items()} == {
        name: values["thresholds"] for name, values in ours.items()
    }
    assert theirs["logistic_regression"]["value"] > 0.5


def test_records_without_labels_are_scored_too(sepsis, tmp_path):
    write_records(tmp_path / "new" / "set", 100_201, 5, labelled=False)
    table = predicted(sepsis, tmp_path / "new", tmp_path / "out")
    assert table.label.isna().all() and table.prob.between(0, 1).all()


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    root = tmp_path_factory.mktemp("diabetes")
    write_table(root / "data", 1, 150)
    split = write_split(root / "split", train=range(1, 91), tuning=range(91, 121), held_out=range(121, 151))
    return run_config("diabetes130", root / "data", split, MEMBERS)


def test_diabetes_130_runs_from_its_config_split_by_patient_number(diabetes):
    table = pd.read_parquet(diabetes / "predictions.parquet")
    alive = [number for number in range(121, 151) if number % 25]
    assert set(table[table.split == "held_out"].subject_id) == set(alive)
    scores = json.loads((diabetes / "metrics.json").read_text())["outputs"]["diabetes_readmission"]
    assert scores["models"]["logistic_regression"]["auroc"]["value"] > 0.8 and "utility" not in scores
    assert {"ensemble", "stack"} <= set(scores["models"])
    assert "The table has no dates: stays are ordered by encounter_id" in (diabetes / "report.html").read_text()


def test_unseen_stays_are_scored_by_the_finished_run(diabetes, tmp_path):
    write_table(tmp_path / "new", 1001, 20)
    table = predicted(diabetes, tmp_path / "new", tmp_path / "out")
    assert table.subject_id.nunique() == 20 and table.prob.between(0, 1).all()
