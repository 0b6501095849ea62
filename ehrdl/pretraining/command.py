"""`ehrdl pretrain`: pretrains an encoder on the training subjects' notes, and writes it as a Hugging Face folder.

The command reads a training configuration. A later run with the same configuration can use the encoder, and has the
same split, masked sections and chunks. Large libraries are imported only inside the functions that use them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.data.config import DataConfig
from ehrdl.engine.files import building, digest, free_folder, read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.options.training import Pretraining
from ehrdl.schema import TRAIN, TUNING
from ehrdl.tasks.common.base import Task

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ehrdl.data.loading.chunks import Chunking
    from ehrdl.data.prepare import Prepared
    from ehrdl.pretraining.domain import LitMasked, MaskedNotes
    from ehrdl.processes.team import Follower
    from ehrdl.training.pretrain import Chunks

_SCRATCH = ".scratch"
#: The key of a training configuration that names its note encoder.
PRETRAINED = "model.init_args.note.init_args.pretrained"


def pretrain(
    data: DataConfig,
    task: Task,
    out: Path,
    start: str | None = None,
    options: Pretraining = Pretraining(),  # noqa: B008 - frozen
    trainer: dict[str, Any] = {},  # noqa: B006 - never changed
) -> Path:
    """Train an encoder by masked language modelling on the notes of training subjects.

    A run uses the encoder if its options `pretrained` and `tokenizer` name the folder `out`. The reported loss is
    computed on notes of tuning subjects. Notes of held-out subjects are not used.

    Args:
        data: the configuration of the data: the source, the split, and how notes become chunks.
        task: the task. The split of its samples determines which subjects are training subjects.
        out: the folder for the encoder, which must be new or empty. It is written whole or not at all.
        start: the name or folder of the encoder to continue from; None = a BERT from scratch.
        options: the size of the encoder, the number of passes, the learning rate and the masks.
        trainer: arguments of pytorch_lightning.Trainer; `max_epochs` comes from `options`.

    Returns:
        The absolute path of the folder.

    Raises:
        EhrdlError: pretraining is impossible. The message gives the reason in one line, and no files are left behind.
    """
    from ehrdl.cohort import prepare
    from ehrdl.processes.team import Follower
    from ehrdl.processes.together import together
    from ehrdl.processes.trainer import check_trainer
    from ehrdl.runs import trail
    from ehrdl.runs.folder import holding
    from ehrdl.runs.provenance import check_network

    options, trainer = _complete(options, start), trainer | {"max_epochs": options.epochs}
    key = digest([start, asdict(options), asdict(data.notes), asdict(data.split)])
    with together(trainer, str(out), key) as team:
        if isinstance(team, Follower):
            _follow(team, data, task, out.resolve(), start, options, trainer)
            return out.resolve()
        out = free_folder(out)
        with holding(out, "--out", "another process is writing it"):
            out = free_folder(out)
            trainer = check_trainer(trainer)
            data = _with_tokenizer(data, start, out)
            data.source.fingerprint(data.prepare.verify)
            model = _started_from(start, data, options) if start else None  # before data, so that errors come early
            prepared = prepare(data, task).prepared
            events = prepared.events.name
            check_network(model, data.notes.tokenizer, prepared.samples, data.notes.pretrained_elsewhere)
            with building(out, resume=True) as part:
                _fit(part, prepared, model, data, start, options, trainer)
    trail.enter(out.parent, "pretrain", {"encoder": out.name, "source": type(data.source).__name__, "events": events})
    say(f"encoder: {out}")
    say(f"next: ehrdl train … --{PRETRAINED} {out} --data.notes.tokenizer {out}")
    return out


def _follow(
    team: Follower,
    data: DataConfig,
    task: Task,
    out: Path,
    start: str | None,
    options: Pretraining,
    trainer: dict[str, Any],
) -> None:
    """Take part in the training as a process other than the first, and write nothing."""
    from ehrdl.cohort import prepare
    from ehrdl.pretraining.domain import join_masked
    from ehrdl.processes.together import Joined
    from ehrdl.processes.trainer import check_trainer

    with team.reporting():
        for order in team.orders():
            data, trainer = _with_tokenizer(data, start, out), check_trainer(trainer)
            model = _started_from(start, data, options) if start else None
            prepared = prepare(data, task).prepared
            module, loaders, facts = _module(prepared, model, data, start, options)
            if order["data"] != digest(facts):
                raise ConfigError("data.prepare.cache: the data differ from the first process's; share one cache")
            weights = join_masked(module, loaders, trainer, Joined.of(order), lambda: team.reply(ready=True))
            team.reply(done=weights)
    team.leave()


def _complete(options: Pretraining, start: str | None) -> Pretraining:
    """Complete the options with a learning rate. With a start encoder, refuse options of an encoder from scratch."""
    if start:
        options.require_scratch()
    return replace(options, lr=options.lr or (5e-5 if start else 1e-3))


def _with_tokenizer(data: DataConfig, start: str | None, out: Path) -> DataConfig:
    """Set the tokenizer of the data, from the start encoder or, if there is none, from the config.

    A config may already name the folder `out` as tokenizer, for the training that follows. It is ignored here.
    """
    named = data.notes.tokenizer
    if named and Path(named).resolve() == out:
        named = None
    if start and named and named != start:
        from ehrdl.data.notes.vocabulary import load_tokenizer

        own, other = load_tokenizer(start), load_tokenizer(named)
        if _tokens(own) != _tokens(other):
            raise ConfigError(
                f"data.notes.tokenizer: {named} is not the tokenizer of --from {start}; leave it out, or name that"
            )
    return replace(data, notes=replace(data.notes, tokenizer=start or named))


def _tokens(tokenizer: PreTrainedTokenizerFast) -> str:
    """Describe a fast tokenizer by its settings, without the saved options on truncation and padding."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    text: str = backend.to_str()
    return text


