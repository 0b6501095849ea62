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
        tune: the part that is trained. `full` trains the whole encoder, at the learning rate times
            `optim.pretrained_lr_factor`. `lora` trains low-rank adapters of its attention at the full learning rate
            (needs `pip install 'ehrdl[lora]'`). `frozen` trains nothing. It encodes each chunk of a note once for all
            epochs and runs, and keeps the result on disk.
        lora_rank: rank of the adapters.
        lora_alpha: alpha of the adapters. Their updates are scaled by alpha / rank.
        gradient_checkpointing: whether to compute hidden states a second time in the backward pass instead of keeping
            them. This is slower and needs much less memory.
        attention: implementation of attention in transformers (`sdpa`, `eager`, `flash_attention_2`, …). None = the
            default of transformers, which is sdpa if this family of encoders has it.
        compile: whether to compile the encoder with torch.compile, once for chunks of any length.
        padding: the layout of chunks in a batch. `groups` encodes chunks of similar length together. `packed` puts
            several chunks into one row, in which a chunk does not attend to the others.
        cache: folder where vectors of a frozen encoder are kept. It can be deleted at any time. `auto` = a folder in
            `data.prepare.cache`; None = nothing is kept, and every epoch encodes the chunks again.

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
