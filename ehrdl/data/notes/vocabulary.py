"""Fits the tokenizer, the kinds of notes and the scalers of the series, on data of training subjects only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrdl.batch import ChannelSpec
from ehrdl.data.notes.blanks import with_blanks
from ehrdl.data.notes.shared_words import shared_words
from ehrdl.data.notes.store import OTHER, Notes, kind_name
from ehrdl.data.series.store import Store
from ehrdl.engine.files import write_json
from ehrdl.engine.hub import reason, report_code
from ehrdl.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

#: Increased whenever `fit_tokenizer` would write another tokenizer for the same notes.
VERSION = 5

#: The default for the number of training patients who must have a word.
MIN_PATIENTS = 10
#: The file in a fitted tokenizer's folder with the number of words from which it was learned.
VOCABULARY = "vocabulary.json"

#: The blank that MIMIC's de-identification leaves in place of a name or date; one token.
DEIDENTIFIED = "___"
_SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
_FACTS_A_BLOCK = 1 << 22
#: The fewest training notes for a kind of note or section to get an embedding of its own.
_COMMON = 20
#: A standard deviation this small relative to the mean is rounding: float32 values keep seven digits.
_CONSTANT = 1e-6


def fit_tokenizer(
    notes: Notes, train_subjects: np.ndarray, vocab_size: int, out: Path, min_patients: int = MIN_PATIENTS
) -> None:
    """Fit a lower-casing WordPiece tokenizer on the training subjects' notes, and save it in Hugging Face format.

    The tokenizer is learned only from words that occur in the notes of at least `min_patients` training subjects. It
    splits every other word into pieces. The number of words from which it was learned is written to `vocabulary.json`
    in the folder `out`.

    The trainer numbers the letters inside words (`##a`) in the order of a hash map, which differs from run to run.
    These numbers decide ties between merges. Passing the letters as special tokens fixes their numbers, so that equal
    notes give equal files.

    Raises:
        ConfigError: no word occurs in the notes of `min_patients` training subjects.
    """
    from tokenizers import Tokenizer, models, trainers

    draft = _wordpiece(Tokenizer(models.WordPiece(unk_token="[UNK]")))
    words = shared_words(notes, train_subjects, draft, min_patients)
    if not words.counts:
        raise ConfigError(
            f"data.notes.min_patients: no word stands in the notes of {min_patients} training patients, of whom "
            f"{words.n_patients} have notes; use more patients, or a lower number: 1 puts words that one patient alone "
            "has into the run's folder"
        )
    first = [*_SPECIAL.values(), DEIDENTIFIED]
    inner = [f"##{letter}" for letter in _inner_letters(draft, words.characters())]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, show_progress=False, special_tokens=first + inner
    )
    draft.train_from_iterator(words.texts(), trainer=trainer)
    _save(draft.get_vocab(), out)
    found = {"min_patients": min_patients, "patients": words.n_patients, "words": len(words.counts)}
    write_json(out / VOCABULARY, found | {"words_left_out": words.n_left_out})


def _wordpiece(tokenizer: Tokenizer) -> Tokenizer:
    from tokenizers import decoders, normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _inner_letters(tokenizer: Tokenizer, characters: list[str]) -> list[str]:
    """Return the characters that can occur inside a word; blanks and punctuation cannot."""
    return [c for c in characters if len(tokenizer.pre_tokenizer.pre_tokenize_str(f"a{c}a")) == 1]


def _save(vocabulary: dict[str, int], out: Path) -> None:
    """Save a tokenizer with this vocabulary in which only the true special tokens are special."""
    from tokenizers import AddedToken, Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = _wordpiece(Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]")))
    tokenizer.add_special_tokens([*_SPECIAL.values(), AddedToken(DEIDENTIFIED, normalized=False, special=True)])
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)  # type: ignore[no-untyped-call]
    whole.save_pretrained(str(out))


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerFast:
    """Load a Hugging Face fast tokenizer by hub name or local folder.

    The returned tokenizer reads the de-identification blank `___` as one token. Code that comes with a tokenizer is
    never run.

    Raises:
        ConfigError: the tokenizer is missing, needs code of its own, has no fast form, or lacks a token for padding or
            for the start or end of a chunk.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"data.notes.tokenizer: {name_or_path!r} cannot be loaded ({reason(error)})") from None
    report_code("data.notes.tokenizer", name_or_path, tokenizer.init_kwargs.get("auto_map"))
    if not tokenizer.is_fast:
        raise ConfigError(f"data.notes.tokenizer: {name_or_path!r} has no fast tokenizer; choose one that has")
    for token in ("pad_token_id", "cls_token_id", "sep_token_id"):
        if getattr(tokenizer, token) is None:
            raise ConfigError(f"data.notes.tokenizer: {name_or_path!r} has no {token.removesuffix('_id')}")
    return with_blanks(tokenizer)