def _started_from(start: str, data: DataConfig, options: Pretraining) -> PreTrainedModel:
    import pytorch_lightning as pl

    from ehrdl.data.notes.vocabulary import load_tokenizer
    from ehrdl.models.notes.masked import load_masked

    pl.seed_everything(options.seed, workers=True, verbose=False)
    model = load_masked(start, data.notes.chunk_tokens)
    _require_mask(load_tokenizer(start), start)
    return model


def _from_scratch(prepared: Prepared, n_words: int, options: Pretraining) -> PreTrainedModel:
    import pytorch_lightning as pl

    from ehrdl.models.notes.masked import masked_from_scratch

    pl.seed_everything(options.seed, workers=True, verbose=False)
    frame, _ = _words_of(prepared)
    dropout = 0.1 if options.dropout is None else options.dropout
    return masked_from_scratch(n_words, frame.pad_id, frame.chunk_tokens, dropout=dropout, **options.sizes)


def _require_mask(words: PreTrainedTokenizerFast, name: str) -> None:
    if words.mask_token_id is None:
        raise ConfigError(f"data.notes.tokenizer: {name} has no mask token, so no word can be hidden; choose another")


def _fit(
    part: Path,
    prepared: Prepared,
    model: PreTrainedModel | None,
    data: DataConfig,
    start: str | None,
    options: Pretraining,
    trainer: dict[str, Any],
) -> None:
    """Train and write the encoder into `part`. If a killed process left a checkpoint there, resume from it."""
    from ehrdl.data.notes.vocabulary import load_tokenizer
    from ehrdl.processes.trainer import n_processes

    module, loaders, facts = _module(prepared, model, data, start, options)
    counts, key = facts["train"], digest(facts)
    say(f"pretraining on {counts['chunks']:,} chunks of {counts['subjects']:,} training subjects")
    with _scratch(part, facts | {"trainer": trainer, "processes": n_processes(trainer)}) as scratch:
        before, after = _train(module, loaders, trainer, scratch, key)
    facts["tuning"] |= {"nats_before": before, "nats_after": after}
    facts["tuning"] |= {"perplexity_before": _perplexity(before), "perplexity_after": _perplexity(after)}
    say(f"hidden words of the tuning notes: {before:.3f} nats a token before, {after:.3f} after")
    _write(part, module.model, load_tokenizer(_words_of(prepared)[1]), prepared, facts)


