#!/usr/bin/env bash
# pytorch-lightning 2.6.6: SIGTERM while a model is fitted raises SIGTERMException, which is a SystemExit without a code.
# Seen: the process ends with status 0, so `train && evaluate`, or a scheduler, takes a stopped job for a finished one.
# What helps: handle the signal, or catch the exception, and exit with 143 (128 + 15).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$work"
cat > job.py <<'PY'
import os
import signal

import pytorch_lightning as pl
import torch


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return (self.weight**2).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


trainer = pl.Trainer(accelerator="cpu", max_epochs=1000, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.zeros(64, 1)))
print("never reached")
PY
status=0
"$work/venv/bin/python" -W ignore job.py >out.txt 2>err.txt || status=$?
echo "status $status; standard output: '$(cat out.txt)'"
[ "$status" = 0 ] && [ ! -s out.txt ] || { echo "Lightning has changed"; exit 1; }
