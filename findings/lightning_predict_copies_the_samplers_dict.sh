#!/usr/bin/env bash
# pytorch-lightning 2.6.6: for prediction, and for nothing else, the loader gets a stand-in for a custom batch sampler. It holds a copy of the
# sampler's instance dictionary as it was at that moment, and no class: what the class defines is not there. A dataclass keeps the default of
# a field with init=False on the class alone, so such a field is there in training and missing in prediction.
# Seen: training reads batches; prediction raises AttributeError: '_IndexBatchSamplerWrapper' object has no attribute 'position'.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'pytorch-lightning==2.6.6'
cd "$work"
cat > run.py <<'PY'
import logging
import warnings
from dataclasses import dataclass, field

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


@dataclass(eq=False)
class Batches(Sampler):
    size: int
    position: int = field(default=0, init=False)

    def __iter__(self):
        for start in range(self.position, 8, self.size):
            yield list(range(start, start + self.size))

    def __len__(self):
        return 8 // self.size


class Loader(DataLoader):
    def __iter__(self):
        assert self.batch_sampler.position == 0
        return super().__iter__()


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return self.layer(batch).sum()

    def predict_step(self, batch, _):
        return self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer():
    return pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )


loader = Loader(torch.zeros(8, 1), batch_sampler=Batches(2))
trainer().fit(Model(), loader)
print("trained")
try:
    trainer().predict(Model(), loader)
    print("predicted")
except AttributeError as error:
    print(f"AttributeError: {error}")
PY
"$work/venv/bin/python" run.py 2>/dev/null | tee seen
grep -qx "trained" seen
grep -qx "AttributeError: '_IndexBatchSamplerWrapper' object has no attribute 'position'" seen
