"""What is known about a run when its checklists are filled, and the form of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ehrdl.report.checklists.evidence import Evidence, RunFiles
from ehrdl.report.page.html import number
from ehrdl.schema import HELD_OUT, TRAIN

Status = Literal["answered", "for the author", "failed"]
ANSWERED: Status = "answered"
AUTHOR: Status = "for the author"
FAILED: Status = "failed"
_SILENT = "The run does not show this."


@dataclass(frozen=True)
class Answer:
    """The answer to an item of a checklist.

    Attributes:
        status: `answered` = the run shows the answer; `for the author` = it does not, or not the main part; `failed` =
            the run shows that the item is not met.
        text: the answer in full sentences.
        evidence: the lines that show it.
        left: what is left for the author in an answered item.
    """

    status: Status
    text: str
    evidence: tuple[Evidence, ...] = ()
    left: str = ""


def answered(text: str, *evidence: Evidence | None, left: str = "") -> Answer:
    """Return the answer that a run shows. Without a line that shows it, the item is left to the author."""
    found = _found(evidence)
    return Answer(ANSWERED, text, found, left) if found else author()


def failed(text: str, *evidence: Evidence | None) -> Answer:
    """Return the answer that an item is not met, with the lines that show it."""
    return Answer(FAILED, text, _found(evidence))


def author(text: str = "", *evidence: Evidence | None) -> Answer:
    """Return the answer that only the author can give. `text` is what the run shows of it."""
    return Answer(AUTHOR, text or _SILENT, _found(evidence))


def _found(evidence: tuple[Evidence | None, ...]) -> tuple[Evidence, ...]:
    return tuple(dict.fromkeys(one for one in evidence if one is not None))


@dataclass(frozen=True)
class Facts:
    """What is known about a run.

    Numbers of patients in an answer come from `summary`, in which small ones are hidden. The files are exact, and only
    tell where the lines are.

    Attributes:
        files: the texts of the run's files; only `metrics.json` if the predictions belong to no run.
        summary: the content of the report, from `summarize`.
        min_count: the smallest number of patients in a group that is shown.
    """

    files: RunFiles
    summary: Mapping[str, Any]
    min_count: int = 10

    @property
    def get(self) -> Callable[..., Any]:
        """The value at a place in a file, from `RunFiles.get`."""
        return self.files.get

    @property
    def at(self) -> Callable[..., Evidence | None]:
        """The line of a place in a file, from `RunFiles.find`."""
        return self.files.find

    @property
    def is_run(self) -> bool:
        """Whether the predictions belong to a run of ehrdl, which has a manifest."""
        return bool(self.get("manifest.json"))

    @property
    def external(self) -> bool:
        """Whether a finished run made the predictions for other data than its own."""
        return self.get("manifest.json", "run") is not None

    @property
    def outputs(self) -> list[Mapping[str, Any]]:
        """The outputs whose results may be shown."""
        return [output for output in self.summary["outputs"] if not output["hidden"]]

    @property
    def hidden(self) -> list[Mapping[str, Any]]:
        """The outputs whose results are hidden, because they are of few patients."""
        return [output for output in self.summary["outputs"] if output["hidden"]]

    def size(self, split: str) -> str:
        """Say how many samples and patients a split has, as far as the report shows it.

        Args:
            split: the name of the split in words: `train`, `tuning` or `held out`.
        """
        values = {row["name"]: row["value"] for row in self.summary["data"]}
        counts = [
            (values.get(key), what)
            for key, what in ((f"samples: {split}", "samples"), (f"subjects: {split}", "patients"))
        ]
        return " of ".join(counted(n, what) for n, what in counts)

    def scores(self, output: Mapping[str, Any], *keys: str) -> Evidence | None:
        """Return the line of a fact about an output in metrics.json."""
        return self.at("metrics.json", "outputs", output["name"], *keys)

    def of_model(self, output: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """Return the metrics of a model on an output."""
        found: Mapping[str, Any] = next(row["metrics"] for row in output["models"] if row["name"] == name)
        return found


def counted(n: Any, what: str) -> str:
    """Say a number of something; a number that is hidden follows in brackets.

    >>> counted(1405, "admissions"), counted("<10", "patients"), counted(None, "samples")
    ('1,405 admissions', 'patients (number <10)', 'samples (number unknown)')
    """
    return f"{number(n)} {what}" if isinstance(n, int) else f"{what} (number {n or 'unknown'})"


def named(split: Any) -> str:
    """Return the name of a split as a reader says it.

    >>> named("train"), named("held_out"), named("mine")
    ('training', 'held-out', 'mine')
    """
    return {TRAIN: "training", HELD_OUT: "held-out"}.get(str(split), str(split))


def listed(parts: list[str], most: int = 8) -> str:
    """Join names in a sentence; names beyond `most` are counted.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], 1), listed(["a"])
    ('a, b and c', 'a and 2 more', 'a')
    """
    if len(parts) > most:
        parts = [*parts[:most], f"{len(parts) - most:,} more"]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
