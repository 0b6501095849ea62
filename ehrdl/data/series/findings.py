"""Finds faults in the series: values out of their plausible range, and values in unknown units."""

from __future__ import annotations

from collections import Counter

from ehrdl.clinical.concepts import Concepts
from ehrdl.data.series.store import Store
from ehrdl.events.findings import _VALUES
from ehrdl.quality import Finding


def find_in_series(series: Store, known: Concepts) -> list[Finding]:
    """Count by channel the values out of their plausible range, and the values in units that the concepts do not list.

    Args:
        series: the series store, which counted the values of both kinds when it was built.
        known: the concepts, which map source codes and units to channels.
    """
    channel_of = dict(zip(known.frame.base_code, known.frame.channel, strict=True))
    kept = {name: counts["kept"] for name, counts in series.counts.items()}
    unknown: Counter[str] = Counter()
    for code, counts in series.counts.items():
        if counts["unknown_unit"]:
            unknown[channel_of["//".join(code.split("//")[:2])]] += counts["unknown_unit"]
    found = []
    for name, counts in series.counts.items():
        of = counts["kept"] + counts["implausible"]
        found.append(
            Finding(
                "series",
                name,
                "values are outside their plausible range, and left out",
                counts["implausible"],
                of,
                _VALUES,
            )
        )
    for name, n in unknown.items():
        found.append(
            Finding(
                "series",
                name,
                "values are in a unit without a row in the concepts, and left out",
                n,
                n + kept.get(name, 0),
                _VALUES,
            )
        )
    return [one for one in found if one.n]
