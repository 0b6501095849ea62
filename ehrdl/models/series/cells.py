"""Observations (B, N) gathered into cells: a channel of a sample, or a bin of it. Order-free, so the same everywhere.

Cells are numbered sample by sample; padding goes to one more behind the last, which every function throws away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch


def cell_of(batch: Batch, within: Tensor, n_within: int) -> Tensor:
    """Flat cell of every observation (B * N,).

    Args:
        batch: its valid.
        within: (B, N), the observation's cell among those of its sample.
        n_within: how many cells a sample has.
    """
    first = torch.arange(batch.batch_size, device=within.device).unsqueeze(1) * n_within
    return torch.where(batch.valid, first + within, batch.batch_size * n_within).reshape(-1)


def last_position(cell: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Flat position of each cell's last observation (0 where there is none), and whether there is one."""
    position = torch.arange(cell.numel(), device=cell.device)
    last = position.new_full((n_cells + 1,), -1).scatter_reduce(0, cell, position, "amax")[:-1]
    return last.clamp(min=0), last >= 0


def first_position(cell: Tensor, n_cells: int) -> Tensor:
    """Flat position of each cell's first observation; some position where there is none."""
    position = torch.arange(cell.numel(), device=cell.device)
    first = position.new_full((n_cells + 1,), cell.numel()).scatter_reduce(0, cell, position, "amin")[:-1]
    return first.clamp(max=cell.numel() - 1)


def total(value: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Sum over each cell (n_cells,); 0 where there is no observation."""
    return value.new_zeros(n_cells + 1).index_add(0, cell, value.reshape(-1))[:-1]


def extreme(value: Tensor, cell: Tensor, n_cells: int, which: str) -> Tensor:
    """Least (`amin`) or greatest (`amax`) of each cell (n_cells,); 0 where there is no observation."""
    start = value.new_zeros(n_cells + 1)
    return start.scatter_reduce(0, cell, value.reshape(-1), which, include_self=False)[:-1]


def spread(value: Tensor, cell: Tensor, shape: torch.Size) -> Tensor:
    """A cell's value at each of its observations, in the shape (B, N); 0 at padding."""
    padded = torch.cat([value, value.new_zeros(1)])
    return padded[cell].view(shape)
