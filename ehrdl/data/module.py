"""The Lightning data module, with one loader of the prepared data per split."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl

from ehrdl.data.config import BatchOptions
from ehrdl.data.loading.balance import class_chances
from ehrdl.data.loading.budget import TokenBudget
from ehrdl.data.loading.chunks import n_tokens
from ehrdl.data.loading.collate import Collate
from ehrdl.data.loading.sampler import LengthBuckets, Loader
from ehrdl.data.prepare import Prepared
from ehrdl.schema import HELD_OUT, REGRESSION, TRAIN, TUNING

_TOKENS_A_FACT = 0.2  # cost of a fact in tokens, for length buckets; the note encoder takes most of the time


class ClinicalDataModule(pl.LightningDataModule):
    """A Lightning data module with loaders of the training, tuning and held-out samples.

    Args:
        prepared: the data from `ehrdl.data.prepare.prepare`.
        batch: the options by which samples become batches.
        seed: the random seed of the order of the training samples.
        balanced: whether training samples are drawn so that both classes are equally frequent (`optim.imbalance`).
    """

    def __init__(self, prepared: Prepared, batch: BatchOptions, seed: int = 0, balanced: bool = False) -> None:
        super().__init__()
        self.prepared, self.batch, self.seed, self.balanced = prepared, batch, seed, balanced
        dataset = prepared.dataset
        self.cost = n_tokens(dataset, prepared.frame) + _TOKENS_A_FACT * dataset.n_observations()

    def train_dataloader(self) -> Loader:
        """Return the loader of the training samples, which come in a new order in every epoch."""
        return self._loader(self.prepared.rows(TRAIN), shuffle=True)

    def val_dataloader(self) -> Loader:
        """Return the loader of the tuning samples, which reads each sample once."""
        return self._loader(self.prepared.rows(TUNING), shuffle=False)

    def test_dataloader(self) -> Loader:
        """Return the loader of the held-out samples, which reads each sample once."""
        return self._loader(self.prepared.rows(HELD_OUT), shuffle=False)

    def predict_dataloader(self) -> Loader:
        """Return the loader of the tuning and held-out samples, which reads each sample once."""
        return self._loader(np.concatenate([self.prepared.rows(TUNING), self.prepared.rows(HELD_OUT)]), shuffle=False)

    def every_dataloader(self) -> Loader:
        """Return the loader of the samples of all splits, which reads each sample once."""
        return self._loader(np.arange(len(self.prepared.samples)), shuffle=False)

    def _loader(self, rows: np.ndarray, shuffle: bool) -> Loader:
        subject = self.prepared.samples.subject_id.to_numpy()[rows]
        per_subject = self.batch.samples_per_subject if shuffle else None
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        dataset, frame, tokens = self.prepared.dataset, self.prepared.frame, self.batch.tokens
        buckets = LengthBuckets(
            subject,
            self.cost[rows],
            rows,
            self.batch.size,
            shuffle,
            per_subject,
            self.seed,
            rank,
            world_size,
            fits=TokenBudget(dataset, frame, tokens) if tokens else None,
            chance=self._chance(rows) if shuffle and self.balanced else None,
        )
        workers = self.batch.num_workers
        return Loader(
            dataset,
            batch_sampler=buckets,
            collate_fn=Collate(dataset.notes, frame),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def _chance(self, rows: np.ndarray) -> np.ndarray | None:
        """Return how often each row is to be drawn relative to the others (n,); None if every output is a number."""
        binary = [k for k, output in enumerate(self.prepared.spec.outputs) if output.kind != REGRESSION]
        return class_chances(self.prepared.dataset.label[rows][:, binary]) if binary else None
