"""What a model, a task and a run say of themselves, so that metrics and reports need no table of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

#: `deep`: a network. `classical`: fitted to a table with one row per sample. `score`: points from a published table.
#: `combined`: made of other models. `constant`: the same prediction for everyone. `truth`: the risk that a simulator
#: drew the outcome from.
ModelKind = Literal["deep", "classical", "score", "combined", "constant", "truth"]


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, for the manifest of a run.

    Attributes:
        name: as in PREDICTIONS.
        kind: see `ModelKind`.
        description: for people: what it is and what it reads.
        reads: the modalities of a deep model, `note` and `series`; else empty.
        deployable: whether all that it reads is known when it would be used.
        of_numbers: its description where it predicts a number; empty = `description`.
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
            ValueError: naming it.
        """
        if self.kind not in get_args(ModelKind):
            raise ValueError(
                f"model {self.name}: the kind {self.kind!r} is not one of {', '.join(get_args(ModelKind))}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self) | {"reads": list(self.reads)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """The inverse of `to_dict`."""
        return cls(**{**values, "reads": tuple(values.get("reads", ()))})


@dataclass(frozen=True)
class TaskInfo:
    """What a task predicts, in words for the report.

    Attributes:
        title: the title of the report.
        sentence: what was predicted, for whom, when and from what. `{inputs}` stands for what the models read.
    """

    title: str
    sentence: str


#: Further scores of one output's PREDICTIONS: (rows, split, number of draws, seed, thresholds of the run or None) ->
#: model -> value, low, high, per_seed, thresholds, alarms.
Utility = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class RunInfo:
    """What is known of the models and outputs that PREDICTIONS hold; empty where anybody made them.

    Attributes:
        models: by name. Among models of one kind the main one comes first.
        units: the units of the regression outputs, by name.
        utilities: of outputs that have one, by name: what an alarm is worth.
        thresholds: those of the utility, by model, of the run whose models these are; None = the tuning rows choose.
    """

    models: Mapping[str, ModelInfo] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    utilities: Mapping[str, Utility] = field(default_factory=dict)
    thresholds: Mapping[str, list[float | None]] | None = None

    def kind(self, model: str) -> str:
        """The kind of a model, empty where it is not known."""
        return self.models[model].kind if model in self.models else ""

    def deployable(self, model: str) -> bool:
        """Whether a model could be used; one that is not known could."""
        return self.models[model].deployable if model in self.models else True

    def named(self, *kinds: ModelKind, among: Iterable[str]) -> list[str]:
        """The models of some kinds that are among others, by kind and then as `models` has them.

        >>> fused, lace = ModelInfo("fused", "deep", ""), ModelInfo("lace", "score", "")
        >>> RunInfo({"lace": lace, "fused": fused}).named("deep", "score", among=["lace", "fused", "other"])
        ['fused', 'lace']
        """
        there = set(among)
        return [name for kind in kinds for name in self.models if name in there and self.kind(name) == kind]