def _module(
    prepared: Prepared, model: PreTrainedModel | None, data: DataConfig, start: str | None, options: Pretraining
) -> tuple[LitMasked, MaskedNotes, dict[str, Any]]:
    """Return the module to train, its loaders, and the facts about them for `pretraining.json`."""
    from ehrdl.data.notes.vocabulary import load_tokenizer
    from ehrdl.models.notes.masked import fit_vocabulary
    from ehrdl.pretraining.domain import LitMasked, MaskedNotes

    train, tuning = _chunks(prepared, TRAIN), _chunks(prepared, TUNING)
    _, tokenizer = _words_of(prepared)
    words = load_tokenizer(tokenizer)
    _require_mask(words, tokenizer)
    model = model or _from_scratch(prepared, len(words), options)
    fit_vocabulary(model, len(words))
    facts = _facts(prepared, data, start, options, train, tuning)
    return LitMasked(model, options), MaskedNotes(train, tuning, words, options), facts


def _subjects(prepared: Prepared, split: str) -> np.ndarray:
    import numpy as np

    return np.unique(prepared.samples.subject_id[prepared.samples.split == split])


def _chunks(prepared: Prepared, split: str) -> Chunks:
    """Return the chunks of notes of the subjects of a split. No other note is read."""
    from ehrdl.training.pretrain import Chunks

    notes = prepared.dataset.notes
    chunks = Chunks(notes, _words_of(prepared)[0], _subjects(prepared, split)) if notes else None
    if not chunks:
        raise SchemaError(f"notes: no {split} subject has one; there is nothing to pretrain on")
    return chunks


def _words_of(prepared: Prepared) -> tuple[Chunking, str]:
    """Return how notes are cut into chunks, and the name or folder of the tokenizer.

    Raises:
        SchemaError: there are no notes.
    """
    if prepared.frame is None or prepared.tokenizer is None:
        raise SchemaError("notes: there are none; there is nothing to pretrain on")
    return prepared.frame, prepared.tokenizer


def _facts(
    prepared: Prepared, data: DataConfig, start: str | None, options: Pretraining, train: Chunks, tuning: Chunks
) -> dict[str, Any]:
    """Describe model and data for `pretraining.json`. A killed run resumes only if all of this is the same."""
    return {
        "start": start,
        "options": asdict(options),
        "source": type(data.source).__name__,
        "events": prepared.events.name,
        "outputs": [output.name for output in prepared.spec.outputs],
        "split": asdict(data.split),
        "notes": asdict(data.notes),
        "train": _counts(prepared.dataset.notes, train),
        "tuning": _counts(prepared.dataset.notes, tuning),
    }


def _counts(notes: Any, chunks: Any) -> dict[str, int]:
    import numpy as np

    rows = np.unique(chunks.note)
    return {
        "subjects": len(np.unique(notes.owners()[rows])),
        "notes": len(rows),
        "chunks": len(chunks),
        "tokens": int((chunks.lengths - 2).sum()),
    }


@contextmanager
def _scratch(part: Path, key: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder of the checkpoint, emptied if it belonged to another pretraining; remove it at the end."""
    scratch = part / _SCRATCH
    file = scratch / "key.json"
    if not file.is_file() or read_json(file) != digest(key):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        write_json(file, digest(key))
    yield scratch
    shutil.rmtree(scratch)


def _train(
    module: LitMasked, loaders: MaskedNotes, trainer: dict[str, Any], scratch: Path, key: str
) -> tuple[float, float]:
    """Train, and return the loss on the tuning notes before and after [nats per token]."""
    from ehrdl.pretraining.domain import fit_masked, tuning_loss

    first = scratch / "before.json"
    if not first.is_file():
        write_json(first, tuning_loss(module, loaders, trainer))
    fit_masked(module, loaders, trainer, scratch, key)
    return read_json(first), tuning_loss(module, loaders, trainer)


def _perplexity(nats: float) -> float | None:
    """Return the perplexity: the number of equally likely tokens that a loss corresponds to."""
    return math.exp(nats) if nats < 700 else None


def _write(
    part: Path, model: PreTrainedModel, words: PreTrainedTokenizerFast, prepared: Prepared, facts: dict[str, Any]
) -> None:
    """Write the encoder, its tokenizer, and the ids of all subjects whose notes either of them has read."""
    import numpy as np

    from ehrdl.models.notes.masked import quiet_transformers
    from ehrdl.runs.provenance import read_subjects, write_provenance

    with quiet_transformers():
        weights: Any = model  # transformers wraps the methods of torch without their types
        weights.float().cpu().save_pretrained(part)
    words.save_pretrained(part)
    read, named = _subjects(prepared, TRAIN), facts["notes"]["tokenizer"]
    if named is not None:
        read = np.union1d(read, read_subjects(Path(named)))
    write_provenance(part, read, facts)
