"""One command makes a whole run of a small hospital, and the same again under another name."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from ehrdl.cli import train
from ehrdl.schema import PREDICTIONS, check

DEEP = ["fused", "notes_only", "series_only"]
BASELINES = ["prevalence", "logistic_regression", "gradient_boosting", "bag_of_words", "tabular_and_words"]
MODELS = [*DEEP, *BASELINES, "bayes"]
FILES = [
    "checkpoints", "config.yaml", "flow.json", "manifest.json", "metrics.json", "models", "predictions.parquet",
    "report.html", "spec.json", "tokenizer",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of two runs of one config under two names."""
    root = tmp_path_factory.mktemp("experiment")
    note = {"class_path": "ehrdl.models.note.NoteTransformer", "init_args": {"width": 16}}
    series = {"class_path": "ehrdl.models.series.SeriesGRU", "init_args": {"hidden": 8}}
    config = {
        "data": {
            "source": {
                "class_path": "ehrdl.data.sources.synthetic.Synthetic",
                "init_args": {"n_patients": 300, "seed": 1},
            },
            "prepare": {"cache": str(root / "cache")},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {
            "class_path": "ehrdl.models.multimodal.MultimodalModel",
            "init_args": {"note": note, "series": series},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("one", "two"):
        train(_command(root, name))
    return root / "runs"


def _command(root: Path, name: str) -> list[str]:
    return ["--config", str(root / "config.yaml"), f"--run.name={name}", f"--run.root={root / 'runs'}"]


def read(path: Path):
    return json.loads(path.read_text())


def test_every_file_of_a_run_is_there(runs):
    present = {path.name for path in (runs / "one").iterdir()}
    assert set(FILES) <= present
    assert present - set(FILES) <= {"curves"}
    checkpoints = sorted(path.name for path in (runs / "one" / "checkpoints").iterdir())
    assert checkpoints == [f"{name}-seed0.ckpt" for name in DEEP]
    models = sorted(path.name for path in (runs / "one" / "models").iterdir())
    assert models == sorted(f"{name}-readmission.skops" for name in BASELINES)


def test_metrics_have_the_models_the_measures_and_the_differences(runs):
    metrics = read(runs / "one" / "metrics.json")
    assert {"split", "outputs", "macro", "micro"} <= metrics.keys()
    assert metrics["split"] == "held_out"
    outcome = metrics["outputs"]["readmission"]
    assert {"n", "events", "subjects", "prevalence", "bayes_auroc", "models", "differences"} <= outcome.keys()
    assert set(outcome["models"]) == set(MODELS)
    for values in outcome["models"].values():
        assert {"auroc", "auprc", "brier", "ece", "calibration_slope", "calibration_intercept"} <= values.keys()
        assert all({"value", "low", "high", "per_seed"} <= value.keys() for value in values.values())
    assert {f"fused - {name}" for name in MODELS if name != "fused"} <= outcome["differences"].keys()
    assert outcome["models"]["prevalence"]["auroc"]["value"] == 0.5
    assert outcome["bayes_auroc"] == outcome["models"]["bayes"]["auroc"]["value"]


def test_metrics_count_what_the_predictions_hold(runs):
    table = pq.read_table(runs / "one" / "predictions.parquet")
    check(table, PREDICTIONS)
    frame = table.to_pandas()
    held_out = frame[(frame.model == "fused") & (frame.split == "held_out") & frame.label.notna()]
    outcome = read(runs / "one" / "metrics.json")["outputs"]["readmission"]
    assert outcome["n"] == len(held_out)
    assert outcome["events"] == held_out.label.sum()
    assert outcome["subjects"] == held_out.subject_id.nunique()
    assert set(frame.model) == set(MODELS)
    assert frame.groupby("model").sample_id.nunique().nunique() == 1


def test_the_flow_loses_admissions_step_by_step_and_ends_with_the_cohort(runs):
    flow = read(runs / "one" / "flow.json")
    counts = [step["admissions"] for step in flow["steps"]]
    assert counts == sorted(counts, reverse=True)
    n_samples = read(runs / "one" / "manifest.json")["data"]["n_samples"]
    assert counts[-1] == sum(n_samples.values())


def test_two_runs_of_one_config_give_the_same_numbers(runs):
    assert (runs / "one" / "metrics.json").read_bytes() == (runs / "two" / "metrics.json").read_bytes()
    first, second = (pd.read_parquet(runs / name / "predictions.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_the_report_names_every_model_and_needs_no_network(runs):
    page = (runs / "one" / "report.html").read_text()
    assert [name for name in MODELS if name not in page] == []
    assert "<script src" not in page
    assert '<link rel="stylesheet"' not in page


def test_checkpoints_load_without_pickle_beside_the_spec_they_were_built_for(runs):
    state = torch.load(runs / "one" / "checkpoints" / "fused-seed0.ckpt", weights_only=True)
    assert state["hyper_parameters"]["spec"] == read(runs / "one" / "spec.json")


def test_the_resolved_config_makes_the_same_run_again_and_a_finished_run_is_left_alone(runs, capsys):
    before = {path: path.stat().st_mtime_ns for path in (runs / "one").rglob("*")}
    train(["--config", str(runs / "one" / "config.yaml")])
    assert "already finished; --run.overwrite true replaces it" in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in (runs / "one").rglob("*")} == before
