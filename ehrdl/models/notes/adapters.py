"""Options for training a pretrained encoder: LoRA, freezing, gradient checkpointing, compiling."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ehrdl.errors import ConfigError, MissingExtraError

#: The layers that LoRA adapts: queries and values (Hu 2021, arXiv:2106.09685, section 7.1), by family.
_TARGETS = (
    ("query", "value", "query_global", "value_global"),  # BERT, RoBERTa; Longformer has the global ones too
    ("Wqkv",),  # ModernBERT projects all three at once
    ("q_lin", "v_lin"),  # DistilBERT, XLM
    ("query_proj", "value_proj"),  # DeBERTa-v2
    ("q_proj", "v_proj"),
    ("q", "v"),  # MPNet
)
_ADAPTER = "lora_"


def freeze(model: PreTrainedModel) -> None:
    """Freeze a pretrained encoder: its weights are not trained, and it applies no dropout."""
    model.requires_grad_(False)
    model.train(False)


def add_lora(model: PreTrainedModel, rank: int, alpha: float, dropout: float) -> None:
    """Add low-rank adapters (LoRA) to the attention's queries and values, in place. Only the adapters are trained.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: ehrdl does not know how this family of encoders names its queries and values.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("NoteTransformer: tune lora needs peft: pip install 'ehrdl[lora]'") from None
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets = next(([name for name in names if name in linear] for names in _TARGETS if names[0] in linear), None)
    if targets is None:
        raise ConfigError(
            f"NoteTransformer: tune lora does not know the attention of {model.config.model_type}; use full or frozen"
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_ADAPTER in name)


def tuned_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return the pretrained parameters that training changes. LoRA's adapters are not among them: they are new."""
    return [
        parameter for name, parameter in model.named_parameters() if parameter.requires_grad and _ADAPTER not in name
    ]


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Save memory in training: keep only one state per layer, and recompute the others in the backward pass."""
    if not model.supports_gradient_checkpointing:
        raise ConfigError(f"NoteTransformer: gradient_checkpointing: {model.config.model_type} has none; leave it out")
    model.config.use_cache = False  # for decoders, but BERT has it too; avoids a warning that it is turned off
    kept: Any = model  # untyped in transformers
    kept.activation_checkpointing_enable({"use_reentrant": False})


def compile_encoder(model: PreTrainedModel) -> None:
    """Compile the encoder's forward pass in place, once for all text lengths. The names of its weights do not change.

    Raises:
        ConfigError: this family of encoders cannot be compiled, or this machine has no C++ compiler.
    """
    if model.config.model_type == "longformer":  # its layers read masks back from the device
        raise ConfigError("NoteTransformer: compile: longformer cannot be compiled; leave it out")
    if not torch.cuda.is_available():
        _require_compiler()
    compiled: Any = model
    compiled.compile(dynamic=True)


def _require_compiler() -> None:
    from torch._inductor import exc
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except (exc.InvalidCxxCompiler, RuntimeError, OSError):
        raise ConfigError(
            "NoteTransformer: compile: no C++ compiler on this machine; install g++, or leave it out"
        ) from None
