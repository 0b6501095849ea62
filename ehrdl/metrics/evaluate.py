"""Evaluation, from PREDICTIONS to metrics.json: every metric of every model with its interval, and differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.errors import SchemaError
from ehrdl.info import RunInfo
from ehrdl.metrics.bootstrap import Counts, estimate, number, subject_counts
from ehrdl.metrics.by_modality import by_present
from ehrdl.metrics.catalogue import BY_KIND, score_draws
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.families.draws import Places, per_subject, product
from ehrdl.schema import BINARY, REGRESSION

#: Values of a model: (seeds, metrics, draws).
Scores = dict[str, Floats]


@dataclass(frozen=True)
class Outcome:
    """The aligned predictions of one output in one split: all models on the same samples in the same order.

    Attributes:
        output: the output's name.
        split: the split: train, tuning or held_out.
        rows: the n samples with a known label: sample_id, subject_id, label, group_*.
        label: the labels (n,), 0 or 1, or the numbers of a regression output.
        prob: model -> (seeds, n), seeds ascending; the predicted values of a regression output.
        prob_calibrated: the same after calibration; NaN for a model without a calibrator.
        unknown: number of samples that were left out because their label is unknown.
    """

    output: str
    split: str
    rows: pd.DataFrame
    label: Floats
    prob: dict[str, Floats]
    prob_calibrated: dict[str, Floats]
    unknown: int
    kind: str = BINARY


def evaluate(
    predictions: pd.DataFrame,
    split: str = "held_out",
    info: RunInfo = RunInfo(),  # noqa: B008 - frozen
    reference: str | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    on_draws: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Score every model on one split, with subject-clustered 95 % intervals from draws that all models share.

    Args:
        predictions: the PREDICTIONS table.
        split: the rows to score.
        info: the descriptions of the models and outputs.
        reference: the model that all others are compared with; by default the first deep model of `info`.
        n_bootstrap: number of draws of subjects.
        seed: random seed of the draws.
        on_draws: function that is called with the number of draws just scored, for a progress bar.

    Returns:
        The content of `metrics.json`: plain numbers, None where a value is undefined. A `value` is the mean over seeds,
        and its interval is the bootstrap of that mean. `draws` counts the draws that were used: a draw with only one
        class is dropped. A regression output has its own metrics, a `kind` and a `unit`, and null for numbers that only
        binary outputs have. `macro` is the mean of a metric over outputs; errors in different units have no mean.
        `micro` pools the binary outputs.

    Raises:
        SchemaError: the split has no rows or only one class, or the models predict different samples.
    """
    outcomes = line_up(predictions, split)
    reference = _reference(outcomes, reference, info)
    binary = [i for i, outcome in enumerate(outcomes) if outcome.kind == BINARY]
    scopes = outcomes if len(binary) < 2 else [*outcomes, _pooled([outcomes[i] for i in binary])]
    point, draws = _score_all(scopes, n_bootstrap, seed, on_draws)
    results = {o.output: _describe(o, p, d, reference, info) for o, p, d in zip(outcomes, point, draws, strict=False)}
    for outcome in outcomes:
        results[outcome.output]["present"] = by_present(outcome.rows, outcome.prob, n_bootstrap, seed, outcome.kind)
        if utility := info.utilities.get(outcome.output):
            of = predictions[predictions["output"] == outcome.output]
            results[outcome.output]["utility"] = utility(of, split, n_bootstrap, seed, info.thresholds)
    macro = _macro(outcomes, point, draws, reference, info.units)
    pooled = len(outcomes) if len(binary) > 1 else binary[0] if binary else None
    micro = _nothing() if pooled is None else _compare(point[pooled], draws[pooled], reference, BINARY)
    return {"split": split, "outputs": results, "macro": macro, "micro": micro}


