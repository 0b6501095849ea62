"""Prepares data of other patients, or of another hospital, for the models of a finished run. Nothing is fitted here.

Channels are matched by name. The tokenizer and the scalers are those of the run. A channel that the run knows and the
new data lack has no values. A channel that the new data have and the run never saw is left out. Channels of both kinds
are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ehrdl.batch import DataSpec
from ehrdl.clinical.concepts import Concepts
from ehrdl.data.config import DataConfig
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import STATICS, hours_since_admission, static_features, subject_facts
from ehrdl.data.groups import merged_words, named_groups
from ehrdl.data.prepare import Prepared, hidden_channels, load_concepts, open_series, with_presence
from ehrdl.data.prepare_notes import collect_records, tokenized
from ehrdl.data.series.store import Store
from ehrdl.data.temporal_split import split_samples
from ehrdl.engine.files import read_json
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import BINARY, HELD_OUT, SAMPLES, OutputSpec, TaskResult, check


@dataclass(frozen=True)
class Fitted:
    """What a finished run learned from its data.

    Attributes:
        spec: the data description that the run's models were built for.
        tokenizer: the folder or hub name of the run's tokenizer; None = the run reads no notes.
        events: the name of the EVENTS folder that the run was fitted on.
    """

    spec: DataSpec
    tokenizer: str | None
    events: str | None


def apply(data: DataConfig, events: Path, result: TaskResult, fitted: Fitted) -> tuple[Prepared, dict[str, Any]]:
    """Prepare the samples of a cohort for models that are already fitted.

    If `events` is the EVENTS folder that the run was fitted on, the samples get the split of `data`. Training patients
    are then not scored as new ones. In any other data, every subject is held out.

    Args:
        data: the configuration of the source, the windows and the notes.
        events: the EVENTS folder of the new data.
        result: the cohort with its labels, as the task found it in `events`.
        fitted: what the run learned from its data.

    Returns:
        The prepared data, and a JSON-able dict of the differences from the run's data.

    Raises:
        ConfigError: the outputs of the task differ from those of the run, or another version of ehrdl made the run.
        SchemaError: a channel has another unit than in the run.
    """
    spec = fitted.spec
    _check_same(spec, result)
    known = load_concepts(data)
    _check_units(spec, known)
    series = open_series(data, events, known)
    samples = result.samples.assign(split=HELD_OUT)
    if events.name == fitted.events:
        samples, _ = split_samples(result.samples, data.split, events, data.source.subject_of)
    words, frame = None, None
    static = static_features(samples, subject_facts(events), series)
    if fitted.tokenizer and "note" in spec.modalities:
        unread = SampleDataset(samples, static, series, None, data.window, spec.channels)
        own = collect_records(data, events, known, unread, result.hidden_codes)
        words, frame = tokenized(data, events, fitted.tokenizer, own)
        frame = replace(frame, kinds=spec.note_kinds)
    since = hours_since_admission(samples, series)
    dataset = SampleDataset(samples, static, series, words, data.window, spec.channels, since)
    samples = with_presence(named_groups(merged_words(samples), data.notes.min_patients), dataset)
    check(samples, SAMPLES)
    hidden = hidden_channels(series, known, result.hidden_codes)
    gaps = _gaps(spec, series, hidden, read_json(events / "source.json"), data.notes.min_patients)
    gaps["samples"] = len(samples)
    for kind in ("note", "series"):
        gaps[f"samples_without_{kind}"] = int((samples[f"group_has_{kind}"] == "no").sum())
    return Prepared(samples, dataset, spec, frame, fitted.tokenizer, events, gaps), gaps


def _check_same(spec: DataSpec, result: TaskResult) -> None:
    ours, theirs = [[_named(output) for output in part.outputs] for part in (spec, result)]
    if ours != theirs:
        raise ConfigError(
            f"task: has the outputs {', '.join(theirs)}, but the run was fitted on {', '.join(ours)}; "
            f"leave the task as the run has it"
        )
    if spec.statics != STATICS:
        raise ConfigError("run: spec.json has other static features than this version of ehrdl; fit the run again")


def _named(output: OutputSpec) -> str:
    return output.name if output.kind == BINARY else f"{output.name} ({output.kind}, {output.unit or 'no unit'})"


def _check_units(spec: DataSpec, known: Concepts) -> None:
    units = {channel.name: channel.unit for channel in known.channels}
    for channel in spec.channels:
        unit = units.get(channel.name, channel.unit)
        if unit != channel.unit:
            raise SchemaError(
                f"data.concepts: channel {channel.name} is in {unit}, but the run was fitted in {channel.unit}; "
                f"give the factor that converts it"
            )


def _gaps(
    spec: DataSpec, series: Store, hidden: np.ndarray, source: dict[str, Any], min_patients: int
) -> dict[str, Any]:
    """Count what the models know but these data lack, and what these data have but the models do not know."""
    counts = np.bincount(np.asarray(series.channel), minlength=len(series.channels))
    here = {channel.name: int(n) for channel, n in zip(series.channels, counts, strict=True) if n}
    shown = {channel.name for channel, is_hidden in zip(series.channels, hidden, strict=True) if not is_hidden}
    fitted = [channel.name for channel in spec.channels]
    return {
        "missing": source["missing"],
        "channels_absent": [name for name in fitted if name not in here],
        "channels_unknown": {name: n for name, n in here.items() if name in shown and name not in fitted},
        "unknown_units": series.unknown_units(min_patients),
        "implausible_values": {code: c["implausible"] for code, c in series.counts.items() if c["implausible"]},
        "tables": source["tables"],
    }
