"""Collects and tokenises notes and verbalised records, as a part of `prepare`. Each step is cached."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrdl.clinical.concepts import Concepts
from ehrdl.data.config import DataConfig
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.notes import build as notes_build
from ehrdl.data.notes import store as notes
from ehrdl.data.notes import vocabulary as vocab
from ehrdl.data.record import coded
from ehrdl.data.record import store as records
from ehrdl.data.record import text as verbalize
from ehrdl.engine.cache import cached
from ehrdl.engine.files import digest, read_json
from ehrdl.engine.messages import say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: A folder of texts, and its cache key.
Texts = tuple[Path, dict[str, Any]]


def training_notes(
    data: DataConfig, events: Path, train_subjects: np.ndarray, own: Texts | None
) -> tuple[notes.Notes | None, Chunking | None, str | None]:
    """Tokenise the notes with the configured tokenizer, or with one that is fitted on the training subjects' notes.

    Args:
        data: the configuration of the data. Its part `notes` defines which texts are read.
        events: the EVENTS folder.
        train_subjects: the training subjects. The tokenizer and the kinds of notes are fitted only on their notes.
        own: the folder and cache key of the samples' verbalised records, from `collect_records`; None = no records.

    Returns:
        The tokenised notes, the rules by which they become chunks, and the tokenizer's folder. All three are None if
        there are no notes.
    """
    opened = _open(data, events, own)
    if opened is None:
        return None, None, None
    key: dict[str, Any] = {} if own is None else {"records": own[1]}
    if data.notes.source != "record":
        texts, of_notes = collect_notes(data, events)
        key |= of_notes
        if opened.first_record:
            _say_sections(read_json(texts / "sections.json"))
    name = str(_tokenizer(data, opened, key, train_subjects))
    words, frame = tokenized(data, events, name, own)
    assert words is not None
    return words, replace(frame, kinds=vocab.fit_kinds(words, train_subjects, data.notes.min_patients)), name


def _tokenizer(data: DataConfig, opened: notes.Notes, key: dict[str, Any], train_subjects: np.ndarray) -> Path:
    """Return the folder of the tokenizer: the given one, adapted to these notes, or one fitted on training notes."""
    if data.notes.tokenizer is not None:
        given = vocab.load_tokenizer(data.notes.tokenizer)

        def save(out: Path) -> None:
            given.save_pretrained(str(out))

        return cached(data.prepare, "tokenizer", {"given": digest(given.backend_tokenizer.to_str())}, save)
    size, least = data.notes.vocab_size, data.notes.min_patients
    key = key | {"subjects": digest(train_subjects.tolist()), "vocab_size": size, "min_patients": least}
    key |= {"fit": vocab.VERSION}
    build = functools.partial(vocab.fit_tokenizer, opened, train_subjects, size, min_patients=least)
    folder = cached(data.prepare, "tokenizer", key, build)
    found = read_json(folder / vocab.VOCABULARY)
    say(
        f"notes: the vocabulary is learned from the {found['words']:,} words that at least {least} training patients "
        f"have; {found['words_left_out']:,} words of fewer are left out (data.notes.min_patients)"
    )
    return folder


def _say_sections(found: dict[str, dict[str, int]]) -> None:
    for section, n_notes in found["masked"].items():
        if not n_notes:
            say(
                f"data.notes.mask_sections: no discharge summary or radiology report has the section {section!r}; "
                "nothing was cut for it"
            )
        else:
            say(f"notes: section {section!r} cut from {n_notes:,} discharge summaries and radiology reports")
    for section, n_summaries in found["kept"].items():
        if not n_summaries:
            say(f"data.notes.keep_sections: no discharge summary has the section {section!r}")
        else:
            say(f"notes: section {section!r} kept of {n_summaries:,} discharge summaries")
    for code, n_notes in found["left_out"].items():
        say(f"notes: {n_notes:,} {code} have none of data.notes.keep_sections and are left out")


def collect_notes(data: DataConfig, events: Path) -> Texts:
    """Write the texts of the notes, unless they are in the cache. Return their folder and its cache key."""
    mask, keep = sorted(set(data.notes.mask_sections)), sorted(set(data.notes.keep_sections))
    key: dict[str, Any] = {"events": events.name, "version": notes_build.VERSION}
    key |= {"mask_sections": mask, "keep_sections": keep}
    build = functools.partial(notes_build.collect, events, prepare=data.prepare, mask_sections=mask, keep_sections=keep)
    return cached(data.prepare, "notes", key, build, resume=True), key


def collect_records(
    data: DataConfig, events: Path, known: Concepts, dataset: SampleDataset, hidden_codes: tuple[str, ...]
) -> Texts | None:
    """Write one verbalised record per sample, unless they are in the cache. Return their folder and its cache key.

    Args:
        data: the configuration of the data.
        events: the EVENTS folder.
        known: the concepts, which map source codes to channels.
        dataset: the dataset of the samples, without notes.
        hidden_codes: prefixes of codes that define the outcome. No record names a fact with such a code.

    Returns:
        The folder and its cache key; None if the configuration reads no records.
    """
    if data.notes.source == "notes":
        return None
    build = functools.partial(coded.build, events, prepare=data.prepare)
    facts = cached(data.prepare, "coded", {"events": events.name, "version": coded.VERSION}, build)
    key = {
        "coded": facts.name,
        "concepts": digest(known.frame.to_csv()),
        "samples": hashlib.sha256(np.stack([dataset.subject, dataset.time]).tobytes()).hexdigest(),
        "window": asdict(data.window),
        "options": asdict(data.notes.record),
        "channels": digest([(channel.name, channel.kind, channel.unit) for channel in dataset.channels]),
        "hidden_codes": sorted(hidden_codes),
        "version": verbalize.VERSION,
    }

    def write(out: Path) -> None:
        opened = coded.open_coded(facts)
        records.write(verbalize.Verbalizer(dataset, opened, data.notes.record, hidden_codes), out)

    return cached(data.prepare, "records", key, write), key


def tokenized(
    data: DataConfig, events: Path, tokenizer: str, own: Texts | None = None
) -> tuple[notes.Notes | None, Chunking]:
    """Return the notes of an EVENTS folder as token ids, and the rules by which they become chunks.

    Args:
        data: the configuration of the data. Its part `notes` defines which texts are read, and how they are cut.
        events: the EVENTS folder.
        tokenizer: the hub name or folder of the tokenizer.
        own: the folder and cache key of the samples' verbalised records, from `collect_records`; None = no records.

    Returns:
        The tokenised notes (None if there are none), and the rules for chunks.
    """
    words, options = vocab.load_tokenizer(tokenizer), data.notes
    ids = words.pad_token_id, words.cls_token_id, words.sep_token_id
    frame = Chunking(*ids, options.chunk_tokens, options.max_chunks, options.choose)
    return _open(data, events, own, words), frame


def _open(
    data: DataConfig, events: Path, own: Texts | None, tokenizer: PreTrainedTokenizerFast | None = None
) -> notes.Notes | None:
    """Open the texts that are read as notes, with their tokens if a tokenizer is given; None if there are none."""

    def opened(texts: Path, key: dict[str, Any]) -> notes.Notes:
        found = notes.open_notes(texts)
        if tokenizer is None or not len(found):
            return found
        by_section = data.notes.split_sections
        key = key | {"tokenizer": digest(tokenizer.backend_tokenizer.to_str()), "by_section": by_section}
        build = functools.partial(notes_build.tokenize, found, tokenizer, prepare=data.prepare, by_section=by_section)
        return notes.open_notes(texts, cached(data.prepare, "tokens", key, build, resume=True))

    hospital = None if data.notes.source == "record" else opened(*collect_notes(data, events))
    if own is not None:
        return notes.with_records(hospital, opened(*own))
    return hospital if hospital is not None and len(hospital) else None
