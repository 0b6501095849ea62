"""A whole network with an ensemble inside: Batch -> logits of the mean prediction of M members.

Letters: B samples, M members, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder, Network
from ehrdl.models.loss import masked_loss
from ehrdl.models.networks.members import MemberHead
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.window_summary import WindowSummary
from ehrdl.options.bounds import Filled, Layers, Share, Width


class Committee(nn.Module, Network):
    """An ensemble in one network: each member predicts from one encoder and the static features.

    The prediction is the mean of the members' predictions. Every encoder has several members. They share all but a few
    weights (see `MemberHead`), so a committee costs little more than one network. The committee is fitted as one
    network. Its loss is the mean of the members' losses, so that each member learns to predict by itself.

    Args:
        spec: the data description; its modalities decide which encoders are built.
        series: functions that each build one series encoder, which gets its own members; null = `WindowSummary` alone.
        note: function that builds the note encoder, which gets its own members.
        members: number of members per encoder.
        width: width of the members' hidden layers.
        layers: number of hidden layers per member.
        dropout: share of a member's hidden units dropped in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        series: Annotated[list[Callable[[DataSpec], Encoder]], Filled(1, "name an encoder, or leave it out")]
        | None = None,
        note: Callable[[DataSpec], Encoder] = NoteTransformer,
        members: Width = 16,
        width: Width = 128,
        layers: Layers = 2,
        dropout: Share = 0.3,
    ) -> None:
        super().__init__()
        self.spec = spec
        makers: list[Any] = [note] if "note" in spec.modalities else []
        makers += (series or [WindowSummary]) if "series" in spec.modalities else []
        built: list[Any] = [make(spec) for make in makers]
        self.encoders: Any = nn.ModuleList(built)
        self.static_mean: Tensor
        self.static_std: Tensor
        self.register_buffer("static_mean", torch.tensor(spec.static_mean, dtype=torch.float32))
        self.register_buffer("static_std", torch.tensor(spec.static_std, dtype=torch.float32).clamp(min=1e-6))
        # Members also read whether there is anything to encode; without any encoder, they read a 1.
        widths = [encoder.width for encoder in built] or [0]
        n_beside = len(spec.statics) + 1
        self.heads: Any = nn.ModuleList(MemberHead(spec, n + n_beside, members, width, layers, dropout) for n in widths)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, K)."""
        return mean_member(self.members(batch), self.spec)

    def members(self, batch: Batch) -> Tensor:
        """Return logits (B, M, K) of all members of all encoders."""
        static = ((batch.static - self.static_mean) / self.static_std).clamp(-5, 5)
        always = static.new_ones(batch.batch_size)
        encoded = [encoder(batch) for encoder in self.encoders] or [(static[:, :0], always)]
        inputs = [torch.cat([x, static, has.to(static.dtype).unsqueeze(1)], dim=1) for x, has in encoded]
        return torch.cat([head(x) for head, x in zip(self.heads, inputs, strict=True)], dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the members' losses."""
        logits = self.members(batch)
        label = batch.label.unsqueeze(1).expand_as(logits)
        return masked_loss(logits.flatten(0, 1), label.flatten(0, 1), self.spec)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the encoders' pretrained parameters, which are trained at a lower learning rate than the rest."""
        return [parameter for encoder in self.encoders for parameter in encoder.pretrained_parameters()]


def mean_member(logits: Tensor, spec: DataSpec | None) -> Tensor:
    """Average the members' predictions: logits (B, M, K) -> logits (B, K).

    For a binary output, the result is the logit of the members' mean probability. For a regression output, it is the
    mean of the members' values.
    """
    logits = logits.float()
    log_members = math.log(logits.shape[1])
    log_prob, log_rest = (logsigmoid(x).logsumexp(dim=1) - log_members for x in (logits, -logits))
    mean = log_prob - log_rest
    if spec is None or not spec.regression:
        return mean
    numeric = torch.zeros(logits.shape[2], dtype=torch.bool, device=logits.device)
    numeric[list(spec.regression)] = True
    return torch.where(numeric, logits.mean(dim=1), mean)
