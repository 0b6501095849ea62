"""Prepares the dataset of a task from a configured source. Each step is cached by its input, arguments and version."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ehrdl.batch import AuxiliarySpec, DataSpec
from ehrdl.clinical import concepts as concept_tables
from ehrdl.clinical.concepts import Concepts
from ehrdl.data.config import DataConfig
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import STATICS, hours_since_admission, static_features, subject_facts
from ehrdl.data.groups import merged_words, named_groups
from ehrdl.data.loading.chunks import Chunking, n_chunks
from ehrdl.data.notes import vocabulary as vocab
from ehrdl.data.prepare_notes import collect_records, training_notes
from ehrdl.data.series import store
from ehrdl.data.series.findings import find_in_series
from ehrdl.data.temporal_split import describe_notes, describe_split, split_samples
from ehrdl.engine.cache import cached
from ehrdl.engine.files import digest, read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded, scan
from ehrdl.errors import LeakageError, SchemaError
from ehrdl.events.findings import find_in_events, find_repeated
from ehrdl.events.listing import shard_files
from ehrdl.events.timing import describe_timing, timed_at_prediction
from ehrdl.events.writer import validate
from ehrdl.quality import Finding, from_dicts
from ehrdl.schema import REGRESSION, SAMPLES, SPLITS, TRAIN, OutputSpec, TaskResult, check

#: The category of channels that are left out of the series, since the static features cover them.
_STAYS = "encounter"


@dataclass(frozen=True)
class Prepared:
    """Everything that fitting, predicting and reporting need from the data.

    Attributes:
        samples: the SAMPLES table with splits and groups.
        dataset: the dataset with the visible inputs and the labels of each sample.
        spec: the data description from which models are built.
        frame: the rules by which notes become chunks; None = there are no notes.
        tokenizer: the folder or hub name of the tokenizer; None = there are no notes.
        events: the EVENTS folder.
        facts: counts of samples, facts and notes, for the run's manifest.
        min_patients: the fewest training patients who must have a word before a model may keep it.
    """

    samples: pd.DataFrame
    dataset: SampleDataset
    spec: DataSpec
    frame: Chunking | None
    tokenizer: str | None
    events: Path
    facts: dict[str, Any]
    min_patients: int = vocab.MIN_PATIENTS

    def identity(self) -> str:
        """Return a hash of the data that models see. It does not depend on how or where the data were prepared."""
        rows = pd.util.hash_pandas_object(self.samples, index=False).to_numpy()
        hashes = [hashlib.sha256(part.tobytes()).hexdigest() for part in (rows, self.dataset.static)]
        counts = [self.facts["data"][name] for name in ("n_facts", "n_notes", "n_records")]
        return digest([self.spec.to_dict(), hashes, counts])

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of the samples of a split."""
        return np.flatnonzero(self.samples.split.to_numpy() == split)


def read_events(data: DataConfig) -> Path:
    """Return the EVENTS folder of the configured source. The source is read only if the cache lacks this folder."""
    key = data.source.fingerprint(data.prepare.verify)
    options = replace(data.prepare, n_shards=data.prepare.shards(data.source.n_bytes()))

    def build(out: Path) -> None:
        facts = data.source.read(out, options)
        write_json(out / "source.json", facts | {"events": validate(out, options)})

    return cached(options, "events", key | {"n_shards": options.n_shards}, build, resume=True)


def find_quality(data: DataConfig, events: Path) -> list[Finding]:
    """Return all data-quality findings: faults in the source's tables, in EVENTS and in the series.

    The counts come from earlier steps or from the cache.
    """
    known = load_concepts(data)
    source = read_json(events / "source.json")
    of_source = [*from_dicts(source.get("quality", [])), *find_repeated(source["events"].get("repeated", {}))]
    series = open_series(data, events, known)
    return [*of_source, *find_in_events(events, data.prepare), *find_in_series(series, known)]


def find_samples(events: Path, task: Any) -> TaskResult:
    """Apply a task to an EVENTS folder, and return the cohort with its labels."""
    with duckdb.connect() as con:
        result: TaskResult = task.label(con.sql(f"SELECT * FROM {scan(shard_files(events))}"))
    return result


