"""The samples for fitting and scoring a trial: the configured split, or folds of all subjects not held out.

Held-out subjects are blinded first: their labels are removed, and no loader finds their samples. So no trial can read
them.
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
    """Remove the outcomes of held-out samples, and take these samples out of their split."""
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
    """Return blinded data for every fit of a trial and seed: the configured split, or k folds by subject.

    Args:
        prepared: the data of a configuration.
        folds: None = the configured split; k = k folds of its training and tuning subjects together. Each fold is used
            for tuning once, with the others for training. The folds have about equal numbers of subjects with an event.
            Scalers and vocabulary, which were fitted on the training split's inputs, stay unchanged. Among outcomes,
            only the prevalence is kept from there.
        seed: the random seed of the folds.

    Raises:
        ConfigError: a fold has only one class.
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
