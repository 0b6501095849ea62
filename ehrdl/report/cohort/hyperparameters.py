"""The hyperparameters of a run as a table: models with their sizes, and how they were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ehrdl.report.places import in_config

Json = Mapping[str, Any]

#: The keys of a config that are hyperparameters, with a title each.
_PARTS = {
    "model": "Network",
    "optim": "Optimiser and schedule",
    "trainer": "Trainer",
    "data.batch": "Batches",
    "data.window": "Windows",
    "data.notes": "Notes",
    "boosting": "Tuning of boosted trees",
    "baseline_params": "Parameters of baselines",
    "combine": "Combined models",
}


def hyperparameters(config: Json, manifest: Json) -> list[dict[str, Any]]:
    """Return the hyperparameters by subject: `title` and `rows` of name and value. Paths are left out.

    Args:
        config: the resolved config.
        manifest: the run's manifest, with the number of parameters of each deep model.
    """
    if not config:
        return []
    shown = in_config(config)
    models = [f"{key}: {n:,}" for key, n in (manifest.get("parameters") or {}).items()]
    first = [{"name": "parameters", "value": ", ".join(models)}] if models else []
    first += [{"name": "seeds", "value": _text(shown.get("seeds"))}] if shown.get("seeds") else []
    first += [{"name": "baselines", "value": _text(shown["baselines"])}] if shown.get("baselines") else []
    parts = [{"title": "Models", "rows": first}] if first else []
    for key, title in _PARTS.items():
        value: Any = shown
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        rows = [{"name": name, "value": text} for name, text in _rows(value)]
        if rows:
            parts.append({"title": title, "rows": rows})
    return parts


def _rows(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and values of nested settings. A class is named without its module, and null is left out."""
    if isinstance(value, Mapping) and "class_path" in value:
        yield name or "class", str(value["class_path"]).rpartition(".")[2]
        value = value.get("init_args")
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _rows(part, f"{name}, {key}" if name else str(key))
    elif value is not None and value != []:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
