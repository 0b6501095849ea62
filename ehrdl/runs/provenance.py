"""Records the subjects whose notes an encoder has read in pretraining, and checks them before the encoder is used.

The record is in the folder of the encoder's weights, which are patient data too. The subjects' ids are not hashed,
since a hash of an eight-digit number hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from transformers import PreTrainedModel

from ehrdl.engine.files import digest, read_json, write_json, write_text
from ehrdl.errors import ConfigError, LeakageError
from ehrdl.schema import TRAIN

FACTS, SUBJECTS = "pretraining.json", "subjects.npy"
_PACKAGES = ("ehrdl", "torch", "transformers", "tokenizers", "datasets", "pytorch-lightning")
_CARD = """# An encoder of clinical notes, pretrained by ehrdl

**Treat this folder as patient data.** The encoder learned to guess hidden words of {n_notes:,} notes of
{n_subjects:,} patients. A language model can give back what it has read, and `{subjects}` holds the ids of all
{n_read:,} patients whose notes these weights have ever read. Keep it where the notes may be kept; do not publish it.

- Started from: {start}
- Trained on: {n_chunks:,} chunks, {n_tokens:,} tokens, {epochs} epochs
- Hidden words of notes of other patients: {before:.3f} nats a token before, {after:.3f} after
- `{facts}` has the rest: source, split, options, versions

Use it with the same `data.split`; a run whose tuning or held-out patients it has read is refused:

    ehrdl train --config … --model.init_args.note.init_args.pretrained FOLDER --data.notes.tokenizer FOLDER
"""


def write_provenance(folder: Path, subjects: np.ndarray, facts: dict[str, Any]) -> None:
    """Write a record of an encoder's pretraining into the encoder's folder: its subjects, its numbers and a model card.

    Args:
        folder: the encoder's folder.
        subjects: (n,) the ids of all subjects whose notes the encoder has read, also in earlier pretraining.
        facts: the settings and results of the pretraining: `start`, `options`, `train`, `tuning`, and any others.
    """
    ids = np.unique(subjects.astype(np.int64))
    np.save(folder / SUBJECTS, ids)
    known = {"subjects": {"n": len(ids), "digest": digest(ids.tolist())}}
    versions = {name: version(name) for name in _PACKAGES}
    write_json(folder / FACTS, facts | known | {"versions": versions})
    train, tuning = facts["train"], facts["tuning"]
    card = _CARD.format(
        n_notes=train["notes"],
        n_subjects=train["subjects"],
        n_read=len(ids),
        subjects=SUBJECTS,
        facts=FACTS,
        start=facts["start"] or "random weights",
        n_chunks=train["chunks"],
        n_tokens=train["tokens"],
        epochs=facts["options"]["epochs"],
        before=tuning["nats_before"],
        after=tuning["nats_after"],
    )
    write_text(folder / "README.md", card)


def read_subjects(folder: Path) -> np.ndarray:
    """Return the ids of the subjects whose notes an encoder has read; empty if ehrdl did not pretrain the encoder.

    Raises:
        ConfigError: the record is damaged, or was changed after it had been written.
    """
    if not (folder / FACTS).is_file():
        return np.zeros(0, np.int64)
    try:
        ids: np.ndarray = np.load(folder / SUBJECTS, allow_pickle=False)
        known = read_json(folder / FACTS)["subjects"]["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder}: whose notes it was pretrained on cannot be read ({error})") from None
    if digest(ids.tolist()) != known:
        raise ConfigError(f"{folder / SUBJECTS}: is not the one that was written with this encoder; pretrain it anew")
    return ids


def check_network(network: Any, tokenizer: str | None, samples: pd.DataFrame, elsewhere: bool = False) -> None:
    """Check that no pretrained encoder of a network has read notes of tuning or held-out subjects.

    Args:
        network: the network; its encoders from local folders are checked.
        tokenizer: the folder or name of the tokenizer, which is checked in the same way.
        samples: the SAMPLES table, with the split of each sample.
        elsewhere: whether the encoder is of another hospital. The same id then means another person.

    Raises:
        LeakageError: an encoder has read such notes; the message names the folder and a subject.
    """
    modules: Iterable[nn.Module] = network.modules() if isinstance(network, nn.Module) else ()
    names = {module.name_or_path for module in modules if isinstance(module, PreTrainedModel)}
    for name in sorted(filter(None, names | {tokenizer or ""})):
        check_folder(Path(name), samples, elsewhere)


def check_folder(folder: Path, samples: pd.DataFrame, elsewhere: bool = False) -> None:
    """Check that the encoder in a folder has read no notes of tuning or held-out subjects.

    Args:
        folder: the encoder's folder.
        samples: the SAMPLES table, with the split of each sample.
        elsewhere: whether the encoder is of another hospital. The same id then means another person.

    Raises:
        LeakageError: it has read such notes; the message names the folder and a subject.
    """
    ids = read_subjects(folder)
    others = np.unique(samples.subject_id[samples.split != TRAIN])
    leaked = np.intersect1d(ids, others)
    if len(leaked) and not elsewhere:
        raise LeakageError(
            f"{folder}: was made of notes of {len(leaked)} subjects who tune or are held out here, such as "
            f"{leaked[0]}; use the data.split in its {FACTS}, or pretrain with this config. If it is of another "
            "hospital that numbers its patients alike, set data.notes.pretrained_elsewhere to true"
        )
