"""Summaries of observations (B, N) by cell. A cell is one channel of one sample, or one time bin of such a channel.

B is the number of samples and N the number of observations of each sample, with padding. Cells are numbered sample by
sample. Padding belongs to one extra cell at the end, whose result every function discards. On a CPU, the same input
always gives the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch


def cell_of(batch: Batch, within: Tensor, n_within: int) -> Tensor:
    """Return the cell number of every observation, flattened to (B * N,).

    Args:
        batch: the batch; only `valid` is read.
        within: (B, N), number of the observation's cell among the cells of its sample, from 0.
        n_within: number of cells per sample.
    """
    first = torch.arange(batch.batch_size, device=within.device).unsqueeze(1) * n_within
    return torch.where(batch.valid, first + within, batch.batch_size * n_within).reshape(-1)


def last_position(cell: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Return the position of each cell's last observation, and whether the cell has any: both (n_cells,).

    A position is an index into the flattened observations (B * N,); 0 if the cell has none.

    Args:
        cell: (B * N,), the cell numbers from `cell_of`.
        n_cells: number of cells of all samples.
    """
    position = torch.arange(cell.numel(), device=cell.device)
    last = position.new_full((n_cells + 1,), -1).scatter_reduce(0, cell, position, "amax")[:-1]
    return last.clamp(min=0), last >= 0


def first_position(cell: Tensor, n_cells: int) -> Tensor:
    """Return the position of each cell's first observation (n_cells,); an arbitrary position if the cell has none.

    A position is an index into the flattened observations (B * N,).

    Args:
        cell: (B * N,), the cell numbers from `cell_of`.
        n_cells: number of cells of all samples.
    """
    position = torch.arange(cell.numel(), device=cell.device)
    first = position.new_full((n_cells + 1,), cell.numel()).scatter_reduce(0, cell, position, "amin")[:-1]
    return first.clamp(max=cell.numel() - 1)


def total(value: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Return the sum of `value` (B, N) over each cell (n_cells,); 0 for a cell without observations."""
    return value.new_zeros(n_cells + 1).index_add(0, cell, value.reshape(-1))[:-1]


def extreme(value: Tensor, cell: Tensor, n_cells: int, which: str) -> Tensor:
    """Return the minimum (`which="amin"`) or maximum (`"amax"`) of each cell (n_cells,); 0 if it has no observation."""
    start = value.new_zeros(n_cells + 1)
    return start.scatter_reduce(0, cell, value.reshape(-1), which, include_self=False)[:-1]


def spread(value: Tensor, cell: Tensor, shape: torch.Size) -> Tensor:
    """Return, for each observation (B, N), the `value` (n_cells,) of the cell that it is in; 0 at padding."""
    padded = torch.cat([value, value.new_zeros(1)])
    return padded[cell].view(shape)
