"""Note encoder: tokens (C, L) and links (E,) -> (B, D). Each chunk is encoded once, however many samples read it.

Letters: B samples, D width of the features, C note chunks, L tokens per chunk. `states` is the width of a token's
state. E links connect samples to the chunks that they read: a link is one pair of a sample and a chunk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder, Steps
from ehrdl.models.notes import adapters as tuning
from ehrdl.models.notes import backbone
from ehrdl.models.notes.embedding_cache import EmbeddingCache, chunk_keys, encoder_hash
from ehrdl.models.notes.packing import DEVICE_RUN_COST, RUN_COST, equal_groups, length_groups, pack_tokens, round_up
from ehrdl.models.notes.pool import SUMMARIES, LinkPool, Phrases, SummaryPool, TokenPool, summarize
from ehrdl.models.notes.steps import lay_out
from ehrdl.options.bounds import Layers, Share, Width
from ehrdl.options.pretrained import Pretrained


class NoteTransformer(nn.Module, Encoder):
    """A transformer over note chunks, then attention over the chunks that a sample reads.

    Without `pretrained`, a small BERT starts from scratch. There are then too few labelled notes to learn attention
    that finds short phrases, so a convolution over five neighbouring tokens is added. The convolution can tell "lives
    alone" from "denies living alone". Max pooling keeps what the convolution finds anywhere in the chunk.

    With `pretrained`, any encoder of transformers is used: BERT, RoBERTa, ModernBERT, Longformer and their successors.
    Set `data.notes.tokenizer` to the same name. Set `data.notes.chunk_tokens` to the length of a chunk, at most the
    number of tokens that the encoder can read. An encoder of 8,192 tokens can then read a whole note as one sequence.

    Args:
        spec: the data description.
        width: D, the width of the features, and of the transformer if it starts from scratch.
        layers: number of transformer layers (from scratch only).
        heads: number of heads of the attention and of the pooling over tokens.
        dropout: share of units dropped in training, in the layers that start from scratch and in LoRA's adapters.
        token_dropout: share of tokens blanked in training; without effect if the encoder is frozen.
        pretrained: name or local folder of a Hugging Face encoder, or `Pretrained` (a name with more options); None =
            from scratch.

    Raises:
        ConfigError: options contradict each other, or the encoder does not fit the data.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: Width = 64,
        layers: Layers = 1,
        heads: Width = 4,
        dropout: Share = 0.1,
        token_dropout: Share = 0.1,
        pretrained: str | Pretrained | None = None,
    ) -> None:
        super().__init__()
        if spec.vocab_size < 1:
            raise ConfigError("NoteTransformer: the data have no notes; leave `note` out of the modalities")
        used = Pretrained(pretrained) if isinstance(pretrained, str) else pretrained
        self.width, self.token_dropout = width, token_dropout
        self.pretrained = os.path.expanduser(used.name) if used else None
        self.tune, self.padding, cache = (used.tune, used.padding, used.cache) if used else ("full", "groups", None)
        self.cache = spec.cache if cache == "auto" else cache
        self.pad_id, self._caches = spec.pad_id, dict[str, EmbeddingCache]()
        self.encoder = (
            _loaded(used, spec, dropout) if used else backbone.small_bert(spec, width, layers, heads, dropout)
        )
        states = self.encoder.config.hidden_size
        self.phrases = None if used else Phrases(width)
        if self.tune == "frozen":
            self.summary_pool = SummaryPool(states, width, dropout)
        else:
            backbone.require_division(states, heads)
            self.token_pool = TokenPool(states, width, heads, dropout)
        self.link_pool = LinkPool(width)
        # Starts at 0, so that kinds of notes count only as training finds. Old runs have no kinds.
        n_kinds = len(spec.note_kinds)
        self.kinds = nn.Embedding(n_kinds, width, _weight=torch.zeros(n_kinds, width)) if n_kinds else None
        self.register_load_state_dict_post_hook(NoteTransformer._forget)  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample has a note (B,). If not, its features are 0."""
        features, present = self.link_pool(self.chunks(batch), batch)
        return features, present

    def steps(self, batch: Batch) -> Steps:
        """Return each sample's features, and the vectors and ages of the chunks that it reads. A step is a chunk."""
        chunks = self.chunks(batch)
        features, present = self.link_pool(chunks, batch)
        states, hours, valid = lay_out(self.link_pool.weigh(chunks, batch)[0], batch)
        return Steps(features, present, states, hours, valid)

    def attention(self, batch: Batch) -> Tensor:
        """Return the attention weight of each link (E,). The weights of a sample's links sum to less than 1."""
        _, weight = self.link_pool.weigh(self.chunks(batch), batch)
        return weight

    def chunks(self, batch: Batch) -> Tensor:
        """Return the vector of each chunk (C, D), also of filler chunks. A vector includes the kind of its note."""
        said = self._said(batch)
        return said if self.kinds is None else said + self.kinds(batch.kind).to(said.dtype)

    def _said(self, batch: Batch) -> Tensor:
        """Return the chunk vectors (C, D) without the kind of note."""
        if self.tune == "frozen":
            weight = self.summary_pool.chunk.weight
            vectors: Tensor = self.summary_pool(self.summaries(batch.tokens, batch.token_valid).to(weight))
            return vectors
        groups = self._encoded(batch.tokens, batch.token_valid)
        rows, pooled = zip(*((rows, self.token_pool(states, real)) for rows, states, real in groups), strict=True)
        return torch.cat(pooled)[torch.cat(rows).argsort()]

    def _encoded(self, tokens: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield groups of similar length: rows (c,), token states (c, l, states), and which tokens are real (c, l).

        In one group, a report of 30 tokens would cost as much as a summary of 200 tokens. Grouping does not change the
        result of attention.
        """
        lengths = valid.sum(dim=1).cpu().numpy()
        # In the model from scratch, groups decide what dropout draws. They must not change, so that its results stay.
        cost = RUN_COST if tokens.device.type == "cpu" else DEVICE_RUN_COST
        groups = equal_groups(lengths) if self.phrases is not None else length_groups(lengths, cost)
        packed = self._packed_states(tokens, valid, lengths) if self.padding == "packed" else None
        before = torch.from_numpy(np.cumsum(lengths) - lengths).to(tokens.device)
        for group in groups:
            rows = torch.from_numpy(group).to(tokens.device)
            longest = min(int(round_up(lengths[group[-1:]])[0]), tokens.shape[1])
            token, real = tokens[rows, :longest], valid[rows, :longest]
            if packed is None:
                yield rows, self.states(token, real, self._blank(token)), real
            else:
                place = before[rows].unsqueeze(1) + torch.arange(longest, device=tokens.device)
                yield rows, packed[place.clamp(max=len(packed) - 1)], real

    def _packed_states(self, tokens: Tensor, valid: Tensor, lengths: np.ndarray) -> Tensor:
        """Return the states (T, states) of the valid tokens, one chunk after the other."""
        packed = pack_tokens(tokens, valid, lengths, self.pad_id)
        words = self.embeddings()(packed.tokens) * ~self._blank(packed.tokens).unsqueeze(-1)
        return backbone.encode_packed(self.encoder, words, packed).flatten(0, 1)[packed.place]

    def _blank(self, token: Tensor) -> Tensor:
        """Draw which tokens (C, L) are blanked in this step."""
        if self.tune == "frozen":  # no draw, since the cache's content would then change later draws
            return torch.zeros_like(token, dtype=torch.bool)
        share = self.token_dropout if self.training else 0.0
        return torch.rand(token.shape, device=token.device) < share

    def states(self, tokens: Tensor, valid: Tensor, blank: Tensor) -> Tensor:
        """Return the states of tokens (C, L, states).

        Args:
            tokens: (C, L) token ids.
            valid: (C, L), False at padding.
            blank: (C, L), True for a token that is hidden from the encoder.
        """
        words = self.embeddings()(tokens) * ~blank.unsqueeze(-1)
        states = backbone.encode(self.encoder, words, valid)
        return states if self.phrases is None else states + self.phrases(words, valid)

    def embeddings(self) -> nn.Module:
        """Return the layer that embeds token ids."""
        words: nn.Module = self.encoder.get_input_embeddings()
        return words

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the pretrained parameters, which are trained at a lower learning rate than those from scratch."""
        return tuning.tuned_parameters(self.encoder) if self.phrases is None else []

    @torch.no_grad()
    def summaries(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return a frozen encoder's summaries of chunks (C, 3 * states) float16, from `summarize`.

        Summaries in the cache on disk are read. The others are computed and added to the cache.
        """
        lengths = valid.sum(dim=1).cpu().numpy()
        keys = chunk_keys(tokens.cpu().numpy(), lengths)
        cache = self._opened(tokens.device.type)
        if cache is None:
            return self._summarized(tokens, valid)
        found, known = cache.read(keys)
        if not known.all():
            _, first, which = np.unique(keys[~known], axis=0, return_index=True, return_inverse=True)
            new = np.flatnonzero(~known)[first]
            rows = torch.from_numpy(new).to(tokens.device)
            vectors = self._summarized(tokens[rows], valid[rows]).cpu().numpy()
            cache.add(keys[new], vectors)
            found[~known] = vectors[which]
        return torch.from_numpy(found).to(tokens.device)

    def _summarized(self, tokens: Tensor, valid: Tensor) -> Tensor:
        groups = [(rows, summarize(states.float(), real)) for rows, states, real in self._encoded(tokens, valid)]
        order = torch.cat([rows for rows, _ in groups]).argsort()
        largest = torch.finfo(torch.float16).max
        # Rounded at once, so that the first epoch uses the same values as later ones.
        return torch.cat([vectors for _, vectors in groups])[order].clamp(-largest, largest).half()

    def _opened(self, device: str) -> EmbeddingCache | None:
        """Return the cache of this encoder at this precision.

        Its name depends on the weights, so it is opened at first use.
        """
        if self.cache is None:
            return None
        precision = str(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32)
        if precision not in self._caches:
            name = encoder_hash(self.encoder, self.encoder.config.to_dict(), precision)
            folder = Path(self.cache) / f"embeddings-{name}"
            self._caches[precision] = EmbeddingCache(folder, SUMMARIES * self.encoder.config.hidden_size)
        return self._caches[precision]

    def flush(self) -> None:
        """Write a frozen encoder's new chunk summaries to disk. This also happens from time to time, and at exit."""
        for cache in self._caches.values():
            cache.flush()

    def _forget(self, _: object) -> None:
        """Close the cache, since new weights need a new one."""
        self.flush()
        self._caches = {}

    def train(self, mode: bool = True) -> NoteTransformer:
        """Switch to training or evaluation. A frozen encoder applies no dropout, and writes new summaries to disk."""
        super().train(mode)
        if self.tune == "frozen":
            self.encoder.train(False)
            self.flush()
        return self


def _loaded(used: Pretrained, spec: DataSpec, dropout: float) -> PreTrainedModel:
    """Load a pretrained encoder, and apply the options for its training and computation."""
    encoder = backbone.load(os.path.expanduser(used.name), spec, used.attention)
    if used.padding == "packed":
        backbone.require_packing(encoder)
    if used.tune == "lora":
        tuning.add_lora(encoder, used.lora_rank, used.lora_alpha, dropout)
    elif used.tune == "frozen":
        tuning.freeze(encoder)
    if used.gradient_checkpointing:
        tuning.checkpoint_gradients(encoder)
    if used.compile:
        tuning.compile_encoder(encoder)
    return encoder
