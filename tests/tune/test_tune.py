"""`ehrdl tune` on a small hospital: what it leaves, that it goes on, what it refuses, and whom it never reads."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys

import duckdb
import numpy as np
import optuna
import pytest
import yaml
from sklearn.metrics import average_precision_score

from ehrdl.cli.configured import train_parser
from ehrdl.cli.main import main
from ehrdl.comparators.baseline import fit_baselines
from ehrdl.errors import ConfigError
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import Boosting
from ehrdl.tune import trial as trial_module
from ehrdl.tune.parts import parts
from ehrdl.tune.study import opened, reason

LEARNING_RATE = "baseline_params.gradient_boosting.learning_rate"
MAX_ITER = "baseline_params.gradient_boosting.max_iter"


def read(folder, name="study.json"):
    return json.loads((folder / name).read_text())


def best(folder):
    return yaml.safe_load((folder / "best.yaml").read_text())


# ------------------------------------------------------------------------------------------------ what it leaves


@pytest.mark.slow
def test_a_deep_study_leaves_the_best_config_which_trains_and_carries_where_its_values_come_from(
    tune, trials, config, tmp_path, capsys
):
    folder = tune(config, "--n-trials", "3")
    rows = trials(folder)
    scores = [float(row["auprc"]) for row in rows]
    assert [row["trial"] for row in rows] == ["0", "1", "2"] and len(set(scores)) > 1
    chosen = read(folder)["chosen"]
    winner = rows[int(np.argmax(scores))]
    assert (chosen["trial"], chosen["value"]) == (int(winner["trial"]), max(scores))
    assert chosen["values"]["optim.lr"] == float(winner["optim.lr"])
    assert (chosen["model"], chosen["scored_on"], chosen["n_trials"]) == ("fused", "tuning", 3)
    assert not (folder / "trials").exists()
    said = capsys.readouterr().err
    assert said.count(" of 3: AUPRC ") == 3 and f"next: ehrdl train --config {folder / 'best.yaml'}" in said

    main(["train", "--config", str(folder / "best.yaml"), "--baselines=[prevalence]"])
    run = tmp_path / "runs" / "small-tuned"
    assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["lr"] == chosen["values"]["optim.lr"]
    assert read(run, "manifest.json")["choices"]["tuned"] == [chosen]
    # The run of the best values scores on the tuning split what the study said.
    import pandas as pd

    table = pd.read_parquet(run / "predictions.parquet")
    own = table[(table.model == "fused") & (table.split == "tuning") & table.label.notna()]
    assert average_precision_score(own.label, own.prob) == pytest.approx(chosen["value"])


def test_the_header_of_the_best_config_says_how_it_was_chosen(boosted, config):
    folder = boosted(config)
    chosen = read(folder)["chosen"]
    header = [line for line in (folder / "best.yaml").read_text().splitlines() if line.startswith("#")]
    assert header == [
        f"# What:     small, with values for gradient_boosting by `ehrdl tune`: trial {chosen['trial']} of 4 "
        "(4 complete, 0 pruned, 0 failed),",
        f"#           the best by AUPRC {chosen['value']:.4f} on tuning; no held-out sample was read.",
        f"# Command:  python train.py --config {folder / 'best.yaml'}",
    ]
    assert best(folder)["baseline_params"]["gradient_boosting"] == {
        key.rpartition(".")[2]: value for key, value in chosen["values"].items()
    }


@pytest.mark.slow
def test_a_baseline_is_tuned_from_the_deep_models_best_config_and_both_choices_are_kept(boosted, tune, config):
    deep = tune(config, "--n-trials", "1", "--trainer.max_epochs=1")
    folder = boosted(best(deep))
    tuned = best(folder.with_name("small-tuned-tune-gradient_boosting"))
    assert [one["model"] for one in tuned["tune"]["chosen"]] == ["fused", "gradient_boosting"]
    assert tuned["optim"]["lr"] == tuned["tune"]["chosen"][0]["values"]["optim.lr"]
    assert tuned["run"]["name"] == "small-tuned"


def test_training_reads_nothing_of_the_search(config, tmp_path):
    """The same file serves both: the space neither changes a value nor stands in a run's way."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    parser = train_parser()
    objects = parser.instantiate(parser.parse_args(["--config", str(file)]))
    assert objects.optim.lr == 0.001 and objects.tune.n_trials == 4


