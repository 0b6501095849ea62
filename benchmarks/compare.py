"""Finished runs side by side: mean and spread over splits and seeds, and what speaks against showing them.

A table of held-out scores is worth what its choices are. `refuse` looks for evidence in the run folders that something
was chosen by held-out samples, and names the first that it finds.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ehrdl.engine.files import digest, read_json
from ehrdl.errors import ConfigError, LeakageError
from ehrdl.metrics.challenges.physionet2019 import by_utility
from ehrdl.metrics.discrimination import auprc, auroc
from ehrdl.metrics.regression import mae, r2, rmse
from ehrdl.models.baselines.boosted import LIBRARIES
from ehrdl.runs.ledger import read_ledger, same_data, settings
from ehrdl.schema import HELD_OUT

#: Who is held to be the boosted baseline, the first that is there.
BOOSTED = ("lightgbm", "xgboost", "gradient_boosting")
#: Metrics of which a lower value is better.
_ERRORS = ("brier", "mae", "rmse")
_UNSEEN = re.compile(r"none|train|tuning|\d+ folds of train and tuning")
_WHERE = ("run", "logger", "data.prepare", "tune", "n_trials")


@dataclass(frozen=True)
class Finished:
    """A finished run, as its folder has it."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def held_out(self) -> dict[str, Any]:
        """Who was held out, from the manifest."""
        found: dict[str, Any] = self.manifest["held_out"]
        return found

    @property
    def data(self) -> str:
        """The name of its source: `physionet2012`."""
        return str(self.config["data"]["source"]["class_path"]).rpartition(".")[2].lower()


