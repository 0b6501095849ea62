"""A log has a line an epoch, a model and a stage; a terminal has bars, and no such line."""

import re
import sys

import pytest
import pytorch_lightning as pl
import torch

from ehrdl.engine.messages import staged
from ehrdl.training import progress
from ehrdl.training.progress import EpochLines


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        self.log("train/loss", 0.25, on_epoch=True, on_step=False, batch_size=len(batch[0]))
        return self.layer(batch[0]).sum()

    def validation_step(self, batch, _):
        self.log("tuning/auprc", 0.5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def lines(capsys):
    """The lines of a fit of so many epochs of four batches of two samples."""

    def fit(epochs, **more):
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)), batch_size=2)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        quiet |= {"num_sanity_val_steps": 0, "enable_model_summary": False}
        callback = EpochLines("fused-seed0", score="tuning/auprc")
        pl.Trainer(max_epochs=epochs, callbacks=[callback], **quiet, **more).fit(Module(), data, data)
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("fused")]

    return fit


def test_each_epoch_has_its_loss_score_rate_and_the_time_that_is_left(lines):
    first, last = lines(2)
    shape = r"fused-seed0: epoch 1 of 2, loss 0.250, tuning AUPRC 0.500, [\d,]+ samples/s, \d+ s left"
    assert re.fullmatch(shape, first)
    assert re.fullmatch(r"fused-seed0: epoch 2 of 2, loss 0.250, tuning AUPRC 0.500, [\d,]+ samples/s", last)


def test_of_hundreds_of_epochs_those_have_a_line_that_lie_apart(lines, monkeypatch):
    epochs = [int(re.search(r"epoch (\d+)", line)[1]) for line in lines(60)]
    assert (epochs[0], epochs[-1]) == (1, 60)
    assert len(epochs) < 10
    monkeypatch.setattr(progress, "_APART_S", 0.0)
    assert len(lines(60)) == 60


def test_steps_end_the_time_that_is_left(lines):
    assert [line.endswith("left") for line in lines(5, max_steps=8)] == [True, False]


def test_a_terminal_has_no_lines(lines, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert lines(2) == []
    with staged("prepare"):
        pass
    assert capsys.readouterr().err == ""


def test_a_stage_has_a_line_with_its_seconds(capsys):
    with staged("prepare"):
        pass
    assert re.fullmatch(r"prepare: \d+\.\d s\n", capsys.readouterr().err)
