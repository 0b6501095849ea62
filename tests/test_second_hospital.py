"""A run on a hospital that lacks notes and two channels, against the best that can be known from what is left.

The simulator's risk is known, so the ceiling is exact: the sum over all that the second hospital does not record.
"""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ehrdl.cli import main
from ehrdl.data.sources import synthetic_risk as risk
from ehrdl.data.sources.synthetic import write_hospital
from ehrdl.engine import read_json
from ehrdl.metrics.discrimination import auroc

CONFIG = """
run: {{name: first, root: {root}}}
data:
  source: {{class_path: ehrdl.data.sources.synthetic.Synthetic, init_args: {{n_patients: 10000, seed: 4}}}}
  prepare: {{cache: {cache}}}
  window: {{series_hours: 240, note_hours: 2160}}
  notes: {{vocab_size: 1000, chunk_tokens: 128}}
task: {{class_path: ehrdl.tasks.readmission.Readmission}}
model:
  class_path: ehrdl.models.multimodal.MultimodalModel
  init_args:
    note: {{class_path: ehrdl.models.note.NoteTransformer, init_args: {{width: 32}}}}
    series: {{class_path: ehrdl.models.series.SeriesGRU, init_args: {{hidden: 32, dropout: 0.5}}}}
optim: {{lr: 0.002, weight_decay: 0.05}}
trainer: {{max_epochs: 6, accelerator: cpu}}
baselines: [gradient_boosting]
"""
HAEMOGLOBIN, HAEMATOCRIT, CREATININE = "51222", "51221", "50912"  # d_labitems
UMOL_PER_L = 0.011312  # mg/dL of creatinine, 113.12 g/mol
pytestmark = pytest.mark.slow  # trains on 10,000 patients: with 2,500 neither boosting nor a network learns the risk


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Path:
    """6,000 patients without notes, haemoglobin and haematocrit, with creatinine in µmol/L."""
    root = tmp_path_factory.mktemp("second") / "hospital"
    write_hospital(root, n_patients=6000, seed=9, progress=False)
    shutil.rmtree(root / "note")
    path = root / "hosp" / "labevents.csv.gz"
    labs = pd.read_csv(path, dtype=str, keep_default_na=False)
    labs = labs[~labs.itemid.isin([HAEMOGLOBIN, HAEMATOCRIT])]
    creatinine = (labs.itemid == CREATININE) & (labs.valuenum != "")
    labs.loc[creatinine, "valuenum"] = (labs.valuenum[creatinine].astype(float) / UMOL_PER_L).map("{:.3f}".format)
    labs.loc[creatinine, "valueuom"] = "umol/L"
    with gzip.open(path, "wt", compresslevel=1) as file:
        labs.to_csv(file, index=False)
    return root


def limit(truth: pd.DataFrame) -> np.ndarray:
    """P(readmission | what the second hospital records): all series facts but haemoglobin, and the record."""
    names = [name for name in risk.SERIES_NAMES if name != "haemoglobin"]
    rows = {name: truth[name].fillna(0).to_numpy(np.int64) for name in (*names, *risk.RECORD_NAMES)}
    state = risk.state_prior()[:, rows["age_band"]] * risk.STAY_FACT.given_state()[:, rows["stay_band"]]  # (27, n)
    given = {fact.name: fact.given_state() for fact in risk.SERIES_FACTS}
    for name in names:
        state = state * given[name][:, rows[name]]
    likely = given["haemoglobin"].T @ state  # (levels, n); who survives does not depend on haemoglobin
    levels = np.arange(len(likely))[:, None]
    n = len(truth)
    facts = {name: np.broadcast_to(rows[name], (len(levels), n)) for name in rows}
    facts["haemoglobin"] = np.broadcast_to(levels, (len(levels), n))
    known = risk.risk().series[risk.series_index(facts), risk.record_index(facts)]
    without_labs = risk.risk().none[risk.record_index(rows)]
    return np.where(truth.labs_present == 1, (likely * known).sum(0) / likely.sum(0), without_labs)


def test_a_second_hospital_is_scored_as_well_as_what_it_records_allows(second, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=tmp_path / "runs", cache=tmp_path / "cache"))
    main(["train", "--config", str(config)])
    main(["predict", "--run", str(tmp_path / "runs" / "first"), "--out", str(tmp_path / "out"),
          f"--data.source.root={second}"])  # fmt: skip
    gaps = read_json(tmp_path / "out" / "gaps.json")
    assert sorted(gaps["channels_absent"]) == ["hematocrit", "hemoglobin"]
    assert not gaps["unknown_units"]
    assert gaps["samples_without_note"] == gaps["samples"] > 6000

    predictions = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    truth = pd.read_csv(second / "truth.csv").dropna(subset="prob")
    times = pd.read_csv(second / "hosp" / "admissions.csv.gz", usecols=["hadm_id", "dischtime"], parse_dates=[1])
    truth = truth.merge(times.rename(columns={"dischtime": "prediction_time"}))
    truth["limit"] = limit(truth)
    keys = ["subject_id", "prediction_time"]
    joined = predictions.merge(truth[[*keys, "limit"]], on=keys, validate="many_to_one")
    assert len(joined) == len(predictions)

    one = joined[joined.model == "fused"]
    assert one.limit.mean() == pytest.approx(one.label.mean(), abs=0.01)
    best = float(auroc(one.label, one.limit))
    for name in ("fused", "series_only", "gradient_boosting"):
        rows = joined[joined.model == name]
        print(name, float(auroc(rows.label, rows.prob)), best)
        assert float(auroc(rows.label, rows.prob)) > best - 0.03, name