def line_up(predictions: pd.DataFrame, split: str) -> list[Outcome]:
    """Sort PREDICTIONS of one split into one `Outcome` per output, and check that the models can be compared.

    Raises:
        SchemaError: the split has no rows or only one class, or the models predict different samples.
    """
    chosen = (predictions["split"] == split).to_numpy()
    if not chosen.any():
        raise SchemaError(f"PREDICTIONS: column split: no row is {split}; nothing to evaluate")
    table = predictions if chosen.all() else predictions[chosen]
    places = table.groupby("output", sort=False).indices
    names = list(table["output"].unique())
    return [_outcome(table if len(names) == 1 else table.iloc[places[name]], str(name), split) for name in names]


def _outcome(table: pd.DataFrame, output: str, split: str) -> Outcome:
    runs = _runs(table)  # places of rows, since a copy of the rows per run would double the memory
    where = f"output {output}, split {split}"
    label = table["label"].to_numpy(dtype=np.float64)
    _check_same_samples(
        {name: table[name].to_numpy() for name in ("sample_id", "subject_id")} | {"label": label}, runs, where
    )
    first = next(iter(runs.values()))
    known = ~np.isnan(label[first])
    groups = [name for name in table.columns if name.startswith("group_")]
    kept = table[["sample_id", "subject_id", "label", *groups]].iloc[first[known]].reset_index(drop=True)
    label = label[first[known]]
    kind = BINARY if "value" not in table or table["value"].isna().all() else REGRESSION
    if not len(label):
        raise SchemaError(
            f"PREDICTIONS: column label: split {split}, output {output} has no known label, so nothing can be scored"
        )
    if kind == BINARY and len(np.unique(label)) < 2:
        raise SchemaError(
            f"PREDICTIONS: column label: split {split}, output {output} has one class only "
            f"(n = {len(label)}, events = {int(label.sum())}); give it more subjects or another seed of the split"
        )
    prob, calibrated = (
        _stack(table[column].to_numpy(dtype=np.float64), list(table["model"].unique()), runs, known)
        for column in ("prob" if kind == BINARY else "value", "prob_calibrated")
    )
    return Outcome(output, split, kept, label, prob, calibrated, int((~known).sum()), kind)


def _runs(table: pd.DataFrame) -> dict[tuple[str, int], Places]:
    """Return the places of the rows of each model and seed, by rising sample_id."""
    sample = table["sample_id"].to_numpy()
    runs: dict[Any, Any] = table.groupby(["model", "seed"], sort=True).indices
    return {key: rows[np.argsort(sample[rows], kind="stable")] for key, rows in sorted(runs.items())}


def _check_same_samples(
    columns: Mapping[str, NDArray[Any]], runs: Mapping[tuple[str, int], Places], where: str
) -> None:
    (first_key, first), *_ = runs.items()
    for key, rows in runs.items():
        sample = columns["sample_id"][rows]
        if len(twice := sample[1:][np.diff(sample) == 0]):
            raise SchemaError(
                f"PREDICTIONS: column sample_id: model {key[0]}, seed {key[1]} predicts a sample twice ({where}): "
                f"sample {twice[0]}"
            )
        for name, values in columns.items():
            if not np.array_equal(values[first], values[rows], equal_nan=values.dtype.kind == "f"):
                raise SchemaError(
                    f"PREDICTIONS: column {name}: model {key[0]}, seed {key[1]} ({len(rows)} rows) differs from model "
                    f"{first_key[0]}, seed {first_key[1]} ({len(first)} rows) in {where}; all must predict the same "
                    "samples"
                )


def _stack(
    values: Floats, models: list[str], runs: Mapping[tuple[str, int], Places], known: NDArray[np.bool_]
) -> dict[str, Floats]:
    """Return the values (seeds, n) of each model."""
    return {
        model: np.stack([values[rows[known]] for (name, _), rows in runs.items() if name == model]) for model in models
    }


