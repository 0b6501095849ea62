"""Which share of training time a run's deep models wait for data: one process, the loader in it.

    python benchmarks/waiting.py --config configs/quickstart.yaml [--KEY VALUE ...]

Runs the config with every batch timed: the time from the moment when a fit asks for a batch until it has it, over the
time of all its steps and waits, the passes over the training samples alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from measure import show

from ehrdl.cli.main import main
from ehrdl.data.loading.sampler import Loader
from ehrdl.training.lit import LitNetwork


class Clock:
    """Seconds of waiting and of everything, in the training epochs of all fits."""

    def __init__(self) -> None:
        self.waited = self.trained = 0.0
        self.batches = 0
        self._began = 0.0

    def install(self) -> None:
        """Time every training epoch and every batch that it asks for."""
        read = Loader.__iter__
        clock = self

        def timed(loader: Loader) -> Iterator[Any]:
            batches = read(loader)
            while True:
                start = time.perf_counter()
                batch = next(batches, None)
                if loader.buckets.shuffle:
                    clock.waited += time.perf_counter() - start
                if batch is None:
                    return
                clock.batches += loader.buckets.shuffle
                yield batch

        Loader.__iter__ = timed  # type: ignore[method-assign]
        LitNetwork.on_train_epoch_start = clock._start  # type: ignore[assignment]
        LitNetwork.on_validation_start = clock._stop  # type: ignore[assignment]

    def _start(self, *_: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: pl.LightningModule) -> None:
        if self._began:
            self.trained += time.perf_counter() - self._began
            self._began = 0.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    own, rest = parser.parse_known_args()
    clock = Clock()
    clock.install()
    main(["train", *rest])
    found = {"batches": clock.batches, "training [s]": round(clock.trained, 1), "waiting [s]": round(clock.waited, 2)}
    show("waiting for data", found | {"share": round(clock.waited / clock.trained, 4)}, own.json)
