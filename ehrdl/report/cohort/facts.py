"""Facts about a cohort and its data as sentences. A task brings those about its own numbers (`TaskInfo.facts`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ehrdl.report.cohort.words import SPLIT_NAMES, count, joined, number, sentence_case, share
from ehrdl.report.places import in_text
from ehrdl.report.suppress import Shown, hide_counts, hide_sizes

Json = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_READ = {
    "n_channels": "The series have {} channels.",
    "n_facts": "The series store of all patients holds {} measurements and events.",
    "n_notes": "There are {} notes.",
    "n_records": "{} records were written out as text, one per sample.",
}
_CUT = {
    "samples_cut_to_max_observations": "measurements and events",
    "samples_cut_to_max_notes": "notes",
    "samples_cut_to_max_chunks": "chunks of notes",
}
_SPLITS = {
    "subject": "Patients were put into the splits at random; no patient is in two splits.",
    "folds": "Patients were put into folds at random; no patient is in two splits.",
    "temporal": "The split is by time: held-out stays are of later years than training stays.",
    "source": "The split is the one that the data came with.",
    "files": "The split was read from files.",
}


def task_facts(flow: Json, manifest: Json, shown: Shown) -> list[str]:
    """Return the notes of a task as sentences. Small counts are hidden.

    Args:
        flow: the content of `flow.json`.
        manifest: the manifest, with the sentences of the task in `task_info`.
        shown: the limit for small groups.
    """
    steps = flow.get("steps") or []
    total = steps[-1].get("admissions") if steps else None
    templates = (manifest.get("task_info") or {}).get("facts") or {}
    notes = {key: value for key, value in (flow.get("notes") or {}).items() if key != "caveats" and value is not None}
    hidden = {key: hide_counts(value, shown, total) for key, value in notes.items()}
    return [in_text(line) for line in _lines(hidden, templates)]


def data_facts(manifest: Json, shown: Shown, all_sizes: bool) -> list[str]:
    """Return the manifest's facts about the data as sentences. Small counts are hidden.

    Args:
        manifest: the manifest.
        shown: the limit for small groups.
        all_sizes: whether the sizes of the splits are hidden.
    """
    data = {key: value for key, value in (manifest.get("data") or {}).items() if value is not None}
    split = data.pop("split", None) or {}
    data = hide_sizes(data, shown, all_sizes)
    lines = [*_sizes(data), *_split(split)]
    lines += [template.format(count(data[key])) for key, template in _READ.items() if data.get(key)]
    for key, what in _CUT.items():
        if data.get(key):
            lines.append(f"{count(data[key])} samples have more {what} than a model reads; the latest were read.")
    known = {"n_samples", "n_subjects", *_READ, *_CUT}
    return lines + [in_text(line) for line in _lines({k: v for k, v in data.items() if k not in known}, {})]


def _sizes(data: Json) -> Iterator[str]:
    samples, patients = data.get("n_samples"), data.get("n_subjects")
    if isinstance(samples, Mapping) and isinstance(patients, Mapping):
        order = [key for key in SPLIT_NAMES if key in samples]
        parts = [f"{count(samples[key])} of {count(patients.get(key, 'n/a'))} patients {_IN[key]}" for key in order]
        yield f"Samples: {joined(parts)}."


_IN = {"train": "for training", "tuning": "for tuning", "held_out": "held out"}


def _split(split: Json) -> Iterator[str]:
    if split.get("kind") in _SPLITS:
        yield _SPLITS[str(split["kind"])]
    rest = {key: value for key, value in split.items() if key not in ("kind", "sha256")}
    yield from (f"Split, {line[:1].lower()}{line[1:]}" for line in _lines(rest, {}))


def _lines(notes: Json, templates: Json, outer: str = "") -> Iterator[str]:
    """Yield a sentence for each note that has one, and a line with name and value for each other number."""
    for key, value in notes.items():
        name = f"{outer}{key}"
        filled = fill(str(templates[name]), value) if name in templates else None
        if filled is not None:
            yield filled
        elif isinstance(value, Mapping):
            yield from _lines(value, templates, f"{name}.")
        else:
            text = _shown(value, name).removesuffix(".")
            yield f"{sentence_case(name.replace('.', ', ').removeprefix('n_'))}: {text}."


def fill(template: str, value: Any) -> str | None:
    """Fill the placeholders of a sentence, as `TaskInfo.facts` defines them; None if a value is missing.

    >>> fill("{by dischtime} were stored by discharge, {n} in all.", {"by dischtime": 0.894, "n": 1200})
    '89.4 % were stored by discharge, 1,200 in all.'
    >>> fill("Prevalence: {*}.", {"all": 0.2, "MICU": "<5.0 %"}), fill("{absent} of them.", {})
    ('Prevalence: 20 % (all) and <5.0 % (MICU).', None)
    """
    missing = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal missing
        name, _, form = match[1].partition(":")
        if name == "*" and isinstance(value, Mapping):
            parts = [f"{_shown(part, form or 'share')} ({key})" for key, part in value.items() if part is not None]
            missing = missing or not parts
            return joined(parts)
        found = value if not name else value.get(name) if isinstance(value, Mapping) else None
        missing = missing or found is None or isinstance(found, Mapping)
        return _shown(found, form or "share")

    text = _PLACEHOLDER.sub(replaced, template)
    return None if missing else text


def _shown(value: Any, name: str) -> str:
    """Format a value. A number between 0 and 1 is a share if its name says so."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        is_share = any(word in name.lower() for word in ("prevalence", "share", "stored"))
        return share(value) if is_share and 0 <= value <= 1 else number(value)
    if isinstance(value, list | tuple):
        return joined([str(part) for part in value])
    return count(value)
