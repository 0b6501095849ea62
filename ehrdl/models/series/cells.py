"""Gathers observations (B, N) into cells, which are a sample's channels or the bins of its channels.

On a CPU, the same input always gives the same numbers. Cells are numbered sample by sample. Padding goes to
an extra cell at the end, which every function discards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch


def cell_of(batch: Batch, within: Tensor, n_within: int) -> Tensor:
    """Return the flat cell number of every observation (B * N,).

    Args:
        batch: the batch; only `valid` is read.
        within: (B, N), number of the observation's cell within its sample.
        n_within: number of cells per sample.
    """
    first = torch.arange(batch.batch_size, device=within.device).unsqueeze(1) * n_within
    return torch.where(batch.valid, first + within, batch.batch_size * n_within).reshape(-1)


def last_position(cell: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Return the flat position of each cell's last observation (0 if there is none), and whether there is one."""
    position = torch.arange(cell.numel(), device=cell.device)
    last = position.new_full((n_cells + 1,), -1).scatter_reduce(0, cell, position, "amax")[:-1]
    return last.clamp(min=0), last >= 0


def first_position(cell: Tensor, n_cells: int) -> Tensor:
    """Return the flat position of each cell's first observation; an arbitrary position if there is none."""
    position = torch.arange(cell.numel(), device=cell.device)
    first = position.new_full((n_cells + 1,), cell.numel()).scatter_reduce(0, cell, position, "amin")[:-1]
    return first.clamp(max=cell.numel() - 1)


def total(value: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Return the sum over each cell (n_cells,); 0 where there is no observation."""
    return value.new_zeros(n_cells + 1).index_add(0, cell, value.reshape(-1))[:-1]


def extreme(value: Tensor, cell: Tensor, n_cells: int, which: str) -> Tensor:
    """Return the minimum (`amin`) or maximum (`amax`) of each cell (n_cells,); 0 where there is no observation."""
    start = value.new_zeros(n_cells + 1)
    return start.scatter_reduce(0, cell, value.reshape(-1), which, include_self=False)[:-1]


def spread(value: Tensor, cell: Tensor, shape: torch.Size) -> Tensor:
    """Return each observation's value of its cell, in the shape (B, N); 0 at padding."""
    padded = torch.cat([value, value.new_zeros(1)])
    return padded[cell].view(shape)
