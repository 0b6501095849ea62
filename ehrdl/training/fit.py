"""The fit of one network with Lightning. A fit that was killed resumes from its last checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import CSVLogger, Logger

from ehrdl.batch import DataSpec
from ehrdl.data.module import ClinicalDataModule
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.processes import signals
from ehrdl.processes.signals import interruptible
from ehrdl.processes.together import Joined, common
from ehrdl.processes.trainer import n_processes, quiet
from ehrdl.runs.digests import data_digest, weights_digest
from ehrdl.training.callbacks import keep_best, kept_score, make_callbacks
from ehrdl.training.checkpoint import AtomicCheckpoints, read, remove_strays, resumable
from ehrdl.training.lit import LitNetwork
from ehrdl.training.precision import with_plugins
from ehrdl.training.pretrain import pretrain
from ehrdl.training.progress import EpochLines
from ehrdl.training.setup import Fit, Training


def fit(
    training: Training,
    data: ClinicalDataModule,
    spec: DataSpec,
    one: Fit,
    loggers: Sequence[Logger] = (),
    start: Mapping[str, LitNetwork] | None = None,
    watch: Sequence[Callback] = (),
) -> LitNetwork:
    """Fit one network, or load it if this run has fitted it already.

    Args:
        training: the options for making and optimising the network.
        data: the datamodule with the loaders.
        spec: the data description, limited to what the network may read, such as `prepared.spec.only("note")`.
        one: the model's name, the seed, and the paths of the fit's files.
        loggers: Lightning loggers that also get the learning curves. A CSV file of the curves is always written.
        start: fitted models, by name. The network starts with the weights of their encoders; None = from scratch.
        watch: further Lightning callbacks; an exception in one of them ends the fit.

    Returns:
        The Lightning module with the fitted network.
    """
    one.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        pl.seed_everything(one.seed, workers=True, verbose=False)
        model = LitNetwork(training.network(spec), spec, training.optim)
        if _finished(one.checkpoint, model):
            return model
        _begin(model, training, data, one, start)
        shell, score = _fit(model, training, data, one, [*loggers], list(start or ()), watch)
    named = _name_of_score(spec)
    say(f"{one.stem}: {shell.current_epoch} epochs, tuning {named} {score:.3f}")
    return model


def _begin(
    model: LitNetwork,
    training: Training,
    data: ClinicalDataModule,
    one: Fit,
    start: Mapping[str, LitNetwork] | None,
) -> None:
    """Set the initial weights of a fit: from other models, from a pretrained note encoder, or random."""
    encoder = model.network.note_encoder()
    if start:
        _start_from(model, start, one.stem)
    elif training.optim.pretrain_epochs and encoder is not None:
        with interruptible():
            pretrain(encoder, data.prepared, training.optim, training.trainer, one.pretrained_notes, one.seed)
        pl.seed_everything(one.seed, workers=True, verbose=False)  # so that pretraining changes no later draw


def _fit(
    model: LitNetwork,
    training: Training,
    data: ClinicalDataModule,
    one: Fit,
    loggers: list[Logger],
    start: list[str],
    watch: Sequence[Callback],
) -> tuple[pl.Trainer, float]:
    """Fit from the beginning, or from where a killed process stopped, and write the checkpoint.

    Returns:
        The trainer, and the tuning score of the weights that were kept.
    """
    trainer = training.trainer
    remove_strays(one.folder)
    last = resumable(one.scratch, model.state_dict(), one.stem)
    n = n_processes(trainer)
    known = data_digest(data.prepared) if n > 1 else ""
    joined = Joined(
        one.model, one.seed, str(one.scratch.resolve()), str(last.resolve()) if last else None, known, start
    )
    steps = _steps_an_epoch(data, one.seed, n, trainer)
    callbacks = make_callbacks(training.optim, one.scratch, steps, trainer, model.monitor)
    curves = CSVLogger(one.folder, name="curves", version=_curves(one.folder, one.stem))
    with common(n, trainer, joined) as fitted:
        shell = _train(model, data, joined, trainer, [*callbacks, *watch], [curves, *loggers])
        fitted.weights = weights_digest(model) if n > 1 else ""
        keep_best(model, callbacks)
        model.float()  # for any precision of the fit, as a resuming run and `ehrdl predict` load it
        shell.save_checkpoint(one.checkpoint, weights_only=True)
    shutil.rmtree(one.scratch, ignore_errors=True)
    return shell, kept_score(shell, callbacks, model.monitor)


def _name_of_score(spec: DataSpec) -> str:
    """Return the name of the tuning score, given the kinds of the outputs."""
    if not spec.regression:
        return "AUPRC"
    return "R2" if len(spec.regression) == len(spec.outputs) else "score (mean of AUPRC and R2)"


def _finished(final: Path, model: LitNetwork) -> bool:
    """Tell whether an earlier process finished this fit; if so, load its weights into the model."""
    if not final.is_file():
        return False
    content = read(final)
    if content is None:
        say(f"{final}: is damaged; this fit starts again")
        final.unlink()
        return False
    model.load_state_dict(content["state_dict"])
    return True


def join_fit(
    joined: Joined,
    training: Training,
    data: ClinicalDataModule,
    specs: Mapping[str, DataSpec],
    ready: Callable[[], None],
) -> str:
    """Take part in a fit that several processes share, as a process other than the first. It writes no file.

    Args:
        joined: the settings of the fit that the first process has sent.
        training: the options for making and optimising the network.
        data: the datamodule with the loaders.
        specs: the data description for each model, by the model's name.
        ready: function that tells the first process that this one can begin.

    Returns:
        The hash of the fitted weights.

    Raises:
        ConfigError: this machine does not see the checkpoint that the first process resumes from.
    """
    joined.check()
    trainer = training.trainer
    with quiet():
        pl.seed_everything(joined.seed, workers=True, verbose=False)
        spec = specs[joined.name]
        model = LitNetwork(training.network(spec), spec, training.optim)
        if joined.start:  # for the same shapes; the first process sends all weights
            model.network.start_from([training.network(specs[name]) for name in joined.start])
        steps = _steps_an_epoch(data, joined.seed, n_processes(trainer), trainer)
        callbacks = make_callbacks(training.optim, Path(joined.scratch), steps, trainer, model.monitor)
        shown = (LearningRateMonitor, TQDMProgressBar, EpochLines)
        callbacks = [callback for callback in callbacks if not isinstance(callback, shown)]
        ready()
        shell = _train(model, data, joined, trainer | {"enable_progress_bar": False}, callbacks, [])
        weights = weights_digest(model)
        shell.save_checkpoint(joined.scratch, weights_only=True)  # only the first process writes
    return weights


def _train(
    model: LitNetwork,
    data: ClinicalDataModule,
    joined: Joined,
    trainer: dict[str, Any],
    callbacks: list[Callback],
    loggers: list[Logger],
) -> pl.Trainer:
    """Fit the model. All processes run the same code."""
    shell = pl.Trainer(
        **{"enable_progress_bar": os.isatty(2)} | with_plugins(trainer, AtomicCheckpoints()),
        logger=loggers,
        callbacks=callbacks,
        default_root_dir=joined.scratch,
    )
    with interruptible(), _whole_gradients():
        shell.fit(model, datamodule=data, ckpt_path=joined.resume, weights_only=True)
        signals.release(stop=bool(signals.pending()))  # a signal that came after the last step
    return shell


@contextmanager
def _whole_gradients() -> Iterator[None]:
    """Turn torch's error about weights without a gradient into one line that names the option."""
    try:
        yield
    except RuntimeError as error:
        if "Expected to have finished reduction in the prior iteration" in str(error):
            raise ConfigError(
                "trainer.strategy: a step leaves some weights of this network without a gradient; "
                "use ddp_find_unused_parameters_true"
            ) from None
        raise


