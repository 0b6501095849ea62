"""Fits one network: trainer, callbacks, checkpoints. A run that was killed resumes where it stopped."""

from __future__ import annotations

import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger, Logger
from torch import Tensor

from ehrdl.batch import DataSpec
from ehrdl.data.module import ClinicalDataModule
from ehrdl.engine import say
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.training import signals
from ehrdl.training.checkpoint import AtomicCheckpoints, Resume, read, remove_strays, resumable
from ehrdl.training.config import Optim
from ehrdl.training.digests import data_digest, weights_digest
from ehrdl.training.lit import LitClassifier
from ehrdl.training.precision import with_plugins
from ehrdl.training.pretrain import pretrain
from ehrdl.training.progress import EpochLines
from ehrdl.training.ranks import check_strategy, n_processes
from ehrdl.training.signals import interruptible
from ehrdl.training.together import Joined, common
from ehrdl.training.trainer import OURS, check_arguments

#: What a user need not say. `use_distributed_sampler` is off because our batch sampler shares the batches out itself.
DEFAULTS: dict[str, Any] = {
    "max_epochs": 8,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 20,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
}
_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true")
_HALF = ("16", "16-mixed")


def check_trainer(trainer: dict[str, Any]) -> dict[str, Any]:
    """The `trainer` part of the configuration with our defaults, checked against Lightning's own signature.

    Raises:
        ConfigError: a key that Trainer does not have, a value of the wrong type, a key that ehrdl sets itself, or what
            this machine or a training run cannot do.
    """
    check_arguments(trainer)
    merged = DEFAULTS | trainer
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(pl.Trainer, "trainer", skip=set(OURS))
    for key, value in merged.items():
        try:
            parser.parse_object({"trainer": {key: value}})
        except Exception as error:  # jsonargparse raises several kinds; all mean that the value does not fit
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"trainer.{key}: {value!r} does not fit pytorch_lightning.Trainer ({reason[:200]})"
            ) from None
    _refuse_endless(merged)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of them is refused below
            shell = pl.Trainer(**merged, logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())[:300]}") from None
    if isinstance(shell.accelerator, CPUAccelerator) and str(merged.get("precision")) in _HALF:
        precision = merged["precision"]
        raise ConfigError(f"trainer.precision: {precision} needs a GPU, and this runs on the CPU; use bf16-mixed or 32")
    if shell.precision not in _PRECISIONS:
        raise ConfigError(f"trainer.precision: {shell.precision} is not one of {', '.join(_PRECISIONS)}")
    check_strategy(shell.strategy)
    return merged


def _refuse_endless(trainer: dict[str, Any]) -> None:
    """Values that Lightning takes and that train for ever."""
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs in (None, -1) and steps == -1 and trainer.get("max_time") is None:
        raise ConfigError(f"trainer.max_epochs: {epochs} never ends; give a number, or trainer.max_steps or max_time")


def fit(
    make: Callable[[DataSpec], Network],
    data: ClinicalDataModule,
    spec: DataSpec,
    optim: Optim,
    trainer: dict[str, Any],
    folder: Path,
    name: str,
    seed: int,
    loggers: Sequence[Logger] = (),
    start: Mapping[str, LitClassifier] | None = None,
    watch: Sequence[Callback] = (),
) -> LitClassifier:
    """Fit one network, or load it if this run has fitted it already.

    Args:
        make: makes the network for a spec.
        data: its loaders.
        spec: what the network may read; `prepared.spec.only("note")` for a single modality.
        optim: how it is optimised.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        folder: of the run.
        name: of the model; its final checkpoint is `checkpoints/<name>-seed<seed>.ckpt`.
        seed: of its weights, its dropout and the order of its samples.
        loggers: of its curves, beside the CSV file that is always written.
        start: fitted models, by name, whose encoders this one starts from; by default it starts from nothing.
        watch: callbacks beside our own; one that raises ends the fit.
    """
    stem = f"{name}-seed{seed}"
    final = folder / "checkpoints" / f"{stem}.ckpt"
    final.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        pl.seed_everything(seed, workers=True, verbose=False)
        model = LitClassifier(make(spec.trained(optim.auxiliary_weight)), spec, optim)
        if _finished(final, model):
            return model
        encoder = getattr(model.network, "note", None)
        if start:
            _start_from(model, start, stem)
        elif optim.pretrain_epochs and encoder is not None:
            with interruptible():
                pretrain(encoder, data.prepared, optim, trainer, pretrained_notes(folder, seed), seed)
            pl.seed_everything(seed, workers=True, verbose=False)  # the same draws follow, whoever pretrained
        scratch = folder / "checkpoints" / f".{stem}"
        remove_strays(folder)
        last = resumable(scratch, model.state_dict(), stem)
        n = n_processes(trainer)
        known = data_digest(data.prepared) if n > 1 else ""
        joined = Joined(
            name, seed, str(scratch.resolve()), str(last.resolve()) if last else None, known, list(start or ())
        )
        callbacks = _callbacks(optim, scratch, _steps_an_epoch(data, seed, n, trainer), trainer, model.monitor)
        curves = CSVLogger(folder, name="curves", version=_curves(folder, stem))
        with common(n, trainer, joined) as fitted:
            shell = _train(model, data, joined, trainer, [*callbacks, *watch], [curves, *loggers])
            fitted.weights = weights_digest(model) if n > 1 else ""
            _select(model, callbacks)
            model.float()  # whatever the fit's precision: as a run that resumes after it, and `ehrdl predict`, load it
            shell.save_checkpoint(final, weights_only=True)
        shutil.rmtree(scratch, ignore_errors=True)
    n_numbers = len(spec.regression)
    named = "R2" if n_numbers == len(spec.outputs) else "score (mean of AUPRC and R2)" if n_numbers else "AUPRC"
    say(f"{stem}: {shell.current_epoch} epochs, tuning {named} {_kept_score(shell, callbacks, model.monitor):.3f}")
    return model


