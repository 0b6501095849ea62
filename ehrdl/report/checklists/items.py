"""The form of an item of a checklist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ehrdl.report.checklists.facts import Answer, Facts, author

Applies = Literal["development", "evaluation", "both"]


@dataclass(frozen=True)
class Item:
    """An item of a checklist, in our own words.

    Attributes:
        id: the number of the item in the published checklist, such as `12a`.
        section: the part of the checklist.
        applies: whether the item is on the development of a model, its evaluation, or both.
        item: what is asked.
        answer: the function that answers it from the facts of a run.
    """

    id: str
    section: str
    applies: Applies
    item: str
    answer: Callable[[Facts], Answer]

    def fill(self, facts: Facts) -> dict[str, Any]:
        """Return the item with its answer as plain values."""
        found = self.answer(facts)
        return {
            "id": self.id,
            "section": self.section,
            "applies": self.applies,
            "item": self.item,
            "status": found.status,
            "answer": found.text,
            "left": found.left,
            "evidence": [evidence.to_dict() for evidence in found.evidence],
        }


def nobody(facts: Facts) -> Answer:
    """Leave an item to the author, because no run can show it."""
    return author()