def test_log_loss_is_made_small(boosted, trials, config):
    folder = boosted(config, "--tune.metric=log_loss")
    losses = [float(row["log_loss"]) for row in trials(folder)]
    assert read(folder)["chosen"]["value"] == min(losses) < max(losses)


@pytest.mark.slow
def test_importance_is_told_where_there_are_ten_trials(boosted, config, capsys):
    shares = read(boosted(config, "--n-trials", "10"))["importance"]
    assert shares.keys() == {LEARNING_RATE, "baseline_params.gradient_boosting.max_iter"}
    assert sum(shares.values()) == pytest.approx(1)
    assert "importance: baseline_params.gradient_boosting." in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.slow
def test_a_finished_study_says_so_and_more_trials_go_on_from_it_as_if_it_had_not_stopped(
    boosted, trials, config, capsys, tmp_path
):
    folder = boosted(config)
    first = trials(folder)
    boosted(config)
    assert f"{folder}: already finished, with 4 trials; --n-trials 14 adds ten" in capsys.readouterr().err
    assert trials(folder) == first
    boosted(config, "--n-trials", "14")
    longer = trials(folder)
    assert len(longer) == 14 and longer[:4] == first
    config["tune"]["name"] = "at-once"
    boosted(config, "--n-trials", "14")
    assert (
        trials(tmp_path / "runs" / "at-once") == longer
    )  # beyond the random ones, the sampler's model is the same too


def test_a_trial_that_was_under_way_keeps_its_number_and_values(tmp_path):
    options = TuneOptions(space={"optim.lr": {"low": 0.1, "high": 1.0}}, seed=3)
    space = options.searched(None)
    with opened(tmp_path, space, options, 4) as study:
        study.run(study.next(), lambda trial: 0.5)
        stopped = study.next()
    with opened(tmp_path, space, options, 4) as study:
        again = study.next()
        assert (again.number, again.params) == (stopped.number, stopped.params)
        assert len(study.done()) == 1


def test_a_trial_that_was_stopped_between_two_values_is_drawn_anew_and_counts_for_nothing(tmp_path):
    options = TuneOptions(space={"optim.lr": {"low": 0.1, "high": 1.0}, "optim.warmup": {"low": 0.1, "high": 0.5}})
    space = options.searched(None)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "a", space, options, 4) as study:
        expected = study.next().params
    with opened(tmp_path / "b", space, options, 4) as study:
        study.study.ask().suggest_float("optim.lr", 0.1, 1.0)
    with opened(tmp_path / "b", space, options, 4) as study:
        trial = study.next()
        assert (trial.number, trial.params) == (1, expected)
        study.run(trial, lambda trial: 0.5)
        assert [done.number for done in study.done()] == [1]


@pytest.mark.parametrize(
    "stop",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        OSError(errno.ENOSPC, "No space left on device"),
        duckdb.IOException('IO Error: Could not write file "a.tmp": No space left on device'),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),  # torch.save
    ],
)
def test_a_trial_that_was_interrupted_or_met_a_full_disk_is_gone_on_with(tmp_path, stop):
    def objective(trial):
        raise stop

    options = TuneOptions(space={"optim.lr": {"low": 0.1, "high": 1.0}})
    with opened(tmp_path, options.searched(None), options, 4) as study:
        stopped = study.next()
        with pytest.raises(type(stop)):
            study.run(stopped, objective)
    with opened(tmp_path, options.searched(None), options, 4) as study:
        again = study.next()
        assert (again.number, again.params) == (stopped.number, stopped.params) and not study.done()


# ------------------------------------------------------------------------------------------------ crashes


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB"), "RuntimeError: CUDA out of memory."),
        (MemoryError(), "MemoryError"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "vocab"),
            "FileNotFoundError: [Errno 2] No such file: 'vocab'",
        ),
    ],
)
def test_a_trial_that_crashes_has_failed_and_its_values_are_not_tried_again(tmp_path, error, line):
    def objective(trial):
        raise error

    options = TuneOptions(space={"optim.lr": {"low": 0.1, "high": 1.0}})
    with opened(tmp_path, options.searched(None), options, 4) as study:
        ended = study.run(study.next(), objective)
        assert (ended.state, reason(ended)) == (optuna.trial.TrialState.FAIL, line)
    with opened(tmp_path, options.searched(None), options, 4) as study:
        following = study.next()
        assert following.number == 1 and following.params != ended.params


