"""The concepts: a map from a source's codes to the channels that models see, with units and plausible values.

`concepts.csv` has one row per base code (such as `LAB//50912`) and unit in the source. The value in the channel's
canonical unit is value * factor + offset. A canonical value outside [low, high] is an entry error. The first row of a
base code has the item's usual unit, which is assumed if a code has no unit. Values in a unit without a row are not
used. Lab channels are of blood only.

An event is a fact without a number. Its code may contain `*`, which matches any text. For an event, `source_unit` lists
what may follow the code, as patterns separated by `|`. Examples are routes after `DRUG_START//furosemide*`, or drugs
after `EMAR//started*`. If `source_unit` is empty, anything may follow. Case is ignored. The first row that matches
decides, so exceptions (eye drops, cancelled cultures) have separate rows before the general row.

The column `source` gives the origin of a row's limits and factor. `wang2020`: a VALID or OUTLIER limit of MIMIC-Extract
(Wang 2020, arXiv:1907.08322, resources/mimiciv_variable_ranges.csv). `mimic-code`: a limit of MIT-LCP/mimic-code
(mimic-iv/concepts/measurement). `ehrdl`: a wide clinical limit that ehrdl set, without a publication. `definition`: the
ends of the scale. `factor`: the molar mass or definition behind a conversion. `unit assumed`: the MIMIC-IV demo 2.2 has
no value of the item, so its units are taken from similar items. Labels come from d_labitems and d_items.

A blood gas channel (ph, pco2, po2, so2) mixes arterial and venous samples. In labevents, a separate item names the
specimen (52033, kept as the event `blood_gas_specimen`). Code that needs only arterial values must join that item.

The channel `antibiotic` is a systemic drug that was given. Some of its rows are items in the category Antibiotics of
d_items, which also includes antifungals, antivirals and antiparasitics. Its other rows are entries of the
administration record (EMAR), recognised by the beginning of the drug's name. The names are from MIT-LCP/mimic-code
(mimic-iv/concepts/medication/antibiotic.sql) and our own list. `antibiotic_ordered` is a prescription.
`antibiotic_local` is an antibiotic that hardly reaches the blood. `iv_loop_diuretic_given` is charted in the ICU.
`loop_diuretic_given`, from the administration record, has no route. `culture` is any specimen taken, except screens for
carriers, serology and tests for viruses. These exceptions are the channel `infection_test`.
"""

import csv
import fnmatch
import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import pandas as pd

from ehrdl.errors import SchemaError

_TEXTS = ("code", "source_unit", "channel", "kind", "category", "unit", "label", "source")
_NUMBERS = ("factor", "offset", "low", "high")
_KINDS = ("numeric", "event")
_ANY = "(?:(?!//).)*"
_CATEGORIES = ("lab", "vital", "encounter", "drug", "fluid", "output", "procedure", "culture", "administrative")


