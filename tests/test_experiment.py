"""One command makes a whole run of a small hospital, two seeds, and the same again under another name, sent to W&B."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from ehrdl.cli.commands.train import run as train
from ehrdl.errors import ConfigError
from ehrdl.experiment import Settings
from ehrdl.models.baselines.scores import NOT_DEPLOYABLE, SCORES
from ehrdl.models.baselines.tabular import BASELINES
from ehrdl.report.screen import print_metrics
from ehrdl.runs.info import run_info
from ehrdl.schema import PREDICTIONS, check

pytestmark = pytest.mark.slow  # two whole runs of two seeds
DEEP = ["fused", "notes_only", "series_only"]
SEEDS = [0, 1]
MODELS = [*DEEP, *BASELINES, *SCORES, "bayes"]
FILES = [
    "calibration.json", "checklists.json", "checkpoints", "cohort.json", "config.yaml", "flow.json", "leak_audit.json",
    "manifest.json", "metrics.json", "model_card.md", "models", "predictions.parquet", "report.html", "spec.json",
    "tokenizer",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of two runs of one config under two names."""
    root = tmp_path_factory.mktemp("experiment")
    note = {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": {"width": 16}}
    series = {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8}}
    config = {
        "data": {
            "source": {
                "class_path": "ehrdl.sources.synthetic.Synthetic",
                "init_args": {"n_patients": 300, "seed": 1, "note_tokens": [40, 120]},
            },
            "prepare": {"cache": str(root / "cache")},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {
            "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
            "init_args": {"note": note, "series": series},
        },
        "seeds": SEEDS,
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    train(_command(root, "one"))
    train([*_command(root, "two"), "--logger.wandb=true", "--logger.mode=offline", "--logger.artifacts=true"])
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
    assert checkpoints == [f"{name}-seed{seed}.ckpt" for name in DEEP for seed in SEEDS]
    models = sorted(path.name for path in (runs / "one" / "models").iterdir())
    expected = [f"{name}-readmission.skops" for name in BASELINES] + [f"{name}-readmission.json" for name in SCORES]
    assert models == sorted(expected)


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
    held_out = frame[(frame.model == "fused") & (frame.seed == 0) & (frame.split == "held_out") & frame.label.notna()]
    outcome = read(runs / "one" / "metrics.json")["outputs"]["readmission"]
    assert outcome["n"] == len(held_out)
    assert outcome["events"] == held_out.label.sum()
    assert outcome["subjects"] == held_out.subject_id.nunique()
    assert set(frame.model) == set(MODELS)
    assert frame.groupby("model").sample_id.nunique().nunique() == 1


def test_deep_models_are_fitted_with_each_seed_and_the_others_once(runs):
    frame = pd.read_parquet(runs / "one" / "predictions.parquet")
    seeds = frame.groupby("model").seed.unique().map(sorted).to_dict()
    assert seeds == {name: SEEDS if name in DEEP else [0] for name in MODELS}
    models = read(runs / "one" / "metrics.json")["outputs"]["readmission"]["models"]
    for name in MODELS:
        auroc = models[name]["auroc"]
        held_out = frame[(frame.model == name) & (frame.split == "held_out") & frame.label.notna()]
        expected = [roc_auc_score(part.label, part.prob) for _, part in held_out.groupby("seed")]
        assert auroc["per_seed"] == pytest.approx(expected)
        assert auroc["value"] == pytest.approx(sum(expected) / len(expected))
    assert models["fused"]["auroc"]["per_seed"][0] != models["fused"]["auroc"]["per_seed"][1]
    page = (runs / "one" / "report.html").read_text()
    low, high = sorted(models["fused"]["auroc"]["per_seed"])
    assert f"mean of 2 seeds, AUROC {low:.3f} to {high:.3f}" in " ".join(page.split())


def test_scores_that_nobody_could_have_used_are_marked_in_the_report_and_the_printed_table(runs, capsys):
    page = " ".join((runs / "one" / "report.html").read_text().split())
    assert page.count("<small>not deployable: ") == len(NOT_DEPLOYABLE)
    assert "<strong>Not deployable</strong>: " in page
    info = run_info(read(runs / "one" / "manifest.json"))
    print_metrics(read(runs / "one" / "metrics.json"), info, runs / "one")
    marked = [line.split()[0] for line in capsys.readouterr().err.splitlines() if line.endswith("not deployable")]
    assert sorted(marked) == sorted(NOT_DEPLOYABLE)


def test_wandb_holds_config_curves_metrics_report_and_the_best_checkpoint_of_the_run(runs, wandb_file):
    sent = wandb_file(runs / "two")
    assert sent.config()["seeds"] == SEEDS
    curves = {name for point in sent.history() for name in point}
    for stem in [f"{name}-seed{seed}" for name in DEEP for seed in SEEDS]:
        assert {f"{stem}/{name}" for name in ("train/loss", "tuning/loss", "tuning/auprc", "step")} <= curves
        assert any(name.startswith(f"{stem}/lr-") for name in curves)
    summary = sent.summary()
    auroc = read(runs / "two" / "metrics.json")["outputs"]["readmission"]["models"]["fused"]["auroc"]
    assert summary["readmission/fused/auroc"] == pytest.approx(auroc["value"])
    assert summary["readmission/fused/auroc_low"] == pytest.approx(auroc["low"])
    files = sent.artifacts()
    assert files["report"] == ("two-report", ["report.html"])
    assert files["model"][1][0] in [path.name for path in (runs / "two" / "checkpoints").iterdir()]
    assert not (runs / "one" / "wandb").exists()


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        ([], r"seeds: \[\] is empty"),
        ([0, 1, 0], "seeds: 0 stands 2 times"),
        ([-1], "seeds: -1 is not between 0 and 4294967295"),
        ([2**32], "seeds: 4294967296 is not between"),
    ],
)
def test_seeds_that_cannot_be_are_refused(seeds, line):
    with pytest.raises(ConfigError, match=line):
        Settings(None, None, None, None, seeds=seeds)


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
