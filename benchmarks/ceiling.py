"""How near the fused model comes to the simulator's truth, with all notes and with 30 % of the summaries removed.

    python benchmarks/ceiling.py --seed 101 --root /tmp/ceiling

Writes a hospital, trains `configs/synthetic_10k.yaml` on it as on real tables, and compares, on held-out patients: the
true risk; gradient boosting on the simulator's own risk factors, which no hospital records as such; and what the run's
models reach from the tables. The same models then score the hospital with 30 % of its summaries removed.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from measure import show
from sklearn.ensemble import HistGradientBoostingClassifier

from ehrdl.cli.main import main
from ehrdl.metrics.discrimination import auroc
from ehrdl.simulator import risk
from ehrdl.sources.mimic4.tables import TABLES
from ehrdl.sources.raw import find
from ehrdl.sources.synthetic import write_hospital

_KEYS = ["subject_id", "prediction_time"]
_FACTS = [*risk.NOTE_NAMES, *risk.SERIES_NAMES, *risk.RECORD_NAMES]


def measure(root: Path, n_patients: int, seed: int, config: str, overrides: list[str]) -> dict[str, float]:
    """AUROC of everything, and the shares that the bars are about."""
    hospital, run = root / "hospital", root / "runs" / "ceiling"
    if not hospital.is_dir():
        write_hospital(hospital, n_patients=n_patients, seed=seed)
    tables = [name for name in TABLES if find(hospital, name)]
    cache = f"--data.prepare.cache={root / 'cache'}"
    source = ["--data.source", "ehrdl.sources.mimic4.source.Mimic4", f"--data.source.root={hospital}",
              f"--data.source.tables={tables}"]  # fmt: skip
    main(["train", "--config", config, *source, cache, f"--run.root={root / 'runs'}", "--run.name=ceiling",
          *overrides])  # fmt: skip
    main(["predict", "--run", str(run), "--out", str(root / "all"), cache])
    main(["predict", "--run", str(run), "--out", str(root / "fewer"), cache,
          f"--data.source.root={with_fewer_notes(hospital, root / 'fewer_notes')}"])  # fmt: skip
    every = _with_truth(root / "all", hospital)
    held_out = every.split == "held_out"
    kept = every.loc[held_out & (every.model == "fused"), _KEYS]
    found = {f"{name}": _auroc(rows, "prob") for name, rows in every[held_out].groupby("model")}
    one = every[every.model == "fused"]
    found["true risk"] = _auroc(one[one.split == "held_out"], "truth")
    found["boosting on the risk factors"] = _boosting_on_facts(one)
    found["fused, share of the way to that boosting"] = (found["fused"] - 0.5) / (
        found["boosting on the risk factors"] - 0.5
    )
    fewer = _with_truth(root / "fewer", hospital).merge(kept, on=_KEYS)
    fewer = fewer[fewer.model == "fused"]
    found["30 % fewer notes: true risk of what is left"] = _auroc(fewer, "truth_fewer")
    found["30 % fewer notes: fused"] = _auroc(fewer, "prob")
    return found


def with_fewer_notes(hospital: Path, out: Path) -> Path:
    """The hospital without the summaries that the simulator drew for removal."""
    if out.is_dir():
        return out
    part = out.with_name(f".{out.name}")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(hospital, part)
    truth = pd.read_csv(hospital / "truth.csv", usecols=["hadm_id", "note_removed"])
    path = part / "note" / "discharge.csv.gz"
    notes = pd.read_csv(path, dtype=str, keep_default_na=False)
    removed = set(truth.hadm_id[truth.note_removed == 1].astype(str))
    with gzip.open(path, "wt", compresslevel=1) as file:
        notes[~notes.hadm_id.isin(removed)].to_csv(file, index=False)
    part.rename(out)
    return out


def _with_truth(folder: Path, hospital: Path) -> pd.DataFrame:
    """PREDICTIONS with the true risks and the risk factors of each stay."""
    truth = pd.read_csv(hospital / "truth.csv").dropna(subset="prob")
    times = pd.read_csv(hospital / "hosp" / "admissions.csv.gz", usecols=["hadm_id", "dischtime"], parse_dates=[1])
    truth = truth.merge(times.rename(columns={"dischtime": "prediction_time"}))
    truth = truth.rename(columns={"prob": "truth", "prob_notes_removed_30": "truth_fewer"})
    predictions = pd.read_parquet(folder / "predictions.parquet")
    joined = predictions.merge(truth[[*_KEYS, "truth", "truth_fewer", *_FACTS]], on=_KEYS, validate="many_to_one")
    assert len(joined) == len(predictions)
    return joined


def _auroc(rows: pd.DataFrame, column: str) -> float:
    return float(auroc(rows.label, rows[column]))


def _boosting_on_facts(rows: pd.DataFrame) -> float:
    """Fitted on the training patients, as the models are; a factor that a stay does not record is missing."""
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=150, max_leaf_nodes=7, categorical_features=None, random_state=0
    )
    train, held_out = rows[rows.split == "train"], rows[rows.split == "held_out"]
    model.fit(train[_FACTS].to_numpy(np.float64), train.label)
    return float(auroc(held_out.label, model.predict_proba(held_out[_FACTS].to_numpy(np.float64))[:, 1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder for hospital, cache and run; may be continued")
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=101, help="of the simulator")
    parser.add_argument("--config", default="configs/synthetic_10k.yaml")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    own, rest = parser.parse_known_args()
    show("ceiling", measure(own.root, own.patients, own.seed, own.config, rest), own.json)
