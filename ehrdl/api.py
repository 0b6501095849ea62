"""The library in six lines: load a cohort, compare models on it, read metrics and a report, score other patients.

cohort = ehrdl.load("mimic4", "/data/mimiciv", task="readmission")
run = ehrdl.fit(cohort, epochs=5, seeds=[0, 1, 2])
run.metrics
run.report("report.html")
new = run.predict("/data/other_hospital")
again = ehrdl.open_run("runs/readmission")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd
import pyarrow.parquet as pq

from ehrdl.batch import DataSpec
from ehrdl.cli.commands.predict import recorded_settings
from ehrdl.cohort import Cohort, prepare
from ehrdl.data.config import DataConfig
from ehrdl.engine.files import read_json, write_text
from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.events.source import Source
from ehrdl.experiment.experiment import Experiment
from ehrdl.experiment.settings import Settings
from ehrdl.models.base import Network
from ehrdl.options.bounds import nearest
from ehrdl.options.training import RunOptions
from ehrdl.recorded import describe
from ehrdl.runs.files import read_manifest
from ehrdl.scoring import check_run, describe_gaps, score
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import Synthetic
from ehrdl.tasks.common.base import Task

Place = str | Path


def load(
    source: str | Source, root: Place | None = None, *, task: str | Task = "readmission", **options: Any
) -> Cohort:
    """Read a hospital's data and find its cohort for a task. Prepared data stay in the cache for the next call.

    Args:
        source: `mimic4`, `meds`, `synthetic`, … (the classes of `ehrdl.sources`), or an object of one.
        root: the folder of the data.
        task: `readmission`, `heart_failure`, … (the classes of `ehrdl.tasks`), or an object of one.
        **options: fields of `ehrdl.data.config.DataConfig` (`window`, `notes`, `split`, `batch`, `prepare`,
            `concepts`), as objects or as dicts. All other options, such as `note_root`, go to the source.

    Raises:
        EhrdlError: the options or the data cannot be used; the message gives the reason in one line.
    """
    configured = {name: options.pop(name) for name in _names(DataConfig) if name in options}
    if isinstance(source, str):
        made = _make(_named("ehrdl.sources", source, Source, "source"), options | _given(root=root), "source")
    elif options or root is not None:
        raise ConfigError(f"source: is an object, so {', '.join(_given(root=root) | options)} can only be its own")
    else:
        made = source
    chosen = _make(_named("ehrdl.tasks", task, Task, "task"), {}, "task") if isinstance(task, str) else task
    return prepare(DataConfig(made, **_objects(DataConfig, configured)), chosen)


def fit(
    cohort: Cohort,
    model: str | Callable[[DataSpec], Network] = "multimodal",
    *,
    epochs: int | None = None,
    name: str | None = None,
    root: Place = "runs",
    overwrite: bool = False,
    **options: Any,
) -> Run:
    """Fit and compare deep models and baselines on the same samples. A finished run is opened, not fitted again.

    Args:
        cohort: the cohort, from `load`.
        model: `multimodal`, `committee`, a class of `ehrdl.models`, or a `functools.partial` of a class. Any function
            that makes a network from a `DataSpec` is accepted.
        epochs: passes over the training samples; by default as many as on the command line.
        name: the name of the run's folder; by default the name of the task.
        root: the folder that holds the runs.
        overwrite: replace a finished run of the same name.
        **options: other fields of `ehrdl.experiment.Settings`: `seeds`, `baselines`, `optim`, `trainer`, `combine`, …,
            as objects or as dicts.

    Raises:
        EhrdlError: an option is wrong, or a run of that name has other data or options. The message is one line.
    """
    unknown = [key for key in options if key not in _names(Settings)]
    if unknown:
        allowed = _names(Settings)
        raise ConfigError(
            f"{unknown[0]}: is no option of fit{nearest(unknown[0], allowed)}; there are {', '.join(allowed)}"
        )
    make: Any = _named("ehrdl.models", model, Network, "model") if isinstance(model, str) else model
    if epochs is not None:
        options["trainer"] = {**options.get("trainer", {}), "max_epochs": epochs}
    where = RunOptions(name or cohort.task.name, str(root), overwrite)
    experiment = Experiment(where, cohort.data, cohort.task, make, **_objects(Settings, options))
    return Run(experiment.complete(cohort), experiment)


def open_run(folder: Place) -> Run:
    """Open a finished run: its metrics, its report, and its models for other patients.

    Args:
        folder: the run's folder.

    Raises:
        ConfigError: the folder holds no finished run, or is damaged.
    """
    return Run(check_run(expanded(folder)).folder)


class Run:
    """A finished run.

    Args:
        folder: the run's folder.
        settings: the settings of the run; by default they are read from its `config.yaml`.
    """

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder = folder
        self._settings = settings

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was run, with which data, models and options."""
        return read_manifest(self.folder)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """PREDICTIONS of the tuning and held-out samples."""
        table: pd.DataFrame = pq.read_table(self.folder / "predictions.parquet").to_pandas()
        return table

    @property
    def metrics(self) -> pd.DataFrame:
        """Every metric of every model on held-out patients: output, model, metric, value, low, high.

        A value is the mean over seeds. `low` and `high` are the ends of its 95 % interval.
        """
        return self._metrics("models")

    @property
    def differences(self) -> pd.DataFrame:
        """Paired differences between the main model and each other model, with the columns of `metrics`."""
        return self._metrics("differences")

    def report(self, path: Place | None = None) -> Path:
        """Return the path of the report, one HTML file that opens offline.

        Args:
            path: the path for a copy of the report; by default nothing is copied.
        """
        own = self.folder / "report.html"
        if path is None:
            return own
        target = expanded(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, own.read_text(encoding="utf-8"))
        return target

    def predict(self, where: Place | Source, out: Place | None = None, **options: Any) -> Predictions:
        """Score new patients, or another hospital, with every model of the run. Nothing is fitted.

        Args:
            where: a source, or a folder of data in the same layout as the run's own data. For a run on synthetic
                patients, the folder has MIMIC-IV's layout.
            out: the folder for the result; by default a folder in `predict/` of the run's folder, named after the data.
            **options: options of the source, such as `note_root`.

        Raises:
            EhrdlError: the data cannot be read, or lack something; the message gives the reason in one line.
        """
        finished = check_run(self.folder)
        with self._objects() as made:
            source = where if isinstance(where, Source) else _elsewhere(made.data.source, where, options)
            data = replace(made.data, source=source)
            target = expanded(out) if out else None
            folder = score(finished, data, made.task, made.model, made.trainer, target)
        table = Predictions(pq.read_table(folder / "predictions.parquet").to_pandas())
        table.gaps, table.folder = describe_gaps(read_json(folder / "gaps.json", dict)), folder
        return table

    def __repr__(self) -> str:
        """Return one line: the folder, the task and the number of models."""
        return f"<Run {self.folder}: {self.manifest['task']}, {len(self.manifest['models'])} models>"

    def _metrics(self, key: str) -> pd.DataFrame:
        outputs = read_json(self.folder / "metrics.json", dict)["outputs"]
        rows = [
            {"output": output, "model": model, "metric": metric}
            | {part: values[part] for part in ("value", "low", "high")}
            for output, scores in outputs.items()
            for model, metrics in scores[key].items()
            for metric, values in metrics.items()
        ]
        return pd.DataFrame(rows, columns=["output", "model", "metric", "value", "low", "high"])

    @contextmanager
    def _objects(self) -> Iterator[Any]:
        if self._settings is not None:
            yield self._settings
            return
        with recorded_settings(self.folder) as objects:
            yield objects


