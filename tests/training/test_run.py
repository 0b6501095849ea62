"""The run folder: a finished run is left alone, one of another config refused, a manifest says what was run."""

import json
import subprocess
import sys

import pytest
import yaml

from ehrdl.errors import ConfigError
from ehrdl.options.training import RunOptions
from ehrdl.runs import folder as runs
from ehrdl.runs.folder import RunFolder, holding

CONFIG = {
    "run": {"name": "first"},
    "data": {"source": {"init_args": {"root": "hospital"}}, "prepare": {"cache": "cache"}},
    "seeds": [0, 1],
    "optim": {"lr": 0.001},
}


@pytest.fixture
def make(tmp_path):
    """Makes a run of a config in the test's folder."""

    def run(config=CONFIG, **options):
        return RunFolder(RunOptions("first", root=str(tmp_path), **options), config)

    return run


@pytest.fixture
def finished(make):
    run = make()
    run.open()
    run.finish(run.manifest({}))
    return run


def test_a_new_folder_is_no_finished_run(make):
    run = make()
    run.check()
    assert not run.finished
    run.open()
    assert not run.finished
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == CONFIG


def test_a_finished_run_of_the_same_config_is_finished(finished, make):
    again = make()
    again.check()
    assert again.finished


def test_where_results_and_cache_lie_may_differ(finished, make):
    other = CONFIG | {"run": {"name": "other"}, "data": {**CONFIG["data"], "prepare": {"cache": "elsewhere"}}}
    make(other).check()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"optim": {"lr": 0.01}}, r"optim\.lr was 0\.001, is 0\.01"),
        ({"seeds": [0]}, r"seeds was \[0, 1\], is \[0\]"),
        (
            {"data": {"source": {"init_args": {"root": "other"}}, "prepare": {}}},
            r"data\.source\.init_args\.root was 'hospital', is 'other'",
        ),
    ],
)
def test_a_run_of_another_config_is_refused_and_the_first_key_named(finished, make, other, said):
    with pytest.raises(ConfigError, match=said + r"\); choose another run\.name, or --run\.overwrite true") as refused:
        make(CONFIG | other).check()
    assert "\n" not in str(refused.value)


def test_overwrite_replaces_a_run_of_another_config_whole(finished, make):
    (finished.folder / "old.txt").write_text("old")
    run = make(CONFIG | {"seeds": [7]}, overwrite=True)
    run.check()
    assert not run.finished
    run.open()
    assert sorted(path.name for path in run.folder.iterdir()) == ["checkpoints", "config.yaml"]
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["seeds"] == [7]


def test_opening_a_run_that_was_stopped_keeps_its_checkpoints(make):
    run = make()
    run.open()
    (run.folder / "checkpoints" / "fused-seed0.ckpt").write_text("weights")
    make().check()
    make().open()
    assert (run.folder / "checkpoints" / "fused-seed0.ckpt").read_text() == "weights"


def test_a_folder_that_is_no_run_is_refused(make):
    run = make()
    run.folder.mkdir()
    (run.folder / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"exists and is no run of ehrdl; choose another run\.name"):
        make().check()
    assert (run.folder / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    ["../escape", "a/b", "a\\b", ".hidden", "..", " a", "a ", "a.", "NUL", "com1.txt", "a\tb", "a\nb", "ä" * 101, ""],
)
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(
        ConfigError, match=r"run\.name: .* (is not a folder name|is too long|has a line break|is empty)"
    ):
        RunOptions(name)


def test_the_manifest_says_what_was_run_on_what_with_what(make):
    run = make()
    run.open()
    with run.timed("fused"):
        pass
    with run.timed("fused"):
        pass
    run.finish(run.manifest({"source": "Synthetic", "tables": {"hosp/patients": {"size": 1}}}))
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["seeds"] == [0, 1]
    assert manifest["source"] == "Synthetic"
    assert manifest["tables"] == {"hosp/patients": {"size": 1}}
    assert list(manifest["wall_s"]) == ["fused"]
    assert {"python", "torch", "pytorch-lightning", "duckdb", "pandas"} <= manifest["versions"].keys()
    assert manifest["versions"]["torch"].startswith("2.")
    assert {"machine", "system", "cpus", "gpus"} == manifest["hardware"].keys()
    assert {"ehrdl", "git", "created", "command"} <= manifest.keys()


# ---------------------------------------------------------------------------------- two processes, and requeued jobs

_HOLDER = """
import sys, time
from pathlib import Path
from ehrdl.runs.folder import holding
with holding(Path(sys.argv[1]), "run.root", "is busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that is at work in the run's folder."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "first")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_folder_in_which_another_process_is_at_work_is_refused_also_to_who_would_replace_it(
    finished, make, holder, monkeypatch
):
    monkeypatch.setattr(runs, "_ENDING_S", 0.1)
    for overwrite in (False, True):
        with (
            pytest.raises(ConfigError, match="first: is busy"),
            holding(make(overwrite=overwrite).folder, "run.root", "is busy"),
        ):
            raise AssertionError("the lock was given twice")
    assert finished.finished


def test_the_lock_of_a_process_that_was_killed_is_free(make, holder, tmp_path):
    holder.kill()
    holder.wait()
    with holding(make().folder, "run.root", "is busy"):
        make().open()
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_the_lock_holds_while_the_folder_is_replaced(finished, make, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_ENDING_S", 0.1)
    with holding(finished.folder, "run.root", "is busy"):
        make(overwrite=True).open()
        with pytest.raises(ConfigError, match="is busy"), holding(finished.folder, "run.root", "is busy"):
            raise AssertionError("the lock was given twice")


def test_a_refused_run_leaves_no_folder_for_its_lock(tmp_path):
    with pytest.raises(ConfigError, match="wrong"), holding(tmp_path / "new" / "runs" / "first", "run.root", "is busy"):
        raise ConfigError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_requeued_job_resumes_the_run_that_it_was_told_to_replace(finished, make, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    first = make(overwrite=True)
    assert not first.finished
    first.open()
    (first.folder / "checkpoints" / "mark").touch()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    make(overwrite=True).open()
    assert (first.folder / "checkpoints" / "mark").is_file()
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    make(overwrite=True).open()
    assert not (first.folder / "checkpoints" / "mark").exists()


def test_a_job_that_is_requeued_before_it_replaced_a_run_replaces_it(finished, make, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not make(overwrite=True).finished


def test_opening_removes_what_a_killed_process_was_writing(make):
    run = make()
    run.open()
    part = run.folder / "checkpoints" / ".fused-seed0.ckpt.0a1b2c3d.part"
    part.touch()
    make().open()
    assert not part.exists()
