"""What every process but the first does in a run with several processes: it takes part in each fit."""

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
    """Take part in the fits of a run, as a process other than the first, until the run ends.

    Args:
        team: the connection of this process to the first process.
        prepare: function that returns the data that the first process has prepared, and the data description for each
            model, by the model's name.
        training: the options for making and optimising networks; `check_trainer` has not yet checked its `trainer`.
        batch: the options for making batches of samples.

    Raises:
        SystemExit: the first process has ended, or this process has failed and told the first one why.
    """
    warnings.simplefilter("ignore")  # the first process shows warnings
    data: ClinicalDataModule | None = None
    with team.reporting():
        for order in team.orders():
            if data is None:
                training = replace(training, trainer=check_trainer(training.trainer))
                prepared, specs = prepare()
                data = ClinicalDataModule(prepared, batch, balanced=training.optim.imbalance == "balanced")
                if data_digest(prepared) != order["data"]:
                    raise ConfigError(
                        "data.prepare.cache: its data are not those of the first process; share one cache"
                    )
            weights = join_fit(Joined.of(order), training, data, specs, lambda: team.reply(ready=True))
            team.reply(done=weights)
    team.leave()
