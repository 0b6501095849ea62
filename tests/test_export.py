"""`ehrdl export`: events with the config of a training, predictions with nothing but their file."""

import pyarrow.parquet as pq
import pytest
import yaml

from ehrdl.cli.main import main
from ehrdl.engine.files import read_json


@pytest.fixture
def config(hospital, tmp_path):
    """The configuration of the small hospital, whose EVENTS are read already."""
    source = {"class_path": "ehrdl.sources.synthetic.Synthetic", "init_args": {"n_patients": 300, "seed": 1}}
    content = {
        "run": {"name": "run"},
        "data": {"source": source, "prepare": {"cache": hospital.config.prepare.cache}},
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {"class_path": "ehrdl.models.networks.multimodal.MultimodalModel"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_the_config_of_a_training_and_its_overrides_say_what_is_exported(config, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    main(["export", "--config", str(config), "--data.split.held_out=0.5", "--time", "available", "--out", str(out)])
    facts = read_json(out / "export.json")
    split = pq.read_table(out / "metadata" / "subject_splits.parquet")["split"].to_pylist()
    assert facts["time"] == "available"
    assert 120 < split.count("held_out") < 180
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"left out, since no model reads them: ANCHOR_YEAR_GROUP 300, MEDS_DEATH {facts['left_out']['MEDS_DEATH']}",
        f"labels readmission: {facts['labels']['readmission']['n']}, {facts['labels']['readmission']['positive']} "
        "positive; 0 unknown are left out",
        f"subjects: train {split.count('train')}, tuning {split.count('tuning')}, held_out {split.count('held_out')}, "
        "without_split 0",
        f"{facts['rows']:,} events, by the time when they could be seen: {out}",
    ]


def test_facts_keep_the_time_when_they_happened_unless_told_otherwise_and_it_is_said(config, tmp_path, capsys):
    main(["export", f"--config={config}", f"--out={tmp_path / 'out'}"])
    assert read_json(tmp_path / "out" / "export.json")["time"] == "happened"
    assert capsys.readouterr().err.startswith("note: MEDS tools cut by time, and see these facts before they could be")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--predictions", "p"], "the following arguments are required: --out (see ehrdl export --help)"),
        (["--out", "out"], "run.name, data.source, task, model: missing; give --config (for example configs/quickst"),
        (["--out", "out", "--config", "gone.yaml"], "--config gone.yaml: cannot be read (No such file or directory)"),
        (["--out", "out", "--config", "config.yaml", "--optim.lrr=1"], "optim.lrr: there is no such key; did you mean"),
        (["--out", "out", "--time", "now"], "argument --time: invalid choice: 'now' (choose from happened, available)"),
        (["--out", "out", "--predictions", "p", "--time", "available"], "--time: does not go with --predictions"),
        (["--out", "out", "--predictions", "p", "--config", "c"], "--config: does not go with --predictions"),
        (["--out", "out", "--predictions", "p.parquet"], "p.parquet: there is no such file; give the predictions.parq"),
        (["--out", ".", "--config", "config.yaml"], "--out /: exists and is not an empty folder; choose another"),
    ],
)
def test_a_mistake_gets_one_line(config, tmp_path, monkeypatch, capsys, argv, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["export", *argv])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert (
        said.replace(str(tmp_path), "/")
        .replace("'happened', 'available'", "happened, available")
        .startswith(f"ehrdl: {line}")
    )
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
