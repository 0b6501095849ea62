"""Findings: faults in a hospital's data, or data that were not understood. They are reported, and are never features.

A source makes findings while it reads the data, and later steps add more. `ehrdl prepare` and `ehrdl train` print all
findings as one block. The run's manifest holds the findings, and the report shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ehrdl.engine.messages import say
from ehrdl.errors import SchemaError

#: The number of findings below their limit that are printed; the others are counted.
_QUIET_SHOWN = 5
#: The fewest rows of a loud finding: one odd row in a small hospital does not mean a broken column.
_FEWEST = 10


@dataclass(frozen=True)
class Finding:
    """A finding: one fault in one column of one table, with the number of rows that have it.

    Attributes:
        table: the source's table, such as `hosp/admissions`, or `EVENTS`.
        column: the table's column; for `EVENTS`, the code of the events with the fault.
        what: a phrase that says what the fault is and how it is treated, such as `are after the discharge`. In the
            printed line it follows the numbers.
        n: the number of rows, values or stays with the fault.
        of: the number of all rows, values or stays.
        limit: the share `n / of` above which the finding is loud, which means that it is a warning. It is never loud if
            `n` is below 10, or if the limit is 1.
    """

    table: str
    column: str
    what: str
    n: int
    of: int
    limit: float = 1.0

    @property
    def share(self) -> float:
        """The share of rows, values or stays with the fault, `n / of`, from 0 to 1."""
        return self.n / self.of if self.of else 0.0

    @property
    def is_loud(self) -> bool:
        """Whether the fault is more frequent than chance and usual data entry errors explain (see `limit`)."""
        return self.n >= _FEWEST and self.share > self.limit

    @property
    def level(self) -> str:
        """`warning` if the finding is loud, else `note`."""
        return "warning" if self.is_loud else "note"

    def line(self) -> str:
        """Describe the finding in one line, without the words `warning` or `note`.

        >>> Finding("EVENTS", "DISCHARGE", "discharges stand before their admission", 3, 1200, 0.01).line()
        'EVENTS, DISCHARGE: 3 of 1,200 (0.25 %) discharges stand before their admission'
        """
        return f"{self.table}, {self.column}: {self.n:,} of {self.of:,} ({_percent(self.share)}) {self.what}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, `share` and `level` as plain values for the run's manifest."""
        return asdict(self) | {"share": round(self.share, 6), "level": self.level}


def from_dicts(values: Iterable[dict[str, Any]]) -> list[Finding]:
    """Make findings from the results of `Finding.to_dict`."""
    names = tuple(Finding.__dataclass_fields__)
    return [Finding(**{name: value[name] for name in names}) for value in values]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort the findings with `n` above 0: loud findings come first, and within each part the largest share."""
    found = [finding for finding in findings if finding.n]
    return sorted(found, key=lambda one: (not one.is_loud, -one.share, one.table, one.column, one.what))


def block(findings: Sequence[Finding]) -> list[str]:
    """Return lines that describe the findings on the screen: all loud findings, and the first 5 of the others.

    >>> block([])
    ['data quality: nothing found']
    """
    found = ordered(findings)
    loud = [finding for finding in found if finding.is_loud]
    quiet = found[len(loud) :]
    if not found:
        return ["data quality: nothing found"]
    lines = [f"data quality: {len(loud)} above their limit, {len(quiet)} below"]
    lines += [f"  warning: {finding.line()}" for finding in loud]
    lines += [f"  {finding.line()}" for finding in quiet[:_QUIET_SHOWN]]
    if more := len(quiet) - _QUIET_SHOWN:
        lines += [f"  and {more} more, in the manifest and the report"] if more > 0 else []
    return lines


def refuse_loud(findings: Iterable[Finding]) -> None:
    """Raise an error if a finding is above its limit. This is called only if `data.prepare.strict` is true.

    Raises:
        SchemaError: a finding is above its limit. The message describes the worst finding and counts the others.
    """
    loud = [finding for finding in ordered(findings) if finding.is_loud]
    if loud:
        more = f" (and {len(loud) - 1} more findings above their limit)" if len(loud) > 1 else ""
        raise SchemaError(
            f"data.prepare.strict: {loud[0].line()}{more}; correct the data, or set data.prepare.strict to false"
        )


def tell(findings: Iterable[Finding], strict: bool) -> list[dict[str, Any]]:
    """Print the findings as a block, and return them as plain values for the run's manifest.

    Args:
        findings: the findings of the source, of EVENTS and of the series.
        strict: whether to refuse findings above their limit.

    Raises:
        SchemaError: `strict` is true, and a finding is above its limit.
    """
    found = ordered(findings)
    for line in block(found):
        say(line)
    if strict:
        refuse_loud(found)
    return [finding.to_dict() for finding in found]


def _percent(share: float) -> str:
    """Return a share as a percentage. Rounding never turns a small share into 0 % or an incomplete one into 100 %.

    >>> _percent(0.00001), _percent(0.0042), _percent(0.123), _percent(0.99999), _percent(1.0)
    ('under 0.01 %', '0.42 %', '12 %', '99.99 %', '100 %')
    """
    if 0 < share < 0.0001:
        return "under 0.01 %"
    fine = share < 0.01 or 0.99 < share < 1
    return f"{min(100 * share, 99.99):.2f} %" if fine else f"{100 * share:.0f} %"
