"""A linear model of the words in notes: tokens (C, L) and links (E,) -> log-odds (B, K), with one weight per phrase.

Such a model is hard to beat if labels are few. It needs only one weight for each phrase, and most weights are near 0.
It is added to a network's encoders and fitted with them (Cheng 2016, arXiv:1606.07792), or it replaces the note
encoder. Phrases are numbered by hashing, so that they need not be
counted first (Weinberger 2009, arXiv:0902.2206).

Letters: B samples, K outputs, C note chunks, L tokens per chunk, T interactions. E links connect samples to the chunks
that they read: a link is one pair of a sample and a chunk.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder
from ehrdl.options.bounds import Bound, NonNegative

#: Ages [h] between which the weight of a note is interpolated on the scale log(1 + hours).
_KNOTS_HOURS = (0.0, 24.0, 48.0, 96.0, 168.0, 720.0, 2160.0)
#: Before training, the weight of a day-old note is sigmoid(4), near 1. After several days it is sigmoid(-3).
_FIRST_CURVE = (4.0, 4.0, 0.0, -3.0, -3.0, -3.0, -3.0)
_PRIME = 2**31 - 1
_TINY = 1e-12


class WordEvidence(nn.Module, Encoder):
    """Sums the learned weights of the words and short phrases in a sample's notes, each counted once per chunk.

    Weights start at 0 and have a lasso penalty (Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x), so that
    uninformative phrases have weights near 0. Gradient steps do not bring them to exactly 0. A chunk counts less the
    older its note is, by a curve that is learned for each kind of note. The curve does not depend on the sample's
    other notes: old notes count little even if there are no new ones.

    A sum cannot express that a missed follow-up matters if the sodium is low. With `interactions`, each phrase also has
    a vector. The sum of these vectors over a sample's phrases is multiplied elementwise with a vector from the other
    modalities, as in a factorization machine (Rendle 2010, doi:10.1109/ICDM.2010.127). The phrases' vectors start at 0.
    They have a group lasso penalty (Yuan and Lin 2006, doi:10.1111/j.1467-9868.2005.00532.x), so that a whole phrase
    either interacts or hardly interacts.

    Args:
        spec: the data description.
        phrase: largest number of neighbouring tokens in a phrase.
        buckets: number of weights that phrases are hashed to.
        penalty: factor of the sum of the absolute weights in the training loss.
        interactions: T, the length of a phrase's vector; 0 = phrases do not interact with the other modalities.
        interaction_penalty: factor of the sum of the vectors' norms in the training loss.

    Raises:
        ConfigError: an option is impossible, or the data have no notes.
    """

    def __init__(
        self,
        spec: DataSpec,
        phrase: Annotated[int, Bound("[1, 16]")] = 2,
        buckets: Annotated[int, Bound("[2, 100000000]")] = 65536,
        penalty: NonNegative = 1.5e-4,
        interactions: Annotated[int, Bound("[0, 4096]")] = 0,
        interaction_penalty: NonNegative = 1e-3,
    ) -> None:
        super().__init__()
        if spec.vocab_size < 1:
            raise ConfigError("WordEvidence: the data have no notes; leave `words` out of the model")
        self.phrase, self.buckets, self.lasso = phrase, buckets, penalty
        self.interactions, self.group_lasso = interactions, interaction_penalty
        self.n_outputs = len(spec.outputs)
        self.width = self.n_outputs + interactions
        # An embedding, so that AdamW does not decay it too. Row 0 means that there is no phrase.
        self.weight = nn.Embedding(buckets + 1, len(spec.outputs), _weight=torch.zeros(buckets + 1, len(spec.outputs)))
        self.vector: Any = None
        if interactions:
            self.vector = nn.Embedding(buckets + 1, interactions, _weight=torch.zeros(buckets + 1, interactions))
        curve = torch.tensor(_FIRST_CURVE).repeat(max(len(spec.note_kinds), 1), 1)
        self.age_curve = nn.Embedding(curve.shape[0], curve.shape[1], _weight=curve)
        self.register_buffer("knots", torch.tensor(_KNOTS_HOURS).log1p(), persistent=False)
        self.knots: Tensor

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, K + T), and whether each sample has a note (B,). If not, its features are 0.

        The features are the sums, over the phrases in a sample's notes, of their weights (K) and their vectors (T).
        """
        phrases = hashed_phrases(batch.tokens, batch.token_valid, self.phrase, self.buckets)
        weight = self.age_weight(batch.kind[batch.link_chunk], -batch.link_hours)
        tables = [self.weight] if self.vector is None else [self.weight, self.vector]
        sums = [self._summed(table, phrases, weight, batch) for table in tables]
        present = torch.zeros(batch.batch_size + 1, dtype=torch.bool, device=weight.device)
        present[batch.link_sample] = True
        return torch.cat(sums, dim=1), present[:-1]

    def _summed(self, table: nn.Embedding, phrases: Tensor, weight: Tensor, batch: Batch) -> Tensor:
        """Sum the rows of a table (…, width) for each sample's phrases, weighted by their notes' age -> (B, width)."""
        per_chunk = (table(phrases) * (phrases > 0).unsqueeze(-1)).sum(dim=1)  # (C, width)
        links = per_chunk[batch.link_chunk] * weight.unsqueeze(1)
        total: Tensor = links.new_zeros(batch.batch_size + 1, links.shape[1])
        return total.index_add(0, batch.link_sample, links)[:-1]

    def logits(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the contribution of the words in the notes to the log-odds (B, K).

        Args:
            features: the features (B, K + T) from `forward`.
            context: (B, T * K), vectors of the other modalities that interact with the phrases; None = no interactions.
        """
        added = features[:, : self.n_outputs]
        if self.vector is None or context is None:
            return added
        vectors = features[:, self.n_outputs :]
        return added + torch.einsum("bt,btk->bk", vectors, context.view(len(context), self.interactions, -1))

    def age_weight(self, kind: Tensor, age_hours: Tensor) -> Tensor:
        """Return the weight of each link (E,), from 0 to 1, given the kind (E,) and the age (E,) of its note."""
        age = age_hours.clamp(min=0).log1p()
        at = torch.bucketize(age, self.knots, right=True).clamp(1, len(self.knots) - 1)
        low, high = self.knots[at - 1], self.knots[at]
        share = ((age - low) / (high - low)).clamp(0, 1)
        curve = self.age_curve(kind)
        before, after = curve.gather(1, (at - 1).unsqueeze(1)), curve.gather(1, at.unsqueeze(1))
        weight: Tensor = torch.lerp(before, after, share.unsqueeze(1)).squeeze(1).sigmoid()
        return weight

    def penalty(self) -> Tensor:
        """Return the lasso penalties on the phrases' weights and vectors, as one scalar for the training loss."""
        penalty: Tensor = self.lasso * self.weight.weight.abs().sum()
        if self.vector is not None:
            # The root of 0 has no gradient.
            penalty = penalty + self.group_lasso * (self.vector.weight.square().sum(dim=1) + _TINY).sqrt().sum()
        return penalty


def hashed_phrases(tokens: Tensor, valid: Tensor, longest: int, buckets: int) -> Tensor:
    """Hash the distinct phrases of each chunk to bucket numbers (C, P) from 1 to `buckets`; 0 = no phrase.

    P is the number of places for phrases, the same for all chunks.

    Args:
        tokens: (C, L) token ids.
        valid: (C, L), whether a token is real; real tokens come first.
        longest: number of tokens of the longest phrase.
        buckets: number of buckets.
    """
    found = []
    for n in range(1, min(longest, tokens.shape[1]) + 1):
        width = tokens.shape[1] - n + 1
        key = torch.full_like(tokens[:, :width], n)
        for i in range(n):
            key = (key * 1_000_003 + tokens[:, i : i + width] + 1) % _PRIME
        bucket = key * 48_271 % _PRIME % buckets + 1
        found.append(bucket * valid[:, n - 1 :])
    phrases = torch.cat(found, dim=1).sort(dim=1).values
    repeated = torch.zeros_like(phrases, dtype=torch.bool)
    repeated[:, 1:] = phrases[:, 1:] == phrases[:, :-1]
    return phrases.masked_fill(repeated, 0)
