"""Domain pretraining: masked language modelling of notes by a Hugging Face encoder (Devlin 2019, arXiv:1810.04805).

Masks and dropout depend only on the seed, the epoch and the batch number, so a killed run resumes as if it had never
stopped. A batch of C chunks of L tokens has input_ids, attention_mask and labels, each (C, L) int64. The label -100
marks a token that is not to be guessed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from torch import Tensor, nn
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, PreTrainedTokenizerFast

from ehrdl.data.loading.sampler import LengthBuckets, Loader
from ehrdl.engine.messages import say
from ehrdl.models.notes.masked import guess
from ehrdl.options.training import Pretraining
from ehrdl.processes import signals
from ehrdl.processes.ranks import one_device
from ehrdl.processes.signals import interruptible
from ehrdl.processes.together import Joined, common
from ehrdl.processes.trainer import n_processes, quiet
from ehrdl.runs.digests import weights_digest
from ehrdl.training.checkpoint import NOWHERE, AtomicCheckpoints, Resume, resumable
from ehrdl.training.pretrain import Chunks
from ehrdl.training.schedule import n_steps, warmup_cosine

#: A batch is padded to a multiple of this many tokens.
_STEP = 8
#: The purposes of random numbers; each has its own stream.
_TRAIN_MASKS, _TUNING_MASKS, _DROPOUT = range(3)


class MaskedNotes(pl.LightningDataModule):
    """The data loaders of pretraining. Their batches are chunks of notes in which some tokens are masked.

    Args:
        train: the chunks to train on.
        tuning: the chunks on which the reported loss is computed. The same tokens are masked in every pass.
        words: the tokenizer.
        options: the options of pretraining, of which the size of a batch, the masks and the seed are used.
    """

    def __init__(self, train: Chunks, tuning: Chunks, words: PreTrainedTokenizerFast, options: Pretraining) -> None:
        super().__init__()
        self.train, self.tuning, self.words, self.options = train, tuning, words, options

    def train_dataloader(self) -> Loader:
        """Return the loader of the training chunks, in a new order every epoch. Each process reads its own part."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(self.train, np.arange(len(self.train)), True, rank, world_size)

    def val_dataloader(self) -> Loader:
        """Return the loader of the tuning chunks, each once, sorted by length."""
        return self._loader(self.tuning, np.argsort(self.tuning.lengths, kind="stable"), False)

    def _loader(self, chunks: Chunks, rows: np.ndarray, shuffle: bool, rank: int = 0, world_size: int = 1) -> Loader:
        length = chunks.lengths[rows]
        fits = _fitting(chunks.lengths, self.options.tokens)
        most = max(1, 2 * self.options.tokens // max(1, int(length.mean())))
        options = self.options
        buckets = LengthBuckets(rows, length, rows, most, shuffle, None, options.seed, rank, world_size, fits=fits)
        return _MaskedLoader(chunks, buckets, self.words, options)


def _fitting(lengths: np.ndarray, n_tokens: int) -> Callable[[np.ndarray], int]:
    """Return a function that counts how many of the first chunks fit into a batch of `n_tokens` tokens with padding.

    It returns at least one.
    """

    def fits(rows: np.ndarray) -> int:
        longest = -(-np.maximum.accumulate(lengths[rows]) // _STEP) * _STEP
        return max(1, int(np.searchsorted(longest * np.arange(1, len(rows) + 1), n_tokens, side="right")))

    return fits


class _MaskedLoader(Loader):
    """Masks each batch with its own random numbers."""

    def __init__(
        self, chunks: Chunks, buckets: LengthBuckets, words: PreTrainedTokenizerFast, options: Pretraining
    ) -> None:
        self.seed, self.special = options.seed, np.array(words.all_special_ids)
        self.masker = DataCollatorForLanguageModeling(
            words, mlm_probability=options.mask_share, pad_to_multiple_of=_STEP
        )
        self.random = self.masker.generator = torch.Generator()
        super().__init__(chunks, batch_sampler=buckets, collate_fn=self._mask)

    def _mask(self, chunks: list[np.ndarray]) -> dict[str, Tensor]:
        place = (
            (_TRAIN_MASKS, self.buckets.epoch, self._read, self.buckets.rank)
            if self.buckets.shuffle
            else (_TUNING_MASKS, self._read)
        )
        self.random.manual_seed(_number(self.seed, *place))
        examples = [
            {
                "input_ids": chunk.tolist(),
                "attention_mask": [1] * len(chunk),
                "special_tokens_mask": np.isin(chunk, self.special).astype(int).tolist(),
            }
            for chunk in chunks
        ]
        return dict(self.masker(examples))


def _number(*key: int) -> int:
    """Return a random seed that depends only on the numbers in `key`."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class LitMasked(pl.LightningModule):
    """Trains a masked language model to guess the tokens that `MaskedNotes` masked.

    Args:
        model: the masked language model.
        options: the options of the optimiser; `lr` must not be null.
    """

    def __init__(self, model: PreTrainedModel, options: Pretraining) -> None:
        super().__init__()
        self.model, self.options = model, options

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the random seed of dropout for this batch, from the epoch, the batch number and the process."""
        place = (self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(_number(self.options.seed, _DROPOUT, *place))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Return the cross-entropy of the masked tokens of a training batch [nats per token], and log it."""
        loss, _ = self._loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        """Log the cross-entropy of the masked tokens of a batch of tuning notes [nats per token]."""
        loss, n_hidden = self._loss(batch)
        # weighted so that the mean is over the hidden tokens of all batches
        self.log("tuning/loss", loss, prog_bar=True, batch_size=max(1, n_hidden), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Print the number of the epoch and its loss on the tuning notes."""
        if self.trainer.state.fn == "fit" and self.trainer.is_global_zero:
            loss = float(self.trainer.callback_metrics["tuning/loss"])
            say(f"epoch {self.current_epoch + 1}: {loss:.3f} nats a hidden token of the tuning notes")

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        asked = batch["labels"] != -100
        logits = guess(self.model, batch["input_ids"], batch["attention_mask"], asked)
        label = batch["labels"][asked]
        return nn.functional.cross_entropy(logits.float(), label, reduction="sum") / max(1, len(label)), len(label)

    def configure_optimizers(self) -> Any:
        """Return the optimiser AdamW with a linear warm-up and a cosine decay to zero, updated at each step."""
        words = {id(p) for m in self.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        decays: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in self.parameters():
            decays[parameter.ndim > 1 and id(parameter) not in words].append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decays[True], "weight_decay": self.options.weight_decay},
            {"params": decays[False], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.options.lr or 0.0)
        return warmup_cosine(optimizer, n_steps(self.trainer), self.options.warmup)


def fit_masked(module: LitMasked, data: MaskedNotes, trainer: dict[str, Any], scratch: Path, key: str) -> None:
    """Train a masked language model. If the folder `scratch` has a checkpoint, resume from it.

    Args:
        module: the module to train, changed in place.
        data: the loaders of the notes.
        trainer: the arguments of the Lightning trainer, from `check_trainer`.
        scratch: the folder of the checkpoint.
        key: the hash of the training data. Each other process compares it with the hash of its own data.
    """
    last = resumable(scratch, module.state_dict(), "pretraining")
    n, resume = n_processes(trainer), str(last.resolve()) if last else None
    joined = Joined("pretraining", module.options.seed, str(scratch.resolve()), resume, key)
    with common(n, trainer, joined) as fitted:
        _train(module, data, trainer, joined, _bar(trainer))
        fitted.weights = weights_digest(module) if n > 1 else ""


def join_masked(
    module: LitMasked, data: MaskedNotes, trainer: dict[str, Any], joined: Joined, ready: Callable[[], None]
) -> str:
    """Take part in a pretraining as a process other than the first, and write nothing.

    Args:
        module: the module to train, changed in place.
        data: the loaders of the notes.
        trainer: the arguments of the Lightning trainer, from `check_trainer`.
        joined: what the first process decided about this fit, such as the checkpoint to resume from.
        ready: a function to call when this process is ready to train.

    Returns:
        The hash of the trained weights.
    """
    joined.check()
    ready()
    _train(module, data, trainer | {"enable_progress_bar": False}, joined, [])
    return weights_digest(module)


def _train(
    module: LitMasked, data: MaskedNotes, trainer: dict[str, Any], joined: Joined, shown: list[Callback]
) -> None:
    with quiet(), interruptible():
        shell = pl.Trainer(
            **{"enable_progress_bar": os.isatty(2)} | trainer,
            logger=False,
            callbacks=[Resume(Path(joined.scratch)), *shown],
            default_root_dir=joined.scratch,
            plugins=[AtomicCheckpoints()],
        )
        shell.fit(module, datamodule=data, ckpt_path=joined.resume, weights_only=True)
        signals.release(stop=bool(signals.pending()))


def tuning_loss(module: LitMasked, data: MaskedNotes, trainer: dict[str, Any]) -> float:
    """Return the cross-entropy of the masked tokens of all tuning notes, computed on one device [nats per token]."""
    with quiet(), interruptible():
        shell = pl.Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=os.isatty(2) and trainer.get("enable_progress_bar", True),
            callbacks=_bar(trainer),
            default_root_dir=NOWHERE,
            **one_device(trainer),
        )
        [found] = shell.validate(module, datamodule=data, verbose=False)
    return float(found["tuning/loss"])


def _bar(trainer: dict[str, Any]) -> list[Callback]:
    visible = os.isatty(2) and trainer.get("enable_progress_bar", True)
    return [TQDMProgressBar(refresh_rate=10)] if visible else []
