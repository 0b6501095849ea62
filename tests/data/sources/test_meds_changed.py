"""A MEDS dataset that others wrote in their own way: each change of a sound one is read rightly, reported or refused.

A change is read when EVENTS stay the same, reported when a line on the screen names it, and refused by one line.
"""

import decimal
import os
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import read_events
from ehrdl.engine.options import Prepare
from ehrdl.errors import EhrdlError
from ehrdl.sources.meds.source import Meds

SAME = ""
SHARDS = ("train/0", "train/1", "held_out/0")
Change = Callable[[Path], object]


def dataset(root: Path) -> None:
    """Six women in three shards: two stays each, labs and a note, with every column."""
    for number, name in enumerate(SHARDS):
        rows = []
        for subject in (2 * number + 1, 2 * number + 2):
            rows += [(subject, None, "GENDER//F", None, None, None)]
            for stay in range(2):
                day, hadm = datetime(2150, 1, 1 + 9 * stay), 10 * subject + stay
                rows += [(subject, day, "ADMISSION//HOME", None, None, hadm)]
                rows += [(subject, day + timedelta(hours=h), "LAB//1//g", 1.5 + h, None, hadm) for h in (1, 5)]
                rows += [(subject, day + timedelta(hours=9), "NOTE//a", None, f"Été {subject}", hadm)]
                rows += [(subject, day + timedelta(days=2), "DISCHARGE//HOME", None, None, hadm)]
        columns = zip(*rows, strict=True)
        kinds = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32(), pa.large_string(), pa.int64())
        names = ("subject_id", "time", "code", "numeric_value", "text_value", "encounter_id")
        table = pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)})
        late = [None if time is None else time + timedelta(minutes=5) for time in table["time"].to_pylist()]
        put(root, name, table.append_column("available_time", pa.array(late, pa.timestamp("us"))))
    metadata(
        root, "subject_splits", {"subject_id": range(1, 7), "split": ["train"] * 3 + ["tuning", "held_out", "train"]}
    )
    metadata(root, "codes", {"code": ["LAB//1//g", "NOTE//a"], "description": ["Sodium", None]})
    (root / "metadata" / "dataset.json").write_text('{"dataset_name": "small"}')


def put(root: Path, name: str, table: pa.Table) -> None:
    path = root / "data" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def metadata(root: Path, name: str, columns: dict) -> None:
    (root / "metadata").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({key: pa.array(list(value)) for key, value in columns.items()}), root / f"metadata/{name}.parquet"
    )


def shard(root: Path, number: int = 0) -> Path:
    return root / "data" / f"{SHARDS[number]}.parquet"


def cast(name: str, kind: pa.DataType, *numbers: int) -> Change:
    """The column in another type, in some shards or all."""

    def change(root: Path) -> None:
        for number in numbers or range(3):
            table = pq.read_table(shard(root, number))
            place = table.column_names.index(name)
            values = table[name].combine_chunks()
            if isinstance(kind, pa.BaseExtensionType):
                new = pa.ExtensionArray.from_storage(kind, values.cast(kind.storage_type))
            elif pa.types.is_decimal(kind):
                new = pa.array([None if v is None else decimal.Decimal(str(v)) for v in values.to_pylist()], kind)
            else:
                new = values.cast(kind)
            pq.write_table(table.set_column(place, name, new), shard(root, number))

    return change


def edit(function: Callable[[pa.Table], pa.Table], *numbers: int) -> Change:
    """Another table in some shards or all."""

    def change(root: Path) -> None:
        for number in numbers or range(3):
            pq.write_table(function(pq.read_table(shard(root, number))), shard(root, number))

    return change


def drop(name: str, *numbers: int) -> Change:
    return edit(lambda table: table.drop_columns([name]), *numbers)


def rename(name: str, new: str, *numbers: int) -> Change:
    return edit(lambda t: t.rename_columns([new if n == name else n for n in t.column_names]), *numbers)


def move(to: str, number: int = 0) -> Change:
    """The shard under another name below data/."""

    def change(root: Path) -> None:
        target = root / "data" / to
        target.parent.mkdir(parents=True, exist_ok=True)
        shard(root, number).rename(target)

    return change


def beside(name: str, content: bytes = b"x") -> Change:
    """One more file below data/."""

    def change(root: Path) -> None:
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return change


