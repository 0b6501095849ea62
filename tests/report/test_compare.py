"""The results table, of real run folders; what speaks for a choice by held-out samples is refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import yaml

from ehrdl.cli import train
from ehrdl.errors import LeakageError
from ehrdl.report.compare import merged, read_run, refuse, table

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("results_table", ROOT / "benchmarks" / "results_table.py")
results_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results_table)


@pytest.fixture(scope="module")
def made(hospital, tmp_path_factory):
    """Two runs of the same settings on two splits."""
    root = tmp_path_factory.mktemp("compare")
    note = {"class_path": "ehrdl.models.note.NoteTransformer", "init_args": {"width": 16}}
    series = {"class_path": "ehrdl.models.series.SeriesGRU", "init_args": {"hidden": 8}}
    source = {
        "class_path": "ehrdl.data.sources.synthetic.Synthetic",
        "init_args": {"n_patients": 300, "seed": 1},
    }
    config = {
        "run": {"name": "a", "root": str(root)},
        "data": {"source": source, "prepare": {"cache": hospital.config.prepare.cache}},
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {
            "class_path": "ehrdl.models.multimodal.MultimodalModel",
            "init_args": {"note": note, "series": series},
        },
        "trainer": {"max_epochs": 1, "limit_train_batches": 1, "accelerator": "cpu", "log_every_n_steps": 1},
        "baselines": ["prevalence", "gradient_boosting"],
        "baseline_params": {"gradient_boosting": {"max_iter": 5}},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    for seed in (0, 1):
        train(["--config", str(root / "config.yaml"), f"--run.name=split{seed}", f"--data.split.seed={seed}"])
    return root


@pytest.fixture
def runs(made, tmp_path):
    """Copies, for a test to spoil."""
    shutil.copytree(made, tmp_path / "runs")
    return [tmp_path / "runs" / f"split{seed}" for seed in (0, 1)]


def edit(folder, name, change):
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_mean_spread_and_paired_differences_are_those_of_the_metrics(runs):
    read = [read_run(run) for run in runs]
    refuse(read)
    rows = table(read, ["auroc"]).set_index("model")
    own, boosted = ([run.metrics["outputs"]["readmission"]["models"][name]["auroc"]["value"] for run in read]
                    for name in ("fused", "gradient_boosting"))  # fmt: skip
    assert rows.auroc_mean.fused == pytest.approx(sum(own) / 2)
    assert rows.auroc_sd.fused == pytest.approx(abs(own[0] - own[1]) / 2**0.5)
    assert rows.auroc_difference.fused == pytest.approx(sum(own) / 2 - sum(boosted) / 2)
    assert (rows.n_splits.fused, rows.n_fits.fused, rows.auroc_n_paired.gradient_boosting) == (2, 2, 0)


def test_the_table_goes_between_its_markers_with_published_figures(runs, tmp_path):
    file, published = tmp_path / "README.md", tmp_path / "published.csv"
    file.write_text("before\n<!-- results: synthetic -->\nold\n<!-- end of results -->\nafter\n")
    published.write_text(
        "data,output,model,auroc,auroc_sd,auprc,auprc_sd,source,protocol\n"
        "synthetic,readmission,Oracle,99.0,0.5,98.0,,A paper,five splits\n"
    )
    results_table.main([*map(str, runs), "--into", str(file), "--published", str(published)])
    text = file.read_text()
    assert text.startswith("before\n<!-- results: synthetic -->\n| model | AUROC, % | AUPRC, % |")
    assert text.endswith("<!-- end of results -->\nafter\n") and "old" not in text
    assert "| Oracle (A paper) | 99.0 ± 0.5 | 98.0 |" in text
    assert "| `prevalence` | 50.0 ± 0.0 |" in text and "| 2 x 1 |" in text


def test_commands_that_differ_in_one_word_are_one():
    commands = [
        "python train.py --config a.yaml --data.split.fold=0",
        "python train.py --config a.yaml --data.split.fold=1",
    ]
    assert merged(commands) == "python train.py --config a.yaml --data.split.fold={0,1}"


def test_a_split_that_was_scored_and_is_not_listed_is_refused(runs, capsys):
    with pytest.raises(LeakageError, match="split1 was scored on held-out samples of the same data"):
        refuse([read_run(runs[0])])
    shutil.rmtree(runs[1])  # the ledger knows it still
    with pytest.raises(SystemExit):
        results_table.main([str(runs[0])])
    assert "is not listed; list it too" in capsys.readouterr().err


def study(run, **changes):
    known = {"model": "fused", "scored_on": "tuning", "values": {"optim.lr": 0.001}}
    return known | {"events": run["held_out"]["events"], "held_out": run["held_out"]["subjects"]} | changes


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda run: run["choices"].update(epoch="held_out"), "epoch was chosen on held_out"),
        (lambda run: run["choices"].update(tuned=[study(run, scored_on="held_out")]), "fused was tuned on held_out"),
        (lambda run: run["choices"].update(tuned=[study(run, held_out="other")]), "tuned on another split of the same"),
        (
            lambda run: run["choices"].update(tuned=[study(run, values={"optim.lr": 0.5})]),
            "which chose optim.lr 0.5, but the run has 0.001",
        ),
    ],
)
def test_a_choice_by_held_out_samples_is_refused(runs, change, line):
    edit(runs[0], "manifest.json", change)
    with pytest.raises(LeakageError, match=line):
        refuse([read_run(run) for run in runs])


def test_numbers_that_are_not_of_the_predictions_are_refused(runs):
    edit(runs[0], "metrics.json",
         lambda m: m["outputs"]["readmission"]["models"]["fused"]["auroc"].update(per_seed=[1.0]))  # fmt: skip
    with pytest.raises(LeakageError, match=r"auroc of fused in metrics\.json is not that of its predictions"):
        refuse([read_run(run) for run in runs])
