"""What `optim.imbalance` does to AUPRC, calibration and net benefit, before and after recalibration.

    python benchmarks/imbalance.py --patients 3000 --hospitals 3 --diabetes PATH --into docs/calibration.md

Every choice is fitted on the same synthetic hospitals: the deep model of labs and vitals and two baselines. With
`--diabetes`, the two baselines are also fitted on as many splits of Diabetes-130. *Before* are the scores of the model
taken for risks, *after* its risks recalibrated by Platt's method on the tuning split (`prob_calibrated`). All values
are of held-out patients, as means over hospitals or splits. Net benefit is in true alarms per 1,000 predictions.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from measure import machine

import ehrdl
from ehrdl.comparators.baseline import fit_baselines
from ehrdl.comparators.risk import file_of, to_risks
from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import read_json, write_text
from ehrdl.metrics.alarms import net_benefit, net_benefit_of_all
from ehrdl.metrics.calibration import brier, calibration_intercept, calibration_slope, ece, logit, sigmoid
from ehrdl.metrics.discrimination import auprc
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import Boosting, Imbalance, Optim, RiskOptions
from ehrdl.processes.trainer import check_trainer
from ehrdl.schema import HELD_OUT, TUNING
from ehrdl.training.fit import fit
from ehrdl.training.predict import predict, prediction_rows, true_risk
from ehrdl.training.setup import Fit, Training

CHOICES: tuple[Imbalance, ...] = get_args(Imbalance)
#: One setting of each baseline, so that a choice costs one fit: the first or middle of its candidates.
PARAMS: dict[str, dict[str, Any]] = {"logistic_regression": {"C": 0.003}, "gradient_boosting": {"max_iter": 100}}
DEEP = "series_only"
THRESHOLDS = (0.1, 0.2)
NETWORK = partial(MultimodalModel, series=partial(SeriesGRU, hidden=32, bin_hours=24.0, dropout=0.5))
BEGIN, END = "<!-- results: imbalance -->", "<!-- end of results -->"


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write them where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=3000)
    parser.add_argument("--hospitals", type=int, default=3, help="synthetic hospitals, and splits of Diabetes-130")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--diabetes", type=Path, help="folder of Diabetes-130")
    parser.add_argument("--cache", type=Path, help="folder of prepared data; by default a temporary one")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--into", type=Path, help="file with the markers, such as docs/calibration.md")
    options = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = pd.DataFrame(_measured(options, Path(folder)))
    text = "\n\n".join(_table(part, str(name)) for name, part in rows.groupby("data", sort=False))
    text += f"\n\n`python benchmarks/imbalance.py {_command(options)}`, {time.monotonic() - began:.0f} s."
    print(text)
    if options.json:
        found = {"rows": rows.to_dict("records"), "machine": machine()}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.into:
        page = options.into.read_text(encoding="utf-8")
        made = re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", page, count=1, flags=re.DOTALL)
        write_text(options.into, made)


def _measured(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each data set, hospital or split, choice, model, and before and after recalibration."""
    prepare = {"cache": str(options.cache or folder / "cache")}
    for seed in range(options.hospitals):
        given = {"n_patients": options.patients, "seed": seed, "prepare": prepare}
        prepared = ehrdl.load("synthetic", task="readmission", **given).prepared
        for choice in CHOICES:
            place = folder / f"synthetic-{choice}-{seed}"
            parts = [*_baselines(prepared, choice, seed, place), _deep(prepared, choice, options.epochs, place)]
            yield from _scored(parts, place / "models", choice, seed, "Synthetic hospital")
        rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
        yield from _scored(true_risk(prepared, rows, 0), folder, "none", seed, "Synthetic hospital")
    for seed in range(options.hospitals if options.diabetes else 0):
        given = {"root": options.diabetes, "prepare": prepare, "split": {"seed": seed}}
        prepared = ehrdl.load("diabetes130", task="diabetes_readmission", **given).prepared
        for choice in CHOICES:
            place = folder / f"diabetes-{choice}-{seed}"
            yield from _scored(
                _baselines(prepared, choice, seed, place), place / "models", choice, seed, "Diabetes-130"
            )


def _baselines(prepared: Prepared, choice: Imbalance, seed: int, place: Path) -> list[pd.DataFrame]:
    """Return PREDICTIONS of the baselines; none for the focal loss, which no baseline has."""
    place.mkdir()
    names = [] if choice == "focal" else list(PARAMS)
    return fit_baselines(names, prepared, place, seed, Boosting(), PARAMS, RiskOptions(choice))


