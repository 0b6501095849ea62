"""All that is fitted before training, on training subjects alone: the tokenizer, and the scalers of series and statics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ehrdl.batch import ChannelSpec
from ehrdl.data.notes import Notes, bodies
from ehrdl.data.store import Store
from ehrdl.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Raised whenever `fit_tokenizer` would write another tokenizer for the same notes.
VERSION = 1

#: What the de-identification of MIMIC leaves in place of a name or date; one token.
DEIDENTIFIED = "___"
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_FACTS_A_BLOCK = 1 << 22


def fit_tokenizer(notes: Notes, train_subjects: np.ndarray, vocab_size: int, out: Path) -> None:
    """Fit a lower-casing WordPiece tokenizer on the training subjects' notes and save it as a Hugging Face folder."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    owner = np.repeat(notes.subjects, np.diff(notes.offsets))
    keep = np.isin(owner, train_subjects)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    blank = AddedToken(DEIDENTIFIED, normalized=False, special=True)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, show_progress=False, special_tokens=[*_SPECIAL.values(), blank]
    )
    texts: Iterator[list[str]] = bodies(notes, keep)
    tokenizer.train_from_iterator(texts, trainer=trainer)
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL).save_pretrained(str(out))


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerFast:
    """A Hugging Face fast tokenizer by hub name or local folder.

    Raises:
        ConfigError: it is not there, has no fast form, or lacks the tokens that frame a chunk.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"data.notes.tokenizer: {name_or_path!r} cannot be loaded ({reason})") from None
    if not tokenizer.is_fast:
        raise ConfigError(f"data.notes.tokenizer: {name_or_path!r} has no fast tokenizer; choose one that has")
    for token in ("pad_token_id", "cls_token_id", "sep_token_id"):
        if getattr(tokenizer, token) is None:
            raise ConfigError(f"data.notes.tokenizer: {name_or_path!r} has no {token.removesuffix('_id')}")
    return tokenizer


def fit_channels(store: Store, train_subjects: np.ndarray) -> tuple[ChannelSpec, ...]:
    """Mean and standard deviation of each numeric channel over the facts of the training subjects.

    A channel without a training fact keeps mean 0 and standard deviation 1. Sums run in float64, a block at a time.
    """
    n = len(store.channels)
    total, square, count = np.zeros(n), np.zeros(n), np.zeros(n)
    train = np.isin(store.subjects, train_subjects)
    for start, stop in _blocks(store.offsets, train):
        channel, value = store.channel[start:stop], store.value[start:stop].astype(np.float64)
        count += np.bincount(channel, minlength=n)
        total += np.bincount(channel, value, minlength=n)
        square += np.bincount(channel, value * value, minlength=n)
    seen = np.maximum(count, 1)
    mean = total / seen
    std = np.sqrt(np.maximum(square / seen - mean**2, 0))
    scaled = []
    for i, channel in enumerate(store.channels):
        numeric = channel.kind == "numeric" and count[i] > 0
        fitted = (float(mean[i]), float(std[i]) or 1.0) if numeric else (0.0, 1.0)
        low, high = (channel.low, channel.high) if channel.kind == "numeric" else (1.0, 1.0)
        scaled.append(ChannelSpec(channel.name, channel.kind, channel.unit, *fitted, low, high))
    return tuple(scaled)


def _blocks(offsets: np.ndarray, keep: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of kept subjects as [start, stop), cut so that none is much longer than a block."""
    start = stop = None
    for i in np.flatnonzero(keep):
        if stop == offsets[i] and stop - start < _FACTS_A_BLOCK:
            stop = int(offsets[i + 1])
            continue
        if start is not None and stop is not None:
            yield start, stop
        start, stop = int(offsets[i]), int(offsets[i + 1])
    if start is not None and stop is not None:
        yield start, stop
