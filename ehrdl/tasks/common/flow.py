"""The flow chart of a cohort, and the facts that the rules in the chart need."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from ehrdl.schema import FlowStep

#: A rule reports missing facts if more than this share of the rows lacks them.
_LARGE = 0.1


@dataclass(frozen=True)
class Facts:
    """The facts that a rule of the flow chart needs to judge a row, such as the row's diagnosis codes.

    A row without these facts is kept, although it may break the rule.

    Attributes:
        name: the facts' name in the plural, such as `diagnosis codes`.
        known: whether each row has the facts. A single value applies to all rows.
        exception: whether only an exception to the rule needs the facts.
    """

    name: str
    known: pd.Series | bool
    exception: bool = False


@dataclass
class Flow:
    """The flow chart of a cohort. The methods that filter rows also record the steps, so the two always agree."""

    steps: list[FlowStep] = field(default_factory=list)

    def keep(self, rows: pd.DataFrame, mask: pd.Series, step: str, rule: str, *needs: Facts) -> pd.DataFrame:
        """Return the rows for which `mask` is true, and record them as one step of the flow chart.

        Args:
            rows: the rows before the step.
            mask: whether the rule keeps each row.
            step: the name of the step.
            rule: the rule in words.
            *needs: the facts that the rule needs. If many rows lack some of them, the step gets a caveat.
        """
        return self.count(rows[mask], step, rule, _caveat(rows, needs))

    def count(self, rows: pd.DataFrame, step: str, rule: str, caveat: str = "") -> pd.DataFrame:
        """Record the numbers of rows and subjects as one step of the flow chart, and return the rows unchanged."""
        self.steps.append(FlowStep(step, rule, len(rows), rows["subject_id"].nunique(), caveat=caveat))
        return rows

    def check(self, rows: pd.DataFrame, step: str, rule: str, *needs: Facts) -> None:
        """Record a step with a caveat if many rows lack facts that a rule needs.

        This is for a rule that drops no rows, such as a rule of the outcome.
        """
        if caveat := _caveat(rows, needs):
            self.count(rows, step, rule, caveat)

    def __str__(self) -> str:
        counts = ", ".join(f"{step.step}: {step.admissions} after" for step in self.steps)
        return "; ".join([counts, *(f"{step.step}: {step.caveat}" for step in self.steps if step.caveat)])


def _caveat(rows: pd.DataFrame, needs: tuple[Facts, ...]) -> str:
    """Return a caveat about the first facts that a rule lacks; empty if the rule has all that it needs.

    >>> rows = pd.DataFrame({"code": [None, None]})
    >>> _caveat(rows, (Facts("diagnosis codes", rows["code"].notna()),))
    'cannot be applied: no diagnosis codes'
    >>> _caveat(rows, (Facts("diagnosis codes", pd.Series([True, False])),))
    '50 % have no diagnosis codes'
    """
    said: dict[bool, str] = {}
    for facts in needs:
        lacking = _lacking(rows, facts)
        if facts.exception and said.get(False, "").startswith("cannot"):
            continue  # a rule that is not applied has no exceptions
        if lacking == 1:
            what = "its exception cannot be applied" if facts.exception else "cannot be applied"
            said.setdefault(facts.exception, f"{what}: no {facts.name}")
        elif lacking > _LARGE:
            said.setdefault(facts.exception, f"{100 * lacking:.0f} % have no {facts.name}")
    return "; ".join(said.values())


def _lacking(rows: pd.DataFrame, facts: Facts) -> float:
    """Return the share of rows without the facts; 0 if there is no row to judge."""
    if isinstance(facts.known, bool):
        return float(not facts.known)
    return 1 - float(facts.known[rows.index].mean()) if len(rows) else 0.0