@dataclass(frozen=True)
class Channel:
    """One measurement or event over time: all codes and units of the same thing, in one canonical unit.

    Attributes:
        name: the channel's name in the store, the models and the reports.
        kind: `numeric`, or `event` (a fact without a number, stored with value 1).
        category: lab, vital, encounter (never an input), drug, fluid, output, procedure, culture or administrative.
        unit: the canonical unit; empty for an event.
        low: the smallest plausible value [unit]; NaN for an event.
        high: the largest plausible value [unit]; NaN for an event.
    """

    name: str
    kind: str
    category: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Concepts:
    """The content of a table of concepts, such as `concepts.csv`.

    Attributes:
        channels: the channels in the order of the file. The position of a channel is its `channel_id`.
        frame: one row per (base_code, source_unit): base_code, source_unit (in the form of `unit_key`), is_default
            (whether it is the usual unit), channel_id, channel, kind, category, unit, low, high, factor, offset, label,
            source. An event has factor 1 and offset 0.
    """

    channels: tuple[Channel, ...]
    frame: pd.DataFrame

    def base_codes(self, prefix: str = "") -> list[str]:
        """Return the distinct base codes that start with `prefix` (`LAB//`, `CHART//`), in the order of the file."""
        return [code for code in dict.fromkeys(self.frame.base_code) if code.startswith(prefix)]

    def match(self, codes: Iterable[str]) -> pd.DataFrame:
        """Return the row of the table of concepts for each EVENTS code. SQL can join it by equality on `code`.

        Args:
            codes: the distinct EVENTS codes, such as `LAB//50912//mg/dL` or `ADMISSION//EW EMER.`. A measurement is
                recognised by its base code (the first two parts, separated by `//`) and its unit (the rest). A code of
                another form, such as `LOINC/2160-0`, is compared as a whole. An event is recognised by its base code
                and the text after it.

        Returns:
            One row per known code: `code` and the columns of `frame`. A code that is unknown, or has an unknown unit,
            has no row.

        >>> known = load().match(["LAB//50912//umol/L", "LAB//50912//", "LAB//50912//stone", "ADMISSION//URGENT"])
        >>> list(zip(known.code, known.channel, known.factor))[:2]
        [('LAB//50912//umol/L', 'creatinine', 0.011312), ('LAB//50912//', 'creatinine', 1.0)]
        >>> len(known)
        3
        """
        found = {code: row for code in codes if (row := self._row(code)) is not None}
        matched = self.frame.iloc[list(found.values())].reset_index(drop=True)
        matched.insert(0, "code", pd.Series(list(found), dtype="str"))
        return matched

    def _row(self, code: str) -> int | None:
        head, _, rest = code.partition("//")
        item, _, unit = rest.partition("//")
        for key in ((f"{head}//{item}", unit_key(unit)), (code, "")):
            if (row := self._numbers.get(key)) is not None:
                return row
        return next((row for row, pattern in self._events.get(head, ()) if pattern.fullmatch(code)), None)

    @cached_property
    def _numbers(self) -> dict[tuple[str, str], int]:
        numeric = self.frame[self.frame.kind == "numeric"]
        rows = dict(zip(zip(numeric.base_code, numeric.source_unit, strict=True), numeric.index, strict=True))
        default = numeric[numeric.is_default]
        return rows | {(code, ""): row for row, code in default.base_code.items()}

    @cached_property
    def _events(self) -> dict[str, list[tuple[int, re.Pattern[str]]]]:
        found: dict[str, list[tuple[int, re.Pattern[str]]]] = {}
        events = self.frame[self.frame.kind == "event"]
        for row, code, rest in zip(events.index, events.base_code, events.source_unit, strict=True):
            found.setdefault(code.split("//")[0], []).append((row, _pattern(code, rest)))
        return found


def unit_key(unit: str) -> str:
    """Return a unit in the form in which units are compared: lower case, without spaces.

    In SQL, this is `lower(replace(unit, ' ', ''))`.

    >>> unit_key(" mm Hg ")
    'mmhg'
    """
    return unit.replace(" ", "").lower()


def _pattern(code: str, rest: str) -> re.Pattern[str]:
    """Return the pattern of an event's whole code; `*` does not match across a `//` within the base code."""
    base = "//".join(part.replace("*", _ANY) for part in re.escape(code).replace(r"\*", "*").split("//"))
    ends = "|".join(fnmatch.translate(end) for end in rest.split("|")) if rest else ".*"
    return re.compile(f"{base}(?://(?:{ends}))" + ("" if rest else "?"), re.IGNORECASE | re.DOTALL)


def load(path: Path | None = None) -> Concepts:
    """Read and check a table of concepts.

    Args:
        path: a CSV with the columns of `concepts.csv`, for another hospital; None = `concepts.csv`, for MIMIC-IV.

    Raises:
        SchemaError: the file is missing, or a row breaks a rule. The message names file, line, column and value.

    >>> load().channels[0]
    Channel(name='sodium', kind='numeric', category='lab', unit='mEq/L', low=50.0, high=225.0)
    """
    file: Path | Traversable = files("ehrdl.clinical") / "concepts.csv" if path is None else path
    channels: dict[str, Channel] = {}
    rows: dict[tuple[str, str], dict[str, object]] = {}
    owner: dict[str, Channel] = {}  # base code -> the channel of its first row
    for line, cells in _lines(file):
        where = f"{file}: line {line}"
        channel, factor, offset = _parse(where, cells)
        code, unit = cells["code"], cells["source_unit"]
        is_default = code not in owner
        if (first := owner.setdefault(code, channel)) != channel and "numeric" in (first.kind, channel.kind):
            raise SchemaError(f"{where}: column channel: {channel.name!r}, but {code} is already {first.name!r}")
        if channel.kind == "numeric":
            unit = unit_key(unit)
            if not unit and not is_default:
                raise SchemaError(f"{where}: column source_unit: '' must stand in the first row of {code}")
        if (code, unit) in rows:
            raise SchemaError(f"{where}: column source_unit: {unit!r} is already given for {code}")
        _check_same(where, channels.setdefault(channel.name, channel), channel)
        rows[code, unit] = {"base_code": code, "source_unit": unit, "is_default": is_default, "channel": channel.name}
        rows[code, unit] |= vars(channel) | {"factor": factor, "offset": offset}
        rows[code, unit] |= {"label": cells["label"], "source": cells["source"]}
    if not rows:
        raise SchemaError(f"{file}: no rows; expected at least one concept")
    frame = pd.DataFrame(list(rows.values())).drop(columns="name")
    ids = {name: position for position, name in enumerate(channels)}
    frame.insert(3, "channel_id", frame.channel.map(ids))
    return Concepts(tuple(channels.values()), frame)