def link(name: str, to: str) -> Change:
    return lambda root: (root / "data" / name).symlink_to(to)


def linked_folder(root: Path) -> None:
    shutil.move(root / "data" / "train", root.parent / f"{root.name}-elsewhere")
    (root / "data" / "train").symlink_to(root.parent / f"{root.name}-elsewhere")


def as_spark(root: Path) -> None:
    part = root / "data" / "all.parquet"
    part.mkdir()
    for number in range(3):
        shutil.move(shard(root, number), part / f"part-0000{number}-ab.snappy.parquet")
        (part / f".part-0000{number}-ab.snappy.parquet.crc").write_bytes(b"crc")
    (part / "_SUCCESS").touch()


def other_order(table: pa.Table) -> pa.Table:
    return table.select(sorted(table.column_names))


def upper_case(table: pa.Table) -> pa.Table:
    return table.rename_columns([name.upper() for name in table.column_names])


def doubled(table: pa.Table) -> pa.Table:
    return pa.Table.from_arrays([*table.columns, table["code"]], names=[*table.column_names, "code"])


def spoiled(table: pa.Table) -> pa.Table:
    """Texts of another encoding, under the name of UTF-8."""
    raw = pa.array(
        [None if t is None else t.encode("latin-1") for t in table["text_value"].to_pylist()], pa.large_binary()
    )
    text = pa.LargeStringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    return table.set_column(table.column_names.index("text_value"), "text_value", text)


def no_stay(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("encounter_id"), "encounter_id", pa.nulls(len(table), pa.int64()))


