"""Masked-token pretraining of a note encoder on the training subjects' notes, before any label is used.

Labels are few and words are many. An encoder that first learns which words can replace each other needs fewer outcomes
to learn which words matter (Devlin 2019, arXiv:1810.04805; on the task's own text: Gururangan 2020, arXiv:2004.10964).
Pretraining runs once per seed. All models of the run that read notes start from its weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ehrdl.data.loading.chunks import Chunker, Chunking
from ehrdl.data.notes.store import Notes
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import whole
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.options.training import Optim
from ehrdl.processes.ranks import one_device
from ehrdl.schema import TRAIN
from ehrdl.training.checkpoint import NOWHERE, read
from ehrdl.training.precision import with_plugins
from ehrdl.training.progress import EpochLines
from ehrdl.training.schedule import warmup_cosine

#: Share of tokens that are hidden and guessed (Devlin 2019).
_MASKED = 0.15
_CHUNKS_A_BATCH = 128
#: Number of batches within which chunks are sorted by length, so that there is little padding.
_BATCHES_A_POOL = 20


def pretrain(encoder: Any, prepared: Prepared, optim: Optim, trainer: dict[str, Any], path: Path, seed: int) -> None:
    """Pretrain a note encoder in place. If this run has pretrained it already, load the weights instead.

    Args:
        encoder: an encoder with `states(tokens, valid, blank)` and `embeddings()`, such as `NoteTransformer`.
        prepared: the prepared data. All notes of training subjects are read, even notes that no sample reads.
        optim: the options `pretrain_epochs` and `pretrain_lr`.
        trainer: arguments of the Lightning trainer; only accelerator, precision and the first device are used.
        path: the file that the pretrained weights are written to, or loaded from.
        seed: random seed of the order of the notes.

    Raises:
        ConfigError: the encoder does not support this, or was pretrained before, such as a Hugging Face encoder.
    """
    _require_scratch(encoder)
    if (weights := read(path)) is not None:
        encoder.load_state_dict(weights)
        return
    notes, frame = prepared.dataset.notes, prepared.frame
    assert notes is not None and frame is not None
    chunks = Chunks(notes, frame, np.unique(prepared.samples.subject_id[prepared.samples.split == TRAIN]))
    module = MaskedTokens(encoder, optim, -(-len(chunks) // _CHUNKS_A_BATCH) * optim.pretrain_epochs)
    loader = DataLoader(chunks, batch_sampler=_Pools(chunks.lengths, seed), collate_fn=chunks.collate)
    visible = os.isatty(2) and trainer.get("enable_progress_bar", True)
    shell = pl.Trainer(
        max_epochs=optim.pretrain_epochs,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=visible,
        callbacks=[EpochLines("notes", "masked"), *([TQDMProgressBar(refresh_rate=10)] if visible else [])],
        default_root_dir=NOWHERE,
        **with_plugins(one_device(trainer)),
    )
    shell.fit(module, loader)
    encoder.float()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        torch.save({name: value.cpu() for name, value in encoder.state_dict().items()}, part)
    loss = float(shell.callback_metrics["masked"])
    say(f"notes: pretrained on {len(chunks):,} chunks of training subjects, {loss:.2f} nats a hidden token")


def check_pretraining(network: Network) -> None:
    """Check that `pretrain` accepts the note encoder of a network.

    Raises:
        ConfigError: the network has no note encoder, or `pretrain` does not accept it.
    """
    encoder = network.note_encoder()
    if encoder is None:
        name = type(network).__name__
        raise ConfigError(f"optim.pretrain_epochs: {name} has no one encoder of notes to pretrain; set it to 0")
    _require_scratch(encoder)


def _require_scratch(encoder: Any) -> None:
    if not hasattr(encoder, "states"):
        raise ConfigError(f"optim.pretrain_epochs: {type(encoder).__name__} cannot be pretrained on notes; set it to 0")
    if name := getattr(encoder, "pretrained", None):  # the rate is for random weights, and would undo the pretraining
        raise ConfigError(
            f"optim.pretrain_epochs: is for an encoder from scratch, and {name!r} is pretrained; set it to 0. "
            f"`ehrdl pretrain --from {name}` teaches a pretrained encoder the words of your notes"
        )


class MaskedTokens(pl.LightningModule):
    """Trains an encoder to guess hidden tokens. The weights of the output layer are the encoder's token embeddings."""

    def __init__(self, encoder: Any, optim: Optim, n_steps: int) -> None:
        super().__init__()
        self.encoder, self.optim, self.n_steps = encoder, optim, n_steps
        n_tokens, width = encoder.embeddings().weight.shape
        self.guess = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(n_tokens))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Hide random tokens of a batch, and return the cross-entropy of the guesses [nats per hidden token]."""
        tokens, valid = batch
        blank = (torch.rand(tokens.shape, device=tokens.device) < _MASKED) & valid
        states = self.encoder.states(tokens, valid, blank)[blank]
        logits = self.guess(states) @ self.encoder.embeddings().weight.T + self.bias
        loss = nn.functional.cross_entropy(logits.float(), tokens[blank])
        self.log("masked", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(tokens))
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimiser AdamW. Its warm-up is the option `optim.warmup`, as in the fit that follows."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.optim.pretrain_lr, weight_decay=0.01)
        return warmup_cosine(optimizer, self.n_steps, self.optim.warmup)


class Chunks(Dataset[np.ndarray]):
    """The chunks of all notes of some subjects, as a dataset. Chunks are cut in the same way as for `Batch`."""

    def __init__(self, notes: Notes, frame: Chunking, subjects: np.ndarray) -> None:
        assert notes.tokens is not None
        self.tokens, self.frame = notes.tokens, frame
        own = np.flatnonzero(np.isin(notes.owners(), subjects))
        pieces = Chunker(notes, frame).cut(own)
        self.note, self.start = np.repeat(own, pieces.n), pieces.start
        self.lengths = pieces.length + 2

    def __len__(self) -> int:
        return len(self.note)

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the token ids of one chunk, between its first and last special token."""
        start = self.start[row]
        inner = self.tokens[int(self.note[row])][start : start + self.lengths[row] - 2]
        return np.concatenate([[self.frame.cls_id], inner, [self.frame.sep_id]])

    def collate(self, chunks: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Pad C chunks to L tokens. Return the token ids (C, L), and a mask (C, L) that is False at padding."""
        tokens = np.full((len(chunks), max(map(len, chunks))), self.frame.pad_id, np.int64)
        valid = np.zeros(tokens.shape, bool)
        for i, chunk in enumerate(chunks):
            tokens[i, : len(chunk)], valid[i, : len(chunk)] = chunk, True
        return torch.from_numpy(tokens), torch.from_numpy(valid)


class _Pools(Sampler[list[int]]):
    """Batches of chunks of similar length, in a new order every epoch."""

    def __init__(self, lengths: np.ndarray, seed: int) -> None:
        self.lengths, self.seed, self.epoch = lengths, seed, 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // _CHUNKS_A_BATCH)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = rng.permutation(len(self.lengths))
        pool = _CHUNKS_A_BATCH * _BATCHES_A_POOL
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            order[start : start + pool] = rows[np.argsort(self.lengths[rows], kind="stable")]
        batches = [order[at : at + _CHUNKS_A_BATCH] for at in range(0, len(order), _CHUNKS_A_BATCH)]
        for i in rng.permutation(len(batches)):
            yield batches[i].tolist()