def _deep(prepared: Prepared, choice: Imbalance, epochs: int, place: Path) -> pd.DataFrame:
    """Return PREDICTIONS of the deep model of labs and vitals."""
    trainer = check_trainer({"max_epochs": epochs, "accelerator": "cpu"})
    training = Training(NETWORK, Optim(lr=0.002, weight_decay=0.05, imbalance=choice), trainer)
    module = ClinicalDataModule(prepared, BatchOptions(size=64), balanced=choice == "balanced")
    fitted = fit(training, module, prepared.spec.only("series"), Fit(place, DEEP, 0))
    rows, prob = predict(fitted, module.predict_dataloader(), trainer)
    if choice != "none":
        prob = to_risks(DEEP, prepared, rows, prob, place / "models")
    return prediction_rows(prepared.samples, prepared.spec.outputs, DEEP, 0, rows, prob)


def _scored(parts: list[pd.DataFrame], models: Path, choice: str, seed: int, data: str) -> Iterator[dict[str, Any]]:
    """Yield the metrics of each model on the held-out rows, before and after recalibration."""
    for table in parts:
        part = table[(table.split == HELD_OUT) & table.label.notna()]
        name, label = str(part.model.iloc[0]), part.label.to_numpy(np.float64)
        risks = {"before": _scores(name, part, models), "after": part.prob_calibrated.to_numpy()}
        for when, risk in risks.items():
            values = {
                "auprc": auprc(label, risk),
                "brier": brier(label, risk),
                "ece": ece(label, risk),
                "slope": calibration_slope(label, risk),
                "intercept": calibration_intercept(label, risk),
            }
            values |= {f"benefit_{at:g}": 1000 * net_benefit(label, risk, at) for at in THRESHOLDS}
            values |= {f"all_{at:g}": 1000 * net_benefit_of_all(label, at) for at in THRESHOLDS}
            row = {"data": data, "model": name, "imbalance": choice, "seed": seed, "when": when}
            yield row | {"n": len(label), "events": int(label.sum())} | {key: float(v) for key, v in values.items()}


def _scores(name: str, part: pd.DataFrame, models: Path) -> np.ndarray:
    """Return a model's scores before they became risks, by its stored recalibration turned round."""
    prob = part.prob.to_numpy()
    if not (models / file_of(name)).is_file():
        return prob
    [stored] = read_json(models / file_of(name), dict).values()
    return sigmoid((logit(prob) - stored["a"]) / stored["b"])


def _table(rows: pd.DataFrame, data: str) -> str:
    """Return the table of one data set in Markdown."""
    n, seeds = int(rows.n.mean()), rows.seed.nunique()
    share = rows.events.sum() / rows.n.sum()
    every = ", ".join(f"{rows[f'all_{at:g}'].mean():.1f} at {at:.0%}" for at in THRESHOLDS)
    lines = [
        f"{data}: {seeds} times about {n:,} held-out samples, {share:.1%} with the outcome. An alarm for everyone has "
        f"a net benefit of {every}.",
        "",
        "| model | `imbalance` | AUPRC, % | less `none` | Brier | ECE | slope | intercept | net benefit at 10 % "
        "| at 20 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(rows.model):
        of = rows[rows.model == model]
        plain = of[(of.imbalance == "none") & (of.when == "before")].set_index("seed").auprc
        for choice in dict.fromkeys(of.imbalance):
            before, after = (of[(of.imbalance == choice) & (of.when == when)] for when in ("before", "after"))
            first = 100 * before.set_index("seed").auprc
            less = first - 100 * plain
            cells = [f"{_spread(first)}", "-" if choice == "none" else _spread(less, "+")]
            cells += [f"{before[key].mean():.3f} → {after[key].mean():.3f}" for key in ("brier", "ece")]
            cells += [f"{before[key].mean():.2f} → {after[key].mean():.2f}" for key in ("slope", "intercept")]
            keys = [f"benefit_{at:g}" for at in THRESHOLDS]
            cells += [f"{before[key].mean():.1f} → {after[key].mean():.1f}" for key in keys]
            lines.append(f"| `{model}` | {choice} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: pd.Series, sign: str = "") -> str:
    text = f"{values.mean():{sign}.1f}"
    return f"{text} ± {values.std():.1f}" if len(values) > 1 else text


def _command(options: argparse.Namespace) -> str:
    given = f"--patients {options.patients} --hospitals {options.hospitals} --epochs {options.epochs}"
    return given + (" --diabetes PATH" if options.diabetes else "")


if __name__ == "__main__":
    main()