def empty(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def extra_empty(root: Path) -> None:
    """A shard without a row, as pandas writes one: columns without a type, and not all of them."""
    put(root, "tuning/0", pa.table({"subject_id": pa.nulls(0), "code": pa.array([], pa.float64())}))


def splits_named(root: Path) -> None:
    metadata(
        root, "subject_splits", {"subject_id": range(1, 7), "split": ["train"] * 3 + ["validation", "test", "test"]}
    )


def bom(root: Path) -> None:
    (root / "metadata" / "dataset.json").write_text('{"dataset_name": "small"}', encoding="utf-8-sig")


TEXTS = {
    "string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view(),
    "binary": pa.binary(), "large_binary": pa.large_binary(), "binary_view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large dictionary": pa.dictionary(pa.int8(), pa.large_string()),
}  # fmt: skip
READ: dict[str, Change] = {
    **{f"text as {name}": cast("text_value", kind) for name, kind in TEXTS.items()},
    **{f"code as {name}": cast("code", kind, 1) for name, kind in TEXTS.items()},
    "numbers as doubles": cast("numeric_value", pa.float64(), 0),
    "numbers as decimals": cast("numeric_value", pa.decimal128(10, 2)),
    "numbers as wide decimals": cast("numeric_value", pa.decimal256(50, 2), 1),
    "numbers as halves": cast("numeric_value", pa.float16()),
    "ids as decimals": cast("subject_id", pa.decimal128(38, 0)),
    "ids as narrow numbers": cast("subject_id", pa.uint8(), 2),
    "stays as decimals": cast("encounter_id", pa.decimal128(20, 0)),
    "stays as floats": cast("encounter_id", pa.float64(), 1),
    "stays as text": cast("encounter_id", pa.string(), 1),
    "stays as string_view": cast("encounter_id", pa.string_view(), 1),
    "times to the nanosecond": cast("time", pa.timestamp("ns"), 0),
    "times to the millisecond": cast("time", pa.timestamp("ms")),
    "times to the second": cast("time", pa.timestamp("s"), 2),
    "columns in another order": edit(other_order, 1),
    "a column more": edit(lambda t: t.append_column("Value", t["numeric_value"]), 1),
    "upper-case name": move("train/0.PARQUET"),
    "mixed-case name": move("train/0.Parquet"),
    ".pq": move("0.pq"),
    "deep": move("a/b=1/c d/0.parquet"),
    "odd name": move("[0]*?'.parquet"),
    "name with an underscore": move("train/_0.parquet"),
    "linked folder": linked_folder,
    "folder of parts": as_spark,
    "AppleDouble": beside("train/._0.parquet"),
    "_SUCCESS": beside("_SUCCESS", b""),
    "checksum": beside("train/.0.parquet.crc"),
    "unfinished": beside("_temporary/0/0.parquet"),
    "cycle": link("train/again", ".."),
    "linked file twice": link("twice.parquet", "train/0.parquet"),
    "linked folder twice": link("twice", "train"),
    "byte order mark": bom,
    "no metadata": lambda root: shutil.rmtree(root / "metadata"),
    "a shard without a row": extra_empty,
    "splits as views": lambda root: pq.write_table(
        (t := pq.read_table(root / "metadata/subject_splits.parquet")).set_column(
            1, "split", t["split"].cast(pa.string_view())
        ),
        root / "metadata/subject_splits.parquet",
    ),
}
#: Changes of rows, and those of the above of which a line must speak.
REPORTED: dict[str, tuple[Change, str]] = {
    "AppleDouble": (READ["AppleDouble"], "1 is hidden (train/._0.parquet)"),
    "linked file twice": (READ["linked file twice"], "1 is a link to what is read already (twice.parquet)"),
    "a shard without a row": (READ["a shard without a row"], "1 files have no row (tuning/0.parquet)"),
    "csv beside": (beside("train/2.csv"), "left unread: 1 is no parquet by its name (train/2.csv)"),
    "gzip": (move("train/0.parquet.gz"), "is no parquet by its name (train/0.parquet.gz)"),
    "zstd": (move("train/0.parquet.zst", 1), "is no parquet by its name (train/0.parquet.zst)"),
    "copy": (move("train/0.parquet.bak"), "is no parquet by its name (train/0.parquet.bak)"),
    "numbers missing in one": (
        drop("numeric_value", 1),
        "column numeric_value is missing in 1 of 3 files, such as 1.parquet",
    ),
    "texts missing in one": (drop("text_value", 1), "column text_value is missing in 1 of 3 files, such as 1.parquet"),
    "availability missing in one": (drop("available_time", 2), "column available_time is missing in 1 of 3 files"),
    "numbers missing": (drop("numeric_value"), "no row has a number: column numeric_value is missing or empty"),
    "texts elsewhere": (
        rename("text_value", "text"),
        "column text_value is missing in 3 of 3 files, such as 0.parquet: it is null",
    ),
    "stays empty in one": (edit(no_stay, 1), "4 of 12 admissions name no stay"),
    "splits of other names": (splits_named, "'test' (2), 'validation' (1)"),
    "old splits": (
        lambda root: (root / "metadata/subject_splits.parquet").rename(root / "metadata/patient_splits.parquet"),
        "patient_splits.parquet: is not read",
    ),
}
REFUSED: dict[str, tuple[Change, str]] = {
    "stays missing in one": (drop("encounter_id", 1), "1.parquet: column encounter_id is missing, which names"),
    "stays misnamed": (rename("encounter_id", "Encounter_ID", 2), "column 'Encounter_ID' is not read: MEDS"),
    "upper case": (edit(upper_case, 0), "'SUBJECT_ID' is not read"),
    "value": (rename("numeric_value", "value"), "column numeric_value is missing, so no number would be read"),
    "value in one": (rename("numeric_value", "value", 1), "1.parquet: column numeric_value is missing, so no number"),
    "numerical_value": (rename("numeric_value", "numerical_value"), "MEDS 0.4 names numerical_value so"),
    "patient_id": (rename("subject_id", "patient_id"), "column subject_id is missing"),
    "timestamp": (rename("time", "timestamp", 0), "MEDS 0.4 names timestamp so: rename it"),
    "column twice": (edit(doubled, 0), "column code stands 2 times"),
    "dates": (cast("time", pa.date32(), 0), "column time is date32[day]"),
    "zone": (cast("time", pa.timestamp("us", "UTC")), "column time has the time zone UTC"),
    "numbers as text": (cast("numeric_value", pa.string()), "column numeric_value is string; it must hold numbers"),
    "ids as text": (cast("subject_id", pa.string(), 1), "column subject_id is string; it must hold whole numbers"),
    "stays as times": (cast("encounter_id", pa.timestamp("us"), 1), "column encounter_id holds no whole numbers"),
    "texts of another encoding": (edit(spoiled, 0), "column text_value, after row 0: "),
    "ids beyond 64 bits": (
        edit(lambda t: t.set_column(0, "subject_id", pa.array(np.full(len(t), 2**63), pa.uint64())), 0),
        "column subject_id, after row 0: ",
    ),
    "broken link": (link("train/9.parquet", "nowhere.parquet"), "9.parquet: is a link to nowhere.parquet"),
    "zero bytes": (beside("train/9.parquet", b""), "9.parquet: cannot be read as parquet"),
    "csv by the name of parquet": (beside("train/9.parquet", b"subject_id,time\n1,\n"), "cannot be read as parquet"),
    "a copy of a shard": (lambda root: shutil.copy(shard(root), root / "data/copy.parquet"), "subject 1 stands in"),
    "all without a row": (edit(empty), "none of its 3 files under data/ has a row"),
    "no shard": (lambda root: shutil.rmtree(root / "data"), "no data/**/*.parquet; this is not a MEDS dataset"),
    "csv alone": (
        lambda root: (shutil.rmtree(root / "data"), beside("train/0.csv")(root)),
        "this is not a MEDS dataset; data/train/0.csv cannot be read, write it as parquet",
    ),
    "Delta Lake": (beside("_delta_log/0.json"), "is a Delta Lake table, whose files hold removed rows too"),
    "name of other bytes": (lambda root: move(os.fsdecode(b"\xe9.parquet"))(root), r"'\udce9.parquet' is no UTF-8"),
    "codes as numbers": (lambda root: metadata(root, "codes", {"code": [1], "description": ["a"]}), "must be texts"),
    "descriptions as lists": (
        lambda root: metadata(root, "codes", {"code": ["a"], "description": [["a"]]}), "must be texts",
    ),
    "splits without a name": (lambda root: metadata(root, "subject_splits", {"patient_id": [1], "split": ["train"]}),
                              "column subject_id is missing"),
    "no JSON": (lambda root: (root / "metadata/dataset.json").write_text("{"), "dataset.json: is no JSON object"),
}  # fmt: skip


def events(root: Path) -> list:
    """All rows of the EVENTS that the dataset becomes, in order."""
    prepare = Prepare(cache=str(root.parent / f"{root.name}-cache"), n_shards=1, workers=1)
    folder = read_events(DataConfig(Meds(str(root)), prepare=prepare))
    return pq.read_table(folder / "data" / "0.parquet").to_pylist()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "meds"
    dataset(root)
    return events(root)


@pytest.fixture
def meds(tmp_path):
    dataset(tmp_path / "meds")
    return tmp_path / "meds"


@pytest.mark.parametrize("name", READ)
def test_what_others_write_in_their_own_way_is_read(meds, sound, name):
    READ[name](meds)
    assert events(meds) == sound


@pytest.mark.parametrize("name", REPORTED)
def test_what_is_not_read_is_reported(meds, capsys, name):
    change, says = REPORTED[name]
    change(meds)
    events(meds)
    assert [line for line in capsys.readouterr().err.splitlines() if says in line]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(meds, name):
    change, says = REFUSED[name]
    change(meds)
    with pytest.raises(EhrdlError) as caught:
        events(meds)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_json_is_the_text_that_stands_in_the_file(meds):
    text = '{"b":  "Été", "a": [1.0,2]}'
    table = pq.read_table(shard(meds))
    values = pa.ExtensionArray.from_storage(pa.json_(), pa.array([text] * len(table)))
    pq.write_table(table.set_column(table.column_names.index("text_value"), "text_value", values), shard(meds))
    assert {row["text_value"] for row in events(meds) if row["subject_id"] == 1} == {text}


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_the_right_to_read_it_is_refused(meds):
    shard(meds).chmod(0)
    with pytest.raises(EhrdlError, match=r"0\.parquet: cannot be read"):
        events(meds)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_several_changes_at_once_neither_crash_nor_lose_a_row_without_a_word(meds, sound, capsys, seed):
    """Changes that are read leave every row; no other one drowns what is reported or refused."""
    rng = random.Random(seed)
    named = {**{name: (change, SAME) for name, change in READ.items()}, **REPORTED, **REFUSED}
    for name in rng.sample(sorted(named), 3):
        try:
            named[name][0](meds)
        except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException):
            continue  # does not go with the change before it
    try:
        rows = events(meds)
    except EhrdlError as error:
        assert "\n" not in str(error)
        return
    lines = capsys.readouterr().err
    assert rows == sound or any(says in lines for _, says in REPORTED.values())
