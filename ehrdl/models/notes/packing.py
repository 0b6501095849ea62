"""How chunks of many lengths share the rows of a tensor: groups of like length, or several chunks packed in one row.

Plain integers on the host: whatever a model does with them, it asks the device for the lengths once a batch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Lengths are rounded up to a multiple of this, which is what vector units and tensor cores like.
STEP = 8
#: What one more run of the encoder costs, in tokens: little on a CPU; on a GPU the launches of its kernels, which it
#: hides only behind larger groups. Padding stays under 5 % of tokens at either.
RUN_COST, DEVICE_RUN_COST = 64, 512


def equal_groups(lengths: np.ndarray, n_groups: int = 4) -> list[np.ndarray]:
    """Rows in groups of like length and equal number, ordered by length."""
    order = np.argsort(lengths, kind="stable")
    size = -(-len(order) // n_groups)  # as torch.chunk cuts
    return [order[start : start + size] for start in range(0, len(order), size)]


def length_groups(lengths: np.ndarray, run_cost: int = RUN_COST) -> list[np.ndarray]:
    """Rows in groups of like length, cut where padded tokens and runs of the encoder together cost least.

    The optimum over all cuts of the sorted lengths, by dynamic programming over the distinct rounded lengths.

    Args:
        lengths: (C,) tokens of each chunk, at least 1.
        run_cost: what one more group costs, in tokens.

    >>> [group.tolist() for group in length_groups(np.array([250, 10, 254, 12, 9]))]
    [[4, 1, 3], [0, 2]]
    """
    order = np.argsort(lengths, kind="stable")
    width, stop = np.unique(round_up(lengths[order]), return_index=True)
    stop = np.r_[stop[1:], len(order)]  # rows with at most this width
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
    """Lengths as they stand in a tensor."""
    rounded: np.ndarray = -(-lengths // STEP) * STEP
    return rounded


@dataclass(frozen=True)
class Packing:
    """Where chunks stand in packed rows.

    Attributes:
        row, start: (C,) of each chunk.
        n_rows, capacity: of the packed tensor (R, P).
    """

    row: np.ndarray
    start: np.ndarray
    n_rows: int
    capacity: int


def pack(lengths: np.ndarray) -> Packing:
    """Chunks in as few rows as best fit decreasing finds, each as long as the longest chunk.

    Longer rows would pad less, but attention under a mask costs a row's length squared, for other chunks' tokens too.
    At most 22 % more rows than the fewest possible (Johnson 1974, SIAM J. Comput. 3:299).

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
    """Chunks in packed rows, as tensors.

    Attributes:
        tokens: (R, P) int64.
        document: (R, P) int64, the chunk that a token belongs to; -1 is padding.
        position: (R, P) int64, of a token in its chunk.
        place: (T,) int64, where the chunks' valid tokens, one chunk's after the other's, stand in the flat rows.
    """

    tokens: Tensor
    document: Tensor
    position: Tensor
    place: Tensor


def pack_tokens(tokens: Tensor, valid: Tensor, lengths: np.ndarray, pad_id: int) -> Packed:
    """Pack chunks (C, L), whose valid tokens come first, into rows."""
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
    """The block-diagonal mask (R, 1, P, P) of packed rows: a token sees its own document, padding sees padding.

    (A row of the mask without any True would be NaN under some attention kernels.)
    """
    return (document.unsqueeze(2) == document.unsqueeze(1)).unsqueeze(1)


def within(document: Tensor, distance: int) -> Tensor:
    """`same_document`, but for tokens at most so far apart: what a layer of sliding attention sees."""
    at = torch.arange(document.shape[1], device=document.device)
    near = (at.unsqueeze(0) - at.unsqueeze(1)).abs() <= distance
    return same_document(document) & near
