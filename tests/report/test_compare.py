"""The results table, of real run folders; what speaks for a choice by held-out samples is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from known import evaluate

from ehrdl.cli.commands.train import run as train
from ehrdl.engine.files import digest
from ehrdl.errors import LeakageError
from ehrdl.runs.ledger import LEDGER, settings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import results_table  # noqa: E402
from compare import merged, n_trials, read_run, refuse, table  # noqa: E402


@pytest.fixture(scope="module")
def made(hospital, tmp_path_factory):
    """Two runs of the same settings on two splits."""
    root = tmp_path_factory.mktemp("compare")
    note = {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": {"width": 16}}
    series = {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8}}
    source = {
        "class_path": "ehrdl.sources.synthetic.Synthetic",
        "init_args": {"n_patients": 300, "seed": 1},
    }
    config = {
        "run": {"name": "a", "root": str(root)},
        "data": {"source": source, "prepare": {"cache": hospital.config.prepare.cache}},
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {
            "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
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


def rewrite_ledger(root, change):
    rows = [json.loads(line) for line in (root / LEDGER).read_text().splitlines() if line]
    (root / LEDGER).write_text("".join(f"\n{json.dumps(change(row))}" for row in rows))


def test_a_score_of_the_same_samples_in_another_events_folder_is_refused(runs):
    rewrite_ledger(runs[0].parent, lambda row: row | {"events": "events-of-a-copy"})
    with pytest.raises(LeakageError, match="split1 was scored on held-out samples of the same data"):
        refuse([read_run(runs[0])])


def test_runs_of_older_versions_are_compared_by_the_events_folder(runs):
    for run in runs:
        edit(run, "manifest.json", lambda manifest: manifest["held_out"].pop("asked"))
    rewrite_ledger(runs[0].parent, lambda row: {key: value for key, value in row.items() if key != "asked"})
    refuse([read_run(run) for run in runs])
    with pytest.raises(LeakageError, match="split1 was scored on held-out samples of the same data"):
        refuse([read_run(runs[0])])
    rewrite_ledger(runs[0].parent, lambda row: row | {"events": "events-of-others"})
    refuse([read_run(runs[0])])


def test_values_tuned_on_another_split_in_another_events_folder_are_refused(runs):
    def change(run):
        asked = run["held_out"]["asked"]
        run["choices"].update(tuned=[study(run, events="events-of-a-copy", held_out="other", asked=asked)])

    edit(runs[0], "manifest.json", change)
    with pytest.raises(LeakageError, match="tuned on another split of the same"):
        refuse([read_run(run) for run in runs])


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


def finished(folder, predictions, split=0, tuned=(), **config):
    """A run folder of given PREDICTIONS, with what a table reads of it."""
    folder.mkdir()
    source = {"class_path": "ehrdl.data.sources.invented.Invented"}
    config = {"data": {"source": source}, "seeds": [0, 1], **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    held_out = {"events": "e", "asked": "a", "task": "t", "settings": digest(settings(config)), "seeds": [0, 1]}
    held_out |= {"run": folder.name, "subjects": f"split {split}", "others": []}
    choices = {"fitted": "train", "tuned": list(tuned)}
    manifest = {"choices": choices, "held_out": held_out, "command": "train.py --config a.yaml"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    predictions.to_parquet(folder / "predictions.parquet")
    (folder / "metrics.json").write_text(json.dumps(evaluate(predictions, n_bootstrap=5)))
    return folder


def rows_of(seed, names=("series_only", "lightgbm"), output="death", n=200, value=False):
    """PREDICTIONS of one output, of two seeds; patients with an even number are held out."""
    rng = np.random.default_rng(seed)
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": np.arange(n) // 20, "output": output})
    base["prediction_time"] = pd.Timestamp("2150-01-01") + pd.to_timedelta(base.sample_id % 20, unit="h")
    base["split"] = np.where(base.subject_id % 2, "tuning", "held_out")
    truth = rng.normal(size=n)
    base["label"] = (truth if value else (base.sample_id % 20 > 8) & (base.subject_id % 3 > 0)).astype(np.float64)
    frames = []
    for noise, model in enumerate(names, 1):
        for number in (0, 1):
            guess = base.label + noise * rng.normal(size=n)
            made = {"value": guess, "prob": np.nan} if value else {"value": np.nan, "prob": 1 / (1 + np.exp(-guess))}
            frames.append(base.assign(**made, model=model, seed=number, prob_calibrated=np.nan))
    return pd.concat(frames, ignore_index=True)


def cells(text, model):
    """Heading -> cell of a model's row."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return dict(zip(lines[0], next(line for line in lines if line[0] == f"`{model}`"), strict=True))


def test_the_utility_is_shown_as_mean_and_spread_over_runs_and_seeds_with_a_dash_where_there_is_none(tmp_path, capsys):
    folders = []
    for split in (0, 1):
        made = rows_of(split, ("series_only", "lightgbm", "lace"), "sepsis_2019")
        untuned = made[(made.model != "lace") | (made.split == "held_out")]  # no threshold, so no utility
        folders.append(finished(tmp_path / f"r{split}", untuned, split))
    results_table.main([str(folder) for folder in folders])
    text = capsys.readouterr().out
    read = [json.loads((folder / "metrics.json").read_text())["outputs"]["sepsis_2019"] for folder in folders]
    for model in ("series_only", "lightgbm"):
        values = [value for metrics in read for value in metrics["utility"][model]["per_seed"]]
        assert len(values) == 4 and len(set(values)) > 2
        assert cells(text, model)["utility"] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert cells(text, "lace")["utility"] == "-" and cells(text, "lace")["AUROC, %"] != "-"


