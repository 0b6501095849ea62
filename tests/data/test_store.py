import numpy as np
import pandas as pd
import pytest

from ehrdl.clinical import concepts
from ehrdl.clinical.concepts import Concepts
from ehrdl.data.series.store import build as build_store
from ehrdl.data.series.store import open_store
from ehrdl.engine.options import Prepare
from ehrdl.errors import SchemaError
from ehrdl.schema import HOUR

CREATININE, SODIUM = "LAB//50912//mg/dL", "LAB//50983//mEq/L"


@pytest.fixture(scope="module")
def known():
    return concepts.load()


@pytest.fixture
def stored(build, known, tmp_path):
    """Makes the store of some (subject, time, code, number, text, available) rows."""

    def make(rows, n_shards=1, workers=1):
        events = build.events(tmp_path / "events", rows, n_shards)
        out = tmp_path / "store"
        out.mkdir()
        build_store(events, known, out, Prepare(workers=workers))
        assert not any(path.is_dir() for path in out.iterdir())
        return open_store(out, known)

    return make


def rows_of(store):
    subject = np.repeat(store.subjects, np.diff(store.offsets)).tolist()
    hours = [(array / HOUR).tolist() for array in (store.available, store.time)]
    names = [store.channels[i].name for i in store.channel]
    return list(zip(subject, *hours, names, store.value.tolist(), strict=True))


def test_arrays_have_the_declared_types_and_the_declared_order(stored):
    store = stored(
        [
            (2, 1, CREATININE, 1.5, None, 9),
            (2, 2, CREATININE, 1.25, None, 3),
            (2, 1, SODIUM, 140, None, 3),
            (2, 1, CREATININE, 1.0, None, 3),
            (1, 5, SODIUM, 138, None, 5),
        ]
    )
    kinds = [store.available.dtype, store.time.dtype, store.channel.dtype, store.value.dtype, store.offsets.dtype]
    assert kinds == [np.int64, np.int64, np.uint16, np.float32, np.int64]
    assert rows_of(store) == [
        (1, 5, 5, "sodium", 138),
        (2, 3, 1, "sodium", 140),
        (2, 3, 1, "creatinine", 1.0),
        (2, 3, 2, "creatinine", 1.25),
        (2, 9, 1, "creatinine", 1.5),
    ]
    assert store.channel_id("sodium") == 0
    assert isinstance(store.value, np.memmap)


def test_units_are_brought_to_the_canonical_one(stored):
    store = stored([(1, 0, "LAB//50912//umol/L", 100, None, 0), (1, 1, "LAB//50912//", 2, None, 1)])
    assert store.value.tolist() == [np.float32(1.1312), 2]  # creatinine: 113.12 g/mol


def test_a_fact_without_a_number_is_an_event_of_value_1(stored):
    store = stored([(1, 0, "ADMISSION//EMERGENCY ROOM", None, None, 0), (1, 0, CREATININE, None, "___", 0)])
    assert rows_of(store) == [(1, 0, 0, "admission", 1.0)]


def test_implausible_values_and_unknown_units_are_left_out_and_counted(stored):
    store = stored(
        [
            (1, 0, CREATININE, 66.0, None, 0),
            (1, 0, CREATININE, 67.0, None, 0),
            (1, 0, CREATININE, float("nan"), None, 0),
            (1, 0, "LAB//50912//stone", 1.0, None, 0),
            (1, 0, "LAB//99999//mg/dL", 1.0, None, 0),
        ]
    )
    assert store.value.tolist() == [66.0]
    assert store.counts["creatinine"] == {"kept": 1, "implausible": 1, "unknown_unit": 0, "patients": 1}
    assert store.counts["LAB//50912//stone"] == {"kept": 0, "implausible": 0, "unknown_unit": 1, "patients": 1}
    assert set(store.counts) == {"creatinine", "LAB//50912//stone"}


def test_a_unit_that_few_patients_have_is_counted_and_not_named(stored):
    facts = [(who, 0, f"LAB//50912//{unit}", 1.0, None, 0) for who, unit in [(1, "stone"), (1, "smith"), (2, "stone")]]
    store = stored(facts)
    assert store.unknown_units(1) == {"LAB//50912//smith": 1, "LAB//50912//stone": 2}
    assert store.unknown_units(2) == {"LAB//50912": 1, "LAB//50912//stone": 2}
    assert store.unknown_units(3) == {"LAB//50912": 3}


def test_the_ends_of_every_plausible_range_are_plausible(stored, known):
    first = known.frame[known.frame.kind == "numeric"].drop_duplicates("channel")
    rows = []
    for row in first.itertuples():
        unit = known.frame.source_unit[row.Index]
        for end in (row.low, row.high):
            rows.append((1, 0, f"{row.base_code}//{unit}", (end - row.offset) / row.factor, None, 0))
    exact = first[(first.factor == 1) & (first.offset == 0)].channel
    store = stored(rows)
    assert {name: store.counts[name]["kept"] for name in exact} == dict.fromkeys(exact, 2)


def test_static_rows_and_deaths_and_codes_without_a_concept_are_no_series(stored):
    store = stored([(1, None, "GENDER//F", None, None, None), (1, 0, "MEDS_DEATH", None, None, 0),
                    (1, 0, "DIAGNOSIS//ICD10//I50", None, None, 0)])  # fmt: skip
    assert len(store.value) == 0
    assert store.offsets.tolist() == [0]


@pytest.mark.parametrize(("n_shards", "workers"), [(3, 1), (3, 2)])
def test_shards_and_processes_change_nothing(build, known, tmp_path, n_shards, workers):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        time = int(rng.integers(0, 50))
        code, value = [(CREATININE, rng.uniform(0.5, 4)), (SODIUM, rng.uniform(120, 150))][rng.integers(2)]
        rows.append((int(rng.integers(1, 12)), time, code, value, None, time + int(rng.integers(0, 6))))
    stores = []
    for name, shards, processes in (("one", 1, 1), ("many", n_shards, workers)):
        events = build.events(tmp_path / name, rows, shards)
        (tmp_path / f"{name}-store").mkdir()
        build_store(events, known, tmp_path / f"{name}-store", Prepare(workers=processes))
        stores.append(open_store(tmp_path / f"{name}-store", known))
    assert rows_of(stores[0]) == rows_of(stores[1])
    assert stores[0].counts == stores[1].counts
    position = {CREATININE: stores[0].channel_id("creatinine"), SODIUM: stores[0].channel_id("sodium")}
    wanted = sorted((s, a, t, position[c], float(np.float32(v))) for s, t, c, v, _, a in rows)
    assert rows_of(stores[0]) == [(s, a, t, known.channels[c].name, v) for s, a, t, c, v in wanted]


def test_a_concept_that_is_never_an_input_is_refused(build, known, tmp_path):
    event = known.frame[known.frame.base_code == "ADMISSION"].assign(base_code="MEDS_DEATH")
    events = build.events(tmp_path / "events", [(1, 0, SODIUM, 140, None, 0)])
    (tmp_path / "store").mkdir()
    with pytest.raises(SchemaError, match="MEDS_DEATH can never be an input"):
        build_store(events, Concepts(known.channels, pd.concat([known.frame, event])), tmp_path / "store", Prepare())
