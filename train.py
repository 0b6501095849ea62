"""Train and compare models: `python train.py --config configs/quickstart.yaml`."""

from ehrdl.cli.commands.train import run

run()