def _lines(file: Path | Traversable) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line and its cells by column, without surrounding blanks."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in (*_TEXTS, *_NUMBERS):
            if header.count(name) != 1:
                hint = "; are its columns separated by commas?" if len(header) == 1 else ""
                raise SchemaError(
                    f"{file}: line 1: column {name} stands {header.count(name)} times; expected once{hint}"
                )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise SchemaError(f"{file}: line {reader.line_num}: {len(cells)} cells; the header has {len(header)}")
            yield reader.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise SchemaError(
            f"{file}: line {reader.line_num}: is no row of a CSV ({error}); is a quote missing?"
        ) from None


def _text(file: Path | Traversable) -> str:
    """Read a file's text, which must be UTF-8 without NUL characters."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SchemaError(f"{file}: cannot be read as a table of concepts: {error}") from None
    try:
        text = data.decode("utf-8-sig")  # spreadsheets put a byte order mark first
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SchemaError(f"{file}: line {line}: is not UTF-8 text; save the table as CSV in UTF-8") from None
    before, nul, _ = text.partition("\0")
    if nul:
        raise SchemaError(f"{file}: line {before.count(chr(10)) + 1}: holds a NUL byte; save the table as CSV again")
    if not text.strip():
        raise SchemaError(f"{file}: is empty; expected a table with the columns of the shipped one")
    return text


def _parse(where: str, cells: dict[str, str]) -> tuple[Channel, float, float]:
    """Read one row as its channel, factor and offset; other rows are not considered."""
    for name in ("code", "channel", "label", "source"):
        if not cells[name]:
            raise SchemaError(f"{where}: column {name}: is empty")
    for name, allowed in (("kind", _KINDS), ("category", _CATEGORIES)):
        if cells[name] not in allowed:
            raise SchemaError(f"{where}: column {name}: {cells[name]!r} is none of {', '.join(allowed)}")
    name, kind, category, unit = (cells[column] for column in ("channel", "kind", "category", "unit"))
    if kind == "event":
        for column in ("unit", *_NUMBERS):
            if cells[column]:
                raise SchemaError(f"{where}: column {column}: {cells[column]!r}, but an event has none")
        return Channel(name, kind, category, unit, math.nan, math.nan), 1.0, 0.0
    if "*" in cells["code"]:
        raise SchemaError(f"{where}: column code: {cells['code']!r} has a *, which only an event may have")
    factor, offset, low, high = (_number(where, column, cells[column]) for column in _NUMBERS)
    if factor <= 0:
        raise SchemaError(f"{where}: column factor: {cells['factor']!r} is not above 0")
    if low >= high:
        raise SchemaError(f"{where}: column high: {cells['high']!r} is not above low, {cells['low']!r}")
    return Channel(name, kind, category, unit, low, high), factor, offset


def _number(where: str, column: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SchemaError(f"{where}: column {column}: {cell!r} is not a finite number")
    return number


def _check_same(where: str, first: Channel, other: Channel) -> None:
    """Refuse a row that describes its channel differently from the channel's first row."""
    for column, value in vars(other).items():
        expected = getattr(first, column)
        if value != expected and not (value != value and expected != expected):  # NaN equals NaN here
            raise SchemaError(f"{where}: column {column}: {value!r}, but channel {first.name} has {expected!r}")
