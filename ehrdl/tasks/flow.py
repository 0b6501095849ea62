"""The flow chart of a cohort."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from ehrdl.schema import FlowStep


@dataclass
class Flow:
    """The flow chart, built by the filters themselves so that it cannot differ from them."""

    steps: list[FlowStep] = field(default_factory=list)

    def keep(self, rows: pd.DataFrame, mask: pd.Series, step: str, rule: str) -> pd.DataFrame:
        """The rows under `mask`, counted as one step."""
        return self.count(rows[mask], step, rule)

    def count(self, rows: pd.DataFrame, step: str, rule: str) -> pd.DataFrame:
        """The rows as they are, counted as one step."""
        self.steps.append(FlowStep(step, rule, len(rows), rows["subject_id"].nunique()))
        return rows

    def __str__(self) -> str:
        return ", ".join(f"{step.step}: {step.admissions} after" for step in self.steps)
