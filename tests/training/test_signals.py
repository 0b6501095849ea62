"""A signal stops a fit between two steps, with one line and its own status, and nothing of it reaches another fit."""

import functools
import math
import os
import signal
import stat

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import Optim
from ehrdl.processes.signals import Stopped, stoppable
from ehrdl.processes.trainer import check_trainer
from ehrdl.schema import TRAIN
from ehrdl.training.fit import fit
from ehrdl.training.predict import predict
from ehrdl.training.setup import Fit, Training

SMALL = functools.partial(MultimodalModel, series=functools.partial(SeriesGRU, hidden=4))
LARGER = functools.partial(MultimodalModel, series=functools.partial(SeriesGRU, hidden=6))


class Send(Callback):
    """Sends this process a signal at a moment of a fit: after the forward pass of a step, or as validation begins."""

    def __init__(self, number, moment, step):
        self.number, self.moment, self.step, self.seen = number, moment, step, []

    def _look(self, trainer, moment):
        if moment == self.moment and trainer.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), self.number)

    def on_before_backward(self, trainer, module, loss):
        self._look(trainer, "step")

    def on_validation_start(self, trainer, module):
        self._look(trainer, "validation")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append(trainer.global_step)


@pytest.fixture(autouse=True)
def heard():
    """No signal is ignored, as SIGHUP is under nohup and SIGINT in a shell's background."""
    heard = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fit_series(prepared, tmp_path):
    """Fits a small network of the series, two epochs of eight steps."""

    def run(folder, send=None, seed=0, selection="averaged", network=SMALL):
        (tmp_path / folder).mkdir(exist_ok=True)
        data = ClinicalDataModule(prepared, BatchOptions(size=math.ceil(len(prepared.rows(TRAIN)) / 8)))
        trainer = check_trainer({"max_epochs": 2, "accelerator": "cpu"})
        spec, optim = prepared.spec.only("series"), Optim(selection=selection)
        watch = [send] if send else []
        return fit(
            Training(network, optim, trainer), data, spec, Fit(tmp_path / folder, "series_only", seed), watch=watch
        )

    return run


def equal(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """A job of SLURM, and a `scontrol` that writes down what it is asked."""
    for name, value in {"JOB_ID": "41", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{asked}"\n')
    (programs / "scontrol").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return asked


@pytest.mark.parametrize(
    ("number", "moment", "step", "selection"),
    [
        (signal.SIGTERM, "step", 5, "averaged"),
        (signal.SIGHUP, "step", 7, "averaged"),  # in the last step of an epoch
        (signal.SIGTERM, "validation", 8, "best_tuning"),
        (signal.SIGUSR1, "step", 11, "best_tuning"),
    ],
)
def test_a_fit_that_a_signal_stops_says_so_and_resumes_to_equal_weights(
    fit_series, capsys, number, moment, step, selection
):
    whole = fit_series("whole", selection=selection)
    capsys.readouterr()
    with pytest.raises(Stopped) as stopped:
        fit_series("stopped", Send(number, moment, step), selection=selection)
    assert stopped.value.code == 128 + number
    name = signal.Signals(number).name
    assert capsys.readouterr().err.splitlines()[-1] == f"ehrdl: stopped by {name}; the same command resumes"
    assert equal(fit_series("stopped", selection=selection), whole)


def test_the_step_in_which_a_signal_comes_is_finished_and_saved(fit_series):
    sent = Send(signal.SIGTERM, "step", 5)
    with pytest.raises(Stopped):
        fit_series("run", sent)
    assert sent.seen == [1, 2, 3, 4, 5, 6]
    resumed = Send(signal.SIGTERM, "none", 0)
    fit_series("run", resumed)
    assert resumed.seen[0] == 7


def test_ctrl_c_in_a_step_loses_nothing_either(fit_series):
    with pytest.raises(KeyboardInterrupt):
        fit_series("run", Send(signal.SIGINT, "step", 5))
    resumed = Send(signal.SIGTERM, "none", 0)
    fit_series("run", resumed)
    assert resumed.seen[0] == 7


def test_a_preempted_job_is_requeued_and_the_next_seed_starts_from_its_own_weights(
    fit_series, slurm, capsys, monkeypatch, tmp_path
):
    with pytest.raises(Stopped):
        fit_series("run", Send(signal.SIGUSR1, "step", 5))
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "ehrdl: stopped by SIGUSR1; job 41 is requeued; the same command resumes"
    assert slurm.read_text() == "requeue 41\n"
    assert list(tmp_path.rglob("hpc_ckpt*")) == []
    # Had the signal not ended the fit, the other seed would have found a checkpoint of the first.
    second, first = fit_series("run", seed=1), fit_series("run", seed=0)
    monkeypatch.delenv("SLURM_NTASKS")
    assert equal(second, fit_series("whole", seed=1))
    assert equal(first, fit_series("whole", seed=0))


def test_a_requeue_that_fails_is_reported(fit_series, slurm, capsys, tmp_path):
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho slurm_update error: Invalid job id >&2\nexit 1\n")
    with pytest.raises(Stopped):
        fit_series("run", Send(signal.SIGUSR1, "step", 5))
    said = capsys.readouterr().err.splitlines()[-1]
    assert "scontrol requeue 41 failed (slurm_update error: Invalid job id); the same command resumes" in said


@pytest.mark.parametrize("network", [SMALL, LARGER])
def test_a_checkpoint_that_an_earlier_version_left_in_the_run_folder_is_removed_and_not_loaded(
    fit_series, slurm, capsys, tmp_path, network
):
    fit_series("other", network=network)
    stray = tmp_path / "run" / "hpc_ckpt_1.ckpt"
    stray.parent.mkdir()
    (tmp_path / "other" / "checkpoints" / "series_only-seed0.ckpt").rename(stray)
    found = fit_series("run", seed=1)
    assert f"{stray}: removed" in capsys.readouterr().err
    assert not stray.exists()
    assert equal(found, fit_series("whole", seed=1))


def test_predictions_do_not_come_from_a_checkpoint_of_slurm_in_the_working_folder(
    fit_series, slurm, prepared, monkeypatch, tmp_path
):
    model = fit_series("run", seed=1)
    loader = ClinicalDataModule(prepared, BatchOptions()).val_dataloader()
    _, expected = predict(model, loader, {"accelerator": "cpu"})
    fit_series("other", seed=0)
    (tmp_path / "other" / "checkpoints" / "series_only-seed0.ckpt").rename(tmp_path / "hpc_ckpt_7.ckpt")
    monkeypatch.chdir(tmp_path)
    _, found = predict(model, loader, {"accelerator": "cpu"})
    np.testing.assert_array_equal(found, expected)


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored(capsys):
    before = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGTERM) is not before
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == ""


def test_an_error_that_a_library_makes_of_a_signal_is_taken_for_the_signal(capsys):
    with pytest.raises(Stopped) as stopped, stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            raise RuntimeError("Query interrupted") from None
    assert stopped.value.code == 143
    assert capsys.readouterr().err == "ehrdl: stopped by SIGTERM; the same command resumes\n"
