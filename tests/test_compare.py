"""Runs side by side: which models keep their names, which seeds are pooled, and which runs cannot be compared."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from ehrdl.cli.main import main
from ehrdl.compare import compare
from ehrdl.errors import ConfigError
from ehrdl.info import ModelInfo
from ehrdl.runs.files import sealed

N = 400
INFOS = [ModelInfo("fused", "deep", "both"), ModelInfo("forest", "classical", "trees")]


def finished(folder, seed=0, lr=0.1, n=N, outcome=0):
    """A finished run: `fused` depends on the learning rate and the seed, `forest` on neither."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(outcome)
    risk = rng.beta(2, 4, n)
    base = {"sample_id": np.arange(n), "subject_id": np.arange(n), "prediction_time": pd.Timestamp("2150-01-01")}
    base |= {"label": (rng.random(n) < risk).astype(float), "output": "death", "prob_calibrated": np.nan}
    base |= {"split": np.where(np.arange(n) < n // 2, "tuning", "held_out"), "value": np.nan}
    noise = np.random.default_rng([seed, int(1000 * lr)]).normal(0, 0.1, n)
    parts = [pd.DataFrame(base | {"model": "fused", "seed": seed, "prob": np.clip(risk + noise, 0, 1)})]
    parts.append(pd.DataFrame(base | {"model": "forest", "seed": 0, "prob": np.round(risk, 2)}))
    pd.concat(parts, ignore_index=True).to_parquet(folder / "predictions.parquet")
    config = {"run": {"name": folder.name}, "seeds": [seed], "optim": {"lr": lr}, "data": {"prepare": {"cache": "x"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = {"task": "death", "seeds": [seed], "models": [info.to_dict() for info in INFOS]}
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    return folder


def models(out):
    return json.loads((out / "metrics.json").read_text())["outputs"]["death"]["models"]


def test_models_that_differ_are_told_apart_by_their_runs_and_equal_ones_stand_once(tmp_path):
    runs = [finished(tmp_path / "slow", lr=0.1), finished(tmp_path / "quick", lr=0.2)]
    page = compare(runs, tmp_path / "out").read_text(encoding="utf-8")
    assert sorted(models(tmp_path / "out")) == ["forest", "quick: fused", "slow: fused"]
    differences = json.loads((tmp_path / "out" / "metrics.json").read_text())["outputs"]["death"]["differences"]
    assert list(differences) == ["slow: fused - forest", "slow: fused - quick: fused"]  # paired, on the same draws
    assert "slow: fused" in page and "ehrdl compare" in page


def test_runs_that_differ_only_in_their_seeds_are_pooled(tmp_path, capsys):
    runs = [finished(tmp_path / "a", seed=0), finished(tmp_path / "b", seed=1), finished(tmp_path / "c", lr=0.2)]
    compare(runs, tmp_path / "out")
    assert "compare: a and b differ only in their seeds, and are pooled" in capsys.readouterr().err
    found = models(tmp_path / "out")
    assert sorted(found) == ["a+b: fused", "c: fused", "forest"]
    assert len(found["a+b: fused"]["auroc"]["per_seed"]) == 2 and len(found["forest"]["auroc"]["per_seed"]) == 1


def test_pooled_seeds_alone_keep_the_names_of_their_models(tmp_path):
    compare([finished(tmp_path / "a", seed=0), finished(tmp_path / "b", seed=1)], tmp_path / "out")
    assert sorted(models(tmp_path / "out")) == ["forest", "fused"]


def test_runs_that_share_a_seed_are_not_pooled_but_told_apart(tmp_path, capsys):
    runs = [finished(tmp_path / "a", seed=0), finished(tmp_path / "b", seed=0)]
    table = pd.read_parquet(runs[1] / "predictions.parquet")  # the same config on another machine
    table.loc[table.model == "fused", "prob"] *= 0.99
    table.to_parquet(runs[1] / "predictions.parquet")
    compare(runs, tmp_path / "out")
    assert "pooled" not in capsys.readouterr().err
    assert sorted(models(tmp_path / "out")) == ["a: fused", "b: fused", "forest"]


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [finished(tmp_path / "x" / "run", lr=0.1), finished(tmp_path / "y" / "run", lr=0.2)]
    compare(runs, tmp_path / "out")
    assert f"{tmp_path}/x/run: fused" in models(tmp_path / "out")


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"n": 300}, r"b: predicts other samples than .*a \(150 and 200 held out\)"),
        ({"outcome": 1}, r"b: predicts other samples than .*a \(200 and 200 held out\)"),
    ],
)
def test_runs_on_other_samples_are_refused(tmp_path, other, line):
    runs = [finished(tmp_path / "a"), finished(tmp_path / "b", **other)]
    with pytest.raises(ConfigError, match=line):
        compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    one = finished(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for runs, line in (
        ([one], "compare: give two or more different runs"),
        ([one, one], "compare: give two or more different runs"),
        ([one, tmp_path / "empty"], "empty: holds no finished run (there is no manifest.json); name a run's folder"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["compare", *map(str, runs), "--out", str(tmp_path / "out")])
        error = capsys.readouterr().err
        assert caught.value.code == 2 and line in error and len(error.splitlines()) == 1


def test_a_run_whose_manifest_was_changed_is_refused(tmp_path):
    runs = [finished(tmp_path / "a"), finished(tmp_path / "b", seed=1)]
    path = runs[1] / "manifest.json"
    path.write_text(re.sub('"task": "death"', '"task": "life"', path.read_text()))
    with pytest.raises(ConfigError, match=r"manifest\.json: was changed"):
        compare(runs, tmp_path / "out")
