"""Train and compare models: `python train.py --config configs/quickstart.yaml`."""

from ehrdl.cli.main import train

train()
