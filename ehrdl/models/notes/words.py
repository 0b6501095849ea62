"""Words of notes as evidence: tokens (C, L) and links (E,) -> logits (B, K), one weight a word or short phrase.

A linear model over which words and phrases a sample's notes hold is hard to beat where labels are few: it needs no
more than one number each, most of them near 0. It stands beside the encoders of a network and is fitted with them
(Cheng 2016, arXiv:1606.07792), or reads the notes in place of one. Phrases are found by hashing, so that nothing has
to be counted before (Weinberger 2009, arXiv:0902.2206).

Letter of this file: T interactions.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound, Checked, NonNegative

#: Ages [h] between which the weight of a note is interpolated, on the scale log(1 + hours).
_KNOTS_HOURS = (0.0, 24.0, 48.0, 96.0, 168.0, 720.0, 2160.0)
#: The weight of a day-old note before training is sigmoid(4), near 1; of one of several days it is sigmoid(-3).
_FIRST_FADE = (4.0, 4.0, 0.0, -3.0, -3.0, -3.0, -3.0)
_PRIME = 2**31 - 1
_TINY = 1e-12


class WordEvidence(nn.Module, Checked):
    """What the words and short phrases of a sample's notes say: the sum of their weights, each counted once a chunk.

    Weights start at 0 and pay a lasso penalty (Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x), so that
    phrases that tell little say next to nothing; its gradient steps leave them near 0, not at it. What a chunk says
    counts less with the age of its note, by a curve that is learned for each kind of note, in absolute terms: where
    only old notes are left, they do not speak as loudly as a new one would.

    A sum cannot say that a missed follow-up matters where the sodium is low. With `interactions`, a phrase has a vector
    too; the sum of a sample's vectors is multiplied, number by number, with as many readings of the other modalities,
    as in a factorization machine (Rendle 2010, doi:10.1109/ICDM.2010.127). The vectors start at 0 under a group lasso
    (Yuan and Lin 2006, doi:10.1111/j.1467-9868.2005.00532.x): a phrase interacts as a whole, or next to not at all.

    Args:
        spec: the data.
        phrase: most neighbouring tokens in a phrase.
        buckets: weights that phrases are hashed to.
        penalty: it times the sum of the absolute weights is added to the training loss.
        interactions: T, numbers in the vector of a phrase; 0 = phrases say the same whatever the rest of the sample.
        interaction_penalty: it times the sum of the lengths of the vectors is added to the training loss.

    Raises:
        ConfigError: an option that cannot be, or data without notes.
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
        # An embedding, so that AdamW does not decay it as well. Row 0 is for what is no phrase.
        self.weight = nn.Embedding(buckets + 1, len(spec.outputs), _weight=torch.zeros(buckets + 1, len(spec.outputs)))
        self.vector: Any = None
        if interactions:
            self.vector = nn.Embedding(buckets + 1, interactions, _weight=torch.zeros(buckets + 1, interactions))
        fade = torch.tensor(_FIRST_FADE).repeat(max(len(spec.note_kinds), 1), 1)
        self.fade = nn.Embedding(fade.shape[0], fade.shape[1], _weight=fade)
        self.register_buffer("knots", torch.tensor(_KNOTS_HOURS).log1p(), persistent=False)
        self.knots: Tensor

    def forward(self, batch: Batch, readings: Tensor | None = None) -> Tensor:
        """What is added to the log-odds (B, K); 0 without a note.

        Args:
            batch: the samples.
            readings: (B, T, K) of the other modalities; None = nothing interacts.
        """
        phrases = hashed_phrases(batch.tokens, batch.token_valid, self.phrase, self.buckets)
        loudness = self.loudness(batch.kind[batch.link_chunk], -batch.link_hours)

        def summed(table: Any) -> Tensor:
            said = (table(phrases) * (phrases > 0).unsqueeze(-1)).sum(dim=1)  # (C, width)
            links = said[batch.link_chunk] * loudness.unsqueeze(1)
            total: Tensor = links.new_zeros(batch.batch_size + 1, links.shape[1])
            return total.index_add(0, batch.link_sample, links)[:-1]

        added = summed(self.weight)
        if self.vector is None or readings is None:
            return added
        return added + torch.einsum("bt,btk->bk", summed(self.vector), readings)

    def loudness(self, kind: Tensor, age_hours: Tensor) -> Tensor:
        """How much a chunk of a kind (E,) counts whose note is so old (E,): from 0 to 1."""
        age = age_hours.clamp(min=0).log1p()
        at = torch.bucketize(age, self.knots, right=True).clamp(1, len(self.knots) - 1)
        low, high = self.knots[at - 1], self.knots[at]
        share = ((age - low) / (high - low)).clamp(0, 1)
        curve = self.fade(kind)
        before, after = curve.gather(1, (at - 1).unsqueeze(1)), curve.gather(1, at.unsqueeze(1))
        loudness: Tensor = torch.lerp(before, after, share.unsqueeze(1)).squeeze(1).sigmoid()
        return loudness

    def penalty(self) -> Tensor:
        """The lasso penalties, a scalar."""
        penalty: Tensor = self.lasso * self.weight.weight.abs().sum()
        if self.vector is not None:
            # The root of a sum of 0 has no gradient.
            penalty = penalty + self.group_lasso * (self.vector.weight.square().sum(dim=1) + _TINY).sqrt().sum()
        return penalty


def hashed_phrases(tokens: Tensor, valid: Tensor, longest: int, buckets: int) -> Tensor:
    """Buckets 1 to `buckets` of the distinct phrases of up to `longest` tokens of each chunk (C, P); 0 = none.

    Args:
        tokens: (C, L).
        valid: (C, L), real tokens, from the first on.
        longest: tokens of the longest phrase.
        buckets: how many there are.
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
