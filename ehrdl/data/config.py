"""The `data` part of a configuration. It does not import torch, so that the command line can read it quickly."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from ehrdl.data.notes.sections import normalized
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError
from ehrdl.events.source import Source
from ehrdl.options.bounds import Bound, Count, Filled, Location, Options
from ehrdl.splits.subjects import Split

#: The rule for which chunks of a sample are kept. The chunks of all its notes are ordered, oldest first.
Choice = Literal["latest", "first_and_last", "even"]
#: Sections of a verbalised record, in the order of the text.
Section = Literal["demographics", "units", "diagnoses", "procedures", "drugs", "laboratory", "vitals", "treatment"]
SECTIONS: tuple[Section, ...] = get_args(Section)
#: The largest number of items of one kind in a record.
Most = Annotated[int, Bound("[1, inf)", "leave the section out")]


@dataclass(frozen=True)
class RecordOptions(Options, key="data.notes.record"):
    """The content of a verbalised record: data of a patient, written as text for a note encoder.

    Attributes:
        sections: the sections to write: demographics, units, diagnoses, procedures, drugs, laboratory, vitals and
            treatment, always in this order. Units, drugs, laboratory, vitals and treatment cover only the last
            `window.series_hours` before the prediction.
        max_units: the largest number of care units in a record. The latest units are named.
        max_diagnoses: the largest number of diagnoses of earlier stays in a record. The diagnoses of the latest stay
            come first, in billing order.
        max_procedures: the largest number of procedures of earlier stays in a record, in the same order as diagnoses.
        max_drugs: the largest number of ordered drugs in a record. The latest drugs are named.
    """

    sections: Annotated[list[Section], Filled()] = field(default_factory=lambda: list(SECTIONS))
    max_units: Most = 5
    max_diagnoses: Most = 20
    max_procedures: Most = 10
    max_drugs: Most = 20


@dataclass(frozen=True)
class NoteOptions(Options, key="data.notes"):
    """Which texts are read as notes, and how they become tokens.

    Attributes:
        source: the texts that are read as notes: the hospital's `notes`, the `record`, or `both`. A record is one text
            per sample, made from the labs, vital signs, drugs and earlier diagnoses that the sample sees.
        record: the content of the record.
        tokenizer: the Hugging Face tokenizer, by hub name or local folder; null = a WordPiece tokenizer is fitted on
            the training notes.
        vocab_size: the number of tokens in the fitted tokenizer's vocabulary.
        min_patients: the fewest training patients who must have a word, a pair of words or a kind of note before it
            enters a fitted vocabulary. A word that a single patient has may be a name. 1 keeps all words. The run's
            folder may then contain names, and must stay where the notes are kept.
        chunk_tokens: the number of tokens per chunk, including the two special tokens at its ends. A note is read
            whole, in as many chunks as it needs.
        mask_sections: headings of sections. The text below such a heading, up to the next heading, is cut before any
            model reads the note. This applies to discharge summaries (such as `Discharge Disposition`) and radiology
            reports (such as `Impression`).
        split_sections: whether notes are split at the headings of discharge summaries (`History of Present Illness:`)
            and of radiology reports (`FINDINGS:`). No chunk then crosses a heading, and the model is told the section
            of each chunk.
        keep_sections: headings of the only sections of discharge summaries that any model reads; empty = all sections.
            An addendum without headings is read whole. In an addendum with headings, `Addendum` is the heading of the
            added text.
        max_chunks: the largest number of chunks that a model reads per sample; null = all. The number of samples with
            more chunks is counted.
        choose: the chunks that are kept if a sample has more than `max_chunks`. The chunks of all its notes are
            ordered, oldest first. `latest` keeps the last, `first_and_last` half from the start and half from the end,
            and `even` chunks at even steps from the first to the last.
        pretrained_elsewhere: whether an encoder from `ehrdl pretrain` was trained on notes of another hospital. If
            true, equal subject ids mean different people. If false, the encoder must not have been trained on notes of
            a tuning or held-out subject.

    A de-identification blank, `___`, is one token in any tokenizer.
    """

    source: Literal["notes", "record", "both"] = "notes"
    record: RecordOptions = field(default_factory=RecordOptions)
    tokenizer: str | None = None
    vocab_size: Annotated[int, Bound("[100, 1000000]")] = 4000
    min_patients: Annotated[int, Bound("[1, inf)", "1 keeps every word")] = 10
    chunk_tokens: Annotated[int, Bound("[8, inf)")] = 256
    mask_sections: list[str] = field(default_factory=list)
    split_sections: bool = False
    keep_sections: list[str] = field(default_factory=list)
    max_chunks: Annotated[int, Bound("[1, inf)", "null keeps all chunks")] | None = None
    choose: Choice = "latest"
    pretrained_elsewhere: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot work; the error names the key."""
        super().__post_init__()
        if self.tokenizer is not None:
            object.__setattr__(self, "tokenizer", os.path.expanduser(self.tokenizer))
        if self.choose != "latest" and self.max_chunks is None:
            raise ConfigError(f"data.notes.choose: {self.choose} cuts nothing without data.notes.max_chunks; set that")
        for section in self.keep_sections:
            if normalized(section) in map(normalized, self.mask_sections):
                raise ConfigError(f"data.notes.keep_sections: {section!r} is among data.notes.mask_sections too")
        for key in ("mask_sections", "keep_sections"):
            for section in getattr(self, key):
                if not section.strip() or section.strip().endswith(":"):
                    raise ConfigError(
                        f"data.notes.{key}: {section!r} is no header; give its words without the colon, "
                        "such as Discharge Disposition"
                    )


