"""Options of a pretrained note encoder: its name, the part that is trained, and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Options, Positive, Width


@dataclass(frozen=True)
class Pretrained(Options, key="NoteTransformer: pretrained"):
    """A pretrained note encoder, and how it is used.

    Attributes:
        name: name or local folder of a Hugging Face encoder.
        tune: the part that is trained. `full` trains the whole encoder, at `optim.pretrained_lr_factor` of the learning
            rate. `lora` trains low-rank adapters of its attention at the full rate (needs `pip install 'ehrdl[lora]'`).
            `frozen` trains nothing: each chunk is encoded once for all epochs and runs, and kept on disk.
        lora_rank: rank of the adapters.
        lora_alpha: alpha of the adapters. Their updates are scaled by alpha / rank.
        gradient_checkpointing: whether to compute states twice in training instead of keeping them. This is slower and
            needs much less memory.
        attention: implementation of attention in transformers (`sdpa`, `eager`, `flash_attention_2`, …). None = the
            default of transformers, which is sdpa if this family of encoders has it.
        compile: whether to compile the encoder with torch.compile, for all lengths at once.
        padding: the layout of chunks. `groups` encodes chunks of similar length together. `packed` puts several chunks
            into one row, where they do not see each other.
        cache: folder of the frozen encoder's vectors, which can be deleted at any time. `auto` = in
            `data.prepare.cache`; None = encode in every epoch.

    Raises:
        ConfigError: a value is invalid, or options contradict each other.
    """

    name: str
    tune: Literal["full", "lora", "frozen"] = "full"
    lora_rank: Width = 8
    lora_alpha: Positive = 16.0
    gradient_checkpointing: bool = False
    attention: str | None = None
    compile: bool = False
    padding: Literal["groups", "packed"] = "groups"
    cache: str | None = "auto"

    def __post_init__(self) -> None:
        """Refuse options that are invalid or contradict each other."""
        super().__post_init__()
        if self.tune == "frozen" and self.gradient_checkpointing:
            raise ConfigError(
                "NoteTransformer: pretrained.gradient_checkpointing: tune frozen has no gradients; leave it out"
            )
