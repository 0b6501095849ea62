"""Splits subjects into training, tuning and held-out by a hash of the subject_id. No subject is in two splits.

A temporal split also needs the years of the stays: see `ehrdl/data/temporal_split.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound, FolderPath, Options
from ehrdl.schema import HELD_OUT, TRAIN, TUNING

#: A share above 0 and below 1.
Part = Annotated[float, Bound("(0, 1)")]
Year = Annotated[int, Bound("[1900, 2100]", "give a calendar year, such as 2017")]
Kind = Literal["subject", "temporal", "source", "folds"]


@dataclass(frozen=True)
class Split(Options, key="data.split"):
    """The rule that makes each subject a training, tuning or held-out subject.

    Attributes:
        kind: `subject` draws subjects by a hash. `temporal` trains on stays before a year, and holds out stays from
            that year on. `source` uses the split that comes with the data (a MEDS dataset's subject_splits), and
            ignores the keys below. `folds` divides subjects into equal parts by the same hash, and holds one part out.
        tuning: the share of subjects for tuning. For `temporal` and `folds`, it is a share of the subjects that are not
            held out. All remaining subjects are for training.
        held_out: the share of subjects that are held out; ignored for `temporal` and `folds`.
        seed: the seed of the hash; another seed gives another split.
        cut_year: for `temporal`: the first held-out year. Stays that are certainly before this year are for training.
            Stays that may lie on either side of the cut are dropped.
        last_year: for `temporal`: the last year with stays in the release of the data (2019 for MIMIC-IV 2.x, 2022 for
            3.x). The possible years of a stay end there. null = no limit.
        n_folds: for `folds`: the number of folds.
        fold: for `folds`: the number of the fold that is held out, from 0.
        files: the folder with train.txt, tuning.txt and held_out.txt. Each line is a record's name, as the publisher of
            the data writes it. If `files` is set, all other keys are ignored.
    """

    kind: Kind = "subject"
    tuning: Part = 0.1
    held_out: Part = 0.2
    seed: Annotated[int, Bound("[0, inf)")] = 0
    cut_year: Year | None = None
    last_year: Year | None = None
    n_folds: Annotated[int, Bound("[2, inf)")] | None = None
    fold: int | None = None
    files: Annotated[str, FolderPath()] | None = None

    def __post_init__(self) -> None:
        """Refuse values that leave no one to train on or to hold out; the error names the key."""
        super().__post_init__()
        if self.kind == "subject" and self.tuning + self.held_out >= 1:
            shares = f"tuning {self.tuning} and held_out {self.held_out}"
            raise ConfigError(f"data.split: {shares} leave nothing to train on")
        self._check_years()
        self._check_folds()

    @property
    def method(self) -> str:
        """`files` if the option `files` is set, otherwise the value of `kind`."""
        return "files" if self.files is not None else self.kind

    @property
    def by_subject(self) -> bool:
        """Whether the split of a subject depends only on the subject_id and these options."""
        return self.method in ("subject", "folds")

    def _check_folds(self) -> None:
        for name in ("n_folds", "fold"):
            value = getattr(self, name)
            if self.kind != "folds" and value is not None:
                raise ConfigError(f"data.split.{name}: {value} belongs to data.split.kind folds")
            if self.kind == "folds" and value is None:
                raise ConfigError(
                    f"data.split.{name}: null, but data.split.kind folds needs n_folds, such as 5, and fold"
                )
        if self.n_folds is None or self.fold is None:
            return
        if not 0 <= self.fold < self.n_folds:
            raise ConfigError(f"data.split.fold: {self.fold} is not one of 0 to {self.n_folds - 1} (n_folds - 1)")

    def _check_years(self) -> None:
        for name in ("cut_year", "last_year"):
            year = getattr(self, name)
            if year is not None and self.kind != "temporal":
                raise ConfigError(f"data.split.{name}: {year} belongs to data.split.kind temporal")
        if self.kind != "temporal":
            return
        if self.cut_year is None:
            needs = "data.split.kind temporal needs the first held-out year"
            raise ConfigError(f"data.split.cut_year: null, but {needs}, such as 2017")
        if self.last_year is not None and self.cut_year > self.last_year:
            raise ConfigError(
                f"data.split.cut_year: {self.cut_year} is after data.split.last_year {self.last_year}; "
                "nobody would be held out"
            )


def assign(subject_id: np.ndarray, split: Split) -> np.ndarray:
    """Return the name of each subject's split, for the kinds `subject` and `folds`.

    >>> assign(np.array([1, 2, 1]), Split()).tolist()[::2] == [assign(np.array([1]), Split())[0]] * 2
    True
    """
    if not split.by_subject:
        raise ConfigError(f"data.split.kind: {split.method} needs more than subjects, and cannot split them alone")
    u = uniform(subject_id, split.seed)
    if split.n_folds is not None:
        # The integer part is the fold. The fraction is a second draw, which chooses tuning subjects within each fold.
        fold, u = np.divmod(u * split.n_folds, 1)
        return np.where(fold == split.fold, HELD_OUT, np.where(u < split.tuning, TUNING, TRAIN)).astype(object)
    names = np.where(u < split.held_out, HELD_OUT, np.where(u < split.held_out + split.tuning, TUNING, TRAIN))
    return names.astype(object)


def uniform(subject_id: np.ndarray, seed: int) -> np.ndarray:
    """Return a pseudo-random number in [0, 1) for each subject, computed from its subject_id and the seed.

    The hash function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    with np.errstate(over="ignore"):
        x = subject_id.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)