def prepare(data: DataConfig, events: Path, result: TaskResult) -> Prepared:
    """Prepare everything that models need for a cohort: series store, notes, tokens, scalers and dataset.

    Args:
        data: the configuration of the data.
        events: the EVENTS folder.
        result: the cohort with its labels, from `find_samples`.

    Raises:
        ConfigError: `data.split` requests the source's own split but the source has none, or a split file is missing or
            invalid.
        SchemaError: a split has no sample, or an output has only one class in it (a regression output: only one value).
    """
    data.check()
    known = load_concepts(data)
    samples, split_facts = split_samples(result.samples, data.split, events, data.source.subject_of)
    if line := describe_split(split_facts):
        say(line)
    _require_classes(samples, result.outputs)
    _require_classes(samples, result.auxiliary, (TRAIN,))
    series = open_series(data, events, known)
    train_subjects = np.unique(samples.subject_id[samples.split == TRAIN])
    static = static_features(samples, subject_facts(events), series)
    channels = vocab.fit_channels(series, train_subjects, hidden_channels(series, known, result.hidden_codes))
    unread = SampleDataset(samples, static, series, None, data.window, channels)
    own = collect_records(data, events, known, unread, result.hidden_codes)
    words, frame, tokenizer = training_notes(data, events, train_subjects, own)
    if frame and data.notes.source != "record" and (line := describe_notes(split_facts)):
        say(line)
    since = hours_since_admission(samples, series)
    dataset = SampleDataset(samples, static, series, words, data.window, channels, since)
    samples = with_presence(named_groups(merged_words(samples), data.notes.min_patients), dataset)
    check(samples, SAMPLES)
    spec = _spec(data, samples, dataset, result, frame, tokenizer)
    source = read_json(events / "source.json")
    facts = _facts(samples, dataset, frame, series, source, data.notes.min_patients)
    facts["data"]["split"] = split_facts
    if any(table.get("timed_by_policy") for table in source["tables"].values()):
        timed = timed_at_prediction(events, samples)
        facts["data"]["timed_at_a_prediction"] = timed
        if line := describe_timing(timed):
            say(line)
    return Prepared(samples, dataset, spec, frame, tokenizer, events, facts, data.notes.min_patients)


def load_concepts(data: DataConfig) -> Concepts:
    """Read the concepts: the table that maps source codes to the channels of the series.

    The file is `data.concepts` if it is set, otherwise the source's own file, otherwise the shipped file for MIMIC-IV.
    """
    if data.concepts:
        return concept_tables.load(expanded(data.concepts))
    return concept_tables.load(data.source.concepts_file())


def build_store(data: DataConfig, events: Path, known: Concepts) -> Path:
    """Build the series store of an EVENTS folder, unless it is in the cache, and return the store's folder."""
    key = {"events": events.name, "concepts": digest(known.frame.to_csv()), "version": store.VERSION}
    build = functools.partial(store.build, events, known, prepare=data.prepare)
    return cached(data.prepare, "series", key, build, resume=True)


def open_series(data: DataConfig, events: Path, known: Concepts) -> store.Store:
    """Open the series store of an EVENTS folder. It is built first if it is not in the cache."""
    return store.open_store(build_store(data, events, known), known)


def hidden_channels(series: store.Store, known: Concepts, codes: tuple[str, ...]) -> np.ndarray:
    """Return for each channel whether models must not see it, (n_channels,) bool.

    A channel is hidden if it records stays. It is also hidden if one of its codes may begin with one of the prefixes in
    `codes`, which define the outcome.

    Raises:
        LeakageError: a prefix is a code of notes, which cannot be hidden.
    """
    hidden = np.array([channel.category == _STAYS for channel in series.channels])
    for prefix in codes:
        if prefix.startswith("NOTE"):
            raise LeakageError(f"task: the hidden code {prefix} is a note; notes cannot be hidden, so leave them out")
        matched = [_may_share(base, prefix) for base in known.frame.base_code]
        hidden[known.frame.channel_id[matched].to_numpy()] = True
    return hidden


def _may_share(base: str, prefix: str) -> bool:
    """Return whether a code can both begin with `prefix` and belong to the concept `base`.

    Only the part of `base` before its first `*` is compared. A prefix may be more specific, with a unit or with some
    text in place of `*`. It still hides the whole channel. Hiding too much is safe; hiding too little is a leak.
    """
    stem, prefix = base.partition("*")[0].lower(), prefix.lower()
    return stem.startswith(prefix) or prefix.startswith(stem)


