"""The tensor contract between data and models: `Batch`, and the description of the data in `DataSpec`.

Letters, the same everywhere:
    B samples · N observations (padded) · K outputs · S static features · C note chunks in the batch ·
    E links (one link = one sample reads one chunk) · L tokens per chunk · D width

torch is imported where it is used, so that the command line can name these types without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ehrdl.options.training import Imbalance
from ehrdl.schema import REGRESSION, OutputSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: Shares of an outcome are kept this far from 0 and 1, so that their logit and weight are finite.
MIN_SHARE = 1e-4
#: gamma of the focal loss: the best of those that its authors tried (Lin et al., ICCV 2017, table 1b).
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class ChannelSpec:
    """One channel of the time series: one measurement, such as the heart rate, or one kind of event.

    Attributes:
        kind: `numeric` (a value in `unit`) or `event` (a fact without a number, with value 1).
        mean, std: mean and standard deviation of the values, in `unit`, of the training subjects (0 and 1 for events).
        low, high: lowest and highest plausible value, in `unit`.
    """

    name: str
    kind: str
    unit: str
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class AuxiliarySpec:
    """An auxiliary output: a network learns it in training, but does not predict it.

    `prevalence`, `label_mean` and `label_std` have the same meaning as in `DataSpec`, for this output alone.
    """

    output: OutputSpec
    prevalence: float
    label_mean: float
    label_std: float


@dataclass(frozen=True)
class DataSpec:
    """Everything that a model must know about the data: modalities, channels, scalers, sizes and outputs.

    Attributes:
        modalities: the modalities that this model may read: `note`, `series`, or both. `only("note")` gives the spec
            for notes alone.
        channels: the channels of the time series. `Batch.channel` is an index into them.
        statics: names of the S static features.
        static_mean, static_std: (S) mean and standard deviation by which the static features are scaled.
        window_hours: length of the series window before the prediction time [h].
        vocab_size, pad_id, chunk_tokens: vocabulary size, padding id and tokens per chunk of the notes; 0 without
            notes.
        prevalence: share of positive labels in the training split, per output. A regression output has 0.5 instead. The
            logit of 0.5 is 0, which is the mean of the standardised labels.
        label_mean, label_std: mean and standard deviation of a regression output's known labels on the training split;
            0 and 1 for a binary output. Networks predict (label - mean) / std. May be empty if every output is binary.
        note_kinds: the kinds of notes. `Batch.kind` is an index into them. A kind is a type of note, such as
            `discharge//AD`. If notes are split into sections, it also names the section. The first kind is `other`.
            Empty = unknown, as in runs of older versions.
        auxiliary: outputs that are learned but not predicted. In `Batch.label`, their columns follow those of
            `outputs`. No other field contains them.
        weights: weight of each output in the loss; empty = 1 each.
        pos_weight: weight in the loss of a sample with the outcome, for each output; empty = 1 each. `to_dict` leaves
            it and `focal` out, since they belong to a fit and not to the data.
        focal: gamma of the focal loss of binary outputs; 0 = cross-entropy.
        cache: folder where a network may keep vectors that it computes from the data (the option `data.prepare.cache`);
            None = it keeps nothing. `to_dict` leaves the folder out, since it is a path on this machine.
    """

    modalities: tuple[str, ...]
    channels: tuple[ChannelSpec, ...]
    statics: tuple[str, ...]
    static_mean: tuple[float, ...]
    static_std: tuple[float, ...]
    window_hours: float
    vocab_size: int
    pad_id: int
    chunk_tokens: int
    outputs: tuple[OutputSpec, ...]
    prevalence: tuple[float, ...]
    label_mean: tuple[float, ...] = ()
    label_std: tuple[float, ...] = ()
    note_kinds: tuple[str, ...] = ()
    auxiliary: tuple[AuxiliarySpec, ...] = ()
    weights: tuple[float, ...] = ()
    pos_weight: tuple[float, ...] = ()
    focal: float = 0.0
    cache: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check that a spec with a regression output has `label_mean` and `label_std`."""
        n_outputs = len(self.outputs)
        if self.regression and not (len(self.label_mean) == len(self.label_std) == n_outputs):
            raise ValueError(f"DataSpec.label_mean and label_std need a value for each of the {n_outputs} outputs")

    @property
    def regression(self) -> tuple[int, ...]:
        """The positions of the regression outputs in `outputs`, from 0."""
        return tuple(k for k, output in enumerate(self.outputs) if output.kind == REGRESSION)

    def only(self, *modalities: str) -> DataSpec:
        """Return a copy of the spec for a model that reads only the named modalities, as in `only("note")`."""
        return replace(self, modalities=tuple(m for m in self.modalities if m in modalities))

    def trained(self, weight: float = 1.0, imbalance: Imbalance = "none") -> DataSpec:
        """Return the spec for training, in which the auxiliary outputs follow the other `outputs`.

        Args:
            weight: the weight of each auxiliary output in the loss. Every other output has weight 1.
            imbalance: what the loss does about rare outcomes (`optim.imbalance`).
        """
        return self._with_auxiliary(weight)._reweighted(imbalance)

    def _reweighted(self, imbalance: Imbalance) -> DataSpec:
        """Return the spec with the loss for rare outcomes.

        Reweighted or balanced classes have a prevalence of 0.5, from which the network's bias then starts.
        """
        if imbalance == "none":
            return self
        if imbalance == "focal":
            return replace(self, focal=FOCAL_GAMMA)
        shares = [min(max(share, MIN_SHARE), 1 - MIN_SHARE) for share in self.prevalence]
        weights = tuple((1 - share) / share for share in shares) if imbalance == "weighted" else ()
        return replace(self, pos_weight=weights, prevalence=(0.5,) * len(self.outputs))

    def _with_auxiliary(self, weight: float) -> DataSpec:
        if not self.auxiliary:
            return self
        n_outputs, more = len(self.outputs), self.auxiliary
        return replace(
            self,
            outputs=self.outputs + tuple(a.output for a in more),
            prevalence=self.prevalence + tuple(a.prevalence for a in more),
            label_mean=(self.label_mean or (0.0,) * n_outputs) + tuple(a.label_mean for a in more),
            label_std=(self.label_std or (1.0,) * n_outputs) + tuple(a.label_std for a in more),
            auxiliary=(),
            weights=(1.0,) * n_outputs + (weight,) * len(more),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, except `cache`, `pos_weight` and `focal`, as dicts, lists, strings and numbers.

        JSON and a `weights_only` checkpoint can hold them.
        """
        plain: dict[str, Any] = _plain(asdict(self))
        plain["outputs"] = [output.to_dict() for output in self.outputs]
        for values, one in zip(plain["auxiliary"], self.auxiliary, strict=True):
            values["output"] = one.output.to_dict()
        return {key: value for key, value in plain.items() if key not in ("cache", "pos_weight", "focal")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """Make a spec from the result of `to_dict`."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        values["channels"] = tuple(ChannelSpec(**c) for c in values["channels"])
        values["outputs"] = tuple(OutputSpec(**o) for o in values["outputs"])
        values["auxiliary"] = tuple(
            AuxiliarySpec(**a | {"output": OutputSpec(**a["output"])}) for a in values.get("auxiliary", ())
        )
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


@dataclass(frozen=True)
class Batch:
    """A batch of samples. Shapes are checked at construction. Values are not checked, since a GPU would have to wait.

    A chunk is a part of a note. A link tells that one sample reads one chunk, so several samples can share a chunk.

    Attributes:
        row: (B,) int64, the sample's row in the SAMPLES table, by which predictions are joined to samples.
        value: (B, N) float32, the observed value in the unit of its channel; 1 for events; 0 where not valid.
        hours: (B, N) float32, time of the observation relative to the prediction time [h], negative = before.
        channel: (B, N) int64, index into `DataSpec.channels`.
        valid: (B, N) bool, whether the observation is real (not padding).
        static: (B, S) float32, the static features, without NaN. An indicator feature marks a missing value.
        tokens: (C, L) int64, token ids of the batch's chunks, each chunk once. Filler chunks make C a multiple of 8.
        token_valid: (C, L) bool, whether the token is real (not padding).
        kind: (C,) int64, index into `DataSpec.note_kinds`; 0 for notes of other kinds and for filler chunks.
        link_chunk: (E,) int64, the chunk of each link, as a row of `tokens`.
        link_sample: (E,) int64, the sample of each link, from 0 to B - 1. For a filler chunk it is B, so pooling chunks
            into samples needs B + 1 rows.
        link_hours: (E,) float32, time of the chunk's note relative to the prediction time [h], negative = before.
        link_own_stay: (E,) bool, whether the note belongs to the hospital stay of the sample; False for filler chunks.
        label: (B, K) float32, NaN = unknown. With A auxiliary outputs, which come last, it is (B, K + A).
    """

    row: Tensor
    value: Tensor
    hours: Tensor
    channel: Tensor
    valid: Tensor
    static: Tensor
    tokens: Tensor
    token_valid: Tensor
    kind: Tensor
    link_chunk: Tensor
    link_sample: Tensor
    link_hours: Tensor
    link_own_stay: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        """Check that the shapes agree with each other."""
        n_samples, n_observations = self.value.shape
        n_chunks, n_tokens = self.tokens.shape
        n_links = self.link_chunk.shape[0]
        expected = {
            "row": (n_samples,),
            "hours": (n_samples, n_observations),
            "channel": (n_samples, n_observations),
            "valid": (n_samples, n_observations),
            "static": (n_samples, self.static.shape[-1]),
            "token_valid": (n_chunks, n_tokens),
            "kind": (n_chunks,),
            "link_chunk": (n_links,),
            "link_sample": (n_links,),
            "link_hours": (n_links,),
            "link_own_stay": (n_links,),
            "label": (n_samples, self.label.shape[-1]),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"Batch.{name} has shape {tuple(getattr(self, name).shape)}, not {shape}")
        if n_chunks < 1 or n_chunks % 8:
            raise ValueError(f"Batch.tokens has {n_chunks} chunks; the count must be a positive multiple of 8")

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return int(self.row.shape[0])

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Return the batch with `torch.Tensor.to` applied to every tensor. A floating dtype changes only floats."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            return moved if moved.is_floating_point() == tensor.is_floating_point() else tensor.to(moved.device)

        return self._map(move)

    def pin_memory(self) -> Batch:
        """Return a copy of the batch with every tensor in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def repeat(self, n: int) -> Batch:
        """Return one batch that holds `n` copies of this batch. The links of each copy refer to its own chunks.

        The library captum repeats its inputs along dimension 0, and needs such a batch.
        """
        import torch

        n_samples, n_chunks = self.batch_size, self.tokens.shape[0]
        copies: dict[str, Any] = {}
        for item in fields(self):
            tensor = getattr(self, item.name)
            copies[item.name] = torch.cat([tensor] * n)
        filler = self.link_sample == n_samples
        samples = [torch.where(filler, n * n_samples, self.link_sample + i * n_samples) for i in range(n)]
        copies["link_sample"] = torch.cat(samples)
        copies["link_chunk"] = torch.cat([self.link_chunk + i * n_chunks for i in range(n)])
        return Batch(**copies)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(**{item.name: function(getattr(self, item.name)) for item in fields(self)})
