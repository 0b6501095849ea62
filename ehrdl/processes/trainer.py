"""Checks the arguments of the Lightning Trainer, and counts the processes that they request."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import CPUAccelerator

from ehrdl.errors import ConfigError
from ehrdl.options.trainer import OURS, check_arguments

_STRATEGIES = "auto, ddp, ddp_find_unused_parameters_true, ddp_find_unused_parameters_false"


def n_processes(trainer: dict[str, Any]) -> int:
    """Return the number of processes with which a Lightning Trainer trains: one for each device of each node.

    Args:
        trainer: arguments of the Trainer, from `check_trainer`.
    """
    with quiet():
        shell = pl.Trainer(**trainer, logger=False, enable_checkpointing=False)
    return int(shell.num_devices * shell.num_nodes)


def check_strategy(strategy: Any) -> None:
    """Check that a strategy starts each process by a command, so that the first process can lead the others.

    Args:
        strategy: the strategy of a Lightning Trainer.

    Raises:
        ConfigError: it starts processes in another way, such as by forking.
    """
    from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

    by_command = type(strategy) is DDPStrategy and strategy._start_method == "popen"
    if not (by_command or isinstance(strategy, SingleDeviceStrategy)):
        named = getattr(strategy, "_start_method", "")
        how = f" with start_method {named}" if named else ""
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__}{how} is not supported; choose one of {_STRATEGIES}"
        )


#: Our defaults. `use_distributed_sampler` is off because our batch sampler distributes the batches itself.
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
    """Add ehrdl's defaults to the `trainer` part of the configuration, check all values, and return them.

    Raises:
        ConfigError: a key does not exist or is set by ehrdl itself, a value has the wrong type, or a value cannot work
            on this machine or in a training run.
    """
    check_arguments(trainer)
    merged = DEFAULTS | trainer
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(pl.Trainer, "trainer", skip=set(OURS))
    for key, value in merged.items():
        try:
            parser.parse_object({"trainer": {key: value}})
        except Exception as error:  # jsonargparse raises several kinds for a wrong value
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"trainer.{key}: {value!r} does not fit pytorch_lightning.Trainer ({reason[:200]})"
            ) from None
    _refuse_endless(merged)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that matter are refused below
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
    """Refuse values that Lightning accepts, but that would train for ever."""
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs in (None, -1) and steps == -1 and trainer.get("max_time") is None:
        raise ConfigError(f"trainer.max_epochs: {epochs} never ends; give a number, or trainer.max_steps or max_time")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's advice on hardware and data loaders within the block, since ehrdl's defaults consider it."""
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
