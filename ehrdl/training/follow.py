"""The work of the other processes of a run. They take part in each fit, and write nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from ehrdl.batch import DataSpec
from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.prepare import Prepared
from ehrdl.errors import ConfigError
from ehrdl.processes.team import Follower
from ehrdl.processes.together import Joined
from ehrdl.processes.trainer import check_trainer
from ehrdl.runs.digests import data_digest
from ehrdl.training.fit import join_fit
from ehrdl.training.setup import Training


def follow(
    team: Follower,
    prepare: Callable[[], tuple[Prepared, dict[str, DataSpec]]],
    training: Training,
    batch: BatchOptions,
) -> None:
    """Take part in the fits of a run until it ends.

    Args:
        team: the connection of this process to the first.
        prepare: function that returns the data, which the first process has prepared, and the spec of each model by
            name.
        training: the options for making and optimising networks; the arguments of the trainer are not checked yet.
        batch: how samples become batches.

    Raises:
        SystemExit: the first process has ended, or this one has failed and reported why.
    """
    warnings.simplefilter("ignore")  # the first process shows warnings
    data: ClinicalDataModule | None = None
    with team.reporting():
        for order in team.orders():
            if data is None:
                training = replace(training, trainer=check_trainer(training.trainer))
                prepared, specs = prepare()
                data = ClinicalDataModule(prepared, batch)
                if data_digest(prepared) != order["data"]:
                    raise ConfigError(
                        "data.prepare.cache: its data are not those of the first process; share one cache"
                    )
            weights = join_fit(Joined.of(order), training, data, specs, lambda: team.reply(ready=True))
            team.reply(done=weights)
    team.leave()
