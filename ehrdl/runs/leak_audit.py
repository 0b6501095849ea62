"""The leak audit of a run as a file: its checks, what each of them may find, and how the file is written and read.

`ehrdl.audit` makes the checks. This module has their titles and sentences, so that a report can show them without
running them, and can write a sentence again with small numbers hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ehrdl import __version__
from ehrdl.engine.files import read_json, write_json
from ehrdl.runs.files import reading

FILE = "leak_audit.json"
Status = Literal["pass", "fail", "not verified"]
PASS: Status = "pass"
FAIL: Status = "fail"
NOT_VERIFIED: Status = "not verified"


@dataclass(frozen=True)
class Kind:
    """What is fixed about a check.

    Attributes:
        title: the property that the check looks for in the run.
        how: how it is checked, in one sentence.
        passed, failed: the sentences of the two results. Names in braces are keys of the evidence.
        of_labels: whether the result is computed from labels, so that a report must hide it where it hides the output.
    """

    title: str
    how: str
    passed: str
    failed: str
    of_labels: bool = False


#: The checks by name, in the order of the report.
KINDS = {
    "future": Kind(
        "Facts after the prediction time change no prediction",
        "In a copy of the EVENTS of some held-out patients, facts that are not available yet are deleted, changed and "
        "added. The data are then prepared again, and the run's own models predict again.",
        "{n_models} models predicted the same for {n_samples} patients after {n_changed} later facts were deleted, "
        "changed or added.",
        "{n_wrong} of {n_models} models predicted something else after {n_changed} later facts of {n_samples} patients "
        "were deleted, changed or added: {wrong} (largest change {largest}).",
    ),
    "early": Kind(
        "No fact is available before it happened",
        "The times of all facts of the same patients are compared.",
        "None of {n_facts} facts is available before its own time.",
        "{n_early} of {n_facts} facts are available before their own time, such as {example}.",
    ),
    "own_codes": Kind(
        "No billing code of a stay is available before the stay ends",
        "Hospitals assign the codes of diagnoses, procedures and DRGs after the discharge. For the same patients, the "
        "codes of the stay of the prediction are compared with the time of the prediction.",
        "None of {n_codes} codes of the stays themselves is available at the prediction.",
        "{n_visible} of {n_codes} codes of the stays themselves are available at a prediction that is made before the "
        "stay ends, such as {example}.",
    ),
    "permuted": Kind(
        "With permuted labels, a model knows nothing",
        "A ridge regression of the run's table of features is fitted to permuted training labels, many times, and "
        "scored on held-out patients. The mean AUROC must be 0.5, within three standard errors or 0.02.",
        "{output}: the mean AUROC over {permutations} permutations is {auroc} ({low} to {high}).",
        "{output}: the mean AUROC over {permutations} permutations is {auroc} ({low} to {high}), and not 0.5.",
        True,
    ),
    "shadow": Kind(
        "What was measured, and when, does not give the outcome away",
        "Boosted trees read only which values were measured, how often and when, and no value. They fail if even the "
        "lower end of the interval is above the highest credible AUROC, or above 0.8 and within 5 % of the best model. "
        "Below, such a score is usual, since sick patients are measured more often.",
        "{output}: a model of times and missingness has an AUROC of {auroc} ({low} to {high}), the best model of the "
        "run {best}.",
        "{output}: a model of times and missingness alone has an AUROC of {auroc} ({low} to {high}), the best model of "
        "the run {best}; the limit is {limit}.",
        True,
    ),
    "single": Kind(
        "No single feature gives the outcome away",
        "Each column of the table of features, whether it is missing, and each word of the notes is scored alone. An "
        "AUROC above the highest credible one (0.95 where the task names none) that is not due to chance fails.",
        "{output}: of {n_features} features, {feature} comes closest to its limit: AUROC {auroc}, limit {limit}.",
        "{output}: {n_above} of {n_features} features are above their limit: {feature} has an AUROC of {auroc}, and a "
        "limit of {limit}.",
        True,
    ),
    "subjects": Kind(
        "No patient is in two splits",
        "The subject_id of every sample is compared over the splits.",
        "None of {n_subjects} patients is in two splits.",
        "{n_shared} of {n_subjects} patients are in two splits.",
    ),
    "persons": Kind(
        "No patient is in two splits under two ids",
        "The first facts of each patient (channel, value, and time since the first fact) are compared over the splits.",
        "{n_shared} of {n_compared} held-out patients share their first {first} facts with one in another split.",
        "{n_shared} of {n_compared} held-out patients share their first {first} facts with one in another split; the "
        "limit is {percent} %.",
    ),
    "rows": Kind(
        "Training and held-out samples are different",
        "The rows of the table of features are compared over the splits, where at least {least} values were measured.",
        "{n_shared} of {n_compared} held-out rows equal one of {n_train} training rows of another patient.",
        "{n_shared} of {n_compared} held-out rows equal one of {n_train} training rows of another patient; the limit "
        "is {percent} %.",
    ),
    "notes": Kind(
        "Training and held-out notes are different",
        "The visible notes of some samples are compared over the splits, where they have at least {least} words.",
        "{n_shared} of {n_compared} held-out notes equal one of {n_train} training notes of another patient.",
        "{n_shared} of {n_compared} held-out notes equal one of {n_train} training notes of another patient; the limit "
        "is {percent} %.",
    ),
    "credible": Kind(
        "No model scores more than is credible",
        "The AUROC of every model is compared with the highest that an honest model is known to reach on the task.",
        "{output}: the highest AUROC is {auroc} ({model}); the highest credible one is {limit}.",
        "{output}: the AUROC {auroc} of {model} is above {limit}, more than any honest model has reached: look for a "
        "leak before you believe it.",
        True,
    ),
}
#: What the project's own tests prove of this version, for all data: the property, and the files of the tests.
PROVED = (
    (
        "Facts after the prediction time can be changed, added and deleted: what a sample sees stays the same, bit for "
        "bit, in series, notes, records, tables and tensors.",
        ("tests/leakage/test_series.py", "tests/leakage/test_notes.py", "tests/leakage/test_records.py"),
    ),
    (
        "This holds from the source's files on, also for codes without a delay and for data without available_time.",
        ("tests/leakage/test_diagnosis.py", "tests/leakage/test_meds.py", "tests/leakage/test_physionet2012.py"),
    ),
    (
        "Vocabulary, scalers and tokenizers never read tuning and held-out patients, and with permuted labels models "
        "score 0.5.",
        ("tests/leakage/test_series.py",),
    ),
    ("The leak audit finds each kind of planted leak in a real run.", ("tests/leakage/test_audit.py",)),
)


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: the name of the check, a key of `KINDS`.
        status: `pass`, `fail` or `not verified`.
        evidence: the numbers of the result, as plain values for JSON. Counts have names that begin with `n_`.
        reason: if not verified, the reason in one sentence.
    """

    name: str
    status: Status
    evidence: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def finding(self) -> str:
        """The result in one sentence, with its numbers."""
        return sentence(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain values, with its title and its finding."""
        kind = KINDS[self.name]
        found = {"name": self.name, "title": kind.title, "status": self.status, "finding": self.finding}
        return (
            found
            | {"how": kind.how.format_map(_Texts(self.evidence)), "evidence": self.evidence}
            | ({"reason": self.reason} if self.reason else {})
        )


def not_verified(name: str, reason: str) -> Check:
    """Return a check that could not be made, with the reason in one sentence."""
    return Check(name, NOT_VERIFIED, reason=reason)


def sentence(check: Mapping[str, Any], shown: Callable[[int], int | str] = lambda n: n) -> str:
    """Return the finding of a check in one sentence.

    Args:
        check: the check as plain values: `name`, `status`, `evidence` and, if not verified, `reason`.
        shown: a function that returns a count as it may be shown, to hide small ones.

    >>> sentence({"name": "early", "status": "pass", "evidence": {"n_facts": 1200}})
    'None of 1,200 facts is available before its own time.'
    """
    if check["status"] == NOT_VERIFIED:
        return str(check["reason"])
    kind = KINDS[check["name"]]
    text = kind.passed if check["status"] == PASS else kind.failed
    return text.format_map(_Texts(check["evidence"], shown))


def failures(checks: list[dict[str, Any]]) -> list[str]:
    """Return a line for each check that fails, for the first screen of the report. The lines have no counts to hide."""
    return [f"the leak audit fails the check '{check['title']}'" for check in checks if check["status"] == FAIL]


class _Texts(dict[str, Any]):
    """The values of some evidence as texts: counts with commas, other numbers with three digits."""

    def __init__(self, evidence: Mapping[str, Any], shown: Callable[[int], int | str] = lambda n: n) -> None:
        super().__init__(
            {name: _text(shown(value) if _is_count(name, value) else value) for name, value in evidence.items()}
        )

    def __missing__(self, name: str) -> str:
        return "some"


def _is_count(name: str, value: Any) -> bool:
    return name.startswith("n_") and isinstance(value, int)


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.0e}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def write_audit(folder: Path, checks: list[dict[str, Any]]) -> None:
    """Write the checks, and what the project's tests prove, into a run's folder."""
    proved = [{"property": what, "tests": list(tests)} for what, tests in PROVED]
    write_json(folder / FILE, {"ehrdl": __version__, "checks": checks, "proved_by_tests": proved})


def read_audit(folder: Path) -> dict[str, Any]:
    """Read the leak audit in a run's folder; empty if there is none.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    with reading(path, "leak audit"):
        found: dict[str, Any] = read_json(path, dict)
        for check in found["checks"]:
            sentence(check)
        return found