@dataclass(frozen=True)
class BatchOptions(Options, key="data.batch"):
    """The options by which samples become batches.

    Attributes:
        size: the number of samples per batch. If `tokens` is set, a batch may have fewer.
        tokens: the largest number of padded observations plus padded note tokens in a batch. A sample with more is a
            batch of its own. null = only `size` limits a batch.
        samples_per_subject: the largest number of samples per subject in training, drawn anew in every epoch; null =
            all.
        num_workers: the number of processes that load batches; 0 = no further process. With few cores, these processes
            cost more time than they save.
    """

    size: Count = 64
    tokens: Count | None = None
    samples_per_subject: Count | None = None
    num_workers: Annotated[int, Bound("[0, 1024]")] = 0


@dataclass(frozen=True)
class DataConfig(Options, key="data"):
    """The source of the data, and the options by which they become batches.

    Attributes:
        source: the class that reads the hospital's data, with its arguments.
        concepts: a CSV file that maps source codes and units to channels with plausible ranges, in the form of the
            shipped `ehrdl/clinical/concepts.csv`. null = the source's own file. If the source has none, the shipped
            file for MIMIC-IV is used.
        window: the time before the prediction from which features are read.
        split: the rule that makes each patient a training, tuning or held-out patient.
        notes: which texts are read as notes, and how they become tokens.
        batch: how samples become batches.
        prepare: the cache, memory and processes of data preparation.
    """

    source: Source
    concepts: Location | None = None
    window: Window = field(default_factory=Window)
    split: Split = field(default_factory=Split)
    notes: NoteOptions = field(default_factory=NoteOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    prepare: Prepare = field(default_factory=Prepare)

    def check(self) -> None:
        """Check, before any work is done, that the source and the split files allow the requested split.

        Raises:
            ConfigError: the source's own split is requested but the source has none, or a split file is missing or
                invalid.
            LeakageError: a record is in two split files.
        """
        if self.split.files is not None:
            from ehrdl.splits.files import read_split_files

            read_split_files(self.split.files, self.source.subject_of)
        if self.split.method == "source" and not self.source.has_splits():
            raise ConfigError("data.split.kind: source, but data.source has no subject_splits of its own; use subject")
