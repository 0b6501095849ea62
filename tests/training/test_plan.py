"""What leaves no batch, or no score to select by, is refused before any fit; a plan that works is Lightning's own."""

import functools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.errors import ConfigError
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import Optim
from ehrdl.processes.trainer import check_trainer
from ehrdl.training.fit import fit
from ehrdl.training.plan import _end, _first_score, check_plan, check_schedule
from ehrdl.training.setup import Fit, Training

BEST = Optim(selection="best_tuning")


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"min_epochs": 3, "max_epochs": 2}, "trainer.min_epochs: 3 is above trainer.max_epochs, 2"),
        ({"min_steps": 30, "max_steps": 20}, "trainer.min_steps: 30 is above trainer.max_steps, 20"),
        ({"overfit_batches": 1}, "trainer.overfit_batches: would tune on training samples"),
        ({"reload_dataloaders_every_n_epochs": 1}, "trainer.reload_dataloaders_every_n_epochs: would repeat"),
        ({"check_val_every_n_epoch": 3, "max_epochs": 2}, "optim.selection: best_tuning selects by a tuning score"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_whatever_the_data(trainer, line):
    with pytest.raises(ConfigError, match=line):
        check_schedule(trainer, BEST)


def test_averaged_weights_need_no_tuning_score():
    check_schedule({"check_val_every_n_epoch": 3, "max_epochs": 2}, Optim())
    check_plan({"check_val_every_n_epoch": 3, "max_epochs": 2}, Optim(), 8, 3)


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"limit_train_batches": 0.01}, "limit_train_batches: 0.01 of 8 training batches is none; give at least 0.125"),
        ({"limit_val_batches": 0.2}, "limit_val_batches: 0.2 of 3 tuning batches is none; give at least 0.334"),
        ({"limit_train_batches": 1.5}, "limit_train_batches: 1.5 is no share"),
        ({"val_check_interval": 9}, "val_check_interval: 9 is above the 8 training batches"),
        ({"val_check_interval": 5, "limit_train_batches": 4}, "val_check_interval: 5 is above the 4 training batches"),
        ({"max_steps": 2}, "none is taken before the fit ends, after 2 batches .an epoch has 8."),
        ({"max_steps": 7}, "none is taken before the fit ends, after 7 batches"),
        ({"max_steps": 9, "check_val_every_n_epoch": 2}, "after 9 batches"),
        ({"max_steps": 2, "accumulate_grad_batches": 3}, "after 6 batches"),
        ({"check_val_every_n_epoch": None, "val_check_interval": 20, "max_epochs": 2}, "after 16 batches"),
    ],
)
def test_what_leaves_no_batch_or_no_score_is_named(trainer, line):
    with pytest.raises(ConfigError, match=line):
        check_plan({"max_epochs": 8} | trainer, BEST, 8, 3)


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"max_steps": 8},
        {"max_steps": 3, "accumulate_grad_batches": 3},
        {"max_steps": 2, "val_check_interval": 0.25},
        {"limit_train_batches": 0.125},
        {"limit_train_batches": 1.0, "limit_val_batches": 1},
        {"check_val_every_n_epoch": 2, "max_epochs": 2},
        {"check_val_every_n_epoch": None, "val_check_interval": 16, "max_epochs": 2},
        {"val_check_interval": "00:00:00:30"},
    ],
)
def test_a_plan_with_a_batch_and_a_score_passes(trainer):
    check_plan({"max_epochs": 8} | trainer, BEST, 8, 3)


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_epochs": 2},
        {"max_epochs": 2, "max_steps": 8},
        {"max_epochs": 2, "max_steps": 3, "accumulate_grad_batches": 3},
        {"max_epochs": 1, "val_check_interval": 0.3},
        {"max_epochs": 3, "check_val_every_n_epoch": 2, "val_check_interval": 3},
        {"max_epochs": 2, "check_val_every_n_epoch": None, "val_check_interval": 11},
    ],
)
def test_lightning_takes_the_first_score_and_ends_where_the_plan_says(trainer):
    class Count(Callback):
        batches = first = 0

        def on_train_batch_end(self, *_):
            self.batches += 1

        def on_validation_start(self, *_):
            self.first = self.first or self.batches

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            return self.layer(batch).sum()

        def validation_step(self, batch, _):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    count = Count()
    loader = torch.utils.data.DataLoader(torch.zeros(8, 1))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(**trainer, **quiet, callbacks=[count]).fit(Module(), loader, loader)
    assert count.batches == _end(trainer, 8)
    assert count.first == _first_score(trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1), 8)


def test_where_time_ends_a_fit_before_any_score_the_last_weights_are_kept(prepared, tmp_path, capsys):
    network = functools.partial(MultimodalModel, series=functools.partial(SeriesGRU, hidden=4))
    short = {"max_epochs": 9, "check_val_every_n_epoch": 9, "max_time": {"milliseconds": 1}, "accelerator": "cpu"}
    data, spec = ClinicalDataModule(prepared, BatchOptions()), prepared.spec.only("series")
    fit(Training(network, BEST, check_trainer(short)), data, spec, Fit(tmp_path, "series_only", 0))
    assert "no epoch has a tuning score to be selected by; the last one's weights are kept" in capsys.readouterr().err
