"""Puts samples of similar length into batches, and keeps the samples of a subject close together.

The order depends only on the seed, the epoch and the data, so a run that was killed resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

_POOL = 50  # batches sorted by length together: enough to reduce padding, few enough to keep the order random
_SPARE = 50  # one spare batch for every 50, for epochs that need more batches than the first


@dataclass(eq=False)
class LengthBuckets(Sampler[list[int]]):
    """A batch sampler that puts samples of similar length into one batch.

    Args:
        subject: (n,) the subject of each row in `rows`. Samples of a subject are drawn together.
        length: (n,) the length of each row in `rows`, computed from its observations and tokens.
        rows: (n,) the SAMPLES rows that may be drawn.
        batch_size: the number of samples per batch; only an upper limit if `fits` is given.
        shuffle: whether every epoch has a new random order; otherwise all `rows` are read in the given order.
        samples_per_subject: with `shuffle`, the largest number of samples per subject, drawn anew in every epoch; None
            = all.
        seed: the random seed of the order.
        rank: the number of this process, from 0 to `world_size` - 1. In training, each process reads its own share of
            the batches, and all shares have the same number of batches.
        world_size: the number of processes that train together.
        fits: a function that returns how many of the given rows fit into one batch, counted from the first row; None =
            all rows fit. With such a function, epochs need different numbers of batches. Each epoch gets as many as the
            first epoch needs, plus one for every fifty. If an epoch needs fewer, its largest batches are halved. If it
            needs more, random batches are left out.
        chance: (n,) with `shuffle`, how often each row is drawn relative to the others. As many rows as before are then
            drawn with replacement in every epoch, and the copies of a row go to different batches; None = each row
            once.
    """

    subject: np.ndarray
    length: np.ndarray
    rows: np.ndarray
    batch_size: int
    shuffle: bool
    samples_per_subject: int | None
    seed: int
    rank: int = 0
    world_size: int = 1
    fits: Callable[[np.ndarray], int] | None = None
    chance: np.ndarray | None = None
    epoch: int = field(init=False)
    position: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the first batch; without `shuffle`, every process reads everything."""
        self.epoch = self.position = 0  # set on the instance, since Lightning's wrapper copies them from there
        self.world_size = self.world_size if self.shuffle else 1

    def __len__(self) -> int:
        """Return the number of batches per epoch, the same in every epoch and on every rank."""
        return self._n_batches // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the current epoch, from the current position on."""
        order, edges, batches = self._plan()
        for batch in batches[self.position :].tolist():
            yield self.rows[order[edges[batch] : edges[batch + 1]]].tolist()

    def _plan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return an order of positions, the edges of all batches in it, and the numbers of this process's batches."""
        if not self.shuffle:
            order = np.arange(len(self.rows))
            return order, self._edges(order), np.arange(len(self))
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._order(rng)
        edges = _halve_largest(self._edges(order), self._n_batches)
        # Every process draws the same order and takes its share; the remainder after equal shares is left out.
        return order, edges, rng.permutation(len(edges) - 1)[self.rank :: self.world_size][: len(self)]

    @cached_property
    def _n_batches(self) -> int:
        """Batches per epoch, over all processes."""
        if self.fits is None:
            return -(-self._n_drawn // self.batch_size)
        if not self.shuffle:
            return len(self._edges(np.arange(len(self.rows)))) - 1
        first = len(self._edges(self._order(np.random.default_rng([self.seed, 0])))) - 1
        return min(first + -(-first // _SPARE), self._n_drawn)

    @cached_property
    def _n_drawn(self) -> int:
        """Samples per epoch."""
        if not (self.shuffle and self.samples_per_subject):
            return len(self.rows)
        counts = np.unique(self.subject, return_counts=True)[1]
        return int(np.minimum(counts, self.samples_per_subject).sum())

    def _edges(self, order: np.ndarray) -> np.ndarray:
        """Return the positions in an order at which batches begin, and the end of the order."""
        if self.fits is None:
            return np.append(np.arange(0, len(order), self.batch_size), len(order))
        edges, n = [0], 1
        while edges[-1] < len(order):
            begin = edges[-1]
            n = self._n_fitting(order[begin : min(begin + self.batch_size, self._pool_end(begin))], n)
            edges.append(begin + n)
        return np.array(edges)

    def _n_fitting(self, positions: np.ndarray, guess: int) -> int:
        """Return how many positions fit into a batch. Try twice the guess, and more as long as all of them fit."""
        assert self.fits is not None
        while True:
            asked = positions[: 2 * guess]
            guess = self.fits(self.rows[asked])
            if guess < len(asked) or guess == len(positions):
                return guess

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the positions of an epoch, and sort them by length within each pool."""
        order = self._drawn(rng)
        for begin in range(0, len(order), self.batch_size * _POOL):
            part = order[begin : self._pool_end(begin)]
            keys = [self.length[part]] if self.chance is None else [self.length[part], _copy(part)]
            order[begin : begin + len(part)] = part[np.lexsort(keys)]
        return order

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Draw positions in a random order of subjects; each subject's positions are adjacent, in random order."""
        key = rng.random(len(self.rows))
        subjects, owner = np.unique(self.subject, return_inverse=True)
        place = rng.permutation(len(subjects)).astype(np.int32)[owner]
        order = np.lexsort((key, place))
        if self.samples_per_subject:
            order = order[_nth(place[order]) < self.samples_per_subject]
        return order if self.chance is None else self._with_chance(self.chance[order], order, rng)

    def _with_chance(self, chance: np.ndarray, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw as many positions with replacement. Copies of a subject's samples have places of their own."""
        if not len(order):
            return order
        drawn = rng.choice(order, len(order), p=chance / chance.sum())
        pairs = np.stack([self.subject[drawn], _copy(drawn)])
        _, owner = np.unique(pairs, axis=1, return_inverse=True)
        place = rng.permutation(owner.max() + 1)[owner.ravel()]
        return drawn[np.lexsort((rng.random(len(drawn)), place))]

    def _pool_end(self, position: int) -> int:
        pool = self.batch_size * _POOL
        return (position // pool + 1) * pool


def _nth(groups: np.ndarray) -> np.ndarray:
    """Return how many earlier elements of its group each element has, if groups are adjacent.

    >>> _nth(np.array([5, 5, 2, 2, 2])).tolist()
    [0, 1, 0, 1, 2]
    """
    here = np.arange(len(groups))
    begins = np.r_[True, np.diff(groups) != 0][: len(groups)]
    return here - np.maximum.accumulate(np.where(begins, here, 0))


def _copy(positions: np.ndarray) -> np.ndarray:
    """Return how many equal positions come before each one.

    >>> _copy(np.array([3, 1, 3, 3])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(positions, kind="stable")
    found = np.empty(len(positions), np.intp)
    found[order] = _nth(positions[order])
    return found


def _halve_largest(edges: np.ndarray, n_batches: int) -> np.ndarray:
    """Halve the largest batches until there are at least `n_batches`, and return the edges.

    >>> _halve_largest(np.array([0, 1, 5, 8]), 5).tolist()
    [0, 1, 3, 5, 6, 8]
    """
    while len(edges) - 1 < n_batches:
        size = np.diff(edges)
        largest = np.argsort(-size, kind="stable")[: n_batches - len(size)]
        halves = edges[largest] + size[largest] // 2
        edges = np.union1d(edges, halves)  # half of a batch of one is its own edge, which adds no batch
    return edges


class Loader(DataLoader[Any]):
    """A DataLoader that can save its position in the epoch, and resume from that position."""

    def __init__(self, dataset: Any, batch_sampler: LengthBuckets, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, **kwargs)
        self.buckets = batch_sampler
        self._read = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield batches from the current position on; the next pass is the next epoch."""
        if self._read != self.buckets.position:  # the previous pass ended early, as limit_train_batches does
            self._next_epoch()
        n_batches = len(self.buckets)
        for batch in super().__iter__():
            self._read += 1
            if self._read == n_batches:  # before the last batch is yielded: Lightning does not request another one
                self._next_epoch()
            yield batch

    def _next_epoch(self) -> None:
        self.buckets.epoch += 1
        self.buckets.position = self._read = 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of the current epoch, and how many of the epoch's batches were read."""
        return {"epoch": self.buckets.epoch, "position": self._read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the position that `state_dict` returned, so that the next batch is the first unread one."""
        self.buckets.epoch = state["epoch"]
        self.buckets.position = self._read = state["position"]
