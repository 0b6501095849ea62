"""The flow chart of a cohort, and the facts that its rules need."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from ehrdl.schema import FlowStep

#: A rule reports missing facts if more than this share of the rows lacks them.
_LARGE = 0.1


@dataclass(frozen=True)
class Facts:
    """The facts that a rule needs to judge a row. Without them the row is kept, although it may break the rule.

    Attributes:
        name: the facts' name in the plural, such as `diagnosis codes`.
        known: whether each row has them; a single value if it applies to the whole data.
        exception: whether only an exception of the rule needs them.
    """

    name: str
    known: pd.Series | bool
    exception: bool = False


@dataclass
class Flow:
    """The flow chart. The filters themselves build it, so that it always agrees with them."""

    steps: list[FlowStep] = field(default_factory=list)

    def keep(self, rows: pd.DataFrame, mask: pd.Series, step: str, rule: str, *needs: Facts) -> pd.DataFrame:
        """Keep the rows under `mask`, and count them as one step. A caveat reports facts that the rule lacks."""
        return self.count(rows[mask], step, rule, _caveat(rows, needs))

    def count(self, rows: pd.DataFrame, step: str, rule: str, caveat: str = "") -> pd.DataFrame:
        """Count the unchanged rows as one step."""
        self.steps.append(FlowStep(step, rule, len(rows), rows["subject_id"].nunique(), caveat=caveat))
        return rows

    def check(self, rows: pd.DataFrame, step: str, rule: str, *needs: Facts) -> None:
        """Add a step for a rule that drops nobody, such as a rule of the outcome, if facts for it are missing."""
        if caveat := _caveat(rows, needs):
            self.count(rows, step, rule, caveat)

    def __str__(self) -> str:
        counts = ", ".join(f"{step.step}: {step.admissions} after" for step in self.steps)
        return "; ".join([counts, *(f"{step.step}: {step.caveat}" for step in self.steps if step.caveat)])


def _caveat(rows: pd.DataFrame, needs: tuple[Facts, ...]) -> str:
    """Return the caveat of a rule about its first missing facts; empty if it has all that it needs.

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
