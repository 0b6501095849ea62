"""The flow chart of a cohort, and what its rules need to know."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from ehrdl.schema import FlowStep

#: A rule that lacks its facts in more than this share of the rows says so.
_LARGE = 0.1


@dataclass(frozen=True)
class Facts:
    """What a rule must know of a row to judge it: without it the rule drops nobody, which is not the same as passing.

    Attributes:
        name: of the facts, in the plural, such as `diagnosis codes`.
        known: whether each row has them; one value where the whole data have them or not.
        exception: only an exception of the rule needs them.
    """

    name: str
    known: pd.Series | bool
    exception: bool = False


@dataclass
class Flow:
    """The flow chart, built by the filters themselves so that it cannot differ from them."""

    steps: list[FlowStep] = field(default_factory=list)

    def keep(self, rows: pd.DataFrame, mask: pd.Series, step: str, rule: str, *needs: Facts) -> pd.DataFrame:
        """The rows under `mask`, counted as one step; its caveat says where the rule lacks its facts."""
        return self.count(rows[mask], step, rule, _caveat(rows, needs))

    def count(self, rows: pd.DataFrame, step: str, rule: str, caveat: str = "") -> pd.DataFrame:
        """The rows as they are, counted as one step."""
        self.steps.append(FlowStep(step, rule, len(rows), rows["subject_id"].nunique(), caveat=caveat))
        return rows

    def check(self, rows: pd.DataFrame, step: str, rule: str, *needs: Facts) -> None:
        """A step for a rule that drops nobody, such as one of the outcome, only where it lacks its facts."""
        if caveat := _caveat(rows, needs):
            self.count(rows, step, rule, caveat)

    def __str__(self) -> str:
        counts = ", ".join(f"{step.step}: {step.admissions} after" for step in self.steps)
        return "; ".join([counts, *(f"{step.step}: {step.caveat}" for step in self.steps if step.caveat)])


def _caveat(rows: pd.DataFrame, needs: tuple[Facts, ...]) -> str:
    """What the first lacking facts mean for a rule; empty where it has all it needs.

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
    """Share of the rows without the facts; 0 where there is no row to judge."""
    if isinstance(facts.known, bool):
        return float(not facts.known)
    return 1 - float(facts.known[rows.index].mean()) if len(rows) else 0.0
