"""Writes the verbalised record: what a sample may see at its prediction time, as text in short sections of fixed order.

A record serves hospitals that cannot share their notes, and can be read in addition to notes. Series facts come from
the dataset (with the same cut, window, channels and largest number of facts as for every model). Coded facts come
through `window.bounds`. Age, sex and stays come from the static features. So a text contains only what its sample may
see, and nothing has to be fitted to write it.

Letters: B samples · F pairs of a sample and a channel that it sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ehrdl.clinical import reference
from ehrdl.data.config import SECTIONS, RecordOptions
from ehrdl.data.dataset import Items, SampleDataset, positions
from ehrdl.data.features.static import STATICS
from ehrdl.data.record.coded import Coded
from ehrdl.data.window import bounds, inside

#: Increased whenever the same sample would get another text.
VERSION = 1

_HEADINGS = {
    "units": "Care units",
    "diagnoses": "Diagnoses of earlier stays",
    "procedures": "Procedures of earlier stays",
    "drugs": "Drugs",
    "laboratory": "Laboratory",
    "vitals": "Vital signs",
    "treatment": "Treatment and events",
}
#: Sections that are limited to the series window; diagnoses and procedures cover the whole record.
_RECENT = ("units", "drugs")
#: Sections of the series, with the category of their numeric channels. All other channels are in the last section.
_MEASURED = {"laboratory": "lab", "vitals": "vital", "treatment": ""}
_OTHER = 2
_NOTHING = "Nothing is recorded."
_NO_UNIT = ("", "pH", "score", "ratio")
#: The change that counts as rising or falling: a share of the reference range's width, or of the value without one.
_MOVED, _MOVED_ALONE = 0.2, 0.1
_SAME = 1e-6
_FLAGS, _MOVES = ("", "low ", "high "), ("", "falling", "rising")
#: Ages below this many hours are written in hours, others in days.
_HOURS_TOLD = 48


def verbalize(
    dataset: SampleDataset,
    coded: Mapping[str, Coded],
    rows: Sequence[int] | np.ndarray,
    options: RecordOptions | None = None,
    hidden_codes: Sequence[str] = (),
) -> list[str]:
    """Write the verbalised record of each given sample, as one text per sample.

    Args:
        dataset: the dataset of the samples.
        coded: the coded facts (diagnoses, procedures, drugs, care units) by section, from `coded.open_coded`.
        rows: SAMPLES rows, in any order.
        options: the sections to write, and the largest number of items in a section; None = the defaults.
        hidden_codes: prefixes of codes that define the outcome. Facts with these codes are not named in a text.
    """
    return Verbalizer(dataset, coded, options or RecordOptions(), hidden_codes)(rows)


class Verbalizer:
    """Writes the verbalised records of samples. It takes the same arguments as `verbalize`.

    What is the same for all samples is computed once, when the object is made.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        coded: Mapping[str, Coded],
        options: RecordOptions,
        hidden_codes: Sequence[str] = (),
    ) -> None:
        self.dataset, self.options = dataset, options
        self.coded: dict[str, Coded] = {name: facts for name, facts in coded.items() if name in options.sections}
        self.most = {
            "units": options.max_units,
            "diagnoses": options.max_diagnoses,
            "procedures": options.max_procedures,
            "drugs": options.max_drugs,
        }
        facts = next(iter(coded.values()), None)
        names = facts.names if facts else []
        self.names = sorted(set(names))
        place = {name: i for i, name in enumerate(self.names)}
        self.name = np.array([place[name] for name in names], np.int64)
        hidden = tuple(prefix.lower() for prefix in hidden_codes)
        self.shown = np.array([not code.lower().startswith(hidden) for code in (facts.codes if facts else [])], bool)
        self._channels()

    def _channels(self) -> None:
        """Set section, order of mention, name, unit and limits of each of the dataset's channels."""
        channels, sections = self.dataset.channels, list(_MEASURED)
        category = {channel.name: channel.category for channel in self.dataset.store.channels}
        at = {category: i for i, category in enumerate(_MEASURED.values())}
        found = [at.get(category.get(c.name, ""), _OTHER) if c.kind == "numeric" else _OTHER for c in channels]
        self.section = np.array(found, np.int64)
        self.wanted = np.array([sections[i] in self.options.sections for i in found], bool)
        self.mention = np.argsort(self.section, kind="stable")  # place in the text -> channel
        self.rank = np.argsort(self.mention, kind="stable")
        self.numeric = np.array([c.kind == "numeric" for c in channels], bool)
        self.channel = [c.name.replace("_", " ") for c in channels]
        self.unit = ["" if c.unit in _NO_UNIT else f" {c.unit}" for c in channels]
        self.low, self.high = reference.limits([(c.name, c.unit) for c in channels])

    def __call__(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Write the texts of some samples, in their order."""
        distinct, place = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        if not len(distinct):
            return []
        texts = self._block(distinct)
        return [texts[i] for i in place.tolist()]

    def _block(self, rows: np.ndarray) -> list[str]:
        items = self.dataset.__getitems__(rows)
        parts = self._measured(items)
        parts |= {name: self._listed(name, rows) for name in self.coded}
        for name, texts in parts.items():
            parts[name] = [text and f"{_HEADINGS[name]}: {text}." for text in texts]
        if "demographics" in self.options.sections:
            parts["demographics"] = _demographics(items.static)
        columns = [parts[name] for name in SECTIONS if name in parts]
        written = ("\n".join(filter(None, sample)) for sample in zip(*columns, strict=True))
        return [text or _NOTHING for text in written] if columns else [_NOTHING] * len(rows)

    def _listed(self, section: str, rows: np.ndarray) -> list[str]:
        """Return the distinct names of a section's visible facts, latest first, up to the allowed number."""
        facts, data, n_rows = self.coded[section], self.dataset, len(rows)
        t, recent = data.time[rows], section in _RECENT
        span = data.span if recent else None
        start, stop = bounds(facts.available, facts.offsets, facts.subjects, data.subject[rows], t, span)
        place, sample = positions(start, stop - start), np.repeat(np.arange(n_rows), stop - start)
        code = facts.code[place]
        keep = self.shown[code]
        if recent:
            keep &= inside(facts.time[place], t[sample], data.span)
        sample, name = sample[keep][::-1], self.name[code[keep]][::-1]
        _, first = np.unique(sample * max(len(self.names), 1) + name, return_index=True)
        first.sort()
        order = first[np.argsort(sample[first], kind="stable")]
        named = [self.names[i] for i in name[order].tolist()]
        n = np.bincount(sample[order], minlength=n_rows)
        begin = np.cumsum(n) - n
        end = begin + np.minimum(n, self.most[section])
        return ["; ".join(named[i:j]) for i, j in zip(begin.tolist(), end.tolist(), strict=True)]

    def _measured(self, items: Items) -> dict[str, list[str]]:
        """Write the sections of the series: last value, flag and trend of each visible channel, ordered by age."""
        wanted = [(i, name) for i, name in enumerate(_MEASURED) if name in self.options.sections]
        if not wanted or not len(items.value):
            return {name: [""] * len(items.row) for _, name in wanted}
        pairs, n_sections = self._pairs(items), len(_MEASURED)
        group = pairs.sample * n_sections + self.section[pairs.channel]
        order = np.lexsort((pairs.age, group))  # stable: facts measured at one time are written together
        said = self._say(pairs.take(order), group[order], items.static)
        edges = np.searchsorted(group[order], np.arange(len(items.row) * n_sections + 1)).tolist()
        texts = ["".join(said[i:j]) for i, j in pairwise(edges)]
        return {name: texts[i::n_sections] for i, name in wanted}

    def _pairs(self, items: Items) -> _Pairs:
        """Return the pairs of a sample and a channel, sample by sample and in the order of mention."""
        sample, n_channels = np.repeat(np.arange(len(items.row)), items.n_observations), len(self.channel)
        keep = self.wanted[items.channel]
        key = sample[keep] * n_channels + self.rank[items.channel[keep]]
        value, hours = items.value[keep], items.hours[keep]
        order = np.lexsort((hours, key))  # stable: of facts at one time, the last one in the store stays last
        key = key[order]
        last = np.flatnonzero(np.diff(key, append=-1))
        first = np.r_[0, last[:-1] + 1][: len(last)]
        sample, mention = np.divmod(key[last], n_channels)
        return _Pairs(
            sample=sample,
            channel=self.mention[mention],
            first=value[order[first]],
            last=value[order[last]],
            n=last - first + 1,
            age=_shown_age(hours[order[last]]),
        )

    def _say(self, pairs: _Pairs, group: np.ndarray, static: np.ndarray) -> list[str]:
        """Write the text of each pair, with the separator before it.

        Args:
            pairs: the pairs, in the order of the text.
            group: (F,) sample and section of each pair.
            static: (B, S) static features.
        """
        flag, trend = self._judge(pairs, _sex(static)[pairs.sample])
        begins = np.diff(group, prepend=-1) != 0
        aged = begins | (np.diff(pairs.age, prepend=-1) != 0)
        columns = (pairs.channel, self.numeric[pairs.channel], flag, pairs.last, trend, pairs.first, pairs.n)
        rows = zip(*(column.tolist() for column in (*columns, begins, aged, pairs.age)), strict=True)
        said = []
        for c, numeric, f, now, way, before, n, new, told, age in rows:
            start = f"{'' if new else '; '}{_ago(age)}: " if told else ", "
            if numeric:
                moves = f" {_MOVES[way]} from {_number(before)}" if way else ""
                said.append(f"{start}{_FLAGS[f]}{self.channel[c]} {_number(now)}{self.unit[c]}{moves}")
            else:
                said.append(f"{start}{self.channel[c]}{f' ({n} times)' if n > 1 else ''}")
        return said

    def _judge(self, pairs: _Pairs, sex: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return indices into `_FLAGS` and `_MOVES` for each pair (F,); `sex` is its row of `reference.limits`."""
        low, high = self.low[sex, pairs.channel], self.high[sex, pairs.channel]
        flag = np.where(pairs.last < low, 1, np.where(pairs.last > high, 2, 0))  # NaN compares as false
        width = high - low
        least = np.where(np.isnan(width), _MOVED_ALONE * np.abs(pairs.first), _MOVED * width)
        moved = (np.abs(pairs.last - pairs.first) >= np.maximum(least, _SAME)) & (self.section[pairs.channel] < _OTHER)
        return flag, np.where(moved, np.where(pairs.last > pairs.first, 2, 1), 0)


@dataclass(frozen=True)
class _Pairs:
    """F pairs of a sample and a channel: first and last value in the window, number of values, age of the last."""

    sample: np.ndarray
    channel: np.ndarray
    first: np.ndarray
    last: np.ndarray
    n: np.ndarray
    age: np.ndarray

    def take(self, order: np.ndarray) -> _Pairs:
        """Return the pairs at the positions `order`, in that order."""
        return _Pairs(**{name: values[order] for name, values in vars(self).items()})


def _sex(static: np.ndarray) -> np.ndarray:
    """Return the row of `reference.limits` for each row of static features."""
    female, missing = (static[:, STATICS.index(name)] > 0.5 for name in ("sex_female", "sex_missing"))
    return np.where(missing, reference.UNKNOWN, np.where(female, reference.FEMALE, reference.MALE))


def _demographics(static: np.ndarray) -> list[str]:
    """Write age, sex and stays, from the static features (B, S)."""
    column = {name: static[:, i] for i, name in enumerate(STATICS)}
    sex = np.array(("female", "male", "sex unknown"))[_sex(static)].tolist()
    age = np.where(column["age_missing"] > 0.5, -1, np.floor(column["age_years"])).astype(np.int64).tolist()
    counts = ("log_admissions_before", "log_admissions_365d", "log_days_since_admission", "log_days_between_stays")
    stays = [np.rint(np.expm1(column[name].astype(np.float64))).astype(np.int64).tolist() for name in counts]
    texts = []
    for years, who, n, in_year, since, gap in zip(age, sex, *stays, strict=True):
        known = f"Age {years}" if years >= 0 else "Age unknown"
        admitted = f"Admissions: {n}, {in_year} in the last year, the last {_days(since)} ago" if n else "No admission"
        between = f", {_days(gap)} after the stay before it" if n > 1 and gap < _NO_STAY_BEFORE else ""
        texts.append(f"{known}, {who}. {admitted}{between}.")
    return texts


#: The days between stays in `static_features` if there is no earlier stay.
_NO_STAY_BEFORE = 3650


@lru_cache(maxsize=100_000)
def _number(value: float) -> str:
    """Write a value with three significant digits, or as a whole number from a thousand on, without an exponent.

    >>> _number(2.0999999), _number(0.00512), _number(123456.7), _number(-0.0)
    ('2.1', '0.00512', '123457', '0')
    """
    if abs(value) >= 999.5:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else "0"


def _shown_age(hours: np.ndarray) -> np.ndarray:
    """Round ages to the written precision: whole hours, and from two days on whole days. The result is in hours.

    >>> _shown_age(np.array([-0.4, -47.4, -47.6, -60.1])).tolist()
    [0, 47, 48, 72]
    """
    whole = np.rint(-hours).astype(np.int64)
    age: np.ndarray = np.where(whole < _HOURS_TOLD, whole, (whole + 12) // 24 * 24)
    return age


@lru_cache(maxsize=10_000)
def _ago(hours: int) -> str:
    return f"{hours} h ago" if hours < _HOURS_TOLD else f"{hours // 24} days ago"


def _days(n: int) -> str:
    return "1 day" if n == 1 else f"{n} days"
