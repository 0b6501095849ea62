"""Descriptions of models, tasks and runs, so that metrics and reports need no table of names."""

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
    """What a model is, for the manifest of a run.

    Attributes:
        name: the model's name in PREDICTIONS.
        kind: see `ModelKind`.
        description: what the model is and what it reads, for people.
        reads: the modalities of a deep model, `note` and `series`; empty for other models.
        deployable: whether everything that the model reads is known at the time when it would be used.
        of_numbers: the description for a model that predicts a number; empty = `description`.
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
        """Return plain values for the manifest."""
        return asdict(self) | {"reads": list(self.reads)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """Make an object from the result of `to_dict`."""
        return cls(**{**values, "reads": tuple(values.get("reads", ()))})


@dataclass(frozen=True)
class TaskInfo:
    """What a task predicts, in words for the report.

    Attributes:
        title: the title of the report.
        sentence: what was predicted, for which patients, when, and from which data. The report replaces `{inputs}` by
            what the models read.
    """

    title: str
    sentence: str


#: A function that computes further scores of one output's PREDICTIONS. Its arguments are rows, split, number of draws,
#: seed, and thresholds of the run or None. It returns, for each model: value, low, high, per_seed, thresholds, alarms.
Utility = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class RunInfo:
    """What is known of the models and outputs in PREDICTIONS; empty if their origin is unknown.

    Attributes:
        models: the models, by name. Among models of one kind, the main one comes first.
        units: the units of the regression outputs, by name.
        utilities: the utility of an alarm for each output that defines one, by name.
        thresholds: the alarm thresholds of the run that made the models, by model. None = they are chosen on the tuning
            rows.
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
        """Return the models in `among` that are of the given kinds: kind by kind, each in the order of `models`.

        >>> fused, lace = ModelInfo("fused", "deep", ""), ModelInfo("lace", "score", "")
        >>> RunInfo({"lace": lace, "fused": fused}).named("deep", "score", among=["lace", "fused", "other"])
        ['fused', 'lace']
        """
        there = set(among)
        return [name for kind in kinds for name in self.models if name in there and self.kind(name) == kind]
