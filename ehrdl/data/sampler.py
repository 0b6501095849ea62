"""In which order samples are read: batches of like length, a subject's samples together, a function of seed and epoch.

The order depends on the seed, the epoch and the data alone, so a run that was killed can go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

_POOL = 50  # batches sorted by length together: long enough to cut padding, short enough to stay random


class LengthBuckets(Sampler[list[int]]):
    """Batches of samples of like length.

    Args:
        subject: (n,) the subject of each candidate row, so that a subject's samples stay together.
        length: (n,) cost of each candidate row (observations and tokens).
        rows: (n,) the SAMPLES rows that may be drawn.
        batch_size: samples a batch.
        shuffle: a new order every epoch; else the order of `rows`, every one of them.
        samples_per_subject: with `shuffle`, a fresh draw of at most so many samples a subject every epoch.
        seed: of the order.
        rank: which of `world_size` processes reads; in training each reads its own share, equally many batches.
        world_size: processes that train together.
    """

    def __init__(
        self,
        subject: np.ndarray,
        length: np.ndarray,
        rows: np.ndarray,
        batch_size: int,
        shuffle: bool,
        samples_per_subject: int | None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rank, self.world_size = rank, world_size if shuffle else 1
        self.subject, self.length, self.rows = subject, length, rows
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.samples_per_subject = samples_per_subject
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self.rows)
        if self.shuffle and self.samples_per_subject:
            counts = np.unique(self.subject, return_counts=True)[1]
            n = int(np.minimum(counts, self.samples_per_subject).sum())
        return -(-n // self.batch_size) // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the current epoch, from the current position on."""
        yield from self._batches()[self.position :]

    def _batches(self) -> list[list[int]]:
        if not self.shuffle:
            order = np.arange(len(self.rows))
            return [self.rows[order[i : i + self.batch_size]].tolist() for i in range(0, len(order), self.batch_size)]
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._drawn(rng)
        pool = self.batch_size * _POOL
        batches: list[np.ndarray] = []
        for i in range(0, len(order), pool):
            part = order[i : i + pool]
            part = part[np.argsort(self.length[part], kind="stable")]
            batches.extend(part[j : j + self.batch_size] for j in range(0, len(part), self.batch_size))
        # Every process draws the same order and takes its share; a remainder that not all could have is left out.
        mine = rng.permutation(len(batches))[self.rank :: self.world_size][: len(self)]
        return [self.rows[batches[i]].tolist() for i in mine]

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Positions in a random order of subjects, a subject's own in random order beside each other."""
        key = rng.random(len(self.rows))
        _, subject = np.unique(self.subject, return_inverse=True)
        place = rng.permutation(subject.max() + 1)[subject] if len(subject) else subject
        order = np.lexsort((key, place))
        if not self.samples_per_subject:
            return order
        begins = np.r_[True, np.diff(place[order]) != 0]
        nth = np.arange(len(order)) - np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        return order[nth < self.samples_per_subject]


class Loader(DataLoader[Any]):
    """A DataLoader that can say where it stands and go on from there."""

    def __init__(self, dataset: Any, batch_sampler: LengthBuckets, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, **kwargs)
        self.buckets = batch_sampler
        self._read = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches from the current position on; the next pass is the next epoch."""
        if self._read != self.buckets.position:  # the pass before was left early, as limit_train_batches does
            self._next_epoch()
        n_batches = len(self.buckets)
        for batch in super().__iter__():
            self._read += 1
            if self._read == n_batches:  # before the last batch is handed out: Lightning never asks for one more
                self._next_epoch()
            yield batch

    def _next_epoch(self) -> None:
        self.buckets.epoch += 1
        self.buckets.position = self._read = 0

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches of it that were read."""
        return {"epoch": self.buckets.epoch, "position": self._read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batch at which `state` was taken."""
        self.buckets.epoch = state["epoch"]
        self.buckets.position = self._read = state["position"]
