"""A source, a task and an encoder written exactly as CONTRIBUTING shows run, beside the config that it shows."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ehrdl.cli.main import main

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = {block.split("\n")[0].removeprefix("# "): block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)}


def facts(n_patients=120):
    """Stays of a few days with sodium on the first; who has a low one stays longer."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(1, n_patients + 1):
        start = pd.Timestamp("2150-01-01") + pd.Timedelta(days=int(rng.integers(0, 300)))
        sodium = rng.normal(138, 5)
        days = 12.0 if sodium < 137 else 3.0
        rows += [
            (patient, patient, start, "ADMISSION//EMERGENCY", None),
            (patient, patient, start + pd.Timedelta(hours=3), "LAB//50983//mEq/L", sodium),
            (patient, patient, start + pd.Timedelta(days=days), "DISCHARGE//HOME", None),
        ]
    return pd.DataFrame(rows, columns=["patient", "stay", "time", "code", "value"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    assert set(CODE) == {"my_source.py", "my_task.py", "my_encoder.py"}
    for name, text in CODE.items():
        (folder / name).write_text(text, encoding="utf-8")
    facts().to_csv(folder / "facts.csv", index=False)
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (folder / "mine.yaml").write_text(block, encoding="utf-8")
    limits = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False}
    (folder / "small.yaml").write_text(yaml.safe_dump({"trainer": limits, "baselines": ["logistic_regression"]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["train", "--config", "mine.yaml", "--config", "small.yaml", "--run.name", "mine"])
    return folder / "runs" / "mine"


def test_the_run_is_of_the_own_source_task_and_encoder(run):
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["source"], manifest["task"]) == ("OneTable", "long_stay")
    assert {model["name"] for model in manifest["models"]} == {"series_only", "logistic_regression"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["series"]["class_path"] == "my_encoder.LastValues"


def test_the_report_has_the_sentence_of_the_task_and_the_caveat_of_the_source(run):
    page = " ".join((run / "report.html").read_text().split())
    assert "<h1>Long stay</h1>" in page
    assert "the chance of more than 7 days, from labs and vital signs." in page
    assert "The data are of one ward." in page


def test_what_defines_the_outcome_is_told_apart_by_the_models(run):
    models = json.loads((run / "metrics.json").read_text())["outputs"]["long_stay"]["models"]
    assert models["logistic_regression"]["auroc"]["value"] > 0.9
