"""Every shipped config says what it is, is taken by the real parser, and runs at a tiny size."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from ehrdl.cli.commands.train import run as train
from ehrdl.cli.commands.tune import _with_values
from ehrdl.cli.configured import train_parser
from ehrdl.comparators.baseline import check_params
from ehrdl.experiment import BASELINES
from ehrdl.models.baselines.boosted import BOOSTED

ROOT = Path(__file__).parents[1]
DEMO = Path(os.environ.get("EHRDL_DATA", ROOT.parent / "shared" / "data")) / "mimic-iv-demo-2.2"
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def _source(path: Path) -> str:
    return yaml.safe_load(path.read_text())["data"]["source"]["class_path"].rpartition(".")[2]


SYNTHETIC = [path for path in CONFIGS if _source(path) == "Synthetic"]
each = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def test_the_configs_that_the_documentation_names_are_there():
    named = {"quickstart", "synthetic_10k", "readmission_mimic4", "mimic4_demo"}
    named |= {
        "heart_failure_mimic4",
        "heart_failure_synthetic",
        "joint_synthetic",
        "readmission_meds",
        "mimic4_demo_record",
        "physionet2012",
        "physionet2019",
        "diabetes130",
        "physionet2012_gru",
        "physionet2012_grud",
        "physionet2012_triplets",
        "physionet2012_channels",
    }
    assert named <= {path.stem for path in CONFIGS}


@each
def test_the_header_says_what_it_is_what_it_needs_and_what_comes_out(path):
    header = [line for line in path.read_text().split("\nrun:")[0].splitlines() if line.startswith("#")]
    titles = [line[2:].split(":")[0] for line in header if line[2:3].strip()]
    assert titles == ["What", "Data", "Command", "Expected"]
    assert any(line.startswith(f"# Command:  python train.py --config {path.relative_to(ROOT)}") for line in header)


@each
def test_the_parser_takes_it_and_makes_what_it_names(path):
    parser = train_parser()
    root = [] if path in SYNTHETIC else ["--data.source.root=/hospital"]
    objects = parser.instantiate(parser.parse_args(["--config", str(path), *root]))
    assert objects.run.name == path.stem
    assert type(objects.data.source).__name__ == _source(path)
    assert callable(objects.model)
    if root:
        assert str(objects.data.source.root) == "/hospital"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["physionet2012", "physionet2019", "diabetes130"])
def test_what_it_offers_to_search_is_there_and_takes_every_bound(name):
    parser = train_parser()
    parser.exit_on_error = False
    parsed = parser.parse_args(
        ["--config", str(ROOT / "configs" / "benchmarks" / f"{name}.yaml"), "--data.source.root=/hospital"]
    )
    options = parser.instantiate(parsed).tune
    config = yaml.safe_load(parser.dump(parsed, skip_unset=False))
    boosted = [baseline for baseline in config["baselines"] if baseline in BOOSTED]
    for baseline in (None, *boosted):
        for key, values in options.searched(baseline).items():
            for value in values.corners():
                objects, _ = _with_values(parser, config, {key: value})
                check_params(objects.baseline_params)


def _run(path: Path, folder: Path, *argv: str) -> list[dict]:
    """What metrics.json says of each output."""
    where = [f"--run.root={folder / 'runs'}", f"--data.prepare.cache={folder / 'cache'}", "--trainer.accelerator=cpu"]
    train(["--config", str(path), *where, *argv])
    run = folder / "runs" / path.stem
    assert (run / "report.html").is_file()
    return list(json.loads((run / "metrics.json").read_text())["outputs"].values())


#: The quickstart runs with the plain tests, the others with the slow ones.
TINY = [pytest.param(path, marks=[] if path.stem == "quickstart" else pytest.mark.slow) for path in SYNTHETIC]


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_a_synthetic_config_runs_at_a_tiny_size(path, tmp_path):
    small = ["--data.source.init_args.n_patients=500", "--data.source.init_args.seed=1", "--baselines=[prevalence]"]
    outcomes = _run(
        path, tmp_path, *small, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--optim.pretrain_epochs=0"
    )
    truth = {"bayes"} if "Readmission" in path.read_text() else set()
    for outcome in outcomes:
        assert set(outcome["models"]) == {"fused", "notes_only", "series_only", "prevalence"} | truth


@pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")
def test_the_demo_config_runs_as_shipped_in_under_two_minutes(tmp_path, capsys):
    start = time.perf_counter()
    [outcome] = _run(ROOT / "configs" / "mimic4_demo.yaml", tmp_path, f"--data.source.root={DEMO}")
    assert time.perf_counter() - start < 120
    text_readers = {"bag_of_words", "tabular_and_words"}
    assert set(outcome["models"]) == {"series_only", *BASELINES} - text_readers
    said = capsys.readouterr().err
    assert all(f"{name}: left out, since no training sample sees a note" in said for name in text_readers)


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")
def test_records_make_the_models_of_text_possible_where_there_are_no_notes(tmp_path):
    start = time.perf_counter()
    [outcome] = _run(ROOT / "configs" / "mimic4_demo_record.yaml", tmp_path, f"--data.source.root={DEMO}")
    assert time.perf_counter() - start < 180
    assert set(outcome["models"]) == {"fused", "notes_only", "series_only", *BASELINES}