class Predictions(pd.DataFrame):
    """PREDICTIONS of new patients.

    Attributes:
        gaps: how these data differ from the run's data, one line for each difference; empty if they do not differ.
        folder: the folder of the predictions and their manifest; `ehrdl report FOLDER` makes a report of them.
    """

    _metadata = ["gaps", "folder"]  # noqa: RUF012 - pandas' own way to keep attributes
    gaps: list[str]
    folder: Path

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # a selection from the table is an ordinary DataFrame


def _named(package: str, word: str, base: type, key: str) -> Any:
    """Return the class of a package for a word, such as HeartFailure for `heart_failure`.

    Raises:
        ConfigError: the package has no such class.
    """
    face = import_module(package)
    found = {
        _plain(name): made
        for name in face.__all__
        if issubclass(made := getattr(face, name), base) and not inspect.isabstract(made)
    }
    wanted = _plain(word)
    for name in (wanted, f"{wanted}model"):
        if name in found:
            return found[name]
    names = [made.__name__ for made in found.values()]
    raise ConfigError(f"{key}: {word!r} is not one of {', '.join(names)}{nearest(word, names)}")


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


def _make(made: Any, options: dict[str, Any], key: str) -> Any:
    """Make an object of a class, or raise a one-line ConfigError if an argument is unknown or missing."""
    signature = inspect.signature(made)
    allowed = list(signature.parameters)
    for name in [name for name in options if name not in allowed]:
        takes = f"{made.__name__} takes {', '.join(allowed)}"
        raise ConfigError(f"{key}.{name}: there is no such option{nearest(name, allowed)}; {takes}")
    lacks = [name for name, p in signature.parameters.items() if p.default is p.empty and name not in options]
    if lacks:
        raise ConfigError(f"{key}.{lacks[0]}: is missing; {made.__name__} needs it")
    return made(**options)


def _objects(made: type, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a dataclass with each dict turned into the object that it describes."""
    kinds = get_type_hints(made)
    return {name: _object(name, value, kinds[name]) for name, value in given.items()}


def _object(name: str, value: Any, kind: Any) -> Any:
    if not isinstance(kind, type) or not is_dataclass(kind) or isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected {kind.__name__} or a dict of its options, got {value!r}")
    return _make(kind, value, name)


def _names(made: Any) -> list[str]:
    """Return the names of the fields that a caller may set as options."""
    fixed = ("source", "run", "data", "task", "model", "config", "tune")
    return [field.name for field in fields(made) if field.name not in fixed]


def _given(**options: Any) -> dict[str, Any]:
    return {name: str(value) for name, value in options.items() if value is not None}


def _elsewhere(own: Source, where: Place, options: dict[str, Any]) -> Source:
    """Return a source for data in another folder, with the options of the run's source except its notes."""
    made: Any = Mimic4 if isinstance(own, Synthetic) else type(own)
    if isinstance(own, Synthetic):
        say("data.source: Mimic4 reads the folder, since the run's own hospital was synthetic")
    kept = {} if isinstance(own, Synthetic) else dict(describe(own).get("init_args", {}))
    if "root" not in inspect.signature(made).parameters:
        raise ConfigError(f"data.source: {made.__name__} has no root, so give predict a source and not a folder")
    if kept.get("note_root") and "note_root" not in options:
        say("data.source.note_root: the run's own notes are not read; name the new hospital's, or they are its root's")
    found: Source = _make(
        made, kept | {"root": str(where)} | ({"note_root": None} if "note_root" in kept else {}) | options, "source"
    )
    return found
