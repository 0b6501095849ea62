"""A config of PhysioNet 2012 as a whole, on three small sets that are written here: any machine can run it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ehrdl.cli.commands.train import run as train
from ehrdl.cli.main import main

CONFIG = Path(__file__).parents[1] / "configs" / "benchmarks" / "physionet2012_gru.yaml"
OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
TINY = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--baselines=[prevalence,gradient_boosting]"]
VITALS = {"HR": 85, "SysABP": 115, "Temp": 37, "GCS": 12, "Urine": 90, "Lactate": 2}


def write_set(root, letter, first, n, with_outcomes=True):
    """A set of `n` records whose dead have a fast heart; the fifth has no measurement."""
    rng = np.random.default_rng(first)
    died = rng.random(n) < 0.3
    with tarfile.open(root / f"set-{letter}.tar.gz", "w:gz") as packed:
        for number, dead in zip(range(first, first + n), died, strict=True):
            empty = number == first + 4
            rows = [
                f"00:00,RecordID,{number}",
                f"00:00,Age,{rng.integers(15, 91)}",
                f"00:00,Gender,{rng.integers(-1, 2)}",
            ]
            rows += ["00:00,Height,-1", f"00:00,ICUType,{rng.integers(1, 5)}", f"00:00,Weight,{-1 if empty else 80}"]
            for minute in sorted(rng.integers(0, 2881, 0 if empty else 60)):
                name = list(VITALS)[rng.integers(len(VITALS))]
                value = round(VITALS[name] * rng.normal(1.3 if dead and name == "HR" else 1, 0.05), 1)
                rows.append(f"{minute // 60:02}:{minute % 60:02},{name},{value}")
            body = "\n".join(["Time,Parameter,Value", *rows, "30:00,,5", f"31:00,SysABP,{-1 if empty else 0}"]) + "\n"
            info = tarfile.TarInfo(f"set-{letter}/{number}.txt")
            info.size = len(body)
            packed.addfile(info, io.BytesIO(body.encode()))
    if with_outcomes:
        rows = [f"{first + i},1,1,{rng.integers(-1, 30)},-1,{int(dead)}" for i, dead in enumerate(died)]
        (root / f"Outcomes-{letter}.txt").write_text("\n".join([OUTCOMES, *rows]) + "\n")


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """Sets a, b and c of 100 records each, and a published split that trains on b and c and holds out most of a."""
    root = tmp_path_factory.mktemp("challenge")
    for letter, first in (("a", 1000), ("b", 2000), ("c", 3000)):
        write_set(root, letter, first, 100)
    split = root / "split"
    split.mkdir()
    parts = {
        "train": [*range(2000, 2100), *range(3000, 3050)],
        "tuning": range(3050, 3100),
        "held_out": range(1000, 1090),
    }
    for name, ids in parts.items():
        (split / f"{name}.txt").write_text("\n".join(map(str, ids)))
    return root


@pytest.fixture(scope="module")
def run(challenge):
    """The shipped config on them, the split set by its folder alone."""
    where = [f"--run.root={challenge / 'runs'}", f"--data.prepare.cache={challenge / 'cache'}"]
    data = [f"--data.source.root={challenge}", f"--data.split.files={challenge / 'split'}"]
    train(["--config", str(CONFIG), *where, *data, *TINY])
    return challenge / "runs" / "physionet2012_gru"


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["grud", "triplets", "channels"])
def test_the_config_of_each_encoder_runs_on_them(challenge, encoder):
    where = [f"--run.root={challenge / 'runs'}", f"--data.prepare.cache={challenge / 'cache'}"]
    data = [f"--data.source.root={challenge}", f"--data.split.files={challenge / 'split'}"]
    train(["--config", str(CONFIG.with_stem(f"physionet2012_{encoder}")), *where, *data, *TINY])
    found = json.loads((challenge / "runs" / f"physionet2012_{encoder}" / "metrics.json").read_text())
    assert found["outputs"]["mortality"]["models"]["series_only"]["auroc"]["value"] is not None


def test_all_records_of_the_three_sets_are_in_one_cohort_split_as_the_files_say(run):
    flow = json.loads((run / "flow.json").read_text())
    assert {step["admissions"] for step in flow["steps"]} == {300}
    facts = json.loads((run / "manifest.json").read_text())
    assert facts["data"]["n_samples"] == {"train": 150, "tuning": 50, "held_out": 90}
    assert facts["data"]["split"]["dropped_in_no_file"] == 10
    assert {name: table["lines_without_parameter"] for name, table in facts["tables"].items()} == dict.fromkeys(
        ("set-a", "set-b", "set-c"), 100
    )
    assert facts["implausible_values"]["systolic_bp_invasive"] == 297


def test_the_held_out_records_are_scored_by_the_series_and_the_baselines_without_notes(run):
    table = pd.read_parquet(run / "predictions.parquet")
    assert set(table.model) == {"series_only", "prevalence", "gradient_boosting"}
    held_out = table[(table.split == "held_out") & (table.model == "series_only")]
    assert sorted(held_out.subject_id) == list(range(1000, 1090))
    scores = json.loads((run / "metrics.json").read_text())["outputs"]["mortality"]["models"]
    assert scores["gradient_boosting"]["auroc"]["value"] > 0.85  # the dead have a fast heart


def test_the_report_has_the_counts_of_what_was_odd(run):
    report = (run / "report.html").read_text()
    assert "set-c: lines without parameter" in report and "set-c: implausible: SysABP" in report
    assert json.loads((run / "manifest.json").read_text())["missing"] == []


def test_a_set_without_outcomes_is_scored_by_the_finished_run(run, tmp_path):
    write_set(tmp_path, "b", 5000, 20, with_outcomes=False)
    out = tmp_path / "out"
    argv = ["predict", f"--run={run}", f"--data.source.root={tmp_path}", f"--out={out}"]
    main([*argv, f"--data.prepare.cache={tmp_path / 'cache'}", "--trainer.accelerator=cpu"])
    table = pd.read_parquet(out / "predictions.parquet")
    assert sorted(table.subject_id.unique()) == list(range(5000, 5020))
    assert table.label.isna().all() and set(table.split) == {"held_out"}
    assert table.prob.between(0, 1).all()


def test_a_bad_split_on_the_command_line_is_one_line_and_leaves_nothing(challenge, tmp_path, capsys):
    where = [f"--run.root={tmp_path / 'runs'}", f"--data.prepare.cache={challenge / 'cache'}"]
    data = [f"--data.source.root={challenge}", f"--data.split.files={tmp_path / 'nowhere'}"]
    with pytest.raises(SystemExit) as stopped:
        train(["--config", str(CONFIG), *where, *data, *TINY])
    said = [line for line in capsys.readouterr().err.splitlines() if "data.split.files" in line]
    assert stopped.value.code == 2 and len(said) == 1
    assert not (tmp_path / "runs").exists()
