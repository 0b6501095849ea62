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
    """Read a hospital's data, and select the cohort: the patients for whom a task makes predictions.

    The prepared data are kept in the cache, so that the next call with the same options is quick.

    Args:
        source: the name of a class in `ehrdl.sources` (`mimic4`, `meds`, `synthetic`, …), or an object of such a class.
        root: the folder of the hospital's data. If `source` is an object, leave it out.
        task: the name of a class in `ehrdl.tasks` (`readmission`, `heart_failure`, …), or an object of such a class.
        **options: fields of `ehrdl.data.config.DataConfig` (`window`, `notes`, `split`, `batch`, `prepare`,
            `concepts`), each as an object or as a dict. All other options, such as `note_root`, are arguments of the
            source's class.

    Raises:
        EhrdlError: an option or the data cannot be used; the message gives the reason in one line.
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
    """Fit deep models and baselines on the same samples, and compare them.

    If a run of the same name, data and options is finished already, it is opened and not fitted again.

    Args:
        cohort: the cohort, from `load`.
        model: the name of a network class in `ehrdl.models` (such as `multimodal` or `committee`), or any function that
            makes a network from a `DataSpec`. The function may be a class or a `functools.partial` of a class.
        epochs: number of passes over the training samples; None = the default of `ehrdl train`.
        name: the name of the run's folder; by default the name of the task.
        root: the folder that holds the runs.
        overwrite: replace a finished run of the same name.
        **options: other fields of `ehrdl.experiment.Settings` (`seeds`, `baselines`, `optim`, `trainer`, `combine`, …).
            A group of options, such as `optim`, is an object or a dict.

    Raises:
        EhrdlError: an option is wrong, or an existing run of the same name has other data or options. The message gives
            the reason in one line.
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
    """Open a finished run, to read its metrics and report, or to score other patients with its models.

    Args:
        folder: the run's folder.

    Raises:
        ConfigError: the folder holds no finished run, or a file of the run is missing or has changed.
    """
    return Run(check_run(expanded(folder)).folder)


class Run:
    """A finished run: its metrics, predictions and report, and its fitted models.

    Args:
        folder: the run's folder.
        settings: the settings of the run; None = read them from the run's `config.yaml`.
    """

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder = folder
        self._settings = settings

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The content of `manifest.json`: facts about the run's data, task, models, seeds, software and hardware."""
        return read_manifest(self.folder)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The PREDICTIONS table: what each model predicted for each tuning and held-out sample."""
        table: pd.DataFrame = pq.read_table(self.folder / "predictions.parquet").to_pandas()
        return table

    @property
    def metrics(self) -> pd.DataFrame:
        """A table of every metric of every model on held-out patients.

        Its columns are output, model, metric, value, low and high. `value` is the mean over seeds. `low` and `high` are
        the ends of its 95 % interval.
        """
        return self._metrics("models")

    @property
    def differences(self) -> pd.DataFrame:
        """A table of the paired differences between the reference model and each other model, in each metric.

        It has the same columns as `metrics`. The column `model` names both models, such as `fused - lace`.
        """
        return self._metrics("differences")

    def report(self, path: Place | None = None) -> Path:
        """Return the path of the report, one HTML file that opens offline.

        Args:
            path: where to write a copy of the report. The path of the copy is then returned. None = no copy.
        """
        own = self.folder / "report.html"
        if path is None:
            return own
        target = expanded(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, own.read_text(encoding="utf-8"))
        return target

    def predict(self, where: Place | Source, out: Place | None = None, **options: Any) -> Predictions:
        """Score new patients, or the patients of another hospital, with every model of the run. Nothing is fitted.

        Args:
            where: the new data: a source object, or a folder with the same layout as the data of the run. For a run on
                synthetic patients, the folder must have MIMIC-IV's layout.
            out: the folder to write the predictions to; None = a folder named after the new data, in the subfolder
                `predict/` of the run's folder.
            **options: if `where` is a folder, arguments of the source that reads it, such as `note_root`.

        Raises:
            EhrdlError: the data cannot be read, or lack something that is required. The message gives the reason in one
                line.
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
    """The PREDICTIONS table of new patients, as a DataFrame with two more attributes.

    Attributes:
        gaps: how the new patients' data differ from the run's data, one line for each difference; empty if they do not
            differ.
        folder: the folder that holds `predictions.parquet`. The command `ehrdl report FOLDER` makes a report from it.
    """

    _metadata = ["gaps", "folder"]  # noqa: RUF012 - pandas' own way to keep attributes
    gaps: list[str]
    folder: Path

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame  # a selection from the table is an ordinary DataFrame


def _named(package: str, word: str, base: type, key: str) -> Any:
    """Return the class of a package that a word names, such as HeartFailure for `heart_failure`.

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
    """Return a source that reads another folder. It has the options of the run's source, except `note_root`."""
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
