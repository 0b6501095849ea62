"""Checks a configuration before anything is written, so that a mistake costs seconds and not hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ehrdl.batch import DataSpec
from ehrdl.cohort import Cohort
from ehrdl.comparators.check import check_config
from ehrdl.comparators.combine import find_members
from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import Prepared
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError, EhrdlError
from ehrdl.experiment.settings import BASELINES, Settings
from ehrdl.models.base import Network
from ehrdl.report.groups import add_groups
from ehrdl.runs.provenance import check_network
from ehrdl.training.plan import check_fits, check_schedule
from ehrdl.training.pretrain import check_pretraining
from ehrdl.training.setup import Training
from ehrdl.training.variants import variants


@dataclass(frozen=True)
class Plan:
    """The models that an experiment will fit. Its settings have passed all checks.

    Attributes:
        training: how networks are made and fitted, with the trainer's defaults filled in.
        baselines: the names of the baselines that apply to the task.
        members: the names of the models that the combined models are made of; empty if there are no combined models.
    """

    training: Training
    baselines: list[str]
    members: list[str]


def check_settings(settings: Settings) -> tuple[Training, list[str]]:
    """Check that the data files exist, and check all settings that can be checked before the data are read.

    Returns:
        The values of `Plan.training` and `Plan.baselines`.

    Raises:
        EhrdlError: a setting is wrong or data are missing; the message names the key.
    """
    trainer, baselines = check_config(
        settings.task.name,
        settings.trainer,
        settings.baselines,
        BASELINES,
        settings.combine,
        settings.baseline_params,
    )
    check_schedule(trainer, settings.optim)
    settings.data.source.fingerprint(settings.data.prepare.verify)
    return Training(settings.model, settings.optim, trainer), baselines


def make_plan(settings: Settings, training: Training, baselines: list[str], cohort: Cohort) -> Plan:
    """Check that the settings fit the prepared data, and return the plan.

    Args:
        settings: the configuration of the experiment.
        training: how networks are made and fitted, from `check_settings`.
        baselines: the names of the baselines, from `check_settings`.
        cohort: the cohort, with its prepared data.

    Raises:
        EhrdlError: a setting does not fit the data; the message names the key.
    """
    if cohort.data != settings.data or cohort.task is not settings.task:
        raise ConfigError("cohort: was prepared with other data or another task than this experiment's; use prepare()")
    add_groups(cohort.samples, settings.report)
    check_networks(training, settings.data, cohort.prepared)
    deep = list(variants(cohort.prepared.spec))
    return Plan(training, baselines, find_members(settings.combine, deep, baselines, settings.seeds))


def check_networks(training: Training, data: DataConfig, prepared: Prepared) -> None:
    """Check that the networks, the training schedule and the encoders can be used with the prepared data.

    Args:
        training: how the networks are made and fitted.
        data: the configuration of the data.
        prepared: the prepared data.

    Raises:
        EhrdlError: something does not fit; the message names the key.
    """
    optim = training.optim
    check_fits(prepared, data.batch, training.trainer, optim)
    networks = [_try_to_build(training.make, spec) for spec in variants(prepared.spec).values()]
    if optim.stages == 2:
        _check_stages(networks, prepared.spec)
    if optim.pretrain_epochs and "note" in prepared.spec.modalities:
        check_pretraining(networks[0])
    for network in networks:
        check_network(network, data.notes.tokenizer, prepared.samples, data.notes.pretrained_elsewhere)


def _check_stages(networks: list[Network], spec: DataSpec) -> None:
    """Check that the networks can start from other fitted networks. Print a note if the data allow only one stage."""
    if not networks[0].can_start_from_others:
        name = type(networks[0]).__name__
        raise ConfigError(f"optim.stages: 2, but {name} cannot start from other models (no `start_from`); set it to 1")
    if len(networks) == 1:
        say(
            f"optim.stages: 2 needs notes and series; these data have {spec.modalities[0]} alone, so there is one stage"
        )


def _try_to_build(model: Callable[[DataSpec], Network], spec: DataSpec) -> Network:
    """Build the network once, so that an impossible size is reported before the run's folder is opened."""
    try:
        return model(spec.trained())
    except EhrdlError:
        raise
    except Exception as error:  # torch raises various errors for an impossible size
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model: cannot be built from these init_args ({type(error).__name__}: {reason})") from None
