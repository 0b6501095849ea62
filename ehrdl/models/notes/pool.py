"""Pooling in note encoders: token states (C, L, states) -> chunk vectors (C, D) -> sample vectors (B, D).

Letters: C note chunks, L tokens per chunk, D width of a vector, B samples. `states` is the width of a token's state. E
links connect samples to the chunks that they read: a link is one pair of a sample and a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch

#: Number of vectors that `summarize` makes from a chunk.
SUMMARIES = 3
#: Initial attention scores of a note: of an earlier stay, and of this stay. Attending to nothing has a score of 0. The
#: score falls as log(1 + hours). If it is the only note, one of this stay from twelve hours ago has a weight of 0.97,
#: and one of an earlier stay from three weeks ago has a weight of 0.01.
_EARLIER, _OWN = 2.0, 6.0


class Phrases(nn.Module):
    """A convolution over each token and two neighbours on each side: (C, L, D) -> (C, L, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, width, kernel_size=5, padding=2)

    def forward(self, words: Tensor, valid: Tensor) -> Tensor:
        """Return states (C, L, D). The convolution reads 0 at padding (`valid` is False), as beyond a chunk's ends."""
        words = self.norm(words) * valid.unsqueeze(-1)
        phrases: Tensor = self.convolution(words.transpose(1, 2)).transpose(1, 2).relu()
        return phrases


class TokenPool(nn.Module):
    """Pools token states (C, L, states) to chunk vectors (C, D), by attention heads and by the maximum."""

    def __init__(self, states: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.score = nn.Linear(states, heads)
        self.dropout = nn.Dropout(dropout)
        self.chunk = nn.Linear(2 * states, width)

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """Return the chunk vectors (C, D). Every chunk must have at least one token that is `valid` (C, L)."""
        padding = ~valid.unsqueeze(-1)
        weight = self.score(states).float().masked_fill(padding, -torch.inf).softmax(dim=1)  # (C, L, heads)
        slices = states.view(*states.shape[:2], weight.shape[2], -1)  # each head pools its own slice of the states
        attended = (weight.to(states.dtype).unsqueeze(-1) * slices).sum(dim=1).flatten(1)
        anywhere = states.masked_fill(padding, -torch.inf).amax(dim=1)
        chunks: Tensor = self.chunk(self.dropout(torch.cat([attended, anywhere], dim=1)))
        return chunks


class SummaryPool(nn.Module):
    """Maps the summaries of chunks from `summarize` (C, 3 * states) to chunk vectors (C, D)."""

    def __init__(self, states: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(SUMMARIES * states)
        self.dropout = nn.Dropout(dropout)
        self.chunk = nn.Linear(SUMMARIES * states, width)

    def forward(self, summaries: Tensor) -> Tensor:
        """Return the chunk vectors (C, D)."""
        chunks: Tensor = self.chunk(self.dropout(self.norm(summaries)))
        return chunks


def summarize(states: Tensor, valid: Tensor) -> Tensor:
    """Summarise each chunk's token states (C, L, states) by the first, the mean and the maximum (C, 3 * states).

    >>> summarize(torch.tensor([[[1.0], [4.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[1.0000, 2.5000, 4.0000]])
    """
    padding = ~valid.unsqueeze(-1)
    mean = states.masked_fill(padding, 0.0).sum(dim=1) / valid.sum(dim=1, keepdim=True)
    return torch.cat([states[:, 0], mean, states.masked_fill(padding, -torch.inf).amax(dim=1)], dim=1)


class LinkPool(nn.Module):
    """Pools the chunks that each sample reads to one vector: (C, D) -> (B, D), by attention that sees the notes' ages.

    Attention may also attend to no note. If a sample has only notes of earlier stays, these notes therefore count less
    than notes of the current stay would. When training starts, attention reads almost only the current stay's notes,
    and an older note has less weight. Otherwise the notes of many earlier stays would outweigh the current stay's notes
    before anything is learned.

    Args:
        width: D, the width of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.age = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width))
        self.score = nn.Linear(width, 1)
        self.recency = nn.Parameter(torch.ones(1))
        self.earlier, self.own = nn.Parameter(torch.tensor([_EARLIER])), nn.Parameter(torch.tensor([_OWN]))

    def forward(self, chunks: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample reads any chunk (B,). If not, its features are 0."""
        n_rows = batch.batch_size + 1  # the last row takes the filler chunks
        links, weight = self.weigh(chunks, batch)
        weighted = weight.to(links.dtype).unsqueeze(1) * links
        pooled = links.new_zeros(n_rows, links.shape[1]).index_add(0, batch.link_sample, weighted)
        present = torch.zeros(n_rows, dtype=torch.bool, device=links.device).index_fill(0, batch.link_sample, True)
        return pooled[:-1], present[:-1]

    def weigh(self, chunks: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the vector (E, D) and the attention weight (E,) of each link.

        A link's vector is its chunk's vector plus an embedding of its note's age. The weights of a sample's links sum
        to less than 1.
        """
        age = (-batch.link_hours).clamp(min=0).log1p().unsqueeze(1)
        links = chunks[batch.link_chunk] + self.age(age)
        start = torch.where(batch.link_own_stay, self.own, self.earlier)
        score = self.score(links.tanh()).float().squeeze(1) + start - self.recency * age.squeeze(1)
        return links, softmax_or_nothing(score, batch.link_sample, batch.batch_size + 1)


def softmax_or_nothing(score: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Return the softmax of scores (E,) within each row, in which one more score of 0 competes.

    The weight of the additional score is not returned, so the weights of a row sum to less than 1.

    Args:
        score: (E,) scores.
        row: (E,) the row number that each score belongs to.
        n_rows: number of rows.

    >>> softmax_or_nothing(torch.tensor([0.0, 0.0, 1000.0, -1000.0]), torch.tensor([0, 0, 1, 2]), 3)
    tensor([0.3333, 0.3333, 1.0000, 0.0000])
    """
    highest = score.new_zeros(n_rows).scatter_reduce(0, row, score.detach(), "amax")  # and at least 0
    weight = (score - highest[row]).exp()
    return weight / (-highest).exp().index_add(0, row, weight)[row]
