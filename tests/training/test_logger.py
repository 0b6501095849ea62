"""W&B offline, with the real client: what the run's file holds, and that no failure of it reaches the run."""

import os
import socket
import subprocess
import sys

import pytest

from ehrdl.errors import ConfigError
from ehrdl.training.config import LoggerOptions
from ehrdl.training.logger import tracking

OFFLINE = LoggerOptions(wandb=True, mode="offline", project="tests", tags=["small"])
METRICS = {
    "outputs": {
        "readmission": {
            "models": {
                "fused": {
                    "auroc": {"value": 0.7, "low": 0.6, "high": 0.8, "per_seed": [0.7]},
                    "calibration_slope": {"value": None, "low": None, "high": None, "per_seed": [None]},
                }
            }
        }
    }
}


@pytest.fixture
def sent(tmp_path, wandb_file):
    """The records of a run with one point of a curve, metrics and a file."""
    (tmp_path / "report.html").write_text("<p>report</p>")
    with tracking(OFFLINE, "one run", tmp_path, {"optim": {"lr": 0.001}, "seeds": [0, 1]}) as tracker:
        [curves] = tracker.curves("fused-seed0")
        curves.log_metrics({"train/loss": 0.5, "lr-AdamW": 0.001}, step=19)
        curves.log_metrics({"tuning/auprc": 0.25}, step=38)
        tracker.metrics(METRICS)
        tracker.file("report", "report", tmp_path / "report.html")
    return wandb_file(tmp_path)


def test_the_file_names_the_run_and_holds_its_whole_configuration(sent):
    [run] = sent.of("run")
    assert (run.project, run.display_name, run.run_group, list(run.tags)) == ("tests", "one run", "one run", ["small"])
    config = sent.config()
    assert config["optim"] == {"lr": 0.001}
    assert config["seeds"] == [0, 1]


def test_curves_stand_under_the_name_of_their_fit_over_its_own_steps(sent):
    points = sent.history()
    assert points[0].items() >= {"fused-seed0/train/loss": 0.5, "fused-seed0/lr-AdamW": 0.001}.items()
    assert points[0]["fused-seed0/step"] == 19
    assert points[1].items() >= {"fused-seed0/tuning/auprc": 0.25, "fused-seed0/step": 38}.items()
    assert any(metric.step_metric == "fused-seed0/step" for metric in sent.of("metric"))


def test_metrics_with_their_intervals_are_the_summary_and_undefined_ones_are_left_out(sent):
    summary = sent.summary()
    expected = {"auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.8}
    found = {name.rpartition("/")[2]: value for name, value in summary.items() if name.startswith("readmission/fused/")}
    assert found == expected


def test_a_file_is_an_artifact_of_its_kind(sent):
    assert sent.artifacts() == {"report": ("one_run-report", ["report.html"])}


def test_everything_that_is_written_lies_under_the_run_folder_and_the_environment_is_as_before(tmp_path, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    before = dict(os.environ)
    with tracking(OFFLINE, "run", tmp_path / "run", {}) as tracker:
        tracker.metrics(METRICS)
    assert {name: os.environ.get(name) for name in before} == before
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert (tmp_path / "run" / "wandb").is_dir()


def test_without_a_key_the_run_goes_on_with_one_line(tmp_path, monkeypatch, capsys):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with tracking(LoggerOptions(wandb=True), "run", tmp_path, {}) as tracker:
        assert tracker.curves("fused-seed0") == []
        tracker.metrics(METRICS)
    assert capsys.readouterr().err.splitlines() == [
        "warning: wandb: start: RuntimeError: no API key; run `wandb login`, or use --logger.mode offline; "
        "the run goes on without it"
    ]


def test_a_service_that_does_not_answer_stops_nothing(tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("ehrdl.training.logger._INIT_TIMEOUT", 1)
    with tracking(LoggerOptions(wandb=True), "run", tmp_path, {}) as tracker:
        tracker.metrics(METRICS)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: wandb: start: CommError")


def test_a_failure_in_between_is_said_once_and_the_error_of_a_run_is_its_own(tmp_path, wandb_file, capsys):
    with (
        pytest.raises(KeyError, match="ours"),
        tracking(OFFLINE, "run", tmp_path, {}) as tracker,
    ):
        tracker.file("report", "report", tmp_path / "missing.html")
        tracker.metrics(METRICS)
        assert tracker.curves("fused-seed0") == []
        raise KeyError("ours")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: wandb: report: ") and "missing.html" in lines[0]
    [end] = wandb_file(tmp_path).of("exit")
    assert end.exit_code == 1


@pytest.mark.slow
def test_wandb_is_imported_by_those_alone_who_ask_for_it(tmp_path):
    code = f"""
import sys
from pathlib import Path
from ehrdl.training.config import LoggerOptions
from ehrdl.training.logger import tracking
import ehrdl.training.fit
with tracking(LoggerOptions(), "run", Path({str(tmp_path)!r}), {{}}) as tracker:
    assert tracker.curves("fused-seed0") == []
    tracker.metrics({{}})
assert "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_callers_own_wandb_run_stays_apart_and_goes_on(tmp_path, wandb_file):
    import wandb

    own = wandb.init(mode="offline", project="own", dir=tmp_path / "own", settings=wandb.Settings(silent=True))
    with tracking(OFFLINE, "run", tmp_path / "run", {}) as tracker:
        tracker.metrics(METRICS)
    own.log({"x": 1.0})
    own.finish()
    wandb.teardown()
    ours = wandb_file(tmp_path / "run")
    assert [run.project for run in ours.of("run")] == ["tests"]
    assert ours.summary()["readmission/fused/auroc"] == 0.7
    [point] = wandb_file(tmp_path / "own").history()
    assert point["x"] == 1.0


def test_a_process_that_is_not_the_first_sends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("ehrdl.training.logger.rank_zero_only.rank", 1, raising=False)
    with tracking(OFFLINE, "run", tmp_path, {}) as tracker:
        assert tracker.curves("fused-seed0") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mode": "disabled"}, "logger.mode: 'disabled' is not one of online, offline"),
        ({"project": ""}, "logger.project: '' is empty"),
        ({"project": "a/b"}, "logger.project: 'a/b' is not a project name"),
    ],
)
def test_options_that_cannot_be_are_refused(options, line):
    with pytest.raises(ConfigError, match=line):
        LoggerOptions(**options)
