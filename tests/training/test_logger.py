"""W&B offline, with the real client: what the run's file holds, and that no failure of it reaches the run."""

import os
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ehrdl.errors import ConfigError
from ehrdl.options.training import LoggerOptions
from ehrdl.runs.logger import tracking

OFFLINE = LoggerOptions(wandb=True, mode="offline", project="tests", tags=["small"])
WITH_FILES = replace(OFFLINE, artifacts=True)
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
    with tracking(WITH_FILES, "one run", tmp_path, {"optim": {"lr": 0.001}, "seeds": [0, 1]}) as tracker:
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


def test_no_file_is_sent_unless_it_is_asked_for(tmp_path, wandb_file, capsys):
    (tmp_path / "report.html").write_text("<p>of patients</p>")
    with tracking(OFFLINE, "run", tmp_path, {}) as tracker:
        tracker.file("report", "report", tmp_path / "report.html")
    assert wandb_file(tmp_path).artifacts() == {}
    assert "data use agreement" not in capsys.readouterr().err


def test_whoever_asks_for_files_is_told_of_data_use_agreements(tmp_path, capsys):
    with tracking(WITH_FILES, "run", tmp_path, {}):
        pass
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("logger.artifacts: ")]
    assert "data use agreement" in line


def test_what_is_sent_names_no_path_no_host_no_user_no_command_and_no_code(tmp_path, monkeypatch, wandb_file):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data.source.root", "secret-command"])
    folder = tmp_path / "runs" / "secret-root" / "run"
    folder.mkdir(parents=True)
    config = {"data": {"source": {"root": str(tmp_path / "secret-data")}, "notes": ["~/secret-home"]}, "lr": 0.5}
    with tracking(OFFLINE, "run", folder, config) as tracker:
        print("secret-console")
        tracker.curves("fused-seed0")[0].log_metrics({"train/loss": 0.5}, step=19)
    [sent] = folder.glob("wandb/offline-run-*/*.wandb")
    content = sent.read_bytes()
    for secret in ("secret", str(tmp_path), f"{Path.home()}/", Path(__file__).name, "torch==", "train.py"):
        assert secret.encode() not in content, secret
    [run] = wandb_file(folder).of("run")
    assert (run.host, run.git.remote_url, run.git.commit, run.display_name) == ("", "", "", "run")
    assert [path.name for path in sent.parent.rglob("*") if path.is_file() and path.suffix in (".py", ".patch")] == []
    assert not (sent.parent / "files" / "requirements.txt").exists()
    assert wandb_file(folder).config()["lr"] == 0.5


def test_a_run_that_resumes_is_the_same_wandb_run_and_sends_no_point_twice(tmp_path, wandb_file, capsys):
    with pytest.raises(KeyboardInterrupt), tracking(OFFLINE, "run", tmp_path, {}) as tracker:
        [curves] = tracker.curves("fused-seed0")
        curves.log_metrics({"train/loss": 0.5}, step=10)
        curves.log_metrics({"train/loss": 0.4}, step=20)
        raise KeyboardInterrupt
    [first] = (tmp_path / "wandb").glob("offline-run-*")
    before = wandb_file(tmp_path)
    first.rename(tmp_path / first.name)
    with tracking(OFFLINE, "run", tmp_path, {}) as tracker:
        [curves] = tracker.curves("fused-seed0")
        curves.log_metrics({"train/loss": 0.4}, step=20)  # the checkpoint was older than the last point
        curves.log_metrics({"tuning/auprc": 0.2}, step=20)  # this one was not sent yet
        curves.log_metrics({"train/loss": 0.3, "lr": 1.0}, step=30)
        curves.log_metrics({"tuning/auprc": 0.3}, step=30)
    after = wandb_file(tmp_path)
    assert before.of("run")[0].run_id == after.of("run")[0].run_id
    points = [
        {name.removeprefix("fused-seed0/"): value for name, value in point.items() if name.startswith("fused-seed0/")}
        for point in after.history()
    ]
    assert points == [
        {"tuning/auprc": 0.2, "step": 20},
        {"train/loss": 0.3, "lr": 1.0, "step": 30},
        {"tuning/auprc": 0.3, "step": 30},
    ]


def test_offline_the_line_that_sends_the_run_is_printed_with_all_its_parts(tmp_path, capsys):
    for _ in range(2):
        capsys.readouterr()
        with tracking(OFFLINE, "run", tmp_path / "a run", {}) as tracker:
            tracker.metrics(METRICS)
        time.sleep(1.1)  # W&B names a folder by the second
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wandb: ")]
    command = shlex.split(line.removeprefix("wandb: to send this run: "))
    parts = sorted(str(path) for path in (tmp_path / "a run" / "wandb").glob("offline-run-*"))
    assert command == ["wandb", "sync", "--yes", *parts] and len(parts) == 2


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
    monkeypatch.setattr("ehrdl.runs.logger._INIT_TIMEOUT", 1)
    with tracking(LoggerOptions(wandb=True), "run", tmp_path, {}) as tracker:
        tracker.metrics(METRICS)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: wandb: start: CommError")


def test_a_failure_in_between_is_said_once_and_the_error_of_a_run_is_its_own(tmp_path, wandb_file, capsys):
    with (
        pytest.raises(KeyError, match="ours"),
        tracking(WITH_FILES, "run", tmp_path, {}) as tracker,
    ):
        tracker.file("report", "report", tmp_path / "missing.html")
        tracker.metrics(METRICS)
        assert tracker.curves("fused-seed0") == []
        raise KeyError("ours")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("warning: wandb: report: ") and "missing.html" in lines[0]
    [end] = wandb_file(tmp_path).of("exit")
    assert end.exit_code == 1


@pytest.mark.slow
def test_wandb_is_imported_by_those_alone_who_ask_for_it(tmp_path):
    code = f"""
import sys
from pathlib import Path
from ehrdl.options.training import LoggerOptions
from ehrdl.runs.logger import tracking
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
    monkeypatch.setattr("ehrdl.runs.logger.rank_zero_only.rank", 1, raising=False)
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
