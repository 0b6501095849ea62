"""Chooses the samples on which a trial is fitted and scored: the configured split, or folds of the other subjects.

Held-out subjects are blinded first. Their labels are removed, and no loader finds their samples. No trial can therefore
read them, and the folds contain only training and tuning subjects.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from ehrdl.data.prepare import Prepared
from ehrdl.errors import ConfigError
from ehrdl.schema import BINARY, TRAIN, TUNING
from ehrdl.splits.subjects import uniform

_BLINDED = "blinded"


def blinded(prepared: Prepared) -> Prepared:
    """Return a copy of the data in which held-out samples have no labels, and are in a split that no loader reads."""
    samples = prepared.samples.copy()
    away = ~samples.split.isin([TRAIN, TUNING]).to_numpy()
    samples.loc[away, "split"] = _BLINDED
    labels = [name for name in samples.columns if name.startswith("label_")]
    samples.loc[away, labels] = np.nan
    dataset = copy.copy(prepared.dataset)
    dataset.label = dataset.label.copy()
    dataset.label[away] = np.nan
    return replace(prepared, samples=samples, dataset=dataset)


def parts(prepared: Prepared, folds: int | None, seed: int) -> list[Prepared]:
    """Return the blinded data for each fit that a trial makes with one seed: a single fit, or one fit per fold.

    The folds have about equal numbers of subjects with an event. Scalers, vocabulary and prevalence are not fitted
    again for a fold. They stay as they were fitted on the configured training split.

    Args:
        prepared: the prepared data of a configuration.
        folds: None = one fit, with the configured split; k = the training and tuning subjects together are divided into
            k folds. Each fit uses another fold for tuning, and the other folds for training.
        seed: the random seed of the folds.

    Raises:
        ConfigError: the training or tuning part of a fit has only one class of an output.
    """
    data = blinded(prepared)
    if folds is None:
        return [data]
    fold = _folds(data, folds, seed)
    found = []
    for i in range(folds):
        samples = data.samples.copy()
        samples.loc[fold >= 0, "split"] = TRAIN
        samples.loc[fold == i, "split"] = TUNING
        found.append(replace(data, samples=samples))
        _require_classes(found[-1], i)
    return found


def _folds(data: Prepared, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each sample; -1 for blinded samples.

    A subject is in one fold only. Subjects with an event are spread evenly over the folds.
    """
    samples = data.samples
    labels = [f"label_{output.name}" for output in data.spec.outputs if output.kind == BINARY]
    event = (samples[labels] == 1).any(axis=1).to_numpy()
    kept = samples.split.isin([TRAIN, TUNING]).to_numpy()
    subjects, where = np.unique(samples.subject_id.to_numpy()[kept], return_inverse=True)
    has_event = np.bincount(where, weights=event[kept], minlength=len(subjects)) > 0
    order = np.lexsort((uniform(subjects, seed), has_event))
    of_subject = np.empty(len(subjects), np.int64)
    of_subject[order] = np.arange(len(subjects)) % folds
    fold = np.full(len(samples), -1, np.int64)
    fold[kept] = of_subject[where]
    return fold


def _require_classes(part: Prepared, fold: int) -> None:
    for output in part.spec.outputs:
        label = part.samples[f"label_{output.name}"]
        for split in (TRAIN, TUNING):
            if label[part.samples.split == split].dropna().nunique() < 2:
                raise ConfigError(
                    f"tune.folds: fold {fold + 1} has one class of {output.name} only in its {split} part; use fewer"
                )
