"""A finished run on its own data, on other patients and on a hospital that lacks half of what it knew."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ehrdl.cli.commands.predict import _source
from ehrdl.cli.main import main
from ehrdl.engine.files import read_json, write_json
from ehrdl.runs import trail
from ehrdl.runs.chain import read_trail
from ehrdl.schema import HELD_OUT
from ehrdl.sources.synthetic import write_hospital

CONFIG = """
run: {{name: small, root: {root}}}
seeds: [3]
data:
  source:
    class_path: ehrdl.sources.mimic4.source.Mimic4
    init_args: {{root: {hospital}}}
  prepare: {{cache: {cache}}}
  notes: {{vocab_size: 500, chunk_tokens: 64}}
task: {{class_path: ehrdl.tasks.readmission.Readmission}}
model:
  class_path: ehrdl.models.networks.multimodal.MultimodalModel
  init_args:
    note: {{class_path: ehrdl.models.notes.transformer.NoteTransformer, init_args: {{width: 16}}}}
    series: {{class_path: ehrdl.models.series.gru.SeriesGRU, init_args: {{hidden: 8, bin_hours: 24}}}}
trainer: {{max_epochs: 1, accelerator: cpu}}
baselines: [prevalence, gradient_boosting, bag_of_words, hospital]
"""
KEYS = ["model", "seed", "output", "sample_id"]
pytestmark = pytest.mark.slow  # whole runs, a few of them


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("first") / "hospital"
    write_hospital(root, n_patients=250, seed=4, progress=False)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, hospital) -> Path:
    """A run whose cache is gone, in another folder than the one it was made in: as on another machine."""
    made = tmp_path_factory.mktemp("made")
    config = made / "config.yaml"
    config.write_text(CONFIG.format(root=made / "runs", hospital=hospital, cache=made / "cache"))
    main(["train", "--config", str(config)])
    shutil.rmtree(made / "cache")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "small"
    shutil.move(made / "runs" / "small", elsewhere)
    return elsewhere


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


def score(run: Path, out: Path, *overrides: str) -> pd.DataFrame:
    main(["predict", "--run", str(run), "--out", str(out), f"--data.prepare.cache={out.parent / 'cache'}", *overrides])
    return predictions(out)


def test_a_run_reloaded_elsewhere_predicts_what_it_predicted(run, tmp_path):
    there = score(run, tmp_path / "out")
    both = predictions(run).merge(there, on=KEYS, suffixes=("", "_there"), validate="one_to_one")
    assert len(both) == len(predictions(run))
    assert set(both.model) == {
        "prevalence", "gradient_boosting", "bag_of_words", "hospital", "fused", "notes_only", "series_only",
    }  # fmt: skip
    for column in ("prob", "prob_calibrated"):
        np.testing.assert_allclose(both[f"{column}_there"], both[column], atol=1e-6, rtol=0)
    assert (both.split == both.split_there).all()
    assert (there.split == "train").any()  # those who trained the models are not called held out
    assert read_json(tmp_path / "out" / "flow.json") == read_json(run / "flow.json")
    assert read_json(tmp_path / "out" / "cohort.json") == read_json(run / "cohort.json")
    assert read_json(tmp_path / "out" / "manifest.json")["validation"]["kind"] == "same"


def test_a_run_and_its_predictions_are_in_the_audit_trail(run, poorer, tmp_path, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / "small")
    trail.enter(runs, "train finished", {"run": "small"}, create=True)
    score(runs / "small", runs / "small" / "predict" / "poorer", f"--data.source.root={poorer}")
    main(["report", str(runs / "small" / "predict" / "poorer")])

    entries = read_trail(runs).entries

    assert [entry["action"] for entry in entries] == ["train finished", "predict", "report"]
    named = read_json(runs / "small" / "predict" / "poorer" / "manifest.json")["audit"]["entry"]
    assert named == entries[1]["hash"] and "predict/poorer/predictions.parquet" in entries[1]["files"]
    subjects = predictions(run).subject_id.unique().tolist()
    assert not any(str(subject) in (runs / trail.TRAIL).read_text() for subject in subjects)
    own = read_json(run / "manifest.json")["audit"]["entry"]
    assert own and len(own) == 64

    with pytest.raises(SystemExit):
        main(["trail", str(runs)])
    assert "small/manifest.json: names the entry" in capsys.readouterr().err  # its own trail is elsewhere


@pytest.fixture(scope="module")
def poorer(tmp_path_factory) -> Path:
    """A second hospital: no notes, no sodium and haemoglobin, creatinine in µmol/L, and potassium in no known unit."""
    root = tmp_path_factory.mktemp("second") / "hospital"
    write_hospital(root, n_patients=120, seed=9, progress=False)
    shutil.rmtree(root / "note")
    path = root / "hosp" / "labevents.csv.gz"
    labs = pd.read_csv(path, dtype=str, keep_default_na=False)
    labs = labs[~labs.itemid.isin(["50983", "50824", "51222", "50811"])]
    creatinine, potassium = labs.itemid == "50912", labs.itemid == "50971"
    assert creatinine.any() and potassium.any()
    creatinine &= labs.valuenum != ""
    number = pd.to_numeric(labs.valuenum[creatinine]) / 0.011312
    labs.loc[creatinine, "valuenum"] = number.map("{:.3f}".format)
    labs.loc[creatinine, "valueuom"] = "umol/L"
    labs.loc[potassium, "valueuom"] = "grain"
    with gzip.open(path, "wt") as file:
        labs.to_csv(file, index=False)
    return root


def test_another_hospital_is_scored_and_what_it_lacks_is_said(run, poorer, tmp_path, capsys):
    scored = score(run, tmp_path / "out", f"--data.source.root={poorer}")
    assert set(scored.split) == {HELD_OUT}
    assert set(scored.model) == {"prevalence", "gradient_boosting", "hospital", "fused", "notes_only", "series_only"}
    assert scored.label.notna().all() and scored.prob.between(0, 1).all()
    gaps = read_json(tmp_path / "out" / "gaps.json")
    assert {"sodium", "hemoglobin"} <= set(gaps["channels_absent"])
    assert "creatinine" not in gaps["channels_absent"]
    assert gaps["unknown_units"]["LAB//50971//grain"] > 100
    assert gaps["samples_without_note"] == gaps["samples"] == scored.sample_id.nunique()
    said = capsys.readouterr().err
    for words in ("channels that the models know are absent here", "LAB//50971//grain", "bag_of_words: left out"):
        assert words in said
    main(["report", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "channels that the models know are absent here" in page and "External validation" in page
    assert read_json(tmp_path / "out" / "manifest.json")["validation"]["kind"] == "external"
    assert read_json(tmp_path / "out" / "metrics.json")["outputs"]["readmission"]["n"] == gaps["samples"]


def test_values_in_another_unit_are_seen_as_the_same(run, poorer, tmp_path):
    """Creatinine in µmol/L gives the models what the same creatinine in mg/dL gave."""
    second = tmp_path / "hospital"
    shutil.copytree(poorer, second)
    path = second / "hosp" / "labevents.csv.gz"
    labs = pd.read_csv(path, dtype=str, keep_default_na=False)
    creatinine = (labs.itemid == "50912") & (labs.valuenum != "")
    number = pd.to_numeric(labs.valuenum[creatinine]) * 0.011312
    labs.loc[creatinine, "valuenum"] = number.map("{:.4f}".format)
    labs.loc[creatinine, "valueuom"] = "mg/dL"
    with gzip.open(path, "wt") as file:
        labs.to_csv(file, index=False)
    in_mg = score(run, tmp_path / "mg", f"--data.source.root={second}")
    in_umol = score(run, tmp_path / "umol", f"--data.source.root={poorer}")
    deep = in_mg.model.isin(["fused", "series_only"])
    np.testing.assert_allclose(in_umol.prob[deep], in_mg.prob[deep], atol=2e-3)


def refusal(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ehrdl: ")]
    assert len(lines) == 1
    return lines[0]


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def older(run: Path) -> None:
    """Make a run folder what a version without a list of files would have left."""
    manifest = read_json(run / "manifest.json")
    del manifest["files"], manifest["digest"]
    write_json(run / "manifest.json", manifest)


def test_a_folder_that_is_no_finished_run_is_refused(run, tmp_path, capsys):
    assert "there is no such folder" in refusal(capsys, "predict", "--run", str(tmp_path / "nowhere"))
    half = copied(run, tmp_path / "half")
    (half / "manifest.json").unlink()
    assert "no finished run (manifest.json is missing)" in refusal(capsys, "predict", "--run", str(half))


def test_a_checkpoint_of_another_architecture_is_refused(run, tmp_path, capsys):
    other = copied(run, tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["model"]["init_args"]["series"]["init_args"]["hidden"] = 16
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    line = refusal(capsys, "predict", "--run", str(other), f"--data.prepare.cache={tmp_path / 'cache'}")
    assert f"{other}: config.yaml has" in line and "that the run wrote" in line
    older(other)
    line = refusal(capsys, "predict", "--run", str(other), f"--data.prepare.cache={tmp_path / 'cache'}")
    assert "fused-seed3.ckpt: is of another architecture" in line and "size mismatch" in line


@pytest.mark.parametrize("content", [b"junk", b""])
def test_a_checkpoint_that_is_junk_is_refused(run, tmp_path, capsys, content):
    other = copied(run, tmp_path / "other")
    (other / "checkpoints" / "fused-seed3.ckpt").write_bytes(content)
    line = refusal(capsys, "predict", "--run", str(other), f"--data.prepare.cache={tmp_path / 'cache'}")
    assert "checkpoints/fused-seed3.ckpt has" in line
    older(other)
    line = refusal(capsys, "predict", "--run", str(other), f"--data.prepare.cache={tmp_path / 'cache'}")
    assert "fused-seed3.ckpt: is no checkpoint" in line


def test_what_the_run_fixed_cannot_be_overridden(run, capsys):
    line = refusal(capsys, "predict", "--run", str(run), "--model.init_args.series.init_args.hidden=3")
    assert "is fixed by the run" in line


def test_a_report_needs_predictions_with_labels(run, tmp_path, capsys):
    assert "there is no such file" in refusal(capsys, "report", str(tmp_path / "none.parquet"))
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 junk")
    assert "is no Parquet file of PREDICTIONS" in refusal(capsys, "report", str(tmp_path / "junk.parquet"))
    unlabelled = predictions(run).assign(label=np.float32("nan"))
    unlabelled.to_parquet(tmp_path / "new.parquet")
    assert "no label is known" in refusal(capsys, "report", str(tmp_path / "new.parquet"))


def test_a_checkpoint_is_read_without_pickle(run):
    for path in (run / "checkpoints").glob("*.ckpt"):
        torch.load(path, weights_only=True)


def test_a_task_with_other_outputs_is_refused(run, hospital, tmp_path, capsys):
    line = refusal(
        capsys,
        "predict",
        f"--run={run}",
        "--task=ehrdl.tasks.heart_failure.HeartFailure",
        f"--data.prepare.cache={tmp_path / 'cache'}",
    )
    assert "has the outputs heart_failure, but the run was fitted on readmission" in line


def test_concepts_in_another_unit_than_the_runs_are_refused(run, tmp_path, capsys):
    shipped = (Path(__file__).parents[1] / "ehrdl" / "clinical" / "concepts.csv").read_text(encoding="utf-8")
    lines = [line for line in shipped.splitlines() if line.split(",")[2] != "sodium"]
    changed = "LAB//50983,mEq/L,sodium,numeric,lab,mg/dL,2.3,0,100,600,Sodium,test"
    (tmp_path / "concepts.csv").write_text("\n".join([*lines, changed]) + "\n", encoding="utf-8")
    line = refusal(
        capsys,
        "predict",
        f"--run={run}",
        f"--data.concepts={tmp_path / 'concepts.csv'}",
        f"--data.prepare.cache={tmp_path / 'cache'}",
    )
    assert "channel sodium is in mg/dL, but the run was fitted in mEq/L" in line


def test_another_hospital_is_not_read_with_the_notes_of_the_runs_own(run, tmp_path):
    other = copied(run, tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["data"]["source"]["init_args"]["note_root"] = "/hospital/notes"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    moved = ["--data.source.root=/second"]
    assert _source(other, moved) == ["--data.source.note_root=null", *moved]
    both = [*moved, "--data.source.note_root=/second/notes"]
    assert _source(other, both) == both
