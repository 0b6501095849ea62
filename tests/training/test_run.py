"""The run folder: a finished run is left alone, one of another config refused, a manifest says what was run."""

import json

import pytest
import yaml

from ehrdl.errors import ConfigError
from ehrdl.training.config import RunOptions
from ehrdl.training.run import Run

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
        return Run(RunOptions("first", root=str(tmp_path), **options), config)

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


@pytest.mark.parametrize("name", ["", "../escape", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(ConfigError, match=r"run\.name: .* is not a folder name"):
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
