"""Many networks in one: features (B, D) -> logits (B, M, K) of M members that share all but a few weights.

Letters: B samples, D width of the features, M members, K outputs.

Source: Gorishniy et al., TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling, ICLR 2025,
arXiv:2410.24210. It builds on Wen et al., BatchEnsemble, ICLR 2020, arXiv:2002.06715.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ehrdl.batch import DataSpec
from ehrdl.models.head import start_at_prevalence


class MemberLinear(nn.Module):
    """A linear layer whose matrix all members share: (B, M, in) -> (B, M, out).

    Each member has its own bias, and its own scaling vectors of the inputs and of the outputs. These vectors are stored
    as embeddings, which have no weight decay. Decay to 0 would switch a member off.

    Args:
        n_in: width of the inputs.
        n_out: width of the outputs.
        members: M, the number of members.
        first: whether this is the first layer, in which all members read the same inputs. Random signs in the scaling
            vectors then make the members differ from the start.
    """

    def __init__(self, n_in: int, n_out: int, members: int, first: bool) -> None:
        super().__init__()
        self.shared = nn.Linear(n_in, n_out, bias=False)
        self.before, self.after, self.bias = (nn.Embedding(members, n) for n in (n_in, n_out, n_out))
        with torch.no_grad():
            self.before.weight.fill_(1.0)
            if first:
                self.before.weight[torch.rand(members, n_in) < 0.5] = -1.0
            self.after.weight.fill_(1.0)
            self.bias.weight.uniform_(-1 / math.sqrt(n_in), 1 / math.sqrt(n_in))

    def forward(self, features: Tensor) -> Tensor:
        """Return the outputs (B, M, out)."""
        outputs: Tensor = self.shared(features * self.before.weight) * self.after.weight + self.bias.weight
        return outputs


class MemberHead(nn.Module):
    """M multilayer perceptrons on the same features.

    They share the weight matrices of the hidden layers, and differ in scales, biases and the output layer.

    Args:
        spec: the data description.
        n_features: D, the width of the features.
        members: M, the number of members.
        width: width of the hidden layers.
        layers: number of hidden layers.
        dropout: share of hidden units dropped in training, drawn separately for each member.
    """

    def __init__(self, spec: DataSpec, n_features: int, members: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.members, self.n_outputs = members, len(spec.outputs)
        sizes = [n_features, *[width] * layers]
        self.layers = nn.ModuleList(
            MemberLinear(*pair, members, first=i == 0) for i, pair in enumerate(pairwise(sizes))
        )
        self.dropout = nn.Dropout(dropout)
        # Separate for each member, and small at the start, so that all begin near the prevalence.
        self.weight = nn.Parameter(torch.randn(members, width, self.n_outputs) * 0.3 / math.sqrt(width))
        self.bias = nn.Embedding(members, self.n_outputs)
        start_at_prevalence(self.bias.weight, spec)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of each member (B, M, K)."""
        states = features.unsqueeze(1).expand(-1, self.members, -1)
        for layer in self.layers:
            states = self.dropout(nn.functional.gelu(layer(states)))
        return torch.einsum("bmd,mdk->bmk", states, self.weight) + self.bias.weight
