"""The `data` part of a configuration. Free of torch, so that the command line can read it quickly."""

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

#: Which of a sample's chunks are kept, among all chunks of its notes, oldest first.
Choice = Literal["latest", "first_and_last", "even"]
#: Sections of a verbalised record, in the order of the text.
Section = Literal["demographics", "units", "diagnoses", "procedures", "drugs", "laboratory", "vitals", "treatment"]
SECTIONS: tuple[Section, ...] = get_args(Section)
#: The largest number of items of one kind that a record names.
Most = Annotated[int, Bound("[1, inf)", "leave the section out")]


@dataclass(frozen=True)
class RecordOptions(Options, key="data.notes.record"):
    """The content of the text of a verbalised record.

    Attributes:
        sections: the sections that are written, out of demographics, units, diagnoses, procedures, drugs, laboratory,
            vitals and treatment, always in this order; drugs, units and the last three cover `window.series_hours`
            only.
        max_units: most care units named; the latest are.
        max_diagnoses: most diagnoses of earlier stays named, those of the latest stay first, in billing order.
        max_procedures: most procedures of earlier stays named, in the same order.
        max_drugs: most ordered drugs named; the latest are.
    """

    sections: Annotated[list[Section], Filled()] = field(default_factory=lambda: list(SECTIONS))
    max_units: Most = 5
    max_diagnoses: Most = 20
    max_procedures: Most = 10
    max_drugs: Most = 20


@dataclass(frozen=True)
class NoteOptions(Options, key="data.notes"):
    """The source of the notes, and how they become tokens.

    Attributes:
        source: what is read as notes: the hospital's `notes`; the `record`, one text per sample of the labs, vital
            signs, drugs and earlier diagnoses that it sees, with no note read; or `both`, that text beside the notes.
        record: the content of that text.
        tokenizer: Hugging Face tokenizer, by hub name or local folder; null fits a WordPiece one on the training notes.
        vocab_size: size of the fitted vocabulary.
        min_patients: how many training patients must have a word, a pair of words or a kind of note before it enters a
            fitted vocabulary, since one that a single patient has may be a name; 1 keeps all, and is unsafe if the
            run's folder leaves the place where the notes are kept.
        chunk_tokens: tokens per chunk, including the two that frame it; a note is read whole, in as many chunks as it
            needs.
        mask_sections: headings whose section, up to the next heading, is cut before any model reads the note, in
            discharge summaries (such as `Discharge Disposition`) and in radiology reports (such as `Impression`).
        split_sections: whether chunks never cross a heading and each knows its section: headings of discharge summaries
            (`History of Present Illness:`) and of radiology reports (`FINDINGS:`).
        keep_sections: the only sections of discharge summaries that any model reads; empty = all. An addendum without
            headings is read whole; in one with headings, `Addendum` names what was added.
        max_chunks: most chunks that a sample reads; null = all. The number of samples that were cut is counted.
        choose: which chunks are kept of a sample that has more, among all chunks of its notes, oldest first: the
            `latest`, half from the start and half from the end (`first_and_last`), or `even` steps from the first to
            the last.
        pretrained_elsewhere: whether an encoder from `ehrdl pretrain` has read another hospital's notes, so that
            subjects with equal ids are different people; otherwise such subjects may be neither tuning nor held-out
            subjects.

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
        """Refuse what cannot work, naming the key."""
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
    """How samples become batches.

    Attributes:
        size: samples per batch; only an upper limit where `tokens` is set.
        tokens: most padded observations and note tokens, together, in a batch; a longer sample is a batch of its own.
            null = batches are cut by `size` alone.
        samples_per_subject: most samples per subject in training, drawn afresh every epoch; null = all.
        num_workers: number of loader processes; on few cores they cost more time than they save.
    """

    size: Count = 64
    tokens: Count | None = None
    samples_per_subject: Count | None = None
    num_workers: Annotated[int, Bound("[0, 1024]")] = 0


@dataclass(frozen=True)
class DataConfig(Options, key="data"):
    """The source of the data, and how they become batches.

    Attributes:
        source: the hospital and the layout of its data.
        concepts: CSV of concepts (source code, unit, channel, range) in the form of the shipped one; null = those
            that the source brings, or else the shipped ones for MIMIC-IV.
        window: the time before the prediction from which features are read.
        split: which patients are for training, tuning or held out.
        notes: how notes become tokens.
        batch: how samples become batches.
        prepare: cache, memory, processes.
    """

    source: Source
    concepts: Location | None = None
    window: Window = field(default_factory=Window)
    split: Split = field(default_factory=Split)
    notes: NoteOptions = field(default_factory=NoteOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    prepare: Prepare = field(default_factory=Prepare)

    def check(self) -> None:
        """Refuse an impossible split; called before any work, since it looks at the source and at files.

        Raises:
            ConfigError: the split is the source's own but the source has none, or a split file is missing or no list.
        """
        if self.split.files is not None:
            from ehrdl.splits.files import read_split_files

            read_split_files(self.split.files, self.source.subject_of)
        if self.split.method == "source" and not self.source.has_splits():
            raise ConfigError("data.split.kind: source, but data.source has no subject_splits of its own; use subject")
