"""Layouts of note chunks of different lengths in tensors: groups of similar length, or several chunks per row.

All computations are on plain integers in the memory of the host. A model therefore copies the lengths from the device
only once per batch.

Letters: C chunks, L tokens per chunk, R packed rows, P tokens per packed row, T valid tokens of all chunks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Lengths are rounded up to a multiple of this, which suits vector units and tensor cores.
STEP = 8
#: Cost of one more run of the encoder, in tokens. It is small on a CPU. On a GPU it is the cost of kernel launches,
#: which only larger groups hide. Padding is under 5 % of the tokens with either cost.
RUN_COST, DEVICE_RUN_COST = 64, 512


def equal_groups(lengths: np.ndarray, n_groups: int = 4) -> list[np.ndarray]:
    """Sort chunks by length and cut them into `n_groups` equal groups. Return the chunk numbers of each group."""
    order = np.argsort(lengths, kind="stable")
    size = -(-len(order) // n_groups)  # as torch.chunk cuts
    return [order[start : start + size] for start in range(0, len(order), size)]


def length_groups(lengths: np.ndarray, run_cost: int = RUN_COST) -> list[np.ndarray]:
    """Group chunks of similar length, and return the chunk numbers of each group.

    Each group is padded to its longest chunk and encoded in one run. The groups minimise the total cost of padded
    tokens and encoder runs. Dynamic programming over the distinct rounded lengths finds them.

    Args:
        lengths: (C,) number of tokens of each chunk, at least 1.
        run_cost: the cost of one encoder run, in tokens.

    >>> [group.tolist() for group in length_groups(np.array([250, 10, 254, 12, 9]))]
    [[4, 1, 3], [0, 2]]
    """
    order = np.argsort(lengths, kind="stable")
    width, stop = np.unique(round_up(lengths[order]), return_index=True)
    stop = np.r_[stop[1:], len(order)]  # number of rows with at most this width
    begin = np.r_[0, stop]
    best = np.zeros(len(width) + 1)
    cut = np.zeros(len(width) + 1, np.int64)
    for i in range(1, len(width) + 1):  # best[i]: the cheapest way to group the rows of the i smallest widths
        costs = best[:i] + width[i - 1] * (begin[i] - begin[:i]) + run_cost
        cut[i] = int(costs.argmin())
        best[i] = costs[cut[i]]
    groups = []
    last = len(width)
    while last:
        groups.append(order[begin[cut[last]] : begin[last]])
        last = int(cut[last])
    return groups[::-1]


def round_up(lengths: np.ndarray) -> np.ndarray:
    """Round lengths up to a multiple of `STEP`, which is the length of a padded tensor."""
    rounded: np.ndarray = -(-lengths // STEP) * STEP
    return rounded


@dataclass(frozen=True)
class Packing:
    """Where each of C chunks is placed in packed rows.

    Attributes:
        row, start: (C,) row of each chunk, and position of its first token in this row.
        n_rows, capacity: R and P, the shape of the packed tensor (R, P).
    """

    row: np.ndarray
    start: np.ndarray
    n_rows: int
    capacity: int


def pack(lengths: np.ndarray) -> Packing:
    """Assign chunks of these lengths (C,) to few rows, each as long as the longest chunk, by best fit decreasing.

    Longer rows would need less padding, but the cost of masked attention grows with the square of a row's length. There
    are at most 22 % more rows than the smallest possible number (Johnson 1974, SIAM J. Comput. 3:299).

    >>> pack(np.array([6, 3, 8, 2])).row.tolist()
    [1, 2, 0, 1]
    """
    capacity = int(round_up(lengths.max(keepdims=True))[0])
    row, start = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    open_rows: list[tuple[int, int]] = []  # (room left, row), sorted
    n_rows = 0
    for chunk in np.argsort(-lengths, kind="stable"):
        length = int(lengths[chunk])
        place = bisect_left(open_rows, (length, -1))
        if place < len(open_rows):
            room, row[chunk] = open_rows.pop(place)
        else:
            room, row[chunk] = capacity, n_rows
            n_rows += 1
        start[chunk] = capacity - room
        insort(open_rows, (room - length, int(row[chunk])))
    return Packing(row, start, n_rows, capacity)


@dataclass(frozen=True)
class Packed:
    """The tokens of C chunks in R packed rows of P tokens, as tensors.

    Attributes:
        tokens: (R, P) int64.
        document: (R, P) int64, the number of the chunk that a token belongs to; -1 = padding.
        position: (R, P) int64, the position of a token in its chunk.
        place: (T,) int64, the index of each of the T valid tokens in the flattened rows (R * P), chunk by chunk.
    """

    tokens: Tensor
    document: Tensor
    position: Tensor
    place: Tensor


def pack_tokens(tokens: Tensor, valid: Tensor, lengths: np.ndarray, pad_id: int) -> Packed:
    """Pack the tokens of chunks into rows.

    Args:
        tokens: (C, L) token ids; in each chunk, the valid tokens come first.
        valid: (C, L), whether a token is valid.
        lengths: (C,) number of valid tokens of each chunk.
        pad_id: token id of padding.
    """
    found = pack(lengths)
    row, start = (torch.from_numpy(array).to(tokens.device) for array in (found.row, found.start))
    chunk, position = valid.nonzero(as_tuple=True)
    place = row[chunk] * found.capacity + start[chunk] + position
    shape = (found.n_rows, found.capacity)

    def laid(values: Tensor, empty: int) -> Tensor:
        flat = values.new_full((shape[0] * shape[1],), empty)
        return flat.index_copy(0, place, values).view(shape)

    return Packed(laid(tokens[valid], pad_id), laid(chunk, -1), laid(position, 0), place)


def same_document(document: Tensor) -> Tensor:
    """Return the attention mask (R, 1, P, P) of packed rows. It is True for two tokens of the same chunk.

    `document` (R, P) has the chunk number of each token, -1 at padding. Padding attends to padding, since a mask row
    without any True would give NaN in some attention kernels.
    """
    return (document.unsqueeze(2) == document.unsqueeze(1)).unsqueeze(1)


def within(document: Tensor, distance: int) -> Tensor:
    """Return the mask of `same_document`, limited to tokens at most `distance` apart, for sliding-window attention."""
    at = torch.arange(document.shape[1], device=document.device)
    near = (at.unsqueeze(0) - at.unsqueeze(1)).abs() <= distance
    return same_document(document) & near
