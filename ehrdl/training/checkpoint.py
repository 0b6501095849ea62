"""Checkpoints of a fit. They are written whole or not at all, and read only if they are not damaged.

Each fit has its own scratch folder for checkpoints, which no other fit reads. A fit that was stopped or killed resumes
from the last checkpoint in its scratch folder.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from ehrdl.engine.files import whole
from ehrdl.engine.messages import say
from ehrdl.processes import signals

#: Optimiser steps between two checkpoints, so that a kill loses a few minutes at most.
_CHECKPOINT_STEPS = 200
_LAST, _BEFORE = "last.ckpt", "before.ckpt"
#: Value of `default_root_dir`. It is not a folder, so that Lightning finds no checkpoint of a SLURM job there.
NOWHERE = os.devnull


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint under another name, syncs and renames it, so that no checkpoint is ever half written.

    The previous `last.ckpt` is kept as `before.ckpt`. Lightning's own class writes to the temporary folder and moves
    the file. A move to another file system is a copy, which a kill or a full disk can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as part:
            torch.save(checkpoint, part)
            if target.name == _LAST and target.is_file():
                os.replace(target, target.with_name(_BEFORE))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint. If its folder was moved, update the paths that its callbacks have saved."""
        checkpoint: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        here = os.path.realpath(Path(path).parent)
        for key, state in checkpoint.get("callbacks", {}).items():
            if "dirpath" in state:
                checkpoint["callbacks"][key] = _moved(state, state["dirpath"], here)
        return checkpoint


def _moved(value: Any, there: str, here: str) -> Any:
    """Return a callback's state with its paths changed to another folder."""
    if isinstance(value, dict):
        return {_moved(key, there, here): _moved(inner, there, here) for key, inner in value.items()}
    return here + value[len(there) :] if isinstance(value, str) and value.startswith(there) else value


class Resume(ModelCheckpoint):
    """Saves a checkpoint after an epoch's first step, at regular steps after it, and when a signal stops the fit.

    No checkpoint is saved after an epoch's last batch. Validation and the choice of the best epoch follow this batch. A
    fit that resumed from there would skip both.

    Args:
        scratch: the scratch folder of the fit.
    """

    def __init__(self, scratch: Path) -> None:
        super().__init__(dirpath=scratch, filename="last", every_n_train_steps=1, enable_version_counter=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reinstall ehrdl's signal handlers, which Lightning has replaced.

        Lightning's handlers would contact the other processes of the run in the middle of a step.
        """
        signals.take_back()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Make signals that stop the run wait until the training step is done."""
        signals.hold()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if one is due. Then stop the fit if any process of the run has received a signal."""
        stop = bool(signals.pending())
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        steps, accumulated = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if not accumulated and not is_last and (stop or (steps - 1) % _CHECKPOINT_STEPS == 0):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if stop and (is_last or not accumulated):
            signals.release(stop=True)
        elif trainer.world_size == 1 and not stop:  # otherwise the other processes would wait
            signals.release(stop=False)


def resumable(scratch: Path, weights: Mapping[str, Any], stem: str) -> Path | None:
    """Return the latest usable checkpoint, from which the fit resumes; None = the fit starts from the beginning.

    A checkpoint is unusable if it is damaged or belongs to another network. It is reported and removed.

    Args:
        scratch: the scratch folder of the fit.
        weights: the weights of the network to be fitted, by name. A usable checkpoint has the same names and shapes.
        stem: the name of the fit, for messages.
    """
    found = [path for path in (scratch / _LAST, scratch / _BEFORE) if path.is_file()]
    for i, path in enumerate(found):
        fault = _fault(read(path), weights, scratch)
        if not fault:
            return path
        then = "the checkpoint before it is used" if i + 1 < len(found) else "this fit starts again"
        say(f"{stem}: {path} {fault}; {then}")
        path.unlink()
    return None


def _fault(checkpoint: Mapping[str, Any] | None, weights: Mapping[str, Any], scratch: Path) -> str:
    """Return the reason why a fit cannot resume from a checkpoint; empty if it can."""
    if checkpoint is None or "state_dict" not in checkpoint:
        return "is damaged"
    there = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    if there != {name: tuple(value.shape) for name, value in weights.items()}:
        return "is of another network"
    states = [state for state in checkpoint.get("callbacks", {}).values() if state.get("monitor")]
    for best in [Path(state["best_model_path"]) for state in states if state.get("best_model_path")]:
        if read(scratch / best.name) is None:
            return f"needs {best.name}, which is damaged or missing"
    return ""


def read(path: Path) -> dict[str, Any] | None:
    """Read a file that `torch.save` wrote, and put its tensors on the CPU. None = the file is missing or damaged.

    Raises:
        OSError: the operating system cannot read the file.
    """
    try:
        with zipfile.ZipFile(path) as file:  # torch.load checks no checksum: a changed weight would pass
            if file.testzip() is not None:
                return None
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception:  # a damaged file can raise anything
        return None
    return content


def remove_strays(folder: Path) -> None:
    """Remove the checkpoints that Lightning wrote to the run's folder for SLURM. Otherwise any fit would load them."""
    for path in sorted(folder.glob("hpc_ckpt_*.ckpt")):
        path.unlink(missing_ok=True)
        say(f"{path}: removed; an earlier version left it there, and each fit resumes from its own checkpoint")
