"""Descriptions of models, tasks and runs. Metrics and reports read them, and need not know any model by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

#: `deep`: a network. `classical`: fitted to a table with one row per sample. `score`: points from a published table.
#: `combined`: made of other models. `constant`: the same prediction for everyone. `truth`: the risk from which a
#: simulator drew the outcome.
ModelKind = Literal["deep", "classical", "score", "combined", "constant", "truth"]


@dataclass(frozen=True)
class ModelInfo:
    """The description of a model in the manifest of a run.

    Attributes:
        name: the model's name in the PREDICTIONS table.
        kind: the kind of model, one of `ModelKind`.
        description: a phrase for the report: what the model is, and what it reads.
        reads: the modalities that a deep model reads, `note` and `series`; empty for other models.
        deployable: whether all inputs of the model are known at the prediction time, so that it could be used in care.
        of_numbers: the phrase that replaces `description` where the model predicts a number; empty = `description`.
    """

    name: str
    kind: ModelKind
    description: str
    reads: tuple[str, ...] = ()
    deployable: bool = True
    of_numbers: str = ""

    def __post_init__(self) -> None:
        """Refuse a kind that does not exist.

        Raises:
            ValueError: the kind does not exist; the message names it.
        """
        if self.kind not in get_args(ModelKind):
            raise ValueError(
                f"model {self.name}: the kind {self.kind!r} is not one of {', '.join(get_args(ModelKind))}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for the manifest."""
        return asdict(self) | {"reads": list(self.reads)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """Make a `ModelInfo` from the result of `to_dict`."""
        return cls(**{**values, "reads": tuple(values.get("reads", ()))})


@dataclass(frozen=True)
class TaskInfo:
    """What a task predicts, in words for the report.

    Attributes:
        title: the title of the report.
        sentence: what was predicted, for which patients, when, and from which data. The report replaces the placeholder
            `{inputs}` in it by the names of the models' inputs.
        outcome: what counts as the outcome, in a sentence; empty = the report shows only `sentence`.
        facts: sentences about the numbers in `TaskResult.notes`, by the name of the note. The name of a note within
            another is `OUTER.INNER`. In a sentence, `{}` stands for the note's value, `{NAME}` for a value in a note
            that is a mapping, and `{*}` for all of them with their names. A share is shown in percent, unless the
            placeholder is `{NAME:number}`. A note without a sentence is shown with its name.
    """

    title: str
    sentence: str
    outcome: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


#: A function that computes further scores of one output's PREDICTIONS. Its arguments are rows, split, number of draws,
#: seed, and thresholds of the run or None. It returns, for each model: value, low, high, per_seed, thresholds, alarms.
Utility = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class RunInfo:
    """What is known about the models and outputs of a PREDICTIONS table. It is empty if their origin is unknown.

    Attributes:
        models: the description of each model, by the model's name. Among models of one kind, the main one comes first.
        units: the unit of each regression output, by the output's name.
        utilities: the function that scores the alarms for an output, by the output's name. Most outputs have none.
        thresholds: for each model's name, the alarm thresholds that its run chose, one per seed. None = thresholds are
            chosen on the tuning rows of the table.
    """

    models: Mapping[str, ModelInfo] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    utilities: Mapping[str, Utility] = field(default_factory=dict)
    thresholds: Mapping[str, list[float | None]] | None = None

    def kind(self, model: str) -> str:
        """Return the kind of a model, or an empty string if it is unknown."""
        return self.models[model].kind if model in self.models else ""

    def deployable(self, model: str) -> bool:
        """Return whether a model could be used in practice; true if the model is unknown."""
        return self.models[model].deployable if model in self.models else True

    def named(self, *kinds: ModelKind, among: Iterable[str]) -> list[str]:
        """Return the names in `among` of all models of some kinds.

        The names are in the order of `kinds`, and within a kind in the order of `models`.

        >>> fused, lace = ModelInfo("fused", "deep", ""), ModelInfo("lace", "score", "")
        >>> RunInfo({"lace": lace, "fused": fused}).named("deep", "score", among=["lace", "fused", "other"])
        ['fused', 'lace']
        """
        there = set(among)
        return [name for kind in kinds for name in self.models if name in there and self.kind(name) == kind]
