"""Hashes by which the processes of a run check that they train the same model on the same data."""

from __future__ import annotations

import hashlib

import torch

from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import digest
from ehrdl.runs.ledger import asked_digest


def data_digest(prepared: Prepared) -> str:
    """Hash prepared data: the data description, the split, and the subject and prediction time of each sample."""
    samples = prepared.samples
    names = [output.name for output in prepared.spec.outputs]
    splits = samples.groupby("split").sample_id.agg(["count", "sum"]).sort_index().to_dict()
    return digest([prepared.spec.to_dict(), asked_digest(samples, names), splits])


def weights_digest(module: torch.nn.Module) -> str:
    """Return a hash of all weights and buffers of a module."""
    found = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(memoryview(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return found.hexdigest()
