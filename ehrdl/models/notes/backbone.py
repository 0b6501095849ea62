"""Encoders of Hugging Face transformers, loaded by hub name or folder: token embeddings (C, L, D) -> states (C, L, D).

This module handles the differences between families of encoders, such as BERT and ModernBERT. An encoder gets tokens as
vectors (`inputs_embeds`), so that a blanked token is a zero vector in every family.

Letters: C note chunks, L tokens per chunk, R rows of P tokens with several chunks per row. In a shape, `states` (or D)
is the width of the encoder's state of a token.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from ehrdl.batch import DataSpec
from ehrdl.engine.hub import reason, report_code
from ehrdl.errors import ConfigError
from ehrdl.models.notes.packing import Packed, same_document, within

#: Families whose attention takes a mask (R, 1, P, P) and our positions unchanged, as their code and a test showed.
_PACKED = ("bert", "roberta", "xlm-roberta", "camembert", "modernbert")
_PLAIN_KERNELS = ("sdpa", "eager")
#: A tokenizer that has less than this share of the encoder's tokens was made for another encoder.
_LEAST_VOCABULARY = 0.8
#: Number of elements of a packed mask that are computed at one time (64 MB).
_MASK_ELEMENTS = 1 << 26
#: Configurations by name, for encoders whose weights are loaded later. Set by `without_weights`.
_known: ContextVar[dict[str, dict[str, Any]]] = ContextVar("known", default={})  # noqa: B039 - never changed


def small_bert(spec: DataSpec, width: int, layers: int, heads: int, dropout: float) -> PreTrainedModel:
    """Return a BERT with random weights. Its vocabulary and its longest input fit the data."""
    require_division(width, heads)
    config = BertConfig(
        vocab_size=spec.vocab_size,
        pad_token_id=spec.pad_id,
        max_position_embeddings=spec.chunk_tokens,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
    )
    return BertModel(config, add_pooling_layer=False)


def require_division(states: int, heads: int) -> None:
    """Check that the number of attention heads divides `states`, the width of a token's state.

    Raises:
        ConfigError: it does not.
    """
    if states % heads:
        raise ConfigError(f"NoteTransformer: heads {heads} does not divide the {states} states of a token")


def load(name: str, spec: DataSpec, attention: str | None) -> PreTrainedModel:
    """Load an encoder by name or folder. Only safetensors files are read, and no code of its repository is run.

    Args:
        name: the encoder's name on the Hugging Face hub, or its folder.
        spec: the data description that the encoder must fit.
        attention: the implementation of attention, such as `sdpa`; None = the fastest one of this family that works on
            all machines.

    Raises:
        ConfigError: the encoder is not found, does not encode text, or does not fit the data.
    """
    # Tuned weights are in single precision; the trainer sets the precision of the computation.
    options: dict[str, Any] = {"dtype": torch.float32} | ({"attn_implementation": attention} if attention else {})
    _refuse_kernel(name, attention)
    config = _known.get().get(name)
    with _one_line(name), _silent():
        model = _from_files(name, options) if config is None else _from_config(config, options)
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None  # its parameters would never get a gradient
    _require_fit(name, model, spec)
    if config is None:
        _require_mask(name, model)
    loaded: PreTrainedModel = model.train()  # transformers returns it in evaluation mode, and Lightning leaves it so
    return loaded


def _from_files(name: str, options: dict[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    _require_encoder(name, config)
    _refuse_kernel(name, config._attn_implementation)
    report_code("NoteTransformer: pretrained", name, getattr(config, "auto_map", None))
    model, found = AutoModel.from_pretrained(
        name, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"NoteTransformer: pretrained {name!r} lacks {len(missing)} of the encoder's weights, such as {missing[0]}"
        )
    return model


def _from_config(config: dict[str, Any], options: dict[str, Any]) -> Any:
    made: Any = AutoModel  # untyped
    known = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    _refuse_kernel(str(config.get("_name_or_path")), known._attn_implementation)
    return made.from_config(known, trust_remote_code=False, **options)


def configurations(network: object) -> dict[str, dict[str, Any]]:
    """Return the configuration of each pretrained encoder in a network as a JSON-compatible dict, by name or folder."""
    found: dict[str, dict[str, Any]] = {}
    for module in network.modules() if isinstance(network, nn.Module) else ():
        if isinstance(module, PreTrainedModel) and module.name_or_path:
            found.setdefault(module.name_or_path, module.config.to_dict())
    return found


@contextmanager
def without_weights(known: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Within the block, let `load` build encoders from saved configurations, without reading the encoders' files.

    The encoders then have random weights. Use this for a network whose checkpoint is loaded next.

    Args:
        known: the configurations from `configurations`; an encoder without one is loaded from its files.
    """
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"NoteTransformer: pretrained {name!r} cannot be loaded: {reason(error)}") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Hide the progress bar of transformers and its table of unused weights within the block."""
    noise: Any = transformers_logging  # untyped
    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity(logging.ERROR)
    noise.disable_progress_bar()
    try:
        yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


def _refuse_kernel(name: str, attention: str | None) -> None:
    """Refuse an attention that is the name of a repository: transformers would fetch and run its code."""
    if "/" in (attention or ""):
        raise ConfigError(
            f"NoteTransformer: pretrained {name!r}: attention {attention!r} is code of a repository, which ehrdl never "
            "runs; choose sdpa, eager or flash_attention_2"
        )


def _require_encoder(name: str, config: PreTrainedConfig) -> None:
    family = config.model_type
    refused = f"NoteTransformer: pretrained {name!r} is a {family}"
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"{refused}, an encoder with a decoder; choose an encoder such as BERT or ModernBERT")
    if getattr(config, "is_decoder", False) or family not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ConfigError(f"{refused}, no bidirectional encoder of text; choose one such as BERT or ModernBERT")


def _require_fit(name: str, model: PreTrainedModel, spec: DataSpec) -> None:
    config: Any = model.config
    limit = position_limit(model)
    for option, needed, given in (
        ("vocab_size", spec.vocab_size, config.vocab_size),
        ("chunk_tokens", spec.chunk_tokens, limit),
    ):
        if given is not None and needed > given:
            raise ConfigError(
                f"NoteTransformer: pretrained {name!r} allows a {option} of {given}, but the data need {needed}"
            )
    pad = getattr(config, "pad_token_id", None)
    if spec.vocab_size < _LEAST_VOCABULARY * config.vocab_size or pad not in (None, spec.pad_id):
        raise ConfigError(
            f"NoteTransformer: pretrained {name!r} knows {config.vocab_size} tokens and pads with {pad}, but the notes "
            f"have {spec.vocab_size} and {spec.pad_id}; set data.notes.tokenizer to the encoder's own, {name}"
        )


@torch.no_grad()
def _require_mask(name: str, model: PreTrainedModel) -> None:
    """Refuse a family whose states depend on the padding after them, such as ConvBERT and FNet."""
    if model.config._attn_implementation not in _PLAIN_KERNELS:  # cannot run here, in single precision
        return
    words = model.get_input_embeddings()(torch.arange(16).unsqueeze(0) % model.config.vocab_size)
    valid = torch.arange(16).unsqueeze(0) < 8
    alone, padded = encode(model, words[:, :8], valid[:, :8]), encode(model, words, valid)[:, :8]
    if not torch.allclose(alone, padded, rtol=1e-2, atol=1e-2 * float(alone.abs().mean())):
        raise ConfigError(
            f"NoteTransformer: pretrained {name!r} is a {model.config.model_type}, which reads the padding behind a "
            "note, so that it depends on the notes beside it; choose an encoder such as BERT or ModernBERT"
        )


def position_offset(model: PreTrainedModel) -> int:
    """Return the position number of a chunk's first token: 0, or in the RoBERTa family one more than the padding's."""
    embeddings = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = embeddings.padding_idx if isinstance(embeddings, nn.Embedding) else None
    return 0 if padding is None else padding + 1


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the largest number of tokens for which the encoder has positions; None = no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None or limit < 1 else int(limit) - position_offset(model)


def encode(model: PreTrainedModel, words: Tensor, valid: Tensor) -> Tensor:
    """Return the states (C, L, states) of tokens with vectors `words` (C, L, states). `valid` is False at padding."""
    mask = valid.long()
    if model.config.model_type == "longformer":
        return _encode_longformer(model, words, mask)
    states: Tensor = model(inputs_embeds=words, attention_mask=mask).last_hidden_state
    return states


def _encode_longformer(model: Any, words: Tensor, mask: Tensor) -> Tensor:
    """Return the states by whole windows; the first token attends globally (Beltagy 2020, arXiv:2004.05150)."""
    length = words.shape[1]
    padding = -length % max(model.config.attention_window)
    words, mask = nn.functional.pad(words, (0, 0, 0, padding)), nn.functional.pad(mask, (0, padding))
    first = position_offset(model)
    position = torch.arange(first, first + length + padding, device=words.device)
    position[length:] = model.config.pad_token_id  # the windows may reach past the last position
    everywhere = torch.zeros_like(mask)
    everywhere[:, 0] = 1
    states: Tensor = model(
        inputs_embeds=words,
        attention_mask=mask,
        global_attention_mask=everywhere,
        position_ids=position.expand(mask.shape),
    ).last_hidden_state
    return states[:, :length]


def require_packing(model: PreTrainedModel) -> None:
    """Check that the encoder can keep chunks separate that are packed into one row.

    Raises:
        ConfigError: its family, or its implementation of attention, cannot.
    """
    family, kernel = model.config.model_type, model.config._attn_implementation
    if family not in _PACKED:
        raise ConfigError(
            f"NoteTransformer: padding packed is not safe for {family}, whose attention takes no mask of documents; "
            "use padding: groups"
        )
    if kernel not in _PLAIN_KERNELS:
        raise ConfigError(f"NoteTransformer: padding packed needs attention sdpa or eager, not {kernel}")


def encode_packed(model: PreTrainedModel, words: Tensor, packed: Packed) -> Tensor:
    """Return the states of tokens (R, P, states) for the vectors `words` (R, P, states) of packed rows.

    A token attends only to tokens of its own chunk. Positions count from the start of each chunk.
    """
    rows = max(1, _MASK_ELEMENTS // packed.document.shape[1] ** 2)
    states = []
    for first in range(0, len(words), rows):
        few = slice(first, first + rows)
        masks = _masks(model, packed.document[few], words.dtype)
        position = packed.position[few] + position_offset(model)
        found = model(inputs_embeds=words[few], attention_mask=masks, position_ids=position)
        states.append(found.last_hidden_state)
    return torch.cat(states)


def _masks(model: PreTrainedModel, document: Tensor, dtype: torch.dtype) -> Any:
    """Return the mask in the form that the family takes.

    ModernBERT would use one mask in all layers, but its layers of sliding attention need their own mask.
    """
    masks = {"full_attention": same_document(document)}
    if model.config.model_type == "modernbert":
        masks["sliding_attention"] = within(document, model.config.sliding_window)
    if model.config._attn_implementation == "eager":  # adds the mask to the scores
        masks = {kind: _additive(mask, dtype) for kind, mask in masks.items()}
    return masks if len(masks) > 1 else masks["full_attention"]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
