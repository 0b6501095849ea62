"""Hides the numbers of small groups of patients in a report, and all numbers from which they could be computed.

A table that shows the outcome of only a few patients reveals it to anyone who knows that these patients were treated
there. A number of patients below a limit, such as 10, is therefore replaced by `<10`.

If a total is known, one hidden part can be recovered by subtraction. Further parts are then hidden too (complementary
suppression: Hundepool et al., Statistical Disclosure Control, Wiley 2012, ch. 4). At least two parts are hidden, and
their sum is not below the limit either.

Bins of a curve with too few patients are not hidden, but merged with neighbouring bins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrdl.info import RunInfo

Mask = NDArray[np.bool_]
#: The replacement of a number that is itself large enough, but would reveal a small one.
WITHHELD = "not shown"
#: Patients are counted by marks, one for each possible number, if there are many rows and not far more numbers.
_FEW, _SPARSE = 1000, 20


@dataclass(frozen=True)
class Shown:
    """What decides which numbers a report shows: the limit for small groups, and what is known about the models.

    Attributes:
        min_count: the smallest number of patients in a group that is shown; 1 shows all.
        info: what is known about the models.
    """

    min_count: int = 10
    info: RunInfo = RunInfo()  # noqa: RUF009 - frozen

    @property
    def ours(self) -> bool:
        """Whether the models come from a run of ehrdl, so that their kinds are known."""
        return bool(self.info.models)

    @property
    def few(self) -> str:
        """The text that replaces a number below the limit, such as `<10`."""
        return f"<{self.min_count}"

    def count(self, n: int) -> int | str:
        """Return a number of patients or predictions, or the text `few` if it is below the limit. 0 stays 0."""
        return self.few if 0 < n < self.min_count else n


def hidden_parts(sizes: Sequence[int], min_count: int) -> set[int]:
    """Choose which parts of a known total to hide, and return their positions.

    These are all parts below `min_count`. The next larger parts are added until subtraction from the total reveals no
    hidden part.

    >>> sorted(hidden_parts([50, 3, 20], 10)), hidden_parts([50, 30], 10), sorted(hidden_parts([4, 3, 90], 10))
    ([1, 2], set(), [0, 1, 2])
    """
    return _hidden([sizes], min_count)


def hidden_in_any(columns: Sequence[Sequence[int]], min_count: int, start: Collection[int] = ()) -> set[int]:
    """Choose which rows of a table to hide, if the total of every column is known, and return their positions.

    Args:
        columns: the sizes of the rows in each column of the table.
        min_count: the smallest number that is shown.
        start: the positions of rows that are hidden in any case.

    >>> sorted(hidden_in_any([[50, 30, 20], [20, 3, 15]], 10))
    [1, 2]
    """
    return _hidden(columns, min_count, start)


def hidden_outcomes(positive: Sequence[int], negative: Sequence[int], min_count: int, start: set[int]) -> set[int]:
    """Choose the groups of patients for which to hide how many had the outcome, and return their positions.

    These are groups in which too few patients had the outcome, or too few did not have it. Further groups are added as
    in `hidden_parts`.

    Args:
        positive: the number of patients with the outcome in each group.
        negative: the number of patients without the outcome in each group.
        min_count: the smallest number that is shown.
        start: the positions of groups that are hidden in any case.
    """
    return _hidden([positive, negative], min_count, start)


def hidden_cells(cells: Sequence[Sequence[int]], min_count: int, start: set[int]) -> set[int]:
    """Choose the groups of patients for which to hide how many were alarmed, and return their positions.

    These are groups with too few patients in a cell of alarm or none by outcome or not. Further groups are added as in
    `hidden_parts`.

    Args:
        cells: for each cell, the number of patients in each group.
        min_count: the smallest number that is shown.
        start: the positions of groups that are hidden in any case.
    """
    return _hidden(cells, min_count, start)


def _hidden(sizes: Sequence[Sequence[int]], min_count: int, start: Collection[int] = ()) -> set[int]:
    """Choose the parts to hide, given their sizes in each column. The parts in `start` are always hidden."""
    if min_count <= 1:
        return set(start)
    smallest = [min(part) for part in zip(*sizes, strict=True)]
    hidden = {i for i, size in enumerate(smallest) if size < min_count}.union(start)
    rest = [i for i in np.argsort(smallest, kind="stable").tolist() if i not in hidden]
    while hidden and rest and (len(hidden) == 1 or _least(sizes, hidden) < min_count):
        hidden.add(rest.pop(0))
    return hidden


def _least(sizes: Sequence[Sequence[int]], parts: Collection[int]) -> int:
    """Return the smallest sum over some parts that any column has."""
    return min(sum(column[i] for i in parts) for column in sizes)


def joined(bins: NDArray[np.intp], enough: Callable[[Mask], bool]) -> NDArray[np.intp]:
    """Merge neighbouring bins until every bin can be shown, and return the new bin of each row.

    The new bins are numbered from 0. If too few rows are left at the end, they join the last bin.

    Args:
        bins: the bin of each of the n rows (n,), numbered in order.
        enough: a function that gets the mask of the rows in a bin (n,), and returns whether the bin can be shown.

    >>> joined(np.array([0, 0, 1, 2, 2, 3]), lambda rows: rows.sum() >= 2).tolist()
    [0, 0, 1, 1, 1, 1]
    """
    result = np.zeros(len(bins), np.intp)
    rows, number = np.zeros(len(bins), bool), 0
    for one in np.unique(bins):
        rows |= bins == one
        result[rows] = number
        if enough(rows):
            rows, number = np.zeros(len(bins), bool), number + 1
    if rows.any() and number:
        result[rows] = number - 1
    return result


def patients(subject: NDArray[Any], rows: Any) -> int:
    """Count the different patients in some rows of a table.

    Args:
        subject: the patient of each of the n rows (n,).
        rows: the mask of the rows to count (n,).
    """
    some = subject[rows]
    if len(some) < _FEW or some.dtype.kind != "i":
        return len(np.unique(some))
    first, last = int(some.min()), int(some.max())
    if last - first > _SPARSE * len(some):
        return len(np.unique(some))
    seen = np.zeros(last - first + 1, bool)  # several times as fast as a search for the different numbers
    seen[some - first] = True
    return int(seen.sum())


def joined_histogram(value: Any, edges: Any, subject: NDArray[Any], min_count: int) -> dict[str, list[float]]:
    """Return a histogram in which neighbouring bars are merged until each bar is empty or has enough patients.

    Args:
        value: the value of each of the n rows (n,).
        edges: the edges of the original bars, which have equal widths.
        subject: the patient of each row (n,).
        min_count: the smallest number of patients in a bar that is shown.

    Returns:
        `edges` (k + 1) of the k merged bars, and `share` (k), the height of each. It is the share of all rows in the
        bar, divided by the number of original bars in it, so that areas are unchanged.
    """
    bins = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2)
    bars: list[list[int]] = []  # the first and last bin of each bar
    is_open = False
    for k in range(len(edges) - 1):
        if is_open:
            bars[-1][1] = k
        else:
            bars.append([k, k])
        first, last = bars[-1]
        n = patients(subject, (bins >= first) & (bins <= last))
        is_open = 0 < n < min_count
    while is_open and len(bars) > 1:  # the last bar has too few patients, and is merged with the bars before it
        first, last = bars.pop()
        bars[-1][1] = last
        is_open = 0 < patients(subject, bins >= bars[-1][0]) < min_count
    borders = np.append(edges[[first for first, _ in bars]], edges[-1])
    count = np.array([((bins >= first) & (bins <= last)).sum() for first, last in bars])
    share = count / len(bins) * (edges[1] - edges[0]) / np.diff(borders)
    return {"edges": borders.tolist(), "share": share.tolist()}


def hide_groups(rows: list[dict[str, Any]], shown: Shown) -> list[dict[str, Any]]:
    """Hide the small numbers in a table of groups of samples.

    Args:
        rows: one row per group. A row has `n`, its number of samples, and `patients`, a list: the number of patients
            and, for a binary output, the numbers of patients with and without the outcome.
        shown: the limit for small groups.
    """
    sizes = [row["patients"][0] for row in rows]
    hidden = hidden_parts(sizes, shown.min_count)
    outcomes = set(hidden)
    if rows and len(rows[0]["patients"]) == 3:
        had, had_not = ([row["patients"][k] for row in rows] for k in (1, 2))
        outcomes = hidden_outcomes(had, had_not, shown.min_count, hidden)
    return [_group(row, i in hidden, i in outcomes, shown) for i, row in enumerate(rows)]


def _group(row: dict[str, Any], is_hidden: bool, hides_outcome: bool, shown: Shown) -> dict[str, Any]:
    """Return the row of a group without its number, its outcome or both, if they are hidden."""
    n, *by_outcome = row["patients"]
    kept = {key: value for key, value in row.items() if key != "patients"}
    if is_hidden:
        kept = dict.fromkeys(kept) | {"name": row["name"], "rows": [], "n": _instead(n, shown)}
    if hides_outcome and by_outcome:
        events = WITHHELD if is_hidden else _instead(by_outcome[0], shown)
        kept |= {"events": events, "observed": None, "auroc": None, "rows": []}
    return kept


def hide_steps(steps: list[dict[str, Any]], shown: Shown) -> list[dict[str, Any]]:
    """Hide numbers of one flow chart, so that no two shown numbers differ by only a few patients or admissions.

    Admissions and patients are treated separately. A number that is too close to another shown number is hidden. The
    numbers that the steps on both sides of it dropped are then hidden too, unless they are 0. The number of the last
    step has priority, because it is the size of the cohort in the results.
    """
    result = [dict(step) for step in steps]
    for key in ("admissions", "subjects"):
        numbers = [step[key] for step in steps]
        if None not in numbers:
            for step, (number, dropped) in zip(result, _steps(numbers, shown), strict=True):
                step[key], step[f"dropped_{key}"] = number, dropped
    return result


def _steps(numbers: list[int], shown: Shown) -> Iterator[tuple[int | str, int | str | None]]:
    """Yield each number and what its step dropped, as they are shown.

    What a step dropped is exact if the numbers before and after it are shown.
    """
    kept = _kept(numbers, shown.min_count)
    for i, number in enumerate(numbers):
        dropped = numbers[i - 1] - number if i else None
        left_out = _instead(dropped, shown) if dropped and not {i - 1, i} <= set(kept) else dropped
        yield number if i in kept else _instead(number, shown), left_out


def _kept(numbers: list[int], min_count: int) -> list[int]:
    """Choose the positions of numbers that can be shown together.

    The last position comes first. Then, from the start, each number is added that differs enough from all chosen ones.
    """

    def apart(a: int, b: int) -> bool:
        return numbers[a] == numbers[b] or abs(numbers[a] - numbers[b]) >= min_count

    kept: list[int] = []
    for i in (len(numbers) - 1, *range(len(numbers) - 1)):  # the last position first, then from the start
        if (numbers[i] == 0 or numbers[i] >= min_count) and all(apart(i, k) for k in kept):
            kept.append(i)
    return sorted(kept)


def _instead(n: int, shown: Shown) -> str:
    """Return the text in place of a hidden number: that it is small, or only that it is not shown."""
    return shown.few if n < shown.min_count else WITHHELD


def hides(outputs: Sequence[dict[str, Any]]) -> bool:
    """Return whether the results of any output are hidden. A mean over all outputs would then reveal them."""
    return any(output["hidden"] for output in outputs)


def any_few(outputs: Sequence[dict[str, Any]]) -> bool:
    """Return whether the number of samples without a known label is hidden for any output.

    The sizes of the splits must then be hidden too. A split's size minus its scored samples would reveal that number.
    """
    return any(output["hidden"] or isinstance(output["unknown"], str) for output in outputs)


def hide_counts(value: Any, shown: Shown, total: int | None) -> Any:
    """Hide the small counts in a task's notes, and shares of the cohort that amount to a small count.

    Args:
        value: a count, a share, or a mapping of them by name. If `n` of a mapping is small, the whole mapping is
            hidden.
        shown: the limit for small groups.
        total: the size of the cohort, to which shares refer; None = unknown.
    """
    if isinstance(value, dict):
        if isinstance(value.get("n"), int) and 0 < value["n"] < shown.min_count:
            return {key: shown.few if key == "n" else WITHHELD for key in value}
        return _hide_second(value, {key: hide_counts(part, shown, total) for key, part in value.items()})
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return shown.count(value) if isinstance(value, int) else _hide_share(value, shown, total)


def _hide_second(value: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Hide a second share if only one of several shares that add up to 1 is hidden.

    Otherwise, the hidden share could be computed. The smallest of the others is chosen.
    """
    shares = [key for key, part in value.items() if isinstance(part, float)]
    small = [key for key in shares if isinstance(found[key], str)]
    if len(small) == 1 and len(shares) > 2 and abs(sum(value[key] for key in shares) - 1) < 1e-6:
        found[min((key for key in shares if key not in small), key=lambda key: value[key])] = WITHHELD
    return found


def _hide_share(value: float, shown: Shown, total: int | None) -> float | str:
    """Return a share of `total` patients. If it amounts to few patients or leaves few, return a bound instead."""
    if not total or not 0 < value < 1 or min(value, 1 - value) * total >= shown.min_count - 0.5:
        return value
    few = 100 * shown.min_count / total
    return f"<{few:.1f} %" if value < 0.5 else f">{100 - few:.1f} %"


def hide_sizes(data: dict[str, Any], shown: Shown, all_sizes: bool) -> dict[str, Any]:
    """Hide the small numbers of samples and patients in a run's facts about its data.

    Args:
        data: the facts, from `data` of the run's manifest.
        shown: the limit for small groups.
        all_sizes: whether to hide the numbers of samples and patients of every split, even if they are large.
    """
    found = dict(data)
    for key, value in data.items():
        if key in ("n_samples", "n_subjects") and isinstance(value, dict):
            names = list(value)
            hidden = hidden_parts([value[name] for name in names], shown.min_count)
            found[key] = {
                name: _instead(value[name], shown) if all_sizes or i in hidden else value[name]
                for i, name in enumerate(names)
            }
        elif key.startswith("samples_") and isinstance(value, int):
            found[key] = shown.count(value)
    return found
