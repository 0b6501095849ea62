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

#: Which chunks of a sample are kept, of all chunks of its notes from the oldest on.
Choice = Literal["latest", "first_and_last", "even"]
#: Sections of a verbalised record, in the order of the text.
Section = Literal["demographics", "units", "diagnoses", "procedures", "drugs", "laboratory", "vitals", "treatment"]
SECTIONS: tuple[Section, ...] = get_args(Section)
#: The most of one kind that a record names.
Most = Annotated[int, Bound("[1, inf)", "leave the section out")]


@dataclass(frozen=True)
class RecordOptions(Options, key="data.notes.record"):
    """What the text of a verbalised record holds.

    Attributes:
        sections: of demographics, units, diagnoses, procedures, drugs, laboratory, vitals and treatment those that are
            written, always in this order; drugs, units and the last three within `window.series_hours`.
        max_units: care units named, the latest.
        max_diagnoses: diagnoses of earlier stays named, the latest stay's first and in the order of their billing.
        max_procedures: procedures of earlier stays named, likewise.
        max_drugs: ordered drugs named, the latest.
    """

    sections: Annotated[list[Section], Filled()] = field(default_factory=lambda: list(SECTIONS))
    max_units: Most = 5
    max_diagnoses: Most = 20
    max_procedures: Most = 10
    max_drugs: Most = 20


@dataclass(frozen=True)
class NoteOptions(Options, key="data.notes"):
    """Where notes come from, and how they become tokens.

    Attributes:
        source: what is read as notes: the hospital's `notes`; the `record`, what each sample sees of labs, vital signs,
            drugs and earlier diagnoses written as one text, with no note read; or `both`, the text beside the notes.
        record: what that text holds.
        tokenizer: Hugging Face tokenizer, by hub name or local folder; null fits a WordPiece one on the training notes.
        vocab_size: size of the fitted vocabulary.
        min_patients: a word, a pair of words or a kind of note goes into a fitted vocabulary only if so many training
            patients have it, since one that a single patient has may be a name; 1 keeps all, and is unsafe where the
            run's folder leaves the place of the notes.
        chunk_tokens: tokens a chunk, with the two that frame it; a note is read whole, as many chunks as it needs.
        mask_sections: headings, such as `Discharge Disposition`, whose section is cut from discharge summaries before
            any model reads them, up to the next heading; of radiology reports too, such as `Impression`.
        split_sections: chunks never cross a heading, and each knows its section: headings of discharge summaries
            (`History of Present Illness:`) and of radiology reports (`FINDINGS:`).
        keep_sections: only these sections of discharge summaries are read, by any model; empty = all. An addendum
            without headings is read whole; in one with headings, `Addendum` names what was added.
        max_chunks: chunks a sample reads; null = all. How many samples were cut is counted.
        choose: which chunks a sample keeps that has more, of all chunks of its notes, oldest first: the `latest`, half
            from the start and half from the end (`first_and_last`), or `even` steps from the first to the last.
        pretrained_elsewhere: an encoder that `ehrdl pretrain` made has read another hospital's notes, so subjects of
            equal ids are other people; else such subjects may not tune or be held out.

    A blank of de-identification, `___`, is one token of any tokenizer.
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
        size: samples a batch; with `tokens`, at most so many.
        tokens: a batch is cut so that its padded observations and note tokens together are at most so many; a sample
            that is longer is a batch of its own. null = batches are cut by `size` alone.
        samples_per_subject: in training, a fresh draw of at most so many samples a subject every epoch; null = all.
        num_workers: loader processes; on few cores they cost more than they give.
    """

    size: Count = 64
    tokens: Count | None = None
    samples_per_subject: Count | None = None
    num_workers: Annotated[int, Bound("[0, 1024]")] = 0


@dataclass(frozen=True)
class DataConfig(Options, key="data"):
    """Where the data come from and how they become batches.

    Attributes:
        source: which hospital, in which layout.
        concepts: CSV of concepts (source code, unit, channel, range) in the form of the shipped one; null = those
            that the source brings, or else the shipped ones for MIMIC-IV.
        window: how far back features are read.
        split: who trains, tunes, is held out.
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
        """Refuse a split that cannot be; called before any work, since it looks at the source and at files.

        Raises:
            ConfigError: a split of the source, which has none, or a file of the split that is missing or no list.
        """
        if self.split.files is not None:
            from ehrdl.splits.files import read_split_files

            read_split_files(self.split.files, self.source.subject_of)
        if self.split.method == "source" and not self.source.has_splits():
            raise ConfigError("data.split.kind: source, but data.source has no subject_splits of its own; use subject")