def fit_kinds(notes: Notes, train_subjects: np.ndarray, min_patients: int = MIN_PATIENTS) -> tuple[str, ...]:
    """Return the kinds of note text that a model can learn to distinguish.

    The first is `other`. It is followed by the kinds that are frequent in the notes of training subjects.

    Args:
        notes: the tokenised notes. A kind is a type of note, or a section of a type of note if the notes were split.
        train_subjects: subject_id of the training subjects.
        min_patients: the fewest training subjects that must have a kind, since a heading can be a name.
    """
    if notes.code is None:
        return (OTHER,)
    owner = notes.owners()
    keep = np.isin(owner, train_subjects)
    code, name = notes.code, np.zeros(len(notes), np.int64)
    names: tuple[str, ...] = ("",)
    if notes.sections is not None:
        n_sections = np.diff(notes.sections.offsets)
        code, keep, owner = (np.repeat(column, n_sections) for column in (code, keep, owner))
        name, names = notes.sections.name, notes.sections.names
    kind, n_kinds = code[keep] * np.int64(len(names)) + name[keep], len(notes.codes) * len(names)
    count = np.bincount(kind, minlength=n_kinds)
    _, who = np.unique(owner[keep], return_inverse=True)
    patients = np.bincount(np.unique(who * np.int64(n_kinds) + kind) % n_kinds, minlength=n_kinds)
    common = [divmod(int(i), len(names)) for i in np.flatnonzero((count >= _COMMON) & (patients >= min_patients))]
    return (OTHER, *sorted(kind_name(notes.codes[i], names[j]) for i, j in common))


def fit_channels(store: Store, train_subjects: np.ndarray, hidden: np.ndarray) -> tuple[ChannelSpec, ...]:
    """Return the channels that a model can learn from, with the mean and standard deviation over training subjects.

    Hidden channels, and channels that no training subject has, are left out. A channel without training data would cost
    time, and nothing could be learned from it. Sums are computed in float64, a block at a time.

    Args:
        store: the series store.
        train_subjects: subject_id of the training subjects.
        hidden: (n_channels,) bool, true for the channels that no model may see.
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
    std[std <= _CONSTANT * np.abs(mean)] = 0  # all values are equal, apart from the rounding of the sums
    scaled = []
    for i, known in enumerate(store.channels):
        if hidden[i] or not count[i]:
            continue
        numeric = known.kind == "numeric"
        fitted = (float(mean[i]), float(std[i]) or 1.0) if numeric else (0.0, 1.0)
        low, high = (known.low, known.high) if numeric else (1.0, 1.0)
        scaled.append(ChannelSpec(known.name, known.kind, known.unit, *fitted, low, high))
    return tuple(scaled)


def _blocks(offsets: np.ndarray, keep: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the facts of kept subjects as runs [start, stop), each not much longer than a block."""
    start = stop = 0
    for i in np.flatnonzero(keep):
        first = int(offsets[i])
        if first != stop or stop - start >= _FACTS_A_BLOCK:
            if stop > start:
                yield start, stop
            start = first
        stop = int(offsets[i + 1])
    if stop > start:
        yield start, stop
