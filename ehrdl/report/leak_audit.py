"""The rows of the leak audit in a report, with small numbers hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.report.places import in_text
from ehrdl.report.suppress import Shown
from ehrdl.runs.leak_audit import KINDS, NOT_VERIFIED, not_verified, sentence

_NONE = "No leak audit comes with these predictions."
_OFF = "The leak audit was turned off (audit: false)."
_HIDDEN = "Not shown, since a number of patients with or without the outcome is too small."


def audit_rows(audit: Mapping[str, Any], shown: Shown, hidden: bool = False, off: bool = False) -> dict[str, Any]:
    """Return the leak audit as the report shows it.

    Args:
        audit: the content of `leak_audit.json`; empty = there is none, so that nothing is verified.
        shown: the limit for small groups.
        hidden: whether the results of any output are hidden. Findings that are computed from labels are then hidden.
        off: whether the audit of the run was turned off.

    Returns:
        `checks`, a list of rows with `title`, `status`, `finding` and `how` (empty if not verified); `proved`, a list
        of rows with `property` and `tests`; and `version`, the version of ehrdl whose tests these are (empty if nothing
        is known).
    """
    reason = _OFF if off else _NONE
    checks = audit.get("checks") or [not_verified(name, reason).to_dict() for name in KINDS]
    proved = audit.get("proved_by_tests", [])
    return {
        "checks": [_row(check, shown, hidden) for check in checks],
        "proved": [{"property": str(part["property"]), "tests": list(part["tests"])} for part in proved],
        "version": str(audit.get("ehrdl", "")),
    }


def _row(check: Mapping[str, Any], shown: Shown, hidden: bool) -> dict[str, str]:
    finding = sentence(check, shown.count)
    if hidden and KINDS[check["name"]].of_labels and check["status"] != NOT_VERIFIED:
        finding = _HIDDEN
    return {
        "title": str(check["title"]),
        "status": str(check["status"]),
        "finding": in_text(finding),
        "how": "" if check["status"] == NOT_VERIFIED else str(check["how"]),
    }
