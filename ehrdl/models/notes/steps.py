"""Layout of the E links between note chunks and samples as padded steps (B, T).

Letters: B samples, T steps, D width of a vector. A link is one pair of a sample and a chunk that it reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch


def lay_out(links: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Put the links of each sample in one row, in the order of the batch.

    T is the largest number of links of a sample, at least 1.

    Args:
        links: (E, D), one vector per link.
        batch: the batch; its `link_sample` has the sample of each link. Links of filler chunks are left out.

    Returns:
        Three tensors: the links' vectors (B, T, D), 0 at padding; the times of their notes relative to the prediction
        time [h] (B, T); and a mask (B, T) that is False at padding.
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