def test_a_utility_that_is_not_of_the_predictions_is_refused(tmp_path):
    folder = finished(tmp_path / "r", rows_of(0, output="sepsis_2019"))
    refuse([read_run(folder)])
    edit(
        folder, "metrics.json", lambda m: m["outputs"]["sepsis_2019"]["utility"]["lightgbm"].update(per_seed=[0.9, 0.9])
    )
    with pytest.raises(LeakageError, match=r"utility of lightgbm in metrics\.json is not that of its predictions"):
        refuse([read_run(folder)])


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2"])
def test_an_error_of_a_regression_output_that_is_not_of_the_predictions_is_refused(tmp_path, metric):
    folder = finished(tmp_path / "r", rows_of(0, output="days", value=True))
    refuse([read_run(folder)])
    edit(
        folder,
        "metrics.json",
        lambda m: m["outputs"]["days"]["models"]["lightgbm"][metric].update(per_seed=[0.1, 0.1]),
    )
    with pytest.raises(LeakageError, match=rf"{metric} of lightgbm in metrics\.json is not that of its predictions"):
        refuse([read_run(folder)])


def test_each_output_has_its_own_columns_and_its_best_model_first(tmp_path, capsys):
    names = ("series_only", "lightgbm", "ridge")  # from the best to the worst
    both = pd.concat([rows_of(0, names), rows_of(1, names[::-1], "days", value=True)], ignore_index=True)
    folder = finished(tmp_path / "r", both)
    rows = table([read_run(folder)], ["auprc", "auroc", "mae"])
    death, days = rows[rows.output == "death"], rows[rows.output == "days"]
    assert death.auroc_mean.is_monotonic_decreasing and days.mae_mean.is_monotonic_increasing
    assert days.model.tolist() == list(names[::-1])
    results_table.main([str(folder)])
    first, second = (text.splitlines()[0] for text in capsys.readouterr().out.split("| model ")[1:])
    assert "MAE | R2" in first and "AUROC" not in first and "AUROC" in second and "MAE" not in second


def test_rows_are_sorted_by_auroc_whatever_metric_is_named_first(tmp_path):
    folder = finished(tmp_path / "r", rows_of(0))

    def change(metrics):
        for model, auroc, auprc in (("series_only", 0.9, 0.5), ("lightgbm", 0.8, 0.6)):
            scores = metrics["outputs"]["death"]["models"][model]
            scores["auroc"]["per_seed"], scores["auprc"]["per_seed"] = [auroc] * 2, [auprc] * 2

    edit(folder, "metrics.json", change)
    assert table([read_run(folder)], ["auprc", "auroc"]).model.tolist() == ["series_only", "lightgbm"]


def test_trials_are_those_of_the_study_or_of_the_fit_and_a_dash_where_nothing_is_known(tmp_path, capsys):
    tuned = [{"model": "series_only", "scored_on": "tuning", "values": {}, "events": "e", "held_out": "split 0"}]
    made = rows_of(0, ("series_only", "lightgbm", "xgboost", "prevalence"))
    given = {"lightgbm": {"num_leaves": 7}}
    folder = finished(tmp_path / "r", made, tuned=[tuned[0] | {"n_trials": 40}], baseline_params=given)
    (folder / "models").mkdir()
    for name, n in (("lightgbm", 1), ("xgboost", 5)):
        (folder / "models" / f"{name}-death.json").write_text(json.dumps({"trials": [{}] * n}))
    results_table.main([str(folder)])
    text = capsys.readouterr().out
    found = {name: cells(text, name)["trials"] for name in ("series_only", "lightgbm", "xgboost", "prevalence")}
    assert found == {"series_only": "40", "lightgbm": "-", "xgboost": "5", "prevalence": "-"}
    edit(
        folder,
        "manifest.json",
        lambda run: run["choices"].update(tuned=[*tuned, {"model": "lightgbm", "n_trials": 60}]),
    )
    assert n_trials(read_run(folder), "lightgbm", "death") == 60  # of the study that chose the given parameters
    assert n_trials(read_run(folder), "series_only", "death") is None


def test_figures_of_others_name_who_ran_the_method_and_our_own_is_not_called_published(tmp_path, capsys):
    known = pd.read_csv(results_table.PUBLISHED)
    source = dict(zip(known.model, known.source, strict=True))
    run_by = [name for name in source if " as run by " in source[name] or " as given by " in source[name]]
    assert run_by == ["GRU-D", "Transformer", "mTAND", "Raindrop", "Warpformer", "GraFITi"]
    data = {"source": {"class_path": "ehrdl.sources.physionet2012.source.PhysioNet2012"}}
    results_table.main([str(finished(tmp_path / "r", rows_of(0, output="mortality"), data=data))])
    text = capsys.readouterr().out
    assert "| GRU-D (Che et al. 2018, as run by Li et al. 2023" in text
    assert "untuned LightGBM on 13 summaries of 36 variables (our own, " in text and "published" not in text
