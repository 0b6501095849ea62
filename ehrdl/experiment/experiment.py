"""One experiment: prepare -> fit -> evaluate -> write_report. Each step can be called alone.

Heavy libraries are imported where a step needs them, so that `--help` and errors in a config appear at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.cohort import Cohort, prepare
from ehrdl.engine.files import digest
from ehrdl.engine.messages import say
from ehrdl.experiment.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from ehrdl.batch import DataSpec
    from ehrdl.data.prepare import Prepared
    from ehrdl.processes.team import Follower
    from ehrdl.runs.folder import RunFolder
    from ehrdl.runs.logger import Tracker


@dataclass(frozen=True)
class Experiment(Settings):
    """A comparison of models on one task, from a hospital's tables to a report.

    Its fields are the keys of a config, documented in `Settings`.
    """

    @cached_property
    def folder(self) -> RunFolder:
        """The run's folder. It is made by the first step that writes a file."""
        from ehrdl.runs.folder import RunFolder

        return RunFolder(self.run, self.resolved())

    def complete(self, cohort: Cohort | None = None) -> Path:
        """Run the steps that are still missing: prepare, fit, evaluate and write_report. A finished run is not changed.

        Args:
            cohort: the result of `prepare`; None = prepare the cohort now, after a quick check of the settings.

        Returns:
            The path of the run's folder, which contains `report.html`.

        Raises:
            EhrdlError: the config or the data are wrong. The message gives the reason in one line, and no files are
                left behind.
        """
        with self._alone() as leads:
            if leads and self.folder.finished:
                say(f"{self.folder.folder}: already finished; --run.overwrite true replaces it")
            elif leads:
                self._complete(cohort)
        return self.folder.folder

    def prepare(self) -> Cohort:
        """Prepare events, cohort, time series, notes and tokens, and keep them in the cache.

        Nothing is written to the run's folder.

        Raises:
            EhrdlError: the data are wrong. The message gives the reason in one line.
        """
        return prepare(self.data, self.task, self.folder.timed)

    def fit(self, cohort: Cohort | None = None) -> pd.DataFrame:
        """Fit all models, except those that an earlier process of this run has already fitted.

        Args:
            cohort: the result of `prepare`; None = prepare the cohort now, after a quick check of the settings.

        Returns:
            The PREDICTIONS table of the tuning and held-out samples. It is also written to `predictions.parquet`.
        """
        from ehrdl.experiment.results import read_table

        with self._alone() as leads:
            if leads and not self.folder.finished:
                self._fit(cohort, lambda _, __: None)
        return read_table(self.folder.folder)

    def evaluate(self) -> dict[str, Any]:
        """Score the held-out predictions of all models, and return every metric with its interval.

        The metrics are also written to `metrics.json`.

        Raises:
            ConfigError: no model is fitted yet.
        """
        from ehrdl.experiment.results import evaluate_run, read_metrics, read_table

        with self._alone() as leads:
            if leads and not self.folder.finished:
                return evaluate_run(self, self.folder, read_table(self.folder.folder))
        return read_metrics(self.folder.folder)

    def write_report(self) -> Path:
        """Write `report.html` from the results of `fit` and `evaluate`, mark the run as finished, and return the path.

        Raises:
            ConfigError: the models are not fitted or not evaluated yet.
        """
        from ehrdl.experiment.results import finish, read_metrics, read_table

        with self._alone() as leads:
            if leads and not self.folder.finished:
                path = self.folder.folder
                return finish(self, self.folder, read_table(path), read_metrics(path))
        return self.folder.folder / "report.html"

    def _complete(self, cohort: Cohort | None) -> None:
        from ehrdl.experiment.results import best_checkpoint, evaluate_run, finish

        def rest(predictions: pd.DataFrame, tracker: Tracker) -> None:
            metrics = evaluate_run(self, self.folder, predictions)
            report = finish(self, self.folder, predictions, metrics)
            tracker.metrics(metrics)
            tracker.file("report", "report", report)
            tracker.file("best", "model", best_checkpoint(self.folder.folder, predictions))

        self._fit(cohort, rest)

    def _fit(self, cohort: Cohort | None, then: Callable[[pd.DataFrame, Tracker], None]) -> None:
        """Check, prepare and fit, then call `then` with PREDICTIONS and the open tracker.

        Cheap checks come first, so that a wrong trainer argument or a missing table is reported before hours of
        reading.
        """
        with self.folder.timed("import"):
            from ehrdl.experiment.checks import check_settings, make_plan
            from ehrdl.experiment.fitting import begin, fit_all, probe
            from ehrdl.runs.logger import tracking

            training, baselines = check_settings(self)
        cohort = cohort or self.prepare()
        plan = make_plan(self, training, baselines, cohort)
        begin(self, self.folder, cohort)
        folder = self.folder
        with tracking(self.logger, folder.options.name, folder.folder, folder.config) as tracker:
            predictions = fit_all(self, plan, folder, cohort, tracker)
            probe(self, plan, folder, cohort, predictions)
            then(predictions, tracker)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Yield whether this process leads the run. The leader has the run's folder to itself.

        A process that does not lead has already done its part of every fit when the block begins.
        """
        from ehrdl.processes.team import Follower
        from ehrdl.processes.together import together
        from ehrdl.runs.folder import holding

        with together(self.trainer, str(self.folder.folder), digest(self.resolved())) as team:
            if isinstance(team, Follower):
                self._follow(team)
                yield False
                return
            lock = holding(self.folder.folder, "run.root", "another process is making this run")
            with nullcontext() if self.folder.finished else lock:
                self.folder.check()
                yield True

    def _follow(self, team: Follower) -> None:
        """Take part in the fits of a run that another process leads."""
        from ehrdl.training.follow import follow
        from ehrdl.training.setup import Training
        from ehrdl.training.variants import variants

        def prepared() -> tuple[Prepared, dict[str, DataSpec]]:
            data = prepare(self.data, self.task).prepared
            return data, variants(data.spec)

        follow(team, prepared, Training(self.model, self.optim, self.trainer), self.data.batch)
