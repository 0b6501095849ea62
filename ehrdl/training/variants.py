"""The deep models of one configuration: one that reads all modalities, and one for each single modality."""

from __future__ import annotations

from ehrdl.batch import DataSpec
from ehrdl.errors import SchemaError
from ehrdl.info import ModelInfo

INFOS = (
    ModelInfo("fused", "deep", "deep: notes with labs and vitals", ("note", "series")),
    ModelInfo("series_only", "deep", "deep: labs and vitals alone", ("series",)),
    ModelInfo("notes_only", "deep", "deep: notes alone", ("note",)),
)
DEEP = tuple(info.name for info in INFOS)


def variants(spec: DataSpec) -> dict[str, DataSpec]:
    """Return the data description for each deep model that the data allow, by the model's name.

    Args:
        spec: the description of all data. With one modality, there is only the model of this modality.

    Raises:
        SchemaError: the data have neither notes nor series.
    """
    single = {"note": "notes_only", "series": "series_only"}
    if not spec.modalities:
        raise SchemaError("no training sample has a note or a measurement in the window; widen data.window")
    both = {"fused": spec} if len(spec.modalities) > 1 else {}
    return both | {single[name]: spec.only(name) for name in spec.modalities}
