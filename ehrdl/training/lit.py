"""The Lightning module around a network: its training step, optimiser and tuning metrics.

Letters: B samples, K outputs.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision
from torchmetrics.regression import MeanAbsoluteError, R2Score

from ehrdl.batch import Batch, DataSpec
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.models.loss import masked_loss, predicted
from ehrdl.options.training import Optim
from ehrdl.schema import REGRESSION
from ehrdl.training.augment import Augment
from ehrdl.training.schedule import n_steps, warmup_cosine

_UNKNOWN = -1  # marks an unknown label for torchmetrics
#: Each process reads all tuning samples, so each computes the metric of all samples by itself.
_OWN: dict[str, Any] = {"sync_on_compute": False}


class _R2(R2Score):
    """R2 that is NaN, rather than an error, if fewer than two labels are known."""

    def compute(self) -> Tensor:
        """Return R2, or NaN."""
        return super().compute() if self.total > 1 else self.total.new_tensor(math.nan)


class _AUROC(BinaryAUROC):
    """AUROC that is NaN, rather than 0, if the known labels are of one class."""

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return AUROC, or NaN."""
        return super().compute() if _classes(self.target) == {0, 1} else torch.tensor(math.nan)


class _AUPRC(BinaryAveragePrecision):
    """Average precision that is NaN, rather than -0, if no known label is positive."""

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the average precision, or NaN."""
        return super().compute() if 1 in _classes(self.target) else torch.tensor(math.nan)


def _classes(target: Any) -> set[int]:
    """Return the classes among the labels that a metric of torchmetrics has collected."""
    parts = [target] if isinstance(target, Tensor) else target
    return {int(label) for part in parts for label in part.unique()}


class LitNetwork(pl.LightningModule):
    """Trains a network on binary and regression outputs.

    `monitor` names the tuning metric that selects epochs. If every output is binary, it is `tuning/auprc`, the mean
    AUPRC of the outputs. Otherwise it is `tuning/score`, the mean over outputs of AUPRC, or R2 for a regression output.
    The best possible value of either is 1.

    Args:
        network: the network, Batch -> logits (B, K + A), built for `spec.trained()`. The last A logits are those of the
            auxiliary outputs.
        spec: the data description; K is the number of its `outputs`, without the auxiliary outputs.
        optim: the options for optimising the network.
    """

    def __init__(self, network: Network, spec: DataSpec, optim: Optim) -> None:
        super().__init__()
        # Plain values only, so that a checkpoint loads with weights_only=True.
        self.save_hyperparameters({"spec": spec.to_dict(), "optim": asdict(optim)})
        self.network: Any = network
        self.augment = Augment(spec, optim)
        self.spec, self.optim = spec, optim
        if network.spec is None:
            network.spec = spec.trained(optim.auxiliary_weight, optim.imbalance)
        self.monitor = "tuning/score" if spec.regression else "tuning/auprc"
        scores: dict[str, Any] = {}
        for output in spec.outputs:
            if output.kind == REGRESSION:
                scores[f"mae_{output.name}"] = MeanAbsoluteError(**_OWN)
                scores[f"r2_{output.name}"] = _R2(**_OWN)
            else:
                scores[f"auroc_{output.name}"] = _AUROC(ignore_index=_UNKNOWN, **_OWN)
                scores[f"auprc_{output.name}"] = _AUPRC(ignore_index=_UNKNOWN, **_OWN)
        self.scores = MetricCollection(scores, prefix="tuning/", compute_groups=False)
        self._rng: dict[str, Any] | None = None
        self._said = False

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K) of the outputs, without the auxiliary outputs."""
        logits: Tensor = self.network(batch)
        return logits[:, : len(self.spec.outputs)]

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the training loss of a batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the loss of a tuning batch, and add its predictions to the tuning metrics."""
        self._step(batch, "tuning")

    def predict_step(self, batch: Batch, _: int) -> tuple[Tensor, Tensor]:
        """Return each sample's row in the SAMPLES table (B,), and its predicted probabilities or values (B, K)."""
        return batch.row, predicted(self(batch), self.spec)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        if stage == "train":
            loss: Tensor = self.network.loss(self.augment(batch))
        else:
            logits = self(batch)
            label = batch.label[:, : len(self.spec.outputs)]
            loss = masked_loss(logits, label, self.spec)
            self._update(logits, label)
        shown: dict[str, Any] = {"on_epoch": True, "on_step": False, "prog_bar": True, "sync_dist": True}
        self.log(f"{stage}/loss", loss, batch_size=batch.batch_size, **shown)
        return loss

    def _update(self, logits: Tensor, label: Tensor) -> None:
        target = torch.where(label.isnan(), _UNKNOWN, label).long()
        value = predicted(logits, self.spec)
        for k, output in enumerate(self.spec.outputs):
            if output.kind == REGRESSION:
                known = ~label[:, k].isnan()
                if known.any():
                    for name in ("mae", "r2"):
                        self.scores[f"{name}_{output.name}"].update(value[known, k], label[known, k])
                continue
            for kind in ("auroc", "auprc"):
                # Probabilities, since torchmetrics would treat logits as probabilities if all are within [0, 1].
                self.scores[f"{kind}_{output.name}"].update(value[:, k], target[:, k])

    def on_validation_epoch_end(self) -> None:
        """Log the tuning metrics of each output, and their means over outputs. The mean `monitor` selects epochs."""
        if not self.trainer.sanity_checking:
            values = self.scores.compute()
            known = {name: value for name, value in values.items() if not value.isnan()}
            self._say_unknown([name for name in values if name not in known])
            self.log_dict(known, sync_dist=True)
            for name, parts in self._parts_of_means(known).items():
                mean = torch.stack(parts).mean() if parts else torch.tensor(math.nan)
                self.log(name, mean, prog_bar=name == self.monitor, sync_dist=True)
        self.scores.reset()

    def _parts_of_means(self, known: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        """Return the known scores that each mean over outputs averages.

        A mean without a known score is left out, unless it selects epochs.
        """
        auprc, r2 = ([known[name] for name in known if name.startswith(f"tuning/{kind}_")] for kind in ("auprc", "r2"))
        parts = {"tuning/auprc": auprc, "tuning/r2": r2}
        if self.spec.regression:
            parts["tuning/score"] = auprc + r2
        return {name: scores for name, scores in parts.items() if scores or name == self.monitor}

    def _say_unknown(self, names: list[str]) -> None:
        """Report once which tuning scores are unknown. They are left out of all means."""
        which = [name.removeprefix("tuning/") for name in names if name.startswith(("tuning/auprc_", "tuning/r2_"))]
        if which and not self._said and self.trainer.is_global_zero:
            say(f"tuning: {', '.join(which)}: unknown, for want of labels that differ; left out of {self.monitor}")
            self._said = True

    def configure_optimizers(self) -> Any:
        """Return the optimiser AdamW. Its learning rate has a linear warm-up, then a cosine decay to zero."""
        optimizer = torch.optim.AdamW(self._groups(), lr=self.optim.lr, weight_decay=self.optim.weight_decay)
        return warmup_cosine(optimizer, n_steps(self.trainer), self.optim.warmup)

    def _groups(self) -> list[dict[str, Any]]:
        """Return parameter groups: with or without weight decay, and pretrained (at a lower rate) or not."""
        optim = self.optim
        pretrained = dict.fromkeys(self.network.pretrained_parameters(), optim.pretrained_lr_factor)
        started = dict.fromkeys(self.network.started_parameters(), optim.stage_lr_factor)
        embeddings = {
            id(parameter)
            for module in self.network.modules()
            if isinstance(module, nn.Embedding)
            for parameter in module.parameters()
        }
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for parameter in self.network.parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and id(parameter) not in embeddings
                factor = pretrained.get(parameter, 1.0) * started.get(parameter, 1.0)
                groups.setdefault((decays, factor), []).append(parameter)
        return [
            {
                "params": members,
                "weight_decay": optim.weight_decay if decays else 0.0,
                "lr": optim.lr * factor,
            }
            for (decays, factor), members in groups.items()
        ]

    def on_train_start(self) -> None:
        """Give each process of the fit its own random seed, so that they draw different dropout.

        Before, all processes had the same seed, so that their networks start with the same weights.
        """
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the states of all random generators, so that a killed fit resumes as if it had not been interrupted."""
        checkpoint["rng"] = _generators()
        if self.trainer.world_size > 1:
            states: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, checkpoint["rng"])
            checkpoint["rng_of_each"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's random states from the checkpoint. They are restored before the first batch.

        Raises:
            ConfigError: the fit was begun by another number of processes, and cannot resume at the same samples.
        """
        states = checkpoint.get("rng_of_each") or [checkpoint.get("rng")]
        if len(states) != self.trainer.world_size:
            raise ConfigError(
                f"trainer.devices: this fit was begun by {len(states)} processes and cannot be resumed by "
                f"{self.trainer.world_size}; use as many, or --run.overwrite true"
            )
        self._rng = states[self.global_rank]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Before the first batch of a resumed fit, restore the random states of the checkpoint.

        This is done so late because opening the data loader draws random numbers.
        """
        if self._rng is not None:
            state, self._rng = self._rng, None
            _put_back(state)


def _generators() -> dict[str, Any]:
    """Return the states of all random generators of this process, as plain values."""
    numbers: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = numbers
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the device in use
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def _put_back(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0].cpu())
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
