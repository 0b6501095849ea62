"""Who trains, who tunes, who is held out: by a hash of the subject, so that a subject never stands in two splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ehrdl.errors import ConfigError
from ehrdl.schema import HELD_OUT, TRAIN, TUNING


@dataclass(frozen=True)
class Split:
    """How subjects are split.

    Attributes:
        tuning: share of subjects that tune; the rest after both trains.
        held_out: share of subjects that are held out.
        seed: another seed gives another split.
    """

    tuning: float = 0.1
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that leave no one to train on."""
        for name in ("tuning", "held_out"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"data.split.{name}: {getattr(self, name)} is not between 0 and 1")
        if self.tuning + self.held_out >= 1:
            shares = f"tuning {self.tuning} and held_out {self.held_out}"
            raise ConfigError(f"data.split: {shares} leave nothing to train on")
        if self.seed < 0:
            raise ConfigError(f"data.split.seed: {self.seed} is below 0")


def assign(subject_id: np.ndarray, split: Split) -> np.ndarray:
    """The split of each subject, as an array of strings.

    >>> assign(np.array([1, 2, 1]), Split()).tolist()[::2] == [assign(np.array([1]), Split())[0]] * 2
    True
    """
    u = _uniform(subject_id, split.seed)
    names = np.where(u < split.held_out, HELD_OUT, np.where(u < split.held_out + split.tuning, TUNING, TRAIN))
    return names.astype(object)


def _uniform(subject_id: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) a subject: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) over id and seed."""
    with np.errstate(over="ignore"):
        x = subject_id.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)
