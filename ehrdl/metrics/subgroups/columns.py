"""Groups of samples by the values of the `group_*` columns of PREDICTIONS, and by pairs of these columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrdl.errors import ConfigError
from ehrdl.metrics.by_modality import PRESENT
from ehrdl.options.bounds import nearest

PREFIX = "group_"
#: The text between the two columns of a pair.
CROSS = " x "
UNKNOWN = "unknown"
#: A column with more groups keeps the largest; the others become one group.
MAX_GROUPS = 8
#: The columns whose pairs are looked at if the user names none.
PAIRED = ("sex", "age_band", "race")


@dataclass(frozen=True)
class Groups:
    """The groups of one column, or of a pair of columns.

    Attributes:
        names: the name of each group.
        code: the position (n,) in `names` of each sample's group.
        columns: the names of the column or of the two columns.
    """

    names: list[str]
    code: NDArray[np.intp]
    columns: tuple[str, ...]


def columns_of(table: pd.DataFrame) -> list[str]:
    """Return the names of the `group_*` columns, without the prefix and without the column of `by_modality`."""
    found = [str(name) for name in table.columns if str(name).startswith(PREFIX) and name != PRESENT]
    return [name.removeprefix(PREFIX) for name in found]


def check_columns(wanted: Sequence[str], there: Sequence[str], key: str = "report.groups") -> None:
    """Check that every wanted column, and both columns of every wanted pair, exist.

    Args:
        wanted: names of columns, and pairs such as `sex x race`.
        there: the names of the columns that exist.
        key: the option that gave `wanted`, for the message.

    Raises:
        ConfigError: a column does not exist, or a pair does not have two different columns.
    """
    for name in wanted:
        parts = [part.strip() for part in name.split(CROSS)]
        if len(parts) > 2 or len(set(parts)) < len(parts):
            raise ConfigError(f"{key}: {name!r} is no pair of two different columns, such as 'sex{CROSS}race'")
        for part in parts:
            if part not in there:
                known = ", ".join(there) or "none"
                raise ConfigError(f"{key}: {part!r} is no column of groups; there are: {known}{nearest(part, there)}")


def groups_of(rows: pd.DataFrame, wanted: Sequence[str] | None = None) -> tuple[dict[str, Groups], dict[str, str]]:
    """Return the groups of every column, then of every pair of columns, and the columns of a single group.

    Args:
        rows: the samples, with their `group_*` columns. Null is the group `unknown`.
        wanted: the columns and pairs; None = all columns, and all pairs of `PAIRED`.

    Returns:
        The groups by the name of the column or pair; and the only group of each other column.

    Raises:
        ConfigError: a wanted column does not exist.

    >>> rows = pd.DataFrame({"group_sex": ["F", "M", None], "group_race": ["a", "a", "b"], "group_unit": "MICU"})
    >>> columns, alone = groups_of(rows, ["sex", "unit", "sex x race"])
    >>> {name: groups.names for name, groups in columns.items()}, alone
    ({'sex': ['F', 'M', 'unknown'], 'sex x race': ['F, a', 'M, a', 'unknown, b']}, {'unit': 'MICU'})
    """
    there = columns_of(rows)
    if wanted is None:
        wanted = [*there, *(CROSS.join(pair) for pair in combinations([n for n in PAIRED if n in there], 2))]
    check_columns(wanted, there)
    single = {name: _column(rows[PREFIX + name], name) for name in dict.fromkeys(_parts(wanted))}
    found: dict[str, Groups] = {}
    for name in sorted(dict.fromkeys(wanted), key=lambda name: CROSS in name):
        groups = [single[column] for column in _parts([name])]
        if all(len(each.names) > 1 for each in groups):
            found[name] = groups[0] if len(groups) == 1 else _pair(*groups)
    return found, {name: groups.names[0] for name, groups in single.items() if len(groups.names) == 1}


def _parts(names: Sequence[str]) -> list[str]:
    return [part.strip() for name in names for part in name.split(CROSS)]


def _column(values: pd.Series, name: str) -> Groups:
    first, found = pd.factorize(values)  # -1 = null
    texts, place = np.unique([*(str(each) for each in found), UNKNOWN], return_inverse=True)
    used, code = np.unique(place[first], return_inverse=True)  # place[-1] is that of `unknown`
    names = texts[used]
    if len(names) <= MAX_GROUPS:
        return Groups([str(each) for each in names], code, (name,))
    order = np.argsort(-np.bincount(code), kind="stable")
    kept = np.sort(order[: MAX_GROUPS - 1])
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    rest = f"{len(names) - len(kept)} smaller groups"
    return Groups([*(str(names[i]) for i in kept), rest], place[code], (name,))


def _pair(one: Groups, other: Groups) -> Groups:
    cells, code = np.unique(one.code * len(other.names) + other.code, return_inverse=True)
    first, second = np.divmod(cells, len(other.names))
    names = [f"{one.names[i]}, {other.names[j]}" for i, j in zip(first, second, strict=True)]
    return Groups(names, code, (*one.columns, *other.columns))
