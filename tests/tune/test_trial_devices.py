"""Trials are fitted on one device, whatever the run has, and that is told."""

from ehrdl.processes.trainer import n_processes
from ehrdl.tune.trial import alone
from ehrdl.tune.tune import _one_device

TWO = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "max_epochs": 3}


def test_a_trial_has_one_device_of_those_of_the_run():
    trainer = alone(TWO)
    assert n_processes(trainer) == 1
    assert trainer["max_epochs"] == 3


def test_what_that_means_for_the_size_of_a_step_is_told(capsys):
    _one_device(TWO)
    assert "the run on 2 takes 2 times as many samples a step" in capsys.readouterr().err
    _one_device({"accelerator": "cpu", "devices": 1})
    assert capsys.readouterr().err == ""
