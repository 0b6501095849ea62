"""The `data` part of a configuration. Free of torch, so that the command line can read it quickly."""

from __future__ import annotations

from dataclasses import dataclass, field

from ehrdl.data.sources.base import Source
from ehrdl.data.split import Split
from ehrdl.data.window import Window
from ehrdl.engine import Prepare
from ehrdl.errors import ConfigError


@dataclass(frozen=True)
class NoteOptions:
    """How notes become tokens.

    Attributes:
        tokenizer: Hugging Face tokenizer, by hub name or local folder; null fits a WordPiece one on the training notes.
        vocab_size: size of the fitted vocabulary.
        chunk_tokens: tokens a chunk, with the two that frame it; a note is read whole, as many chunks as it needs.
        mask_sections: headers, such as `Discharge Disposition`, whose section is cut from discharge summaries before
            any model reads them; up to the next line that is a header alone.
        pretrained_elsewhere: an encoder that `ehrdl pretrain` made has read another hospital's notes, so subjects of
            equal ids are other people; else such subjects may not tune or be held out.
    """

    tokenizer: str | None = None
    vocab_size: int = 4000
    chunk_tokens: int = 256
    mask_sections: list[str] = field(default_factory=list)
    pretrained_elsewhere: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        if self.chunk_tokens < 8:
            raise ConfigError(f"data.notes.chunk_tokens: {self.chunk_tokens} is below 8")
        if self.vocab_size < 100:
            raise ConfigError(f"data.notes.vocab_size: {self.vocab_size} is below 100")
        for section in self.mask_sections:
            if not section.strip() or section.strip().endswith(":"):
                raise ConfigError(
                    f"data.notes.mask_sections: {section!r} is no header; give its words without the colon, "
                    "such as Discharge Disposition"
                )


@dataclass(frozen=True)
class BatchOptions:
    """How samples become batches.

    Attributes:
        size: samples a batch; with `tokens`, at most so many.
        tokens: a batch is cut so that its padded observations and note tokens together are at most so many; a sample
            that is longer is a batch of its own. null = batches are cut by `size` alone.
        samples_per_subject: in training, a fresh draw of at most so many samples a subject every epoch; null = all.
        num_workers: loader processes; on few cores they cost more than they give.
    """

    size: int = 64
    tokens: int | None = None
    samples_per_subject: int | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        if self.size < 1:
            raise ConfigError(f"data.batch.size: {self.size} is below 1")
        if self.tokens is not None and self.tokens < 1:
            raise ConfigError(f"data.batch.tokens: {self.tokens} is below 1")
        if self.samples_per_subject is not None and self.samples_per_subject < 1:
            raise ConfigError(f"data.batch.samples_per_subject: {self.samples_per_subject} is below 1")
        if self.num_workers < 0:
            raise ConfigError(f"data.batch.num_workers: {self.num_workers} is below 0")


@dataclass(frozen=True)
class DataConfig:
    """Where the data come from and how they become batches.

    Attributes:
        source: which hospital, in which layout.
        concepts: CSV of concepts (source code, unit, channel, range) in the form of the shipped one; null = shipped.
        window: how far back features are read.
        split: who trains, tunes, is held out.
        notes: how notes become tokens.
        batch: how samples become batches.
        prepare: cache, memory, processes.
    """

    source: Source
    concepts: str | None = None
    window: Window = field(default_factory=Window)
    split: Split = field(default_factory=Split)
    notes: NoteOptions = field(default_factory=NoteOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    prepare: Prepare = field(default_factory=Prepare)

    def check(self) -> None:
        """Refuse a split that the source does not have; called before any work, since it looks at the source."""
        if self.split.kind == "source" and not self.source.has_splits():
            raise ConfigError("data.split.kind: source, but data.source has no subject_splits of its own; use subject")
