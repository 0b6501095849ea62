"""The descriptions of all models that ehrdl can fit, for the manifest and the report."""

from __future__ import annotations

from collections.abc import Iterable

from ehrdl.comparators import blend
from ehrdl.info import ModelInfo
from ehrdl.models.baselines import boosted, scores, tabular
from ehrdl.training import predict, variants

_ALL = (*variants.INFOS, *blend.INFOS, *tabular.INFOS, *boosted.INFOS, *scores.INFOS, predict.TRUTH)


def model_infos(names: Iterable[str]) -> list[ModelInfo]:
    """Return the descriptions of the named models, in a fixed order.

    The order is deep models, combined models, classical models, clinical scores, and the truth of a simulator.

    Args:
        names: the names of models; a name without a description is left out.
    """
    wanted = set(names)
    return [info for info in _ALL if info.name in wanted]
