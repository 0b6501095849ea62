#!/usr/bin/env bash
# pytorch-lightning 2.6.6 with SLURM's variables: `fit(ckpt_path=None)` resumes from `hpc_ckpt_N.ckpt` in `default_root_dir`,
# whoever left it there. A job that fits two models under one root, and is requeued in the first, hands its state to the second.
# Seen: the second model, of another seed, starts from the first one's weights; nothing is printed, the exit status is 0.
# What helps: a `default_root_dir` per fit.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$work"
SLURM_JOB_ID=1 SLURM_NTASKS=1 SLURM_JOB_NAME=job SLURM_LOCALID=0 SLURM_PROCID=0 SLURM_NODEID=0 \
  "$work/venv/bin/python" -W ignore - <<'PY'
import logging

import pytorch_lightning as pl
import torch

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Model(pl.LightningModule):
    def __init__(self, value):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([float(value)]))
        self.seen = None

    def on_train_start(self):
        self.seen = float(self.weight)

    def training_step(self, batch, _):
        return (self.weight * 0).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(model, epochs):
    options = dict(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = pl.Trainer(default_root_dir="runs", max_epochs=epochs, enable_checkpointing=False, **options)
    trainer.fit(model, torch.utils.data.DataLoader(torch.zeros(4, 1)), ckpt_path=None)
    return trainer


first = Model(1)
# What the signal connector does at the requeue signal:
trainer = fit(first, 1)
trainer.save_checkpoint(trainer._checkpoint_connector.hpc_save_path("runs"))
second = Model(2)
fit(second, 2)
print("the second model was made with weight 2.0 and starts with", second.seen)
assert second.seen == 1.0, "Lightning has changed"
PY