def test_a_study_goes_on_after_a_trial_that_crashed_and_says_with_which_values(
    boosted, trials, config, monkeypatch, capsys
):
    original, fits = trial_module.fit_candidate, []

    def crash_once(*given):
        fits.append(1)
        if len(fits) == 2:
            raise RuntimeError("out of memory\nin a kernel")
        original(*given)

    monkeypatch.setattr(trial_module, "fit_candidate", crash_once)
    rows = trials(boosted(config))
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    assert rows[1]["reason"] == "RuntimeError: out of memory"
    values = f"learning_rate={float(rows[1][LEARNING_RATE]):.4g}  max_iter={rows[1][MAX_ITER]}"
    [said] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("trial 1, ")]
    assert "2 of 4: failed (RuntimeError: out of memory), best " in said and said.endswith(values)


def test_a_study_whose_every_trial_crashes_ends_in_one_line(refusal, config, monkeypatch):
    def crash(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trial_module, "fit_candidate", crash)
    said = refusal(config, "--baseline", "gradient_boosting", "--n-trials", "2")
    assert (
        "no trial is complete, so there is no best one; the last said: RuntimeError: out of memory (learning_r" in said
    )


#: Studies that are compared to the last digit each run in a process of their own: what earlier tests left behind, such
#: as the number of torch's threads, changes last digits.
_COMMAND = [sys.executable, "-c", "import sys; from ehrdl.cli.main import main; main(sys.argv[1:])", "tune"]


def _killed(argv, line):
    """Start a study in another process, and kill it as soon as it has printed a line."""
    process = subprocess.Popen([*_COMMAND, *argv], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for text in process.stderr:
        if line in text:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("after", ["fused-seed0: ", "trial 0, ", "trial 1, "])
def test_a_study_that_is_killed_ends_as_if_undisturbed(trials, config, tmp_path, after):
    config["trainer"]["max_epochs"] = 3
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    whole, killed = (["--config", str(file), f"--tune.name={name}"] for name in ("undisturbed", "killed"))
    subprocess.run([*_COMMAND, *whole], check=True)
    _killed(killed, after)
    folder = tmp_path / "runs" / "killed"
    with optuna_trials(folder) as found:
        assert len(found) < 4 or optuna.trial.TrialState.RUNNING in [trial.state for trial in found]
    subprocess.run([*_COMMAND, *killed], check=True)
    assert trials(folder) == trials(tmp_path / "runs" / "undisturbed")


class optuna_trials:
    def __init__(self, folder):
        self.storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")

    def __enter__(self):
        return optuna.load_study(study_name="ehrdl", storage=self.storage).get_trials()

    def __exit__(self, *_):
        self.storage.remove_session()
        self.storage.engine.dispose()


# ------------------------------------------------------------------------------------------------ pruning


@pytest.mark.slow
def test_the_median_pruner_ends_trials_that_are_behind_after_some_folds(boosted, trials, config):
    config["tune"] |= {
        "folds": 3,
        "space": {"baseline_params.gradient_boosting.learning_rate": {"choices": [1e-9, 0.1]}},
        "n_trials": 12,
    }
    rows = trials(boosted(config))
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned and all(row["auprc"] == "" for row in pruned)
    assert all(row["state"] == "complete" for row in rows[:5])


def test_a_fit_ends_in_the_epoch_in_which_its_trial_is_pruned(prepared, config, tmp_path, hospital):
    config["trainer"] |= {"max_epochs": 4}
    objects = _objects(config, tmp_path)
    told = []

    def report(value, step):
        told.append((step, value))
        return step == 1

    options = TuneOptions(metric="auroc")
    with pytest.raises(trial_module.Pruned):
        trial_module.deep(objects, parts(prepared, None, 0), options, tmp_path / "trial", report)
    assert [step for step, _ in told] == [0, 1]
    assert all(0 <= value <= 1 for _, value in told)


def test_folds_and_seeds_report_the_mean_of_what_is_done(prepared, config, tmp_path):
    objects = _objects(config, tmp_path)
    told = []

    def report(value, step):
        told.append(step)
        return False

    value = trial_module.deep(objects, parts(prepared, 2, 0), TuneOptions(folds=2), tmp_path / "trial", report)
    assert told == [0, 1, 2]  # the first epoch and the end of fold 1, the first epoch of fold 2
    assert 0 < value < 1


def _objects(config, tmp_path):
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump(config))
    parser = train_parser()
    return parser.instantiate(parser.parse_args(["--config", str(file)]))


