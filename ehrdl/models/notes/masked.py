"""Masked language models of `transformers`, which guess hidden tokens: loaded by name or folder, or from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM, BertConfig, BertForMaskedLM, PreTrainedModel
from transformers.utils import logging

from ehrdl.engine.hub import reason, report_code
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError


def load_masked(name: str, chunk_tokens: int) -> PreTrainedModel:
    """Load a masked language model by name or folder. Only safetensors files are read, and no code of its repository.

    Args:
        name: the name or folder of an encoder; if it has no layer that guesses tokens, a new layer is added.
        chunk_tokens: number of tokens of the longest note chunk that the model must read.

    Raises:
        ConfigError: the model cannot be loaded, is not an encoder, lacks weights, or cannot read a whole chunk.
    """
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            if "/" in (config._attn_implementation or ""):
                raise ValueError(f"its attention {config._attn_implementation!r} is code of a repository")
            model, info = AutoModelForMaskedLM.from_pretrained(
                name,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,  # even for a file in half precision, which would lose small steps
            )
    except (OSError, ValueError, KeyError) as error:
        why = reason(error)[:300]
        raise ConfigError(f"--from {name}: cannot be loaded as an encoder that guesses words ({why})") from None
    report_code("--from", name, getattr(config, "auto_map", None))
    inside = f"{model.base_model_prefix}."
    absent = sorted(key for key in info["missing_keys"] if key.startswith(inside) and "pooler" not in key)
    if absent:
        raise ConfigError(f"--from {name}: lacks {len(absent)} weights of its encoder, such as {absent[0]}")
    if info["missing_keys"]:
        say(f"--from {name}: has no layer that guesses words; a new one starts from scratch")
    if (most := _positions(model)) < chunk_tokens:
        raise ConfigError(
            f"data.notes.chunk_tokens: {chunk_tokens} is more than the {most} tokens that --from {name} reads"
        )
    loaded: PreTrainedModel = model.train()  # transformers returns it with dropout off
    return loaded


def masked_from_scratch(
    vocab_size: int, pad_id: int, chunk_tokens: int, layers: int, width: int, heads: int, dropout: float
) -> PreTrainedModel:
    """Return a masked language model (BERT) of the given size, with random weights."""
    config = BertConfig(
        vocab_size=vocab_size,
        pad_token_id=pad_id,
        max_position_embeddings=chunk_tokens,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForMaskedLM(config)


def fit_vocabulary(model: PreTrainedModel, n_tokens: int) -> None:
    """Extend the model's embeddings to `n_tokens`, the size of the tokenizer's vocabulary. No embedding is removed."""
    if n_tokens > model.config.vocab_size:
        say(f"encoder: {n_tokens - model.config.vocab_size} tokens of the tokenizer are new to it")
        with quiet_transformers():
            model.resize_token_embeddings(n_tokens)


def guess(model: PreTrainedModel, tokens: Tensor, valid: Tensor, asked: Tensor) -> Tensor:
    """Return logits over the vocabulary of V tokens (M, V), for the M tokens that the model is to guess.

    The layer that guesses works on each token separately. Over a whole vocabulary it costs as much as a small encoder,
    so it is applied only to the M tokens.

    Args:
        model: the masked language model.
        tokens: (C, L) token ids of C note chunks of L tokens.
        valid: (C, L), False at padding.
        asked: (C, L), which tokens to guess.
    """

    def keep(_module: Any, _inputs: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][asked]
        return output

    hook = model.base_model.register_forward_hook(keep)
    try:
        logits: Tensor = model(input_ids=tokens, attention_mask=valid).logits
    finally:
        hook.remove()
    return logits


def _positions(model: PreTrainedModel) -> int:
    """Return how many tokens a model can read. RoBERTa and its successors leave the first positions unused."""
    most = int(model.config.max_position_embeddings)
    embeddings = getattr(model.base_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return most if padding is None else most - padding - 1


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the progress bars and reports of `transformers` within the block."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
