"""Logging to Weights & Biases in addition to the CSV curves: one W&B run for each run of ehrdl.

A fit has no W&B run of its own, because whole runs are compared and reported. A run's configuration, metrics and report
are thus in one place. The curves of each fit are under the fit's name (`fused-seed0/tuning/auprc`), each over its own
steps. A run that resumes continues the same W&B run. Its id and the last point of each curve are in the run's folder,
and points that were sent before are not sent again.

No failure of the service stops the run. The first failure is reported in one line, and the run continues without W&B.
Only curves, metrics and the configuration without local paths are sent by default. Not sent are source code and changes
to it, the command line, console output, data on host, machine and packages, and crash reports. The report and a
checkpoint are made from patients' data. They are sent only if the options request it.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.options.training import LoggerOptions

#: Seconds that the service may take to answer, and to receive the remaining data when the run ends.
_INIT_TIMEOUT, _FINISH_TIMEOUT = 30, 120
#: The file that records the sent steps, in the folder of W&B's files.
_SENT = "sent.json"
_AGREEMENT = (
    "logger.artifacts: the report and the best checkpoint go to Weights & Biases; both are made of patients' data, so "
    "this needs a data use agreement that allows it (that of MIMIC-IV does not allow sharing with third parties)"
)


class Tracker:
    """Sends a run's results to Weights & Biases (W&B). If W&B is off or has failed, its methods do nothing.

    Use `tracking` to make one.

    Args:
        artifacts: whether to send files, such as the report.
        sent: the file that records the id of the W&B run and the last step sent of each curve; None = W&B is off.
    """

    def __init__(self, artifacts: bool = False, sent: Path | None = None) -> None:
        self.run: Any = None
        self._artifacts, self._file = artifacts, sent
        known = read_json(sent) if sent is not None and sent.is_file() else {}
        self.id: str = known.get("id") or secrets.token_hex(4)
        self._before: dict[str, int] = known.get("steps", {})
        self._steps = dict(self._before)

    def point(self, values: dict[str, float], stem: str, step: int) -> None:
        """Send one point of each given learning curve, unless it was sent before the run resumed.

        Args:
            values: the values of the point, by the name of the curve.
            stem: the name of the fit.
            step: the training step of the point.
        """
        new = {name: value for name, value in values.items() if step > self._before.get(name, -1)}
        if not new:
            return
        self.attempt("curves", lambda run: run.log(new | {f"{stem}/step": step}))
        self._steps |= dict.fromkeys(new, step)
        self.remember()

    def remember(self) -> None:
        """Write the id of the W&B run and the last step sent of each curve to the file `sent`."""
        if self.run is not None and self._file is not None:
            write_json(self._file, {"id": self.id, "steps": self._steps})

    def attempt(self, what: str, action: Callable[[Any], object]) -> None:
        """Call `action` with the W&B run. If the call fails, report this once, and do not use W&B again.

        Args:
            what: what is sent, for the report.
            action: the function that sends it.
        """
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:  # whatever the service or its client raises
            self.run = None
            _warn(what, error)

    def curves(self, stem: str) -> list[Logger]:
        """Return a list with a Lightning logger that sends the curves of one fit; empty if W&B is off or has failed."""
        if self.run is None:
            return []
        self.attempt("curves", lambda run: run.define_metric(f"{stem}/*", step_metric=f"{stem}/step"))
        return [_Curves(self, stem)]

    def metrics(self, metrics: dict[str, Any]) -> None:
        """Send the metrics on held-out samples, with their intervals, to the summary of the W&B run."""
        self.attempt("metrics", lambda run: run.summary.update(_flat(metrics)))

    def file(self, name: str, kind: str, path: Path) -> None:
        """Send a file as a W&B artifact, if the options request artifacts.

        Args:
            name: the last part of the artifact's name, after the name of the run.
            kind: the type of the artifact.
            path: the file.
        """
        if not self._artifacts:
            return

        def send(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", f"{run.name}-{name}"), type=kind)
            artifact.add_file(str(path))
            run.log_artifact(artifact)

        self.attempt(name, send)


class _Curves(Logger):
    """Sends the metrics that Lightning logs, under the name of their fit."""

    def __init__(self, tracker: Tracker, stem: str) -> None:
        super().__init__()
        self._tracker, self._stem = tracker, stem

    @property
    def name(self) -> str:
        """The fit's name."""
        return self._stem

    @property
    def version(self) -> str:
        """None, because a fit that resumes is the same one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, because W&B already has the whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send one point of each curve."""
        values = {f"{self._stem}/{name}": value for name, value in metrics.items()}
        self._tracker.point(values, self._stem, step or 0)


