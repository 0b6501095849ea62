"""The content of `cohort.json`: who was predicted, when and where, and what the models read of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrdl.data.description.characteristics import characteristics, column_masks, outcomes, sizes
from ehrdl.data.description.predictors import predictors
from ehrdl.data.description.setting import dates, setting
from ehrdl.data.prepare import Prepared
from ehrdl.events.source import Source

#: Of the form of `cohort.json`.
VERSION = 1


def describe_cohort(prepared: Prepared, source: Source) -> dict[str, Any]:
    """Describe prepared samples in plain values for `cohort.json`. All counts are exact, also small ones.

    Args:
        prepared: the prepared data of a run, or of new patients.
        source: the source of the data.

    Returns:
        `setting`, `dates`, `columns` (samples and patients in each column of Table 1), `outcomes`, `characteristics`
        (the rows of Table 1) and `predictors`.
    """
    samples, dataset = prepared.samples, prepared.dataset
    outputs = list(prepared.spec.outputs)
    masks = column_masks(samples, outputs)
    splits = {key: mask for key, mask in masks.items() if ":" not in key}
    has_stays = any(channel.name == "admission" for channel in dataset.store.channels) and bool(
        np.any(dataset.static[:, prepared.spec.statics.index("log_admissions_before")] > 0)
    )
    return {
        "version": VERSION,
        "setting": setting(source),
        "dates": dates(samples, prepared.events, splits, source),
        "columns": sizes(samples, masks),
        "outcomes": outcomes(samples, outputs, masks),
        "characteristics": characteristics(samples, dataset, masks, has_stays),
        "predictors": predictors(dataset, samples["split"].to_numpy(), least=prepared.min_patients),
    }
