"""Table 1 as the report shows it. No cell is of fewer patients than the limit, nor can one be computed from others.

Categories that are too small in any column are merged into one row. Its cells are not small either, and no cell of its
categories can be computed (complementary suppression, see `ehrdl.report.suppress`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.report.cohort.words import SPLIT_NAMES, count, share, spread
from ehrdl.report.suppress import WITHHELD, Shown, hidden_in_any, hidden_outcomes
from ehrdl.schema import BINARY, HELD_OUT, TRAIN, TUNING

Json = Mapping[str, Any]


def table_1(cohort: Json, shown: Shown, counts: bool) -> dict[str, Any] | None:
    """Return Table 1 by split, with the outcomes; None if the cohort is too small to be shown.

    Args:
        cohort: the content of `cohort.json`.
        shown: the limit for small groups.
        counts: whether numbers of samples are shown. Otherwise only whole percentages are, because small numbers shown
            elsewhere could be computed from them.
    """
    sizes = {key: size for key, size in cohort["columns"].items() if ":" not in key}
    if sizes["all"]["patients"] < shown.min_count:
        return None
    splits = [key for key in sizes if key != "all"]
    if len(splits) == 1 or any(sizes[key]["patients"] < shown.min_count for key in splits):
        splits = []
    keys = ["all", *splits]
    rows = [row for part in cohort["characteristics"] if (row := _row(part, keys, "splits", shown, counts))]
    rows += [_outcome(part, keys, shown, counts) for part in cohort["outcomes"]]
    return {
        "columns": [_column(SPLIT_NAMES[key], sizes[key], counts) for key in keys],
        "rows": rows,
        "smd": "Training and held-out" if {TRAIN, HELD_OUT} <= set(splits) else "",
        "counts": counts,
    }


def by_outcome(cohort: Json, shown: Shown, counts: bool) -> list[dict[str, Any]]:
    """Return Table 1 of training samples with and without each outcome, for every output that can be shown.

    What Table 1 by split hides of the training samples is left out here too, since the tuning samples follow from it.

    Args:
        cohort: the content of `cohort.json`.
        shown: the limit for small groups.
        counts: whether numbers of samples are shown. Otherwise there is no such table.
    """
    tables: list[dict[str, Any]] = []
    splits = [key for key in cohort["columns"] if ":" not in key]
    sizes = [cohort["columns"][key]["patients"] for key in splits]
    if not counts or TRAIN not in splits or min(sizes) < shown.min_count:
        return tables
    parts = [part for part in cohort["characteristics"] if not _withheld(part, splits, shown)]
    for output in cohort["outcomes"]:
        keys = [f"with:{output['name']}", f"without:{output['name']}"]
        few = output["kind"] == BINARY and _few(output["values"][TRAIN]["patients_unknown"], shown)
        if output["kind"] != BINARY or few:
            continue
        with_without = [cohort["columns"][key] for key in keys]
        if min(size["patients"] for size in with_without) < shown.min_count:
            continue
        if _hidden_outcomes([output["values"][key] for key in splits], splits, shown):
            continue
        rows = [_row(part, keys, output["name"], shown, counts) for part in parts]
        columns = [_column(name, size, counts) for name, size in zip(("With", "Without"), with_without, strict=True)]
        tables.append({"output": output["name"], "columns": columns, "rows": [row for row in rows if row]})
    return tables


def _withheld(part: Json, keys: list[str], shown: Shown) -> bool:
    """Return whether Table 1 by split hides training cells of a characteristic."""
    row = _row(part, keys, "splits", shown, counts=True)
    return row is None or any(WITHHELD in level["cells"] for level in row["levels"])


def _few(n: int, shown: Shown) -> bool:
    return 0 < n < shown.min_count


def _column(name: str, size: Json, counts: bool) -> dict[str, str]:
    said = f"n = {count(size['samples'])}, {count(size['patients'])} patients" if counts else ""
    return {"name": name, "size": said}


def _row(part: Json, keys: list[str], compared: str, shown: Shown, counts: bool) -> dict[str, Any] | None:
    """Return the rows of one characteristic; None if all of its categories are too small, or all are in one."""
    values = [part["values"][key] for key in keys]
    if part["kind"] == "number":
        levels = _numbers(values, shown)
    else:
        levels = _categories(part["levels"], values, shown, counts) or _joined(part, keys, shown, counts)
    if not levels:
        return None
    unit = f", {part['unit']}" if part.get("unit") else ""
    what = ", median (quartiles)" if part["kind"] == "number" else ""
    difference = part["smd"].get(compared)
    return {
        "name": part["title"] + unit + what,
        "levels": levels,
        "smd": None if difference is None else f"{difference:.2f}",
    }


def _numbers(values: list[Json], shown: Shown) -> list[dict[str, Any]]:
    cells = [shown.few if value["patients"] < shown.min_count else spread(dict(value)) for value in values]
    return [{"name": "", "cells": cells}]


def _categories(levels: list[str], values: list[Json], shown: Shown, counts: bool) -> list[dict[str, Any]]:
    hidden = hidden_in_any([value["patients"] for value in values], shown.min_count)
    parts = [[i] for i in range(len(levels)) if i not in hidden]
    names = [levels[i] for [i] in parts]
    merged = sorted(hidden)
    if merged and all(sum(value["patients"][i] for i in merged) >= shown.min_count for value in values):
        parts.append(merged)
        names.append(f"{len(merged)} smaller groups")
    if len(parts) < 2:
        return []
    return [
        {"name": name, "cells": [_cell(value["samples"], part, counts) for value in values]}
        for name, part in zip(names, parts, strict=True)
    ]


def _joined(part: Json, keys: list[str], shown: Shown, counts: bool) -> list[dict[str, Any]]:
    """Return categories with hidden cells of training and tuning, where only the tuning split is too small."""
    if not {TRAIN, TUNING, HELD_OUT} <= set(keys):
        return []
    values = part["values"]
    rest = {
        name: [a + b for a, b in zip(values[TRAIN][name], values[TUNING][name], strict=True)]
        for name in ("samples", "patients")
    }
    rows = _categories(part["levels"], [values["all"], values[HELD_OUT], rest], shown, counts)
    for row in rows:
        everyone, held_out, _ = row["cells"]
        row["cells"] = [{"all": everyone, HELD_OUT: held_out}.get(key, WITHHELD) for key in keys]
    return rows


def _cell(samples: list[int], part: list[int], counts: bool) -> str:
    n, total = sum(samples[i] for i in part), sum(samples)
    if not counts:
        return f"{100 * n / total:.0f} %"
    return f"{count(n)} ({100 * n / total:.1f} %)"


def _outcome(part: Json, keys: list[str], shown: Shown, counts: bool) -> dict[str, Any]:
    """Return the row of an outcome. If it is hidden in one split, it is hidden in training too."""
    values = [part["values"][key] for key in keys]
    name = part["name"].replace("_", " ")
    if part["kind"] != BINARY:
        unit = f", {part['unit']}" if part["unit"] else ""
        return {"name": f"Outcome: {name}{unit}, median (quartiles)", "levels": _numbers(values, shown), "smd": None}
    hidden = _hidden_outcomes(values, keys, shown)
    cells = [
        WITHHELD if i in hidden else _events(value, counts and not _few(value["patients_unknown"], shown))
        for i, value in enumerate(values)
    ]
    return {"name": f"Outcome: {name}, of those known", "levels": [{"name": "", "cells": cells}], "smd": None}


def _hidden_outcomes(values: list[Json], keys: list[str], shown: Shown) -> set[int]:
    """Return the columns whose outcome is hidden.

    Training is hidden with any hidden split, since the results show the outcomes of the held-out samples.
    """
    had, had_not = ([value[f"patients_{name}"] for value in values] for name in ("with", "without"))
    if min(had[0], had_not[0]) < shown.min_count:
        return set(range(len(keys)))
    splits = list(range(1, len(keys)))
    small = {i for i in splits if min(had[i], had_not[i]) < shown.min_count}
    if not small:
        return small
    start = {i - 1 for i in small | ({keys.index(TRAIN)} if TRAIN in keys else set())}
    found = hidden_outcomes([had[i] for i in splits], [had_not[i] for i in splits], shown.min_count, start)
    return {i + 1 for i in found}


def _events(value: Json, counts: bool) -> str:
    known = value["with"] + value["without"]
    rate = share(value["with"] / known) if known else "n/a"
    return f"{count(value['with'])} ({rate})" if counts else rate


def quartiles_of(row: Json, shown: Shown) -> str:
    """Return the median and quartiles of a predictor, or the limit if too few patients have it."""
    if row["patients"] < shown.min_count:
        return shown.few if row["patients"] else ""
    if row.get("mean") is not None:
        return share(row["mean"])
    return spread(dict(row)) if row.get("median") is not None else ""