def _reference(outcomes: list[Outcome], wanted: str | None, info: RunInfo) -> str | None:
    models = outcomes[0].prob
    if wanted is not None and wanted not in models:
        raise SchemaError(f"PREDICTIONS: column model: reference {wanted} is not one of {', '.join(models)}")
    return wanted or next(iter(info.named("deep", among=models)), None)


def _pooled(outcomes: list[Outcome]) -> Outcome:
    """Pool all binary outputs as one: each pair of a sample and an output is a row."""

    def join(parts: Iterable[Floats]) -> Floats:
        return np.concatenate(list(parts), axis=-1)

    models = outcomes[0].prob
    for outcome in outcomes:
        if outcome.prob.keys() != models.keys():
            raise SchemaError(f"PREDICTIONS: output {outcome.output} and {outcomes[0].output} have different models")
        if other := next((name for name in models if len(outcome.prob[name]) != len(models[name])), None):
            raise SchemaError(
                f"PREDICTIONS: column seed: model {other} has {len(outcome.prob[other])} seeds for output "
                f"{outcome.output} and {len(models[other])} for {outcomes[0].output}; give each output the same seeds"
            )
    return Outcome(
        "micro",
        outcomes[0].split,
        pd.concat([outcome.rows for outcome in outcomes], ignore_index=True),
        join(outcome.label for outcome in outcomes),
        {name: join(outcome.prob[name] for outcome in outcomes) for name in models},
        {name: join(outcome.prob_calibrated[name] for outcome in outcomes) for name in models},
        sum(outcome.unknown for outcome in outcomes),
    )


def _score_all(
    scopes: list[Outcome], n_bootstrap: int, seed: int, on_draws: Callable[[int], object]
) -> tuple[list[Scores], list[Scores]]:
    """Return the point values and the values in every draw of each scope. All scopes share the draws of subjects."""
    subjects = np.unique(np.concatenate([scope.rows["subject_id"].to_numpy() for scope in scopes]))
    where = [np.searchsorted(subjects, scope.rows["subject_id"].to_numpy()) for scope in scopes]
    blocks: list[list[Scores]] = [[] for _ in scopes]
    n_fits = sum(len(prob) for scope in scopes for prob in scope.prob.values())
    for i, counts in enumerate(subject_counts(len(subjects), n_bootstrap, seed, all_first=True)):
        share = _shares(len(counts) - (i == 0), n_fits, on_draws)
        for block, scope, column in zip(blocks, scopes, where, strict=True):
            block.append(_score(scope, column, counts, share))
    found = [{name: np.concatenate([part[name] for part in block], axis=-1) for name in block[0]} for block in blocks]
    point = [{name: values[..., :1] for name, values in scores.items()} for scores in found]
    draws = [{name: values[..., 1:] for name, values in scores.items()} for scores in found]
    return point, draws