@pytest.mark.parametrize(("epochs", "pruner"), [(-1, "median"), (None, "hyperband")])
def test_where_steps_end_a_fit_a_trial_is_judged_after_each_fit(tune, trials, config, epochs, pruner):
    config["trainer"] |= {"max_epochs": epochs, "max_steps": 2}
    config["tune"] |= {"folds": 2, "pruner": pruner, "n_trials": 1}
    folder = tune(config)
    assert [row["state"] for row in trials(folder)] == ["complete"]
    with optuna_trials(folder) as found:
        assert list(found[0].intermediate_values) == [0]  # the end of fold 1; that of fold 2 is the trial's


# ------------------------------------------------------------------------------------------------ thinned samples


@pytest.mark.parametrize("name", ["gradient_boosting", "lightgbm"])
def test_a_trial_of_thinned_samples_fits_the_model_of_a_run_and_tabulates_no_others(
    tune, config, prepared, tmp_path, monkeypatch, name
):
    original, tabulated = trial_module.tabulate, []

    def tabulate(dataset, rows, rich):
        tabulated.append(rows)
        return original(dataset, rows, rich)

    monkeypatch.setattr(trial_module, "tabulate", tabulate)
    config["boosting"] = {"samples_per_subject": 1}
    config["tune"]["space"] = {f"baseline_params.{name}.learning_rate": {"low": 0.05, "high": 0.3}}
    folder = tune(config, "--baseline", name, "--n-trials", "1", name=f"small-tune-{name}")
    params = best(folder)["baseline_params"]
    [run] = fit_baselines([name], prepared, tmp_path, 0, Boosting(samples_per_subject=1), params)
    own = run[(run.split == "tuning") & run.label.notna()]
    assert read(folder)["chosen"]["value"] == pytest.approx(average_precision_score(own.label, own.prob), abs=1e-12)
    tuning, train = prepared.rows("tuning"), prepared.rows("train")
    n_subjects = prepared.samples.subject_id.iloc[train].nunique()
    assert [len(rows) for rows in tabulated] == [len(tuning) + n_subjects] and n_subjects < len(train)


def test_thinned_folds_and_seeds_are_drawn_from_one_table(boosted, trials, config):
    config["boosting"] = {"samples_per_subject": 1}
    config["tune"] |= {"folds": 2, "seeds": 2, "n_trials": 2}
    assert [row["state"] for row in trials(boosted(config))] == ["complete", "complete"]


# ------------------------------------------------------------------------------------------------ held-out patients


def test_blinded_data_have_no_held_out_samples_and_no_labels_of_them(prepared):
    held_out = prepared.rows("held_out")
    for folds in (None, 3):
        for part in parts(prepared, folds, 0):
            assert len(part.rows("held_out")) == 0
            assert not np.isin(held_out, np.r_[part.rows("train"), part.rows("tuning")]).any()
            assert np.isnan(part.dataset.label[held_out]).all()
            assert part.samples.label_readmission.iloc[held_out].isna().all()
    assert not np.isnan(prepared.dataset.label[held_out]).any()


def test_folds_tune_every_subject_once_and_share_out_the_events(prepared):
    found = parts(prepared, 4, 0)
    tuned = [set(part.samples.subject_id.iloc[part.rows("tuning")]) for part in found]
    everyone = set(prepared.samples.subject_id[prepared.samples.split != "held_out"])
    assert set.union(*tuned) == everyone and sum(map(len, tuned)) == len(everyone)
    with_event = set(prepared.samples.subject_id[prepared.samples.label_readmission == 1])
    counts = [len(fold & with_event) for fold in tuned]
    assert max(counts) - min(counts) <= 1
    for part, fold in zip(found, tuned, strict=True):
        assert not fold & set(part.samples.subject_id.iloc[part.rows("train")])


