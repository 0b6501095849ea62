"""A process knows which of a run's it is by torchrun's, SLURM's or our own variables; what cannot work is refused."""

import logging

import pytest

from ehrdl.cli.main import main
from ehrdl.errors import ConfigError
from ehrdl.processes import ranks
from ehrdl.processes.ranks import Place, check_alone, check_world, place
from ehrdl.processes.together import common
from ehrdl.processes.trainer import check_trainer, n_processes

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}


@pytest.fixture
def env(monkeypatch):
    """Sets the variables of a starter, and none else."""
    for name in (*TORCHRUN, *SLURM, "SLURM_JOB_NAME", ranks.LEADER):
        monkeypatch.delenv(name, raising=False)
    return lambda values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, Place()),
        (TORCHRUN, Place(1, 2, "torchrun")),
        (SLURM, Place(3, 4, "srun")),
        (SLURM | TORCHRUN, Place(1, 2, "torchrun")),  # torchrun started by srun
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, Place()),
        ({ranks.LEADER: "1 2 127.0.0.1 4000 token"}, Place(1, 2, "ehrdl")),
        ({"LOCAL_RANK": "1"}, Place()),
    ],
)
def test_the_variables_of_the_starter_name_the_place_of_a_process(env, values, found):
    env(values)
    assert place() == found


@pytest.mark.parametrize(
    ("arguments", "n"),
    [({}, 1), ({"devices": 2}, 2), ({"devices": 2, "strategy": "ddp_find_unused_parameters_true"}, 2)],
)
def test_processes_are_the_devices_of_all_nodes(env, arguments, n):
    env({})
    assert n_processes(check_trainer({"accelerator": "cpu"} | arguments)) == n


def test_processes_are_counted_without_a_word_of_lightnings(env):
    env({})
    heard, logger = [], logging.getLogger("pytorch_lightning")
    handler = logging.Handler()
    handler.emit = heard.append
    logger.addHandler(handler)
    try:
        n_processes({"accelerator": "cpu"})
    finally:
        logger.removeHandler(handler)
    assert heard == []


@pytest.mark.parametrize(
    "strategy",
    ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_spawn_find_unused_parameters_true", "fsdp", "deepspeed", "nonsense"],
)
@pytest.mark.parametrize("devices", [1, 2])
def test_a_strategy_that_starts_processes_otherwise_is_refused(env, strategy, devices):
    env({})
    with pytest.raises(ConfigError, match=r"^trainer") as caught:
        check_trainer({"accelerator": "cpu", "devices": devices, "strategy": strategy})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "n", "message"),
    [
        (TORCHRUN, 1, "torchrun has started 2 processes, and the trainer asks for 1"),
        (TORCHRUN, 4, "torchrun has started 2 processes, and the trainer asks for 4"),
        (SLURM, 2, "SLURM has 4 tasks"),
    ],
)
def test_as_many_processes_as_the_trainer_asks_for_must_have_been_started(env, values, n, message):
    env(values)
    with pytest.raises(ConfigError, match=message):
        check_world(n)


@pytest.mark.parametrize(("values", "n"), [(TORCHRUN, 2), (SLURM, 4), (SLURM, 1), ({}, 2)])
def test_as_many_as_were_started_or_one_run_a_task_pass(env, values, n):
    env(values)
    check_world(n)


def test_nodes_are_not_started_from_here(env):
    env({})
    with pytest.raises(ConfigError, match=r"trainer.num_nodes: 2 nodes are started by srun or torchrun"):
        check_alone({"num_nodes": 2}, 4)


def test_a_stray_local_rank_is_named(env):
    env({"LOCAL_RANK": "0"})
    with pytest.raises(ConfigError, match="LOCAL_RANK is set"):
        check_alone({}, 2)


def test_several_processes_outside_of_a_run_are_refused(env):
    env({})
    trainer = check_trainer({"accelerator": "cpu", "devices": 2})
    with (
        pytest.raises(ConfigError, match="2 processes train under `ehrdl train` alone"),
        common(2, trainer, None),
    ):
        raise AssertionError("the fit began")


def test_what_one_process_does_the_others_leave(env, capsys):
    env(TORCHRUN)
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "--config", "missing.yaml"])
    assert ended.value.code == 0
    assert capsys.readouterr().err == ""


def test_an_error_of_another_process_waits_for_that_of_the_first(env, monkeypatch):
    waited = []
    monkeypatch.setattr(ranks.time, "sleep", waited.append)
    env({})
    assert ranks.hold_back() == ""
    env(TORCHRUN)
    assert ranks.hold_back() == "process 1 of 2: "
    assert waited == [20.0]