def _steps_an_epoch(data: ClinicalDataModule, seed: int, n: int, trainer: dict[str, Any]) -> int:
    """Set the data to the fit's seed, and count the optimiser steps per epoch if `n` processes share the batches."""
    data.seed, data.trainer = seed, None
    n_batches = len(data.train_dataloader())
    if n_batches < n:
        raise ConfigError(
            f"trainer.devices: {n} processes share {n_batches} training batches; use fewer, or lower data.batch.size"
        )
    return max(1, n_batches // n // (trainer.get("accumulate_grad_batches") or 1))


def _start_from(model: LitNetwork, start: Mapping[str, LitNetwork], stem: str) -> None:
    """Take the weights of fitted models, and print a line that names them."""
    taken = model.network.start_from([other.network for other in start.values()])
    parts = [f"{name} ({', '.join(names)})" for name, names in zip(start, taken, strict=True) if names]
    say(f"{stem}: starts from {' and '.join(parts) or 'nothing, since the shapes of all encoders differ'}")


def _curves(folder: Path, stem: str) -> str:
    """Return a new folder for the learning curves, since a fit that resumes would empty its old one."""
    n_before = sum(path.name.startswith(stem) for path in (folder / "curves").glob("*"))
    return f"{stem}-part{n_before + 1}" if n_before else stem
