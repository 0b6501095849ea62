"""A study of the small hospital, which other tests have prepared already."""

import csv

import pytest
import yaml

from ehrdl.cli.main import main

SPACE = {
    "optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.init_args.series.init_args.hidden": {"choices": [4, 8]},
    "baseline_params.gradient_boosting.learning_rate": {"low": 0.01, "high": 0.3, "log": True},
    "baseline_params.gradient_boosting.max_iter": {"low": 2, "high": 12},
}


@pytest.fixture
def config(hospital, tmp_path):
    """A configuration that is right, for a test to change."""
    note = {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": {"width": 16}}
    series = {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8}}
    return {
        "run": {"name": "small", "root": str(tmp_path / "runs")},
        "data": {
            "source": {
                "class_path": "ehrdl.sources.synthetic.Synthetic",
                "init_args": {"n_patients": 300, "seed": 1},
            },
            "prepare": {"cache": hospital.config.prepare.cache},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {
            "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
            "init_args": {"note": note, "series": series},
        },
        "trainer": {"max_epochs": 2, "limit_train_batches": 2, "accelerator": "cpu", "log_every_n_steps": 1},
        "baselines": ["gradient_boosting"],
        "tune": {"n_trials": 4, "space": SPACE},
    }


@pytest.fixture
def tune(tmp_path):
    """Runs `ehrdl tune` and gives the folder of the study."""

    def run(config, *argv, name="small-tune"):
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        main(["tune", "--config", str(file), *argv])
        return tmp_path / "runs" / name

    return run


@pytest.fixture
def boosted(tune):
    """Tunes gradient boosting, which is quick."""

    def run(config, *argv):
        return tune(config, "--baseline", "gradient_boosting", *argv, name="small-tune-gradient_boosting")

    return run


@pytest.fixture
def refusal(tune, capsys):
    """The one line of a study that is refused."""

    def run(config, *argv):
        with pytest.raises(SystemExit) as caught:
            tune(config, *argv)
        assert caught.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("ehrdl: ")

    return run


@pytest.fixture
def trials():
    """The rows of `trials.csv`, without the seconds."""

    def read(folder):
        with (folder / "trials.csv").open() as file:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]

    return read
