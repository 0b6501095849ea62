"""Gathers observations (B, N) into cells: a sample's channel, or a bin of it. Free of order, so always the same.

Cells are numbered sample by sample; padding goes to an extra cell at the end, which every function discards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch


def cell_of(batch: Batch, within: Tensor, n_within: int) -> Tensor:
    """The flat cell number of every observation (B * N,).

    Args:
        batch: the batch, of which `valid` is read.
        within: (B, N), number of the observation's cell within its sample.
        n_within: number of cells per sample.
    """
    first = torch.arange(batch.batch_size, device=within.device).unsqueeze(1) * n_within
    return torch.where(batch.valid, first + within, batch.batch_size * n_within).reshape(-1)


def last_position(cell: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Flat position of each cell's last observation (0 where there is none), and whether there is one."""
    position = torch.arange(cell.numel(), device=cell.device)
    last = position.new_full((n_cells + 1,), -1).scatter_reduce(0, cell, position, "amax")[:-1]
    return last.clamp(min=0), last >= 0


def first_position(cell: Tensor, n_cells: int) -> Tensor:
    """Flat position of each cell's first observation; an arbitrary position where there is none."""
    position = torch.arange(cell.numel(), device=cell.device)
    first = position.new_full((n_cells + 1,), cell.numel()).scatter_reduce(0, cell, position, "amin")[:-1]
    return first.clamp(max=cell.numel() - 1)


def total(value: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Sum over each cell (n_cells,); 0 where there is no observation."""
    return value.new_zeros(n_cells + 1).index_add(0, cell, value.reshape(-1))[:-1]


def extreme(value: Tensor, cell: Tensor, n_cells: int, which: str) -> Tensor:
    """Minimum (`amin`) or maximum (`amax`) of each cell (n_cells,); 0 where there is no observation."""
    start = value.new_zeros(n_cells + 1)
    return start.scatter_reduce(0, cell, value.reshape(-1), which, include_self=False)[:-1]


def spread(value: Tensor, cell: Tensor, shape: torch.Size) -> Tensor:
    """A cell's value at each of its observations, in the shape (B, N); 0 at padding."""
    padded = torch.cat([value, value.new_zeros(1)])
    return padded[cell].view(shape)