@pytest.mark.parametrize("model", [pytest.param("fused", marks=pytest.mark.slow), "gradient_boosting", "lightgbm"])
def test_other_held_out_outcomes_change_nothing(tune, trials, config, monkeypatch, tmp_path, model):
    argv = ["--n-trials", "2"] + (["--baseline", model] if model != "fused" else [])
    config["tune"]["space"]["baseline_params.lightgbm.num_leaves"] = {"low": 2, "high": 31}
    tune(config, *argv, "--tune.name=as-they-are")
    original = trial_module.prepare

    def changed(data, task):
        cohort = original(data, task)
        prepared = cohort.prepared
        rows = prepared.rows("held_out")
        samples = prepared.samples.copy()
        samples.loc[samples.index[rows], "label_readmission"] = 1 - samples.label_readmission.iloc[rows]
        dataset = prepared.dataset
        dataset.label = dataset.label.copy()
        dataset.label[rows] = 1 - dataset.label[rows]
        return dataclasses.replace(cohort, prepared=dataclasses.replace(prepared, samples=samples))

    monkeypatch.setattr(trial_module, "prepare", changed)
    tune(config, *argv, "--tune.name=changed")
    runs = tmp_path / "runs"
    found = trials(runs / "as-they-are")
    assert found == trials(runs / "changed")
    assert found[0] != found[1]
    assert read(runs / "as-they-are")["chosen"] == read(runs / "changed")["chosen"]


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({"optim.lrr": {"low": 0.1, "high": 1.0}}, "tune.space: optim.lrr: there is no optim.lrr; beside it are lr, "),
        ({"optim.lr": {"choices": [0.1, "fast"]}}, "tune.space: optim.lr: expected float, got 'fast'"),
        ({"optim.lr": {"low": -1.0, "high": 1.0}}, "optim.lr: -1.0 is not above 0"),
        (
            {"model.init_args.series.init_args.hidden": {"choices": [4, "big"]}},
            "tune.space: model.init_args.series.init_args.hidden: expected int, got 'big'",
        ),
        (
            {"model.init_args.note.init_args.heads": {"low": 2, "high": 5}},
            "NoteTransformer: heads 5 does not divide the 16 states of a token",
        ),
        ({"trainer.max_epoch": {"low": 1, "high": 2}}, "trainer.max_epoch: not an argument of pytorch_lightning.Train"),
        ({"seeds": {"choices": [[0], [1]]}}, "tune.space: seeds: seeds decides the question that is asked"),
        ({}, "tune.space: has nothing to search for the deep model; give it keys such as optim.lr"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_before_the_first_trial(refusal, config, tmp_path, space, line):
    config["tune"]["space"] = space
    assert refusal(config).startswith(line)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "max_iterr",
            3,
            "baseline_params.gradient_boosting.max_iterr: there is no such parameter; HistGradientBoosting",
        ),
        (
            "learning_rate",
            -1,
            "baseline_params.gradient_boosting: The 'learning_rate' parameter of HistGradientBoosting",
        ),
    ],
)
def test_a_parameter_that_a_baseline_does_not_take_is_refused(refusal, config, tmp_path, key, value, line):
    config["tune"]["space"] = {f"baseline_params.gradient_boosting.{key}": {"choices": [value]}}
    assert refusal(config, "--baseline", "gradient_boosting").startswith(line)
    assert not (tmp_path / "runs").exists()


def test_a_baseline_that_does_not_exist_is_refused(refusal, config):
    assert refusal(config, "--baseline", "magic").startswith("tune.space: has nothing to search for magic; give")


def test_a_study_of_another_space_or_configuration_is_refused(boosted, refusal, config, capsys):
    folder = boosted(config)
    before = (folder / "study.db").read_bytes()
    line = refusal(config, "--baseline", "gradient_boosting", "--tune.metric=auroc")
    assert line == (
        f"{folder}: was made with another config (tune.metric was 'auprc', is 'auroc'); choose another run.name, or "
        "--run.overwrite true"
    )
    config["tune"]["space"][LEARNING_RATE] = {"low": 0.05, "high": 0.3, "log": True}
    assert f"(tune.space.{LEARNING_RATE}.low was 0.01, is 0.05)" in refusal(config, "--baseline", "gradient_boosting")
    assert (folder / "study.db").read_bytes() == before


def test_a_study_whose_every_trial_fails_says_why(prepared, refusal, config):
    # Each step then multiplies the weights by about -90: within what the options allow, and beyond any number soon.
    config["tune"]["space"] = {"optim.lr": {"choices": [10.0, 9.0]}, "optim.weight_decay": {"choices": [10.0, 9.0]}}
    said = refusal(config, "--n-trials", "1")
    assert "no trial is complete, so there is no best one; the last said: the auprc is nan: the fit diverged" in said


def test_tuning_without_optuna_says_how_to_get_it(refusal, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert refusal(config) == "ehrdl tune needs optuna: pip install 'ehrdl[tune]'"


def test_log_loss_of_a_number_is_refused():
    from ehrdl.schema import OutputSpec
    from ehrdl.tune.score import check_metric

    with pytest.raises(ConfigError, match="log_loss, but days is a number; use auprc, which takes its R2"):
        check_metric("log_loss", [OutputSpec("days", "regression")])