def _finished(final: Path, model: LitClassifier) -> bool:
    """Whether an earlier process finished this fit: then the model has its weights."""
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
    make: Callable[[DataSpec], Network],
    data: ClinicalDataModule,
    specs: Mapping[str, DataSpec],
    optim: Optim,
    trainer: dict[str, Any],
    ready: Callable[[], None],
) -> str:
    """Take part in a fit as another process than the first; nothing is written.

    Args:
        joined: what the first process has decided.
        make: makes the network for a spec.
        data: its loaders.
        specs: what each model may read, by its name.
        optim: how it is optimised.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        ready: called when the fit can begin.

    Returns:
        The hash of the weights.

    Raises:
        ConfigError: the checkpoint that the first process resumes from is not seen here.
    """
    joined.check()
    with quiet():
        pl.seed_everything(joined.seed, workers=True, verbose=False)
        spec = specs[joined.name]
        model = LitClassifier(make(spec.trained(optim.auxiliary_weight)), spec, optim)
        if joined.start:  # of the same shapes; their weights come from the first process, with all others
            network: Any = model.network
            network.start_from([make(specs[name].trained(optim.auxiliary_weight)) for name in joined.start])
        steps = _steps_an_epoch(data, joined.seed, n_processes(trainer), trainer)
        callbacks = _callbacks(optim, Path(joined.scratch), steps, trainer, model.monitor)
        shown = (LearningRateMonitor, TQDMProgressBar, EpochLines)
        callbacks = [callback for callback in callbacks if not isinstance(callback, shown)]
        ready()
        shell = _train(model, data, joined, trainer | {"enable_progress_bar": False}, callbacks, [])
        weights = weights_digest(model)
        shell.save_checkpoint(joined.scratch, weights_only=True)  # the first process alone writes
    return weights


def _train(
    model: LitClassifier,
    data: ClinicalDataModule,
    joined: Joined,
    trainer: dict[str, Any],
    callbacks: list[Callback],
    loggers: list[Logger],
) -> pl.Trainer:
    """Fit, in all processes alike."""
    shell = pl.Trainer(
        **{"enable_progress_bar": os.isatty(2)} | with_plugins(trainer, AtomicCheckpoints()),
        logger=loggers,
        callbacks=callbacks,
        default_root_dir=joined.scratch,
    )
    with interruptible(), _whole_gradients():
        shell.fit(model, datamodule=data, ckpt_path=joined.resume, weights_only=True)
        signals.release(stop=bool(signals.pending()))  # one that came after the last step
    return shell


