"""Fills the checklists and the model card of a run, and writes them into its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ehrdl.engine.files import write_json, write_text
from ehrdl.report.checklists import probast, tripod
from ehrdl.report.checklists.evidence import RunFiles
from ehrdl.report.checklists.facts import ANSWERED, AUTHOR, FAILED, Facts
from ehrdl.report.checklists.model_card import model_card

LISTS = {"tripod": tripod, "probast": probast}


def fill(facts: Facts) -> dict[str, Any]:
    """Answer every item of both checklists.

    Returns:
        For `tripod` and `probast` each the `name`, the `source`, the number of items by status (`tally`) and the
        `items`. An item has `id`, `section`, `applies`, `item`, `status`, `answer`, `left` (what is left for the
        author) and `evidence`: file, line and key.
    """
    result = {}
    for key, checklist in LISTS.items():
        items = [item.fill(facts) for item in checklist.ITEMS]
        counts = Counter(item["status"] for item in items)
        tally = {status: counts[status] for status in (ANSWERED, AUTHOR, FAILED)}
        result[key] = {"name": checklist.NAME, "source": checklist.SOURCE, "tally": tally, "items": items}
    return result


def write_checklists(folder: Path, summary: Mapping[str, Any], files: RunFiles, min_count: int) -> dict[str, Any]:
    """Write `checklists.json` and `model_card.md`, and return the checklists.

    Args:
        folder: the folder to write to.
        summary: the content of the report, from `summarize`.
        files: the texts of the run's files, as they are in the folder of the finished run.
        min_count: the smallest number of patients in a group that is shown.
    """
    facts = Facts(files, summary, min_count)
    checklists = fill(facts)
    write_json(folder / "checklists.json", checklists)
    write_text(folder / "model_card.md", model_card(facts, checklists))
    return checklists
