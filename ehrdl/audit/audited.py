"""What the probes of a leak audit read: a run with fitted models, and a bounded table of its features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.batch import DataSpec
from ehrdl.cohort import Cohort
from ehrdl.data.features.table import tabulate
from ehrdl.models.base import Network
from ehrdl.schema import BINARY, HELD_OUT, TRAIN

#: The largest number of samples of a split whose features are read.
MOST_ROWS = 4000
#: The fewest samples with, and without, an outcome from which something is concluded about it.
FEWEST = 10


@dataclass(frozen=True)
class Audited:
    """A run whose models are fitted.

    Attributes:
        folder: the run's folder.
        cohort: the cohort, with its prepared data.
        make: the function that makes the network from a `DataSpec`.
        trainer: arguments of the Lightning trainer.
        seed: the first seed of the run, which also decides every draw of the audit.
        predictions: the PREDICTIONS table of the run.
    """

    folder: Path
    cohort: Cohort
    make: Callable[[DataSpec], Network]
    trainer: dict[str, Any]
    seed: int
    predictions: pd.DataFrame

    @property
    def samples(self) -> pd.DataFrame:
        """The SAMPLES table."""
        return self.cohort.prepared.samples

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The rows of SAMPLES whose features are read, by split, sorted; at most `MOST_ROWS` random ones of a split."""
        found = {}
        for split in (TRAIN, HELD_OUT):
            rows = self.cohort.prepared.rows(split)
            if len(rows) > MOST_ROWS:
                rows = np.sort(np.random.default_rng(self.seed).choice(rows, MOST_ROWS, replace=False))
            found[split] = rows
        return found

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The table of features of these rows, by split."""
        return {split: tabulate(self.cohort.prepared.dataset, rows) for split, rows in self.rows.items()}

    def values(self, split: str) -> pd.DataFrame:
        """Return the features of a split without the text."""
        return self.tables[split].drop(columns="text")

    def subjects(self, split: str) -> np.ndarray:
        """Return the subject_id of each row of a split's table."""
        found: np.ndarray = self.samples.subject_id.to_numpy()[self.rows[split]]
        return found

    @property
    def binary(self) -> list[str]:
        """The names of the outputs that are yes or no."""
        return [output.name for output in self.cohort.prepared.spec.outputs if output.kind == BINARY]

    def known(self, output: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows of a split's table have a known label (n,), and the labels of those (n_known,)."""
        label = self.samples[f"label_{output}"].to_numpy()[self.rows[split]]
        known = ~np.isnan(label)
        return known, label[known]

    def too_few(self, output: str) -> str:
        """Return why nothing can be concluded about an output, if so; else an empty text."""
        for split in (TRAIN, HELD_OUT):
            _, label = self.known(output, split)
            events = int((label == 1).sum())
            if min(events, len(label) - events) < FEWEST:
                return f"{output}: fewer than {FEWEST} samples of the split {split} had, or had not, the outcome"
        return ""