@contextmanager
def tracking(options: LoggerOptions, name: str, folder: Path, config: dict[str, Any]) -> Iterator[Tracker]:
    """Open a W&B run for one run of ehrdl, yield the tracker that sends to it, and close it after the block.

    Args:
        options: whether to send the run's results to W&B, and to which project.
        name: the run's name.
        folder: the run's folder. W&B keeps its own files in the subfolder `wandb`.
        config: the resolved configuration.
    """
    if not options.wandb or getattr(rank_zero_only, "rank", 0) != 0:
        yield Tracker()
        return
    tracker = Tracker(options.artifacts, folder / "wandb" / _SENT)
    if options.artifacts:
        say(_AGREEMENT)
    with _environment(folder / "wandb"):
        opened = None
        try:
            opened = tracker.run = _open(options, name, folder, config, tracker.id)
            tracker.remember()
        except Exception as error:  # not installed, no key, no network, a service that is down
            _warn("start", error)
        code = 1
        try:
            yield tracker
            code = 0
        finally:
            _close(opened, code)
            if opened is not None and options.mode == "offline":
                _say_sync(folder / "wandb", tracker.id)


def _say_sync(folder: Path, own: str) -> None:
    """Report how to send the files of a run, including those of earlier processes, to the service."""
    files = sorted(str(path) for path in folder.glob("offline-run-*") if path.name.endswith(f"-{own}"))
    if files:
        say(f"wandb: to send this run: wandb sync --yes {shlex.join(files)}")


def without_paths(content: Any) -> Any:
    """Replace local paths in a configuration by `<path>`, since a path may contain the name of a hospital or a user.

    >>> without_paths({"root": "/data/clinic", "names": ["a/b", "~/x"], "lr": 0.1})
    {'root': '<path>', 'names': ['a/b', '<path>'], 'lr': 0.1}
    """
    if isinstance(content, dict):
        return {key: without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_paths(value) for value in content]
    if isinstance(content, str) and _is_path(content):
        return "<path>"
    return content


def _is_path(text: str) -> bool:
    """Tell whether a text is an absolute path, a path from home, or an existing path of several parts."""
    return text.startswith(("/", "~", "./", "../")) or ("/" in text and len(text) < 1000 and Path(text).exists())


def _open(options: LoggerOptions, name: str, folder: Path, config: dict[str, Any], own: str) -> Any:
    import wandb

    if options.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key; run `wandb login`, or use --logger.mode offline")
    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        host="",
        reinit="create_new",
        init_timeout=_INIT_TIMEOUT,
        finish_timeout=_FINISH_TIMEOUT,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    return wandb.init(
        project=options.project,
        entity=options.entity,
        mode=options.mode,
        id=own,
        resume="allow" if options.mode == "online" else None,  # offline, the same id is enough to join the files
        name=name,
        group=options.group or name,
        tags=list(options.tags),
        dir=folder,
        config=without_paths(config),
        settings=settings,
    )


def _close(run: Any, code: int) -> None:
    """End the W&B run, even after a failure, and its service process, so that nothing waits for them."""
    if "wandb" not in sys.modules:
        return
    import wandb

    try:
        if run is not None:
            run.finish(exit_code=code)
        if wandb.run is None:  # a caller's own W&B run continues
            wandb.teardown()
    except Exception as error:
        _warn("end", error)


def _warn(what: str, error: Exception) -> None:
    reason = " ".join(str(error).split())[:200]
    say(f"warning: wandb: {what}: {type(error).__name__}: {reason}; the run goes on without it")


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Keep W&B's caches under the run's folder, without crash reports. The user's own settings take precedence."""
    ours = {
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }
    added = [name for name in ours if name not in os.environ]
    os.environ.update({name: ours[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Flatten metrics.json to names such as `readmission/fused/auroc`, `…_low` and `…_high`.

    Undefined values are left out.
    """
    values = {}
    for output, scores in metrics["outputs"].items():
        for model, table in scores["models"].items():
            for metric, estimate in table.items():
                for part, end in (("value", ""), ("low", "_low"), ("high", "_high")):
                    if estimate[part] is not None:
                        values[f"{output}/{model}/{metric}{end}"] = estimate[part]
    return values