@contextmanager
def _whole_gradients() -> Iterator[None]:
    """What torch says of weights that a step left without a gradient, as one line that names the option."""
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
    """Optimiser steps an epoch of `n` processes, which share its batches out; the data are set to a fit's seed."""
    data.seed, data.trainer = seed, None
    n_batches = len(data.train_dataloader())
    if n_batches < n:
        raise ConfigError(
            f"trainer.devices: {n} processes share {n_batches} training batches; use fewer, or lower data.batch.size"
        )
    return max(1, n_batches // n // (trainer.get("accumulate_grad_batches") or 1))


def _start_from(model: LitClassifier, start: Mapping[str, LitClassifier], stem: str) -> None:
    """Take the weights of fitted models, and say whose."""
    taken = model.network.start_from([other.network for other in start.values()])
    parts = [f"{name} ({', '.join(names)})" for name, names in zip(start, taken, strict=True) if names]
    say(f"{stem}: starts from {' and '.join(parts) or 'nothing, since the shapes of all encoders differ'}")


def pretrained_notes(folder: Path, seed: int) -> Path:
    """The file of a seed's pretrained note encoder; needed only until the seed's last fit is done."""
    return folder / "checkpoints" / f".notes-seed{seed}.pt"


def _kept_score(shell: pl.Trainer, callbacks: list[Callback], monitor: str) -> float:
    """The monitored tuning metric of the weights that are kept: of the best epoch, or of the average at the end."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            score = float(callback.best_model_score)
            return score if math.isfinite(score) else math.nan
    return float(shell.callback_metrics.get(monitor, torch.tensor(math.nan)))


def _curves(folder: Path, stem: str) -> str:
    """A folder for the learning curves that is not there yet: a fit that goes on would empty its old one."""
    n_before = sum(path.name.startswith(stem) for path in (folder / "curves").glob("*"))
    return f"{stem}-part{n_before + 1}" if n_before else stem


def _horizon(optim: Optim, steps_an_epoch: int, trainer: dict[str, Any]) -> float:
    """How many steps the average of the weights looks back.

    A decay of 0.99 looks back 100; a short run would still hold its random start, so it looks back less.
    """
    epochs, steps = trainer["max_epochs"] or -1, trainer.get("max_steps", -1)
    ends = [n for n in (epochs * steps_an_epoch, steps) if n > 0]  # neither where `max_time` alone ends the run
    return max(2.0, min([1 / (1 - optim.ema_decay), *(n / 10 for n in ends)]))


def _moving_average(share: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An exponential average in place: torch's own makes three copies of an encoder of 100 M weights in each step."""

    def average(kept: Tensor, current: Tensor, _: Tensor) -> Tensor:
        return kept.lerp_(current.to(kept.dtype), share)

    return average


def _callbacks(
    optim: Optim, scratch: Path, steps_an_epoch: int, trainer: dict[str, Any], monitor: str = "tuning/auprc"
) -> list[Callback]:
    lines = EpochLines(scratch.name.removeprefix("."), score=monitor)
    chosen: list[Callback] = [Resume(scratch), LearningRateMonitor("step"), lines]
    if os.isatty(2) and trainer.get("enable_progress_bar", True):
        chosen.append(TQDMProgressBar(refresh_rate=10))
    if optim.selection == "averaged":
        share = 1 / _horizon(optim, steps_an_epoch, trainer)
        # Buffers stay as they are: an average would cut integer ones, such as indices of channels, to other numbers.
        return [*chosen, WeightAveraging(use_buffers=False, avg_fn=_moving_average(share))]
    best = ModelCheckpoint(dirpath=scratch, filename="best", monitor=monitor, mode="max", enable_version_counter=False)
    return [*chosen, best, Patience(monitor, mode="max", patience=optim.patience)]


class Patience(EarlyStopping):
    """Early stopping to which an epoch without a tuning score, or with an unknown one, says nothing."""

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        if not math.isnan(trainer.callback_metrics.get(self.monitor, math.nan)):
            super()._run_early_stopping_check(trainer)


def _select(model: LitClassifier, callbacks: list[Callback]) -> None:
    """Put the best tuning epoch's weights into the model; averaged weights are there already."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            if callback.best_model_score is None or not math.isfinite(callback.best_model_score):
                say("optim.selection: no epoch has a tuning score to be selected by; the last one's weights are kept")
                continue
            state = torch.load(callback.best_model_path, weights_only=True, map_location="cpu")
            model.load_state_dict(state["state_dict"])


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its advice on hardware and loaders, which our defaults have weighed."""
    loggers = [
        logging.getLogger(name)
        for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*using a custom batch sampler.*")
        warnings.filterwarnings("ignore", ".*It is recommended to use .*sync_dist=True.*")  # on one device of several
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
        warnings.filterwarnings(
            "ignore", ".*in eval mode at the start of training.*"
        )  # a frozen encoder is meant to be
        warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
