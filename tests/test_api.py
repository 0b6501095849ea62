"""The library as the README shows it: six lines, run as they stand, and what they refuse."""

import json
import logging
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import ehrdl
from ehrdl.errors import ConfigError
from ehrdl.sources.synthetic import write_hospital

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
#: So that the six lines take seconds: a small network, few batches, two baselines.
SMALL = {
    "trainer": {"limit_train_batches": 3, "num_sanity_val_steps": 0, "accelerator": "cpu"},
    "baselines": ["prevalence", "lace"],
}


def lines_of_the_readme():
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "ehrdl.load" in block]
    return example


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    root = tmp_path_factory.mktemp("api")
    write_hospital(root / "data" / "mimiciv", n_patients=260, seed=4, progress=False)
    write_hospital(root / "data" / "other_hospital", n_patients=200, seed=5, progress=False)
    return root


@pytest.fixture(scope="module")
def names(hospitals):
    """What the six lines leave, run as they stand, but for where the data lie and how long fits take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hospitals)
        patch.setattr(ehrdl, "fit", partial(ehrdl.fit, **SMALL), raising=False)
        text = lines_of_the_readme().replace("/data/", f"{hospitals}/data/")
        found = {}
        exec(compile(text, "README.md", "exec"), found)
        yield found


@pytest.mark.slow
def test_the_six_lines_run_as_they_stand(names):
    assert [name for name in ("cohort", "run", "new", "again") if name not in names] == []


@pytest.mark.slow
def test_metrics_are_a_table_of_models_with_intervals(names):
    table = names["run"].metrics
    assert list(table) == ["output", "model", "metric", "value", "low", "high"]
    assert {"fused", "notes_only", "series_only", "prevalence", "lace"} == set(table.model)
    row = table[(table.model == "fused") & (table.metric == "auroc")].iloc[0]
    written = json.loads((names["run"].folder / "metrics.json").read_text())["outputs"]["readmission"]["models"]
    assert (row.value, row.low, row.high) == tuple(written["fused"]["auroc"][key] for key in ("value", "low", "high"))
    told = names["run"].differences
    assert set(told.model) == {f"fused - {name}" for name in ("notes_only", "series_only", "prevalence", "lace")}


@pytest.mark.slow
def test_the_report_is_copied_where_it_is_wanted(names, hospitals):
    assert (hospitals / "report.html").read_text() == (names["run"].folder / "report.html").read_text()


@pytest.mark.slow
def test_predictions_of_another_hospital_are_a_table_that_says_what_that_hospital_lacks(names):
    new = names["new"]
    assert isinstance(new, pd.DataFrame) and isinstance(new.gaps, list)
    assert set(new.model) == set(names["run"].metrics.model)
    assert new.prob.between(0, 1).all() and (new.folder / "gaps.json").is_file()
    assert type(new.head()) is pd.DataFrame  # a part of it has no gaps of its own


@pytest.mark.slow
def test_a_run_that_is_opened_again_gives_the_same_and_can_predict(names, hospitals, monkeypatch):
    monkeypatch.chdir(hospitals)
    again = names["again"]
    pd.testing.assert_frame_equal(again.metrics, names["run"].metrics)
    assert repr(again) == "<Run runs/readmission: readmission, 5 models>"
    new = again.predict(hospitals / "data" / "other_hospital", out="scored")
    pd.testing.assert_series_equal(new.prob, names["new"].prob)


@pytest.mark.slow
def test_a_cohort_tells_who_is_in_it(names):
    cohort = names["cohort"]
    assert repr(cohort).startswith("<Cohort Mimic4, readmission: ")
    assert cohort.flow.admissions.iloc[-1] == len(cohort.samples)
    assert {"table", "column", "what", "n"} <= set(cohort.quality)


@pytest.mark.slow
def test_the_same_name_with_another_hospital_is_refused(names, hospitals, monkeypatch):
    monkeypatch.chdir(hospitals)
    other = ehrdl.load("mimic4", hospitals / "data" / "other_hospital")
    with pytest.raises(ConfigError, match="was made with another config"):
        ehrdl.fit(other, **SMALL)


def test_messages_go_through_logging_and_can_be_silenced(hospitals, monkeypatch, capsys):
    monkeypatch.chdir(hospitals)
    logger = logging.getLogger("ehrdl")
    ehrdl.load("mimic4", hospitals / "data" / "mimiciv")
    assert "admissions" in capsys.readouterr().err
    monkeypatch.setattr(logger, "level", logging.ERROR)
    logger.manager._clear_cache()
    ehrdl.load("mimic4", hospitals / "data" / "mimiciv")
    assert capsys.readouterr().err == ""
    logger.manager._clear_cache()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ehrdl.load("mimic", "x"), "source: 'mimic' is not one of .* did you mean Mimic4"),
        (lambda: ehrdl.load("mimic4"), "source.root: is missing; Mimic4 needs it"),
        (lambda: ehrdl.load("mimic4", "x", note_rot="y"), "source.note_rot: .*did you mean note_root"),
        (lambda: ehrdl.load("mimic4", "x", task="sepsis"), "task: 'sepsis' is not one of"),
        (lambda: ehrdl.load(ehrdl.sources.Synthetic(9), "x"), "source: is an object, so root can only be its own"),
        (
            lambda: ehrdl.load("mimic4", "x", window={"hours": 3}),
            "window.hours: there is no such option.* Window takes series_hours",
        ),
        (lambda: ehrdl.load("mimic4", "x", window=3), "window: expected Window or a dict of its options, got 3"),
        (lambda: ehrdl.fit(None, epoch=3), "epoch: is no option of fit"),
        (lambda: ehrdl.fit(None, "multi"), "model: 'multi' is not one of"),
        (lambda: ehrdl.open_run("nowhere"), "nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_is_one_line(call, says):
    with pytest.raises(ConfigError, match=says):
        call()


def test_the_face_names_what_it_has_and_loads_no_torch():
    code = "import sys, ehrdl; print(ehrdl.sources.Mimic4, dir(ehrdl)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "open_run" in done.stdout and "PackageNotFoundError" not in done.stdout


@pytest.mark.slow
def test_each_step_of_an_experiment_can_be_called_alone(hospitals, monkeypatch):
    monkeypatch.chdir(hospitals)
    cohort = ehrdl.load("mimic4", hospitals / "data" / "mimiciv")
    small = partial(
        ehrdl.Experiment,
        data=cohort.data,
        task=cohort.task,
        model=ehrdl.models.MultimodalModel,
        **SMALL,
        seeds=[0, 1, 2],
    )
    steps = small(ehrdl.options.RunOptions("steps"))
    with pytest.raises(ConfigError, match="not fitted yet"):
        steps.evaluate()
    predictions = steps.fit(cohort)
    assert not (Path("runs") / "steps" / "metrics.json").exists()
    later = small(ehrdl.options.RunOptions("steps"))  # as another process would
    metrics = later.evaluate()
    assert later.write_report().is_file() and later.folder.finished
    assert (
        metrics["outputs"]["readmission"]["n"]
        == (predictions[predictions.model == "fused"].query("seed == 0").split == "held_out").sum()
    )
    whole = small(ehrdl.options.RunOptions("whole")).complete(cohort)
    assert (whole / "metrics.json").read_bytes() == (Path("runs") / "steps" / "metrics.json").read_bytes()
    assert steps.evaluate() == metrics  # a finished run is read
