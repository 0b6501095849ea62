"""A run made through the library: recorded whole, never mistaken for another, and scored like any."""

import gzip
import shutil
from functools import partial

import pandas as pd
import pytest
import yaml

from ehrdl.cli.main import main
from ehrdl.data.config import DataConfig
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError
from ehrdl.experiment import Experiment
from ehrdl.models.networks.committee import Committee
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import RunOptions
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import Synthetic, write_hospital
from ehrdl.tasks.heart_failure import HeartFailure
from ehrdl.tasks.readmission import Readmission

SMALL = partial(MultimodalModel, series=partial(SeriesGRU, hidden=4, bin_hours=24))
TRAINER = {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 3, "num_sanity_val_steps": 0}
pytestmark = pytest.mark.slow  # whole runs, a few of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def tables(folder):
    write_hospital(folder / "hospital", n_patients=250, seed=4, progress=False)
    return folder / "hospital"


@pytest.fixture(scope="module")
def call(folder, tables):
    """Calls the library as a script does; the same call but for what is given."""

    def start(name="lib", task=None, model=SMALL, source=None, **options):
        data = DataConfig(source or Mimic4(root=str(tables)), prepare=Prepare(cache=str(folder / "cache")))
        options = {"trainer": TRAINER, "baselines": ["prevalence"], "audit": False} | options
        where = RunOptions(name, str(folder / "runs"))
        return Experiment(where, data, task or Readmission(), model, **options).complete()

    return start


@pytest.fixture(scope="module")
def run(call):
    return call()


def test_it_is_recorded_in_the_form_of_a_config(run, tables):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["source"]["init_args"]["root"] == str(tables)
    assert config["task"]["class_path"] == "ehrdl.tasks.readmission.Readmission"
    assert config["model"]["init_args"]["series"]["init_args"]["hidden"] == 4
    assert {"run", "boosting", "combine", "logger", "tune", "optim"} <= config.keys()
    assert not (run / ".data").exists()


def test_the_same_call_returns_the_finished_folder(run, call, capsys):
    before = (run / "manifest.json").read_bytes()
    assert call() == run
    assert "already finished" in capsys.readouterr().err
    assert (run / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"source": Synthetic(900, seed=5)}, "data.source.class_path was"),
        ({"task": HeartFailure()}, "task.class_path was"),
        ({"task": Readmission(horizon_days=7)}, "task.init_args.horizon_days was"),
        ({"model": partial(MultimodalModel, series=partial(SeriesGRU, hidden=5))}, "model.init_args.series"),
        ({"model": partial(Committee, note=None)}, "model.class_path was"),
        ({"model": lambda spec: SMALL(spec)}, "model.class_path was"),
        ({"trainer": TRAINER | {"max_epochs": 2}}, "trainer.max_epochs was"),
    ],
    # Names without an address, in which two processes of pytest differ.
    ids=["source", "task", "horizon", "hidden", "network", "function", "trainer"],
)
def test_a_call_of_the_same_name_with_something_else_is_refused(run, call, other, key):
    with pytest.raises(ConfigError, match=r"was made with another config \(.*choose another run.name") as error:
        call(**other)
    assert key in str(error.value) and "\n" not in str(error.value)


def test_it_is_scored_by_the_command_like_any_other(run, folder):
    out = folder / "out"
    main(["predict", "--run", str(run), "--out", str(out)])
    mine, there = (pd.read_parquet(part / "predictions.parquet") for part in (run, out))
    keys = ["model", "sample_id"]
    both = mine.merge(there, on=keys, validate="one_to_one")
    assert len(both) == len(mine) and both.prob_x.to_numpy() == pytest.approx(both.prob_y.to_numpy(), abs=1e-6)


def refusal(run, tmp_path, capsys) -> str:
    """The one line with which `ehrdl predict` refuses a run; it leaves nothing behind."""
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--run", str(run), "--out", str(tmp_path / "out")])
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and line.startswith("ehrdl: ") and not (tmp_path / "out").exists()
    return line


def test_a_model_made_by_a_function_is_told_apart_and_named_where_it_cannot_be_made_again(call, tmp_path, capsys):
    made = [call("function", model=lambda spec: SMALL(spec)) for _ in range(2)]
    assert made[0] == made[1]
    with pytest.raises(ConfigError, match=r"model\.hash was"):
        call("function", model=lambda spec: MultimodalModel(spec, series=partial(SeriesGRU, hidden=6)))
    capsys.readouterr()
    line = refusal(made[0], tmp_path, capsys)
    assert "model was made in Python (<lambda> of test_library_run.py)" in line and "ehrdl.scoring.score" in line


def test_a_run_of_a_version_that_recorded_nothing_is_one_line(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "old")
    config = yaml.safe_load((run / "config.yaml").read_text())
    old = {key: config[key] for key in ("seeds", "optim", "trainer", "baselines", "baseline_params", "tune")}
    (tmp_path / "old" / "config.yaml").write_text(yaml.safe_dump(old))
    manifest = read_json(run / "manifest.json")
    write_json(tmp_path / "old" / "manifest.json", {k: v for k, v in manifest.items() if k not in ("files", "digest")})
    assert "was made through the library, and its config.yaml names no data" in refusal(
        tmp_path / "old", tmp_path, capsys
    )


def test_an_unfinished_run_is_not_resumed_on_other_data(call, tables, folder, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("ehrdl.experiment.results.finish", killed)
        with pytest.raises(Killed):
            call("killed")
    assert (folder / "runs" / "killed" / ".data").is_file()
    path = tables / "hosp" / "labevents.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    kept = path.read_bytes()
    path.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 2])))
    try:
        with pytest.raises(ConfigError, match=r"was begun on other data than .* now holds"):
            call("killed")
    finally:
        path.write_bytes(kept)
    assert (call("killed") / "manifest.json").is_file()