def read_run(folder: Path) -> Finished:
    """Read a run folder.

    Raises:
        ConfigError: it is no finished run, or one of a version that recorded no evidence.
    """
    for name in ("config.yaml", "manifest.json", "metrics.json", "predictions.parquet"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: is no finished run ({name} is missing)")
    manifest = read_json(folder / "manifest.json")
    for key in ("choices", "held_out"):
        if key not in manifest:
            raise ConfigError(f"{folder}/manifest.json: has no {key}: nothing shows how it was chosen; run anew")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return Finished(folder, config, manifest, read_json(folder / "metrics.json"))


def refuse(runs: Sequence[Finished]) -> None:
    """Refuse runs with evidence that something was chosen by held-out samples.

    Raises:
        LeakageError: naming the run and the evidence: a choice on other samples than train and tuning; tuned values
            that were changed afterwards, or tuned on patients who are held out here; numbers that are not those of the
            predictions; patients who tune and are held out; or, on the same data, other settings, seeds or splits
            that were scored as well and are not listed.
    """
    for run in runs:
        _check_choices(run)
        _check_numbers(run)
    _check_listed(runs)


def _check_choices(run: Finished) -> None:
    choices = run.manifest["choices"]
    for name, on in choices.items():
        if name != "tuned" and not _UNSEEN.fullmatch(str(on)):
            raise LeakageError(f"{run.folder}: {name} was chosen on {on}; choose on train and tuning alone")
    if run.held_out["settings"] != digest(settings(run.config)):
        raise LeakageError(f"{run.folder}: config.yaml was changed after the run")
    for study in choices["tuned"]:
        where = f"{run.folder}: {study['model']} was tuned"
        if not _UNSEEN.fullmatch(str(study["scored_on"])):
            raise LeakageError(f"{where} on {study['scored_on']}; tune on train and tuning alone")
        if same_data(study, run.held_out) and study["held_out"] != run.held_out["subjects"]:
            raise LeakageError(
                f"{where} on another split of the same patients, so that some who are held out here chose its values; "
                "tune with this data.split"
            )
        for key, value in study["values"].items():
            if (found := _value(run.config, key)) != value:
                raise LeakageError(f"{where}, which chose {key} {value!r}, but the run has {found!r}")


def _value(config: dict[str, Any], key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _check_numbers(run: Finished) -> None:
    """AUROC, AUPRC and utility of metrics.json are those of the predictions; nobody both tunes and is held out."""
    if run.metrics["split"] != HELD_OUT:
        raise ConfigError(f"{run.folder}: metrics.json is of the {run.metrics['split']} split; a table shows held_out")
    table = pd.read_parquet(run.folder / "predictions.parquet")
    held_out = table.split == HELD_OUT
    both = np.intersect1d(table.subject_id[held_out].unique(), table.subject_id[~held_out].unique())
    if len(both):
        raise LeakageError(f"{run.folder}: {len(both)} subjects tune and are held out, such as {both[0]}")
    for (output, model), rows in table[held_out & table.label.notna()].groupby(["output", "model"]):
        fits = [part for _, part in rows.groupby("seed")]
        if rows.prob.isna().all():  # a regression output
            for name, error in (("mae", mae), ("rmse", rmse), ("r2", r2)):
                values = [float(error(part.label, part.value)) for part in fits]
                _check_seeds(run, str(output), str(model), name, values)
            continue
        for name, metric in (("auroc", auroc), ("auprc", auprc)):
            _check_seeds(run, str(output), str(model), name, [float(metric(part.label, part.prob)) for part in fits])
    for output, rows in table.groupby("output"):
        if "utility" in run.metrics["outputs"][output]:
            for model, scores in by_utility(rows, HELD_OUT, n_bootstrap=0, seed=0).items():
                _check_seeds(run, str(output), model, "utility", scores["per_seed"])


def _check_seeds(run: Finished, output: str, model: str, name: str, found: Sequence[float | None]) -> None:
    made, shown = (np.array(values, np.float64) for values in (found, _per_seed(run, output, model, name)))
    if made.shape != shown.shape or not np.allclose(made, shown, atol=1e-6, equal_nan=True):
        raise LeakageError(f"{run.folder}: {name} of {model} in metrics.json is not that of its predictions")


def _per_seed(run: Finished, output: str, model: str, metric: str) -> list[float | None]:
    """The values of a metric, None where one is undefined; empty where the model has none."""
    scores = run.metrics["outputs"][output]
    # The utility stands beside the metrics that every model has: few outputs have one.
    found = scores.get("utility", {}).get(model) if metric == "utility" else scores["models"][model].get(metric)
    return list(found["per_seed"]) if found else []


def _check_listed(runs: Sequence[Finished]) -> None:
    """Whatever else was scored on the same data is listed too."""
    known = {
        (row["settings"], row["subjects"], seed) for run in runs for row in [run.held_out] for seed in row["seeds"]
    }
    for run in runs:
        seen = [*run.held_out["others"], *read_ledger(run.folder.parent)]
        for row in seen:
            if row["task"] != run.held_out["task"] or not same_data(row, run.held_out):
                continue
            for seed in row["seeds"]:
                if (row["settings"], row["subjects"], seed) not in known:
                    raise LeakageError(
                        f"{run.folder}: {row['run']} was scored on held-out samples of the same data with other "
                        f"settings, seeds or split (seed {seed}), and is not listed; list it too, or who reads the "
                        "table cannot know that none was picked by its score"
                    )


def table(runs: Iterable[Finished], metrics: Sequence[str], reference: str | None = None) -> pd.DataFrame:
    """One row a model of each group of runs (same settings, other splits), the best first.

    Best is the highest mean AUROC; of an output without one, the best mean of the first of `metrics` that it has.

    Args:
        runs: of one data set and task.
        metrics: of metrics.json, `utility` among them.
        reference: the model that the others are paired with; by default the first of `BOOSTED` that is there.

    Returns:
        run (name of the group's first), model, output, n_splits, n_fits, command, trials (`n_trials`, the highest of
        the group; NaN where none is known), and for each metric its `mean` and `sd` over all fits, and `difference`,
        `difference_sd`, `n_better` and `n_paired` over the splits that both have.
    """
    rows = []
    for run in runs:
        for output, found in run.metrics["outputs"].items():
            for model in found["models"]:
                key = {"settings": run.held_out["settings"], "split": run.held_out["subjects"]}
                named = {"run": run.folder.name, "model": model, "output": output, "command": command(run)}
                named["trials"] = n_trials(run, model, output)
                for metric in metrics:
                    for value in _per_seed(run, output, model, metric):
                        rows.append(key | named | {"metric": metric, "value": np.nan if value is None else value})
    frame = pd.DataFrame(rows)
    models = set(frame.model)
    reference = reference or next((name for name in BOOSTED if name in models), None)
    if reference is not None and reference not in models:
        raise ConfigError(f"--reference: no run has the model {reference!r}; there are {', '.join(sorted(models))}")
    found = [
        _row(part, frame[frame.output == output], reference, metrics)
        for (_, model, output), part in frame.groupby(["settings", "model", "output"], sort=False)
    ]
    return pd.concat([_ranked(part, metrics) for _, part in pd.DataFrame(found).groupby("output")], ignore_index=True)


def _ranked(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Rows of one output, the best first."""
    known = [name for name in metrics if rows[f"{name}_mean"].notna().any()]
    first = "auroc" if "auroc" in known else known[0]
    return rows.sort_values(f"{first}_mean", ascending=first in _ERRORS, kind="stable")


def n_trials(run: Finished, model: str, output: str) -> int | None:
    """How many settings were compared for a model, as far as the run knows: by `ehrdl tune`, else in its own fit.

    None where nothing was recorded, and of a boosted model with parameters given by hand: who gave them may have tried
    any number.
    """
    studies = [study for study in run.manifest["choices"]["tuned"] if study["model"] == model]
    if studies:
        found: int | None = studies[-1].get("n_trials")
        return found
    path = run.folder / "models" / f"{model}-{output}.json"
    if model not in LIBRARIES or model in (run.config.get("baseline_params") or {}) or not path.is_file():
        return None
    return len(read_json(path).get("trials") or []) or None


def _row(part: pd.DataFrame, frame: pd.DataFrame, reference: str | None, metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: part[name].iloc[0] for name in ("run", "model", "output")}
    one = part[part.metric == part.metric.iloc[0]]
    row |= {"n_splits": one.split.nunique(), "n_fits": len(one), "command": merged(one.command.unique().tolist())}
    row["trials"] = part.trials.astype(float).max()
    # Each split's own reference is the first listed one; a group's own, where it has one.
    others = frame[frame.model == reference]
    own = others[others.settings == part.settings.iloc[0]]
    others = own if len(own) else others[others.settings == others.settings.iloc[0]] if len(others) else others
    for metric in metrics:
        values = part[part.metric == metric]
        row[f"{metric}_mean"] = values.value.mean()
        row[f"{metric}_sd"] = values.value.std(ddof=1) if len(values) > 1 else np.nan
        a = values.groupby("split").value.mean()
        b = others[others.metric == metric].groupby("split").value.mean()
        paired = (a - b).dropna() if row["model"] != reference else a.iloc[:0]
        row[f"{metric}_difference"] = paired.mean()
        row[f"{metric}_difference_sd"] = paired.std(ddof=1) if len(paired) > 1 else np.nan
        row[f"{metric}_n_better"], row[f"{metric}_n_paired"] = int((paired > 0).sum()), len(paired)
    return row


def command(run: Finished) -> str:
    """The command that made a run, without what names a place of this machine."""
    kept, skip = [], False
    for token in shlex.split(run.manifest["command"]):
        if skip:
            skip = False
            continue
        name, equals, value = token.partition("=")
        if name.startswith("--") and any(name[2:] == key or name[2:].startswith(f"{key}.") for key in _WHERE):
            skip = not equals
            continue
        if equals and value.startswith(("/", "~")):
            token = f"{name}=PATH"
        elif token.startswith(("/", "~")):
            token = "PATH" if not token.endswith(".yaml") else Path(token).name
        kept.append(token)
    return shlex.join(kept)


def merged(commands: list[str]) -> str:
    """Commands that differ in some words as one: `--data.split.fold={0,1}`."""
    split = [shlex.split(one) for one in commands]
    if len({len(words) for words in split}) != 1:
        return " ; ".join(commands)
    words = []
    for column in zip(*split, strict=True):
        different = list(dict.fromkeys(column))
        names = {word.partition("=")[0] for word in different}
        if len(different) == 1:
            words.append(shlex.quote(different[0]))
        elif len(names) == 1:
            words.append(f"{names.pop()}={{{','.join(word.partition('=')[2] for word in different)}}}")
        else:
            words.append(f"{{{','.join(different)}}}")
    return " ".join(words)