def _shares(n_draws: int, n_parts: int, on_draws: Callable[[int], object]) -> Callable[[], None]:
    """Return a function to call after each of `n_parts` parts of the work on a block of draws."""
    done = iter(range(1, n_parts + 1))

    def report() -> None:
        part = next(done)
        on_draws(n_draws * part // n_parts - n_draws * (part - 1) // n_parts)

    return report


def _score(scope: Outcome, subject: Places, counts: Counts, on_fit: Callable[[], None] = lambda: None) -> Scores:
    """Score every model by every metric in each draw; NaN in draws with one class or no sample.

    Args:
        scope: the predictions.
        subject: the place (n,) of each sample's subject in a draw.
        counts: how often each subject was drawn (R, S).
        on_fit: function that is called after each model and seed.
    """
    sums = per_subject(subject, counts.shape[1], np.ones(len(subject)), scope.label)
    mass, events = product(counts, sums).T
    used = (events > 0) & (events < mass) if scope.kind == BINARY else mass > 0
    metrics = BY_KIND[scope.kind]
    scores = {name: np.full((len(prob), len(metrics), len(counts)), np.nan) for name, prob in scope.prob.items()}
    for name, seeds in scope.prob.items():
        for i, prob in enumerate(seeds):
            if used.any():
                scores[name][i][:, used] = score_draws(metrics, scope.label, prob, subject, _only(counts, used))
            on_fit()
    return scores


def _only(counts: Counts, used: NDArray[np.bool_]) -> Counts:
    """Return the used draws, without a copy if that is all of them."""
    return counts if used.all() else counts[used]


def _mean_scores(scopes: list[Scores]) -> Scores:
    """Return the unweighted mean over outputs."""
    return {name: np.mean([scores[name] for scores in scopes], axis=0) for name in scopes[0]}


def _macro(
    outcomes: list[Outcome], point: list[Scores], draws: list[Scores], reference: str | None, units: Mapping[str, str]
) -> dict[str, Any]:
    """Average over the outputs of each kind. The kinds have different metrics, so both fit into one mapping."""
    macro = _nothing()
    for kind in BY_KIND:
        of = [i for i, outcome in enumerate(outcomes) if outcome.kind == kind]
        if not of:
            continue
        means = [_mean_scores([scores[i] for i in of]) for scores in (point, draws)]
        if len({units.get(outcomes[i].output, "") for i in of}) > 1:  # days and mmHg have no mean; R2 has no unit
            for scores in means:
                for values in scores.values():
                    values[:, :2] = np.nan
        part = _compare(means[0], means[1], reference, kind)
        for key, rows in part.items():
            for name, metrics in rows.items():
                macro[key].setdefault(name, {}).update(metrics)
    return macro


def _nothing() -> dict[str, Any]:
    return {"models": {}, "differences": {}}


def _describe(scope: Outcome, point: Scores, draws: Scores, reference: str | None, info: RunInfo) -> dict[str, Any]:
    some = next(iter(draws.values()))
    if scope.kind == REGRESSION:
        return {
            "n": len(scope.label),
            "events": None,
            "subjects": int(scope.rows["subject_id"].nunique()),
            "unknown": scope.unknown,
            "draws": int(np.isfinite(some[0, 0]).sum()),
            "prevalence": None,
            "bayes_auroc": None,
            "kind": scope.kind,
            "unit": info.units.get(scope.output, ""),
            "label_mean": float(scope.label.mean()),
            "label_sd": float(scope.label.std()),
            **_compare(point, draws, reference, scope.kind),
        }
    truth = next(iter(info.named("truth", among=point)), None)
    return {
        "n": len(scope.label),
        "events": int(scope.label.sum()),
        "subjects": int(scope.rows["subject_id"].nunique()),
        "unknown": scope.unknown,
        "draws": int(np.isfinite(some[0, 0]).sum()),
        "prevalence": float(scope.label.mean()),
        "bayes_auroc": number(point[truth][:, 0, 0].mean()) if truth else None,
        **_compare(point, draws, reference, scope.kind),
    }


def _compare(point: Scores, draws: Scores, reference: str | None, kind: str) -> dict[str, Any]:
    """Return the entries `models` and `differences` of one scope."""
    some = next(iter(draws.values()))
    kept = np.isfinite(some[0]).any(0)
    mean_point = {name: values[..., 0].mean(0) for name, values in point.items()}
    mean_draws = {name: values[..., kept].mean(0) for name, values in draws.items()}
    models = {
        name: {
            metric: {**estimate(mean_point[name][j], mean_draws[name][j]), "per_seed": _numbers(point[name][:, j, 0])}
            for j, metric in enumerate(BY_KIND[kind])
        }
        for name in point
    }
    others = [name for name in point if name != reference] if reference else []
    differences = {
        f"{reference} - {name}": {
            metric: estimate(
                mean_point[str(reference)][j] - mean_point[name][j], mean_draws[str(reference)][j] - mean_draws[name][j]
            )
            for j, metric in enumerate(BY_KIND[kind])
        }
        for name in others
    }
    return {"models": models, "differences": differences}


def _numbers(values: Floats) -> list[float | None]:
    return [number(value) for value in values]