def _require_classes(samples: pd.DataFrame, outputs: list[OutputSpec], splits: Sequence[str] = SPLITS) -> None:
    """Refuse a split if an output has only one class in it, or a regression output only one value."""
    for split in splits:
        part = samples[samples.split == split]
        for output in outputs:
            label = part[f"label_{output.name}"].dropna()
            if label.nunique() > 1:
                continue
            if output.kind == REGRESSION:
                found, needed = f"{label.nunique()} different values", "at least two are needed"
            else:
                found, needed = f"{int(label.sum())} positive", "both classes are needed"
            raise SchemaError(
                f"SAMPLES: split {split}, output {output.name}: {len(label)} samples of {part.subject_id.nunique()} "
                f"subjects, {found}; {needed}. Use more subjects, or change data.split"
            )


def with_presence(samples: pd.DataFrame, dataset: SampleDataset) -> pd.DataFrame:
    """Add two groups to SAMPLES: whether each sample sees a note (`has_note`) and an observation (`has_series`).

    If the data have both notes and observations, a third group, `present`, combines the two.
    """
    named = {True: "yes", False: "no"}
    note, series = dataset.has_note(), dataset.has_series()
    samples = samples.assign(
        group_has_note=pd.Series(note).map(named).to_numpy(),
        group_has_series=pd.Series(series).map(named).to_numpy(),
    )
    if not (note.any() and series.any()):
        return samples
    present = np.select([note & series, note, series], ["notes and series", "notes only", "series only"], "neither")
    return samples.assign(group_present=present.astype(object))


def _spec(
    data: DataConfig,
    samples: pd.DataFrame,
    dataset: SampleDataset,
    result: TaskResult,
    frame: Chunking | None,
    tokenizer: str | None,
) -> DataSpec:
    train = samples[samples.split == TRAIN]
    modalities = []
    if (train.group_has_note == "yes").any():
        modalities.append("note")
    elif frame is not None:
        say("notes: no training sample sees a note by its prediction time; the note side is left out")
    if (train.group_has_series == "yes").any():
        modalities.append("series")
    static = dataset.static[train.index]
    std = static.std(axis=0, dtype=np.float64)
    scales = [_scale(train[f"label_{output.name}"], output.kind) for output in result.outputs]
    prevalence, label_mean, label_std = zip(*scales, strict=True)
    return DataSpec(
        modalities=tuple(modalities),
        channels=dataset.channels,
        statics=STATICS,
        static_mean=tuple(static.mean(axis=0, dtype=np.float64).tolist()),
        static_std=tuple(np.where(std > 0, std, 1.0).tolist()),
        window_hours=float(data.window.series_hours),
        vocab_size=len(vocab.load_tokenizer(tokenizer)) if tokenizer else 0,
        pad_id=frame.pad_id if frame else 0,
        chunk_tokens=frame.chunk_tokens if frame else 0,
        outputs=tuple(result.outputs),
        prevalence=prevalence,
        label_mean=label_mean,
        label_std=label_std,
        note_kinds=frame.kinds if frame else (),
        auxiliary=tuple(
            AuxiliarySpec(output, *_scale(train[f"label_{output.name}"], output.kind)) for output in result.auxiliary
        ),
        cache=data.prepare.cache,
    )


def _scale(label: pd.Series, kind: str) -> tuple[float, float, float]:
    """Return prevalence, mean and standard deviation of a training label, as `DataSpec` defines them."""
    if kind == REGRESSION:
        known = label.dropna().to_numpy(np.float64)
        return 0.5, float(known.mean()), float(known.std())
    return float(label.mean()), 0.0, 1.0


def _facts(
    samples: pd.DataFrame,
    dataset: SampleDataset,
    frame: Chunking | None,
    series: store.Store,
    source: dict[str, Any],
    min_patients: int,
) -> dict[str, Any]:
    slices = dataset.stop - dataset.start
    most = frame.max_chunks if frame else None
    n_cut = int((n_chunks(dataset, frame) > most).sum()) if frame and most is not None else 0
    return {
        "tables": source["tables"],
        "missing": source["missing"],
        "data": {
            "n_samples": samples.split.value_counts().to_dict(),
            "n_subjects": samples.groupby("split").subject_id.nunique().to_dict(),
            "n_channels": len(dataset.channels),
            "n_facts": len(series.value),
            "n_notes": dataset.notes.first_record if dataset.notes is not None else 0,
            "n_records": dataset.notes.n_records if dataset.notes is not None else 0,
            "samples_cut_to_max_observations": int((slices > dataset.window.max_observations).sum()),
            "samples_cut_to_max_notes": int((dataset.note_stop - dataset.note_start > dataset.window.max_notes).sum()),
            "samples_cut_to_max_chunks": n_cut,
        },
        "implausible_values": {k: v["implausible"] for k, v in series.counts.items() if v["implausible"]},
        "unknown_units": series.unknown_units(min_patients),
    }
