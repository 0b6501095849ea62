"""Which notes belong to the stay that a sample is in, told from those of earlier stays.

The static features say how long ago the last admission was; whatever is younger belongs to this stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrdl.batch import Batch, DataSpec

#: The static feature that is read: log(1 + days since the last admission), 0 where there was none.
SINCE_ADMISSION = "log_days_since_admission"
#: Notes carry a day, not an hour: the summary of a stay of a few hours may be dated before its admission.
_SLACK_HOURS = 24.0


class Stay:
    """Whose stay a link is of.

    Args:
        spec: the data; without the static feature, as in runs of before there was one, all is of this stay.
    """

    def __init__(self, spec: DataSpec) -> None:
        self.column = spec.statics.index(SINCE_ADMISSION) if SINCE_ADMISSION in spec.statics else None

    def links(self, batch: Batch) -> Tensor:
        """Which links (E,) lead to a note of the sample's own stay; those of fillers are of no stay."""
        if self.column is None:
            every: Tensor = batch.link_sample < batch.batch_size
            return every
        since = torch.expm1(batch.static[:, self.column]) * 24 + _SLACK_HOURS  # (B,) [h]
        since = torch.cat([since, since.new_full((1,), -torch.inf)])  # the last row takes the fillers
        own: Tensor = -batch.link_hours <= since[batch.link_sample]
        return own
