"""Note encoder: tokens (C, L) and links (E,) -> (B, D). Each chunk is encoded once, however many samples read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder

#: Chunks are encoded in so many groups of like length.
_GROUPS = 4


class NoteTransformer(nn.Module, Encoder):
    """A transformer over note chunks, then attention over the chunks that a sample reads.

    Without `pretrained`, a small BERT starts from scratch. Labelled notes are then too few to learn attention that
    finds short phrases, so a convolution over five neighbouring tokens stands beside it: it tells "lives alone" from
    "denies living alone" by itself, and max pooling keeps what it finds anywhere in the chunk.

    Args:
        spec: the data.
        pretrained: a Hugging Face encoder, by name or local folder; None = from scratch.
        width: D of the features, and of the transformer from scratch.
        layers: transformer layers (from scratch only).
        heads: heads of the attention and of the pooling over tokens.
        dropout: share of units dropped in training.
        token_dropout: share of tokens blanked in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        pretrained: str | None = None,
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        token_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if spec.vocab_size < 1:
            raise ConfigError("NoteTransformer: the data have no notes; leave `note` out of the modalities")
        self.width, self.token_dropout = width, token_dropout
        self.encoder = _load(pretrained, spec) if pretrained else _small_bert(spec, width, layers, heads, dropout)
        states = self.encoder.config.hidden_size
        _require_division(states, heads)
        self.phrases = None if pretrained else Phrases(width)
        self.token_pool = TokenPool(states, width, heads, dropout)
        self.link_pool = LinkPool(width)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (B, D), 0 without a note, and whether the sample has a note (B,)."""
        features, present = self.link_pool(self._chunks(batch.tokens, batch.token_valid), batch)
        return features, present

    def attention(self, batch: Batch) -> Tensor:
        """How much each sample reads each of its chunks: a weight a link (E,), which sum to 1 over a sample's links."""
        _, weight = self.link_pool.weigh(self._chunks(batch.tokens, batch.token_valid), batch)
        return weight

    def _chunks(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Chunk vectors (C, D), encoded in groups of like length.

        A report of 30 tokens beside a summary of 200 would otherwise cost as much; attention never sees the difference.
        """
        length = valid.sum(dim=1)
        order = length.argsort(stable=True)
        vectors = []
        for group in order.chunk(_GROUPS):
            longest = min(-(-int(length[group[-1]]) // 8) * 8, tokens.shape[1])
            token, real = tokens[group, :longest], valid[group, :longest]
            blank = torch.rand(token.shape, device=token.device) < (self.token_dropout if self.training else 0.0)
            vectors.append(self.token_pool(self.states(token, real, blank), real))
        return torch.cat(vectors)[order.argsort()]

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that are only to be tuned, at a lower rate than what starts from scratch."""
        return list(self.encoder.parameters()) if self.phrases is None else []

    def embeddings(self) -> nn.Module:
        """Of the tokens."""
        words: nn.Module = self.encoder.get_input_embeddings()
        return words

    def states(self, tokens: Tensor, valid: Tensor, blank: Tensor) -> Tensor:
        """Token states (C, L, states); what stands where `blank` (C, L) is true is not seen."""
        words = self.embeddings()(tokens) * ~blank.unsqueeze(-1)
        states: Tensor = self.encoder(inputs_embeds=words, attention_mask=valid.long()).last_hidden_state
        return states if self.phrases is None else states + self.phrases(words, valid)


class Phrases(nn.Module):
    """What each token and its four neighbours say together: (C, L, D) -> (C, L, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, width, kernel_size=5, padding=2)

    def forward(self, words: Tensor, valid: Tensor) -> Tensor:
        """Phrase states; padding is 0 before the convolution, as beyond the chunk's end."""
        words = self.norm(words) * valid.unsqueeze(-1)
        phrases: Tensor = self.convolution(words.transpose(1, 2)).transpose(1, 2).relu()
        return phrases


class TokenPool(nn.Module):
    """Token states (C, L, states) -> chunk vectors (C, D): what each head attends to, and what is said anywhere."""

    def __init__(self, states: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.score = nn.Linear(states, heads)
        self.dropout = nn.Dropout(dropout)
        self.chunk = nn.Linear(2 * states, width)

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """Chunk vectors; every chunk has at least one valid token."""
        padding = ~valid.unsqueeze(-1)
        weight = self.score(states).float().masked_fill(padding, -torch.inf).softmax(dim=1)  # (C, L, heads)
        slices = states.view(*states.shape[:2], weight.shape[2], -1)  # each head pools its own slice of the states
        attended = (weight.to(states.dtype).unsqueeze(-1) * slices).sum(dim=1).flatten(1)
        anywhere = states.masked_fill(padding, -torch.inf).amax(dim=1)
        chunks: Tensor = self.chunk(self.dropout(torch.cat([attended, anywhere], dim=1)))
        return chunks


class LinkPool(nn.Module):
    """Chunk vectors (C, D) -> sample vectors (B, D): attention over a sample's links, which knows each note's age.

    It starts by reading recent notes most, with a weight that falls as 1 / (1 + hours), and learns from there: notes of
    many stays would else drown this stay's before anything is learned.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.age = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width))
        self.score = nn.Linear(width, 1)
        self.recency = nn.Parameter(torch.ones(1))

    def forward(self, chunks: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (B, D), 0 without a link, and whether there is a link (B,)."""
        n_rows = batch.batch_size + 1  # the last row takes the filler chunks
        links, weight = self.weigh(chunks, batch)
        weighted = weight.to(links.dtype).unsqueeze(1) * links
        pooled = links.new_zeros(n_rows, links.shape[1]).index_add(0, batch.link_sample, weighted)
        present = torch.zeros(n_rows, dtype=torch.bool, device=links.device).index_fill(0, batch.link_sample, True)
        return pooled[:-1], present[:-1]

    def weigh(self, chunks: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Each link's vector (E, D), which knows the note's age, and its weight (E,), which sum to 1 over a sample."""
        age = (-batch.link_hours).clamp(min=0).log1p().unsqueeze(1)
        links = chunks[batch.link_chunk] + self.age(age)
        score = self.score(links.tanh()).float() - self.recency * age
        return links, scatter_softmax(score.squeeze(1), batch.link_sample, batch.batch_size + 1)


def scatter_softmax(score: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Softmax of `score` (E,) among the entries of the same `row` (E,).

    >>> scatter_softmax(torch.tensor([0.0, 0.0, 1000.0]), torch.tensor([0, 0, 1]), 2)
    tensor([0.5000, 0.5000, 1.0000])
    """
    highest = score.new_zeros(n_rows).scatter_reduce(0, row, score.detach(), "amax", include_self=False)
    weight = (score - highest[row]).exp()
    return weight / score.new_zeros(n_rows).index_add(0, row, weight)[row]


def _small_bert(spec: DataSpec, width: int, layers: int, heads: int, dropout: float) -> PreTrainedModel:
    _require_division(width, heads)
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


def _require_division(states: int, heads: int) -> None:
    if states % heads:
        raise ConfigError(f"NoteTransformer: heads {heads} does not divide the {states} states of a token")


def _load(name: str, spec: DataSpec) -> PreTrainedModel:
    """An encoder by name or folder. Safetensors only, and never code from the model's own repository."""
    try:
        model: PreTrainedModel = AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"NoteTransformer: pretrained {name!r} cannot be loaded: {reason}") from None
    config = model.config
    for option, needed, given in (
        ("vocab_size", spec.vocab_size, config.vocab_size),
        ("chunk_tokens", spec.chunk_tokens, config.max_position_embeddings),
    ):
        if needed > given:
            raise ConfigError(
                f"NoteTransformer: pretrained {name!r} allows a {option} of {given}, but the data need {needed}"
            )
    if hasattr(model, "pooler"):
        model.register_module("pooler", None)  # its parameters would never get a gradient
    model.train()  # it comes with its dropout off
    return model
