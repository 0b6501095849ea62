"""Where modules of before the rooms are now: scripts, configs and run folders that name the old places still work.

To be removed with release 0.1.0.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Old and new places, below `ehrdl`.
MOVED = {
    "allowed": "cli.allowed",
    "bounds": "options.bounds",
    "data.blanks": "data.notes.blanks",
    "data.budget": "data.loading.budget",
    "data.chunks": "data.loading.chunks",
    "data.coded": "data.record.coded",
    "data.collate": "data.loading.collate",
    "data.events": "events.writer",
    "data.findings": "events.findings",
    "data.history": "data.features.history",
    "data.listing": "events.listing",
    "data.notes_build": "data.notes.build",
    "data.records": "data.record.store",
    "data.sampler": "data.loading.sampler",
    "data.sections": "data.notes.sections",
    "data.shared_words": "data.notes.shared_words",
    "data.sources.archive": "sources.archive",
    "data.sources.arrow_types": "sources.arrow_types",
    "data.sources.base": "events.source",
    "data.sources.diabetes130": "sources.diabetes130.source",
    "data.sources.diabetes130_rows": "sources.diabetes130.rows",
    "data.sources.diabetes130_table": "sources.diabetes130.table",
    "data.sources.meds": "sources.meds.source",
    "data.sources.meds_check": "sources.meds.check",
    "data.sources.meds_codes": "sources.meds.codes",
    "data.sources.meds_columns": "sources.meds.columns",
    "data.sources.meds_metadata": "sources.meds.metadata",
    "data.sources.meds_stage": "sources.meds.stage",
    "data.sources.meds_stays": "sources.meds.stays",
    "data.sources.mimic4": "sources.mimic4.source",
    "data.sources.mimic4_bedside": "sources.mimic4.bedside",
    "data.sources.mimic4_orders": "sources.mimic4.orders",
    "data.sources.mimic4_rows": "sources.mimic4.rows",
    "data.sources.mimic4_seen": "sources.mimic4.seen",
    "data.sources.mimic4_stage": "sources.mimic4.stage",
    "data.sources.mimic4_stays": "sources.mimic4.stays",
    "data.sources.mimic4_tables": "sources.mimic4.tables",
    "data.sources.mimic4_titles": "sources.mimic4.titles",
    "data.sources.packed": "sources.packed",
    "data.sources.physionet2012": "sources.physionet2012.source",
    "data.sources.physionet2012_files": "sources.physionet2012.files",
    "data.sources.physionet2012_rows": "sources.physionet2012.rows",
    "data.sources.physionet2019": "sources.physionet2019.source",
    "data.sources.physionet2019_files": "sources.physionet2019.files",
    "data.sources.physionet2019_rows": "sources.physionet2019.rows",
    "data.sources.raw": "sources.raw",
    "data.sources.raw_errors": "sources.raw_errors",
    "data.sources.synthetic": "sources.synthetic",
    "data.sources.synthetic_files": "simulator.files",
    "data.sources.synthetic_heart": "simulator.heart",
    "data.sources.synthetic_illness": "simulator.illness",
    "data.sources.synthetic_phrases": "simulator.phrases",
    "data.sources.synthetic_records": "simulator.records",
    "data.sources.synthetic_risk": "simulator.risk",
    "data.sources.synthetic_series": "simulator.series",
    "data.sources.synthetic_stays": "simulator.stays",
    "data.sources.synthetic_text": "simulator.text",
    "data.sources.synthetic_vitals": "simulator.vitals",
    "data.split": "splits.subjects",
    "data.split_files": "splits.files",
    "data.staging": "events.staging",
    "data.static": "data.features.static",
    "data.store": "data.series.store",
    "data.table": "data.features.table",
    "data.temporal": "data.temporal_split",
    "data.timing": "events.timing",
    "data.typed": "events.typed",
    "data.verbalize": "data.record.text",
    "data.vocab": "data.notes.vocabulary",
    "folders": "engine.folders",
    "foreign": "engine.hub",
    "models.boosted": "models.baselines.boosted",
    "models.cells": "models.series.cells",
    "models.channels": "models.series.channels",
    "models.committee": "models.networks.committee",
    "models.cross_attention": "models.fusion.cross_attention",
    "models.embedding_cache": "models.notes.embedding_cache",
    "models.ensemble": "models.networks.ensemble",
    "models.gru_d": "models.series.gru_d",
    "models.masked": "models.notes.masked",
    "models.members": "models.networks.members",
    "models.multimodal": "models.networks.multimodal",
    "models.note": "models.notes.transformer",
    "models.note_backbone": "models.notes.backbone",
    "models.note_pool": "models.notes.pool",
    "models.note_tuning": "models.notes.adapters",
    "models.observations": "models.series.observations",
    "models.packing": "models.notes.packing",
    "models.score": "models.baselines.scores",
    "models.steps": "models.notes.steps",
    "models.summary": "models.series.window_summary",
    "models.tabular": "models.baselines.tabular",
    "models.triplets": "models.series.triplets",
    "models.words": "models.notes.words",
    "parquet_files": "engine.parquet",
    "parser": "cli.parser",
    "paths": "engine.paths",
    "shards": "engine.shards",
    "signatures": "options.signatures",
    "tasks.base": "tasks.common.base",
    "tasks.cohort": "tasks.common.cohort",
    "tasks.diagnosis": "tasks.heart_failure",
    "tasks.episodes": "tasks.common.stays",
    "tasks.evidence": "tasks.common.evidence",
    "tasks.flow": "tasks.common.flow",
    "tasks.stay": "tasks.length_of_stay",
    "training.apply": "comparators.saved",
    "training.baseline": "comparators.baseline",
    "training.blend": "comparators.blend",
    "training.boosted": "comparators.boosted_files",
    "training.check": "comparators.check",
    "training.combine": "comparators.combine",
    "training.config": "options.training",
    "training.digests": "runs.digests",
    "training.domain": "pretraining.domain",
    "training.files": "runs.files",
    "training.ledger": "runs.ledger",
    "training.link": "processes.link",
    "training.logger": "runs.logger",
    "training.provenance": "runs.provenance",
    "training.ranks": "processes.ranks",
    "training.run": "runs.folder",
    "training.score": "comparators.clinical_scores",
    "training.signals": "processes.signals",
    "training.space": "options.search",
    "training.team": "processes.team",
    "training.together": "processes.together",
    "training.trainer": "options.trainer",
}


#: A package of old names alone.
_EMPTY = "ehrdl.data.sources"


class _Forward(MetaPathFinder, Loader):
    """Gives the module of the new place for the name of the old one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old name alone."""
        is_old = fullname.removeprefix("ehrdl.") in MOVED and fullname.startswith("ehrdl.")
        is_package = fullname == _EMPTY
        return ModuleSpec(fullname, self, is_package=is_package) if is_old or is_package else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module of the new place, whose own spec stays what it is."""
        if spec.name == _EMPTY:
            return None
        module = import_module(current(spec.name))
        self._kept = (module.__spec__, module.__dict__.get("__path__"))
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to do: the module is whole; only what the import of the old name wrote on it is taken back."""
        if module.__name__ == _EMPTY:
            return
        module.__spec__ = self._kept[0]
        module.__loader__ = module.__spec__.loader if module.__spec__ else None
        if module.__spec__:
            module.__package__ = module.__spec__.parent
        if self._kept[1] is not None:
            module.__dict__["__path__"] = self._kept[1]


def current(path: str) -> str:
    """The place of a module or class by today's name.

    >>> current("ehrdl.data.sources.meds.Meds"), current("ehrdl.schema")
    ('ehrdl.sources.meds.source.Meds', 'ehrdl.schema')
    """
    parts = path.removeprefix("ehrdl.").split(".") if path.startswith("ehrdl.") else []
    for n in range(len(parts), 0, -1):
        if found := MOVED.get(".".join(parts[:n])):
            return ".".join(["ehrdl", found, *parts[n:]])
    return path


def forward() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, _Forward) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Forward())
