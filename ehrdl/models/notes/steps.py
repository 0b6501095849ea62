"""Layout of the links (E,) between chunks and samples as steps (B, T) of each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch


def lay_out(links: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Put each sample's links in a row, in the order of the batch. T is the largest number of links, at least 1.

    Args:
        links: (E, D), one vector per link.
        batch: the batch; its `link_sample` has the sample of each link. Links of filler chunks are left out.

    Returns:
        States (B, T, D), 0 where there is no link; hours (B, T); and valid (B, T), whether there is a link.
    """
    n_samples, sample = batch.batch_size, batch.link_sample
    counts = torch.zeros(n_samples + 1, dtype=torch.long, device=sample.device)
    counts = counts.index_add(0, sample, torch.ones_like(sample))
    n_steps = max(int(counts[:-1].max()), 1)
    order = sample.argsort(stable=True)
    first = counts.cumsum(0) - counts
    within = torch.arange(len(sample), device=sample.device) - first[sample[order]]
    # Links of fillers go to one extra place at the end, which is discarded.
    place = torch.where(sample[order] < n_samples, sample[order] * n_steps + within, n_samples * n_steps)
    shape = (n_samples, n_steps)
    flat = links.new_zeros(n_samples * n_steps + 1, links.shape[1]).index_add(0, place, links[order])
    hours = batch.link_hours.new_zeros(len(flat)).index_add(0, place, batch.link_hours[order])
    valid = torch.arange(n_steps, device=sample.device) < counts[:-1].unsqueeze(1)
    return flat[:-1].view(*shape, -1), hours[:-1].view(shape), valid
