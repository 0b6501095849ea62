"""A run on a hospital that lacks notes and two channels, against the best that can be known from what is left.

    python benchmarks/second_hospital.py --root /tmp/second

Trains on 10,000 patients: with 2,500 neither boosting nor a network learns the risk. Half an hour on a busy core.

The simulator's risk is known, so the ceiling is exact: the sum over all that the second hospital does not record.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from measure import show

from ehrdl.cli.main import main
from ehrdl.engine.files import read_json
from ehrdl.metrics.discrimination import auroc
from ehrdl.simulator import risk
from ehrdl.sources.synthetic import write_hospital

CONFIG = """
run: {{name: first, root: {root}}}
data:
  source: {{class_path: ehrdl.sources.synthetic.Synthetic, init_args: {{n_patients: 10000, seed: 4}}}}
  prepare: {{cache: {cache}}}
  window: {{series_hours: 240, note_hours: 2160}}
  notes: {{vocab_size: 1000, chunk_tokens: 128}}
task: {{class_path: ehrdl.tasks.readmission.Readmission}}
model:
  class_path: ehrdl.models.networks.multimodal.MultimodalModel
  init_args:
    note: {{class_path: ehrdl.models.notes.transformer.NoteTransformer, init_args: {{width: 32}}}}
    series: {{class_path: ehrdl.models.series.gru.SeriesGRU, init_args: {{hidden: 32, dropout: 0.5}}}}
optim: {{lr: 0.002, weight_decay: 0.05}}
trainer: {{max_epochs: 6, accelerator: cpu}}
baselines: [gradient_boosting]
"""
HAEMOGLOBIN, HAEMATOCRIT, CREATININE = "51222", "51221", "50912"  # d_labitems
UMOL_PER_L = 0.011312  # mg/dL of creatinine, 113.12 g/mol


def write_second(root: Path) -> Path:
    """6,000 patients without notes, haemoglobin and haematocrit, with creatinine in µmol/L."""
    write_hospital(root, n_patients=6000, seed=9)
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


def measure(root: Path) -> dict[str, object]:
    """Train, predict on the second hospital, and compare with the limit."""
    root.mkdir(parents=True, exist_ok=True)
    second = root / "hospital"
    if not second.is_dir():
        write_second(second)
    config = root / "config.yaml"
    config.write_text(CONFIG.format(root=root / "runs", cache=root / "cache"))
    main(["train", "--config", str(config)])
    run = root / "runs" / "first"
    main(["predict", "--run", str(run), "--out", str(root / "out"), f"--data.source.root={second}"])
    gaps = read_json(root / "out" / "gaps.json")
    predictions = pd.read_parquet(root / "out" / "predictions.parquet")
    truth = pd.read_csv(second / "truth.csv").dropna(subset="prob")
    times = pd.read_csv(second / "hosp" / "admissions.csv.gz", usecols=["hadm_id", "dischtime"], parse_dates=[1])
    truth = truth.merge(times.rename(columns={"dischtime": "prediction_time"}))
    truth["limit"] = limit(truth)
    keys = ["subject_id", "prediction_time"]
    joined = predictions.merge(truth[[*keys, "limit"]], on=keys, validate="many_to_one")
    assert len(joined) == len(predictions)
    one = joined[joined.model == "fused"]
    found: dict[str, object] = {
        "channels absent": ", ".join(gaps["channels_absent"]),
        "samples": gaps["samples"],
        "samples without notes": gaps["samples_without_note"],
        "prevalence": float(one.label.mean()),
        "prevalence by the limit": float(one.limit.mean()),
        "AUROC of the limit": float(auroc(one.label, one.limit)),
    }
    for name, rows in joined.groupby("model"):
        found[f"AUROC of {name}"] = float(auroc(rows.label, rows.prob))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder for all of it; may be continued")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    show("second hospital", measure(options.root), options.json)
