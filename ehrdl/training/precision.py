"""The precisions `bf16-true` and `64-true` of a Lightning Trainer, made to work with the frozen dataclass `Batch`.

Lightning's own plugins assign new tensors to the fields of a batch, which a frozen dataclass does not allow. Under
`bf16-true` they would also round hours to three digits. Here hours, values and labels keep their precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from pytorch_lightning.plugins.precision import DoublePrecision, HalfPrecision
from torch import nn

from ehrdl.batch import Batch


class HalfWeights(HalfPrecision):
    """`bf16-true`: weight matrices are bfloat16, and products are computed in bfloat16 as under autocast.

    Biases, norms, scalers and the tensors of a batch stay float32. They are small, and rounding them costs accuracy.
    """

    def __init__(self) -> None:
        super().__init__("bf16-true")

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Cast the weight matrices of the module to bfloat16, and return it."""
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.to(torch.bfloat16)
        return module

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Return a context in which new tensors are float32."""
        return nullcontext()

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Compute products in bfloat16 within the block, on any device."""
        devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        with ExitStack() as stack:
            for device in devices:
                stack.enter_context(torch.autocast(device, torch.bfloat16))
            yield

    def convert_input(self, data: Any) -> Any:
        """Return the data unchanged."""
        return data


class DoubleWeights(DoublePrecision):
    """`64-true`: weights and the floating tensors of a batch are float64."""

    def convert_input(self, data: Any) -> Any:
        """Cast the floating tensors of the data, such as a `Batch`, to float64."""
        return data.to(torch.float64) if isinstance(data, Batch) else super().convert_input(data)


_OURS: dict[Any, Any] = {"bf16-true": HalfWeights, "64-true": DoubleWeights, "64": DoubleWeights, 64: DoubleWeights}


def with_plugins(trainer: dict[str, Any], *plugins: Any) -> dict[str, Any]:
    """Return the arguments of a Lightning Trainer with these plugins, and with ehrdl's plugin for its precision.

    `HalfWeights` replaces the argument `precision: bf16-true`, and `DoubleWeights` replaces `64-true`. Other precisions
    keep Lightning's plugin.
    """
    kind = _OURS.get(trainer.get("precision"))
    if kind is None:
        return trainer | {"plugins": list(plugins)}
    kept = {key: value for key, value in trainer.items() if key != "precision"}
    return kept | {"plugins": [*plugins, kind()]}
