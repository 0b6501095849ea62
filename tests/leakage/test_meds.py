"""A MEDS dataset without available_time: no fact is seen before its delay is over, and nothing later changes anything.

Facts are (hour, code, value) of one subject; what a sample sees goes the whole way through files.
"""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ehrdl.clinical import concepts
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import static_features, subject_facts
from ehrdl.data.notes.build import collect
from ehrdl.data.notes.store import open_notes
from ehrdl.data.series.store import build as build_store
from ehrdl.data.series.store import open_store
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.schema import HOUR
from ehrdl.sources.meds.source import Meds

KNOWN = concepts.load()
SHOWN = [channel for channel in KNOWN.channels if channel.name in ("creatinine", "heart_rate", "ph", "icu_in")]
WINDOW = Window(series_hours=1000, note_hours=1000)
#: Hours from time to availability, by the shipped patterns and one of the user's own.
DELAYS = {"LAB//50912//mg/dL": 4, "CHART//220045//bpm": 1, "LAB//50820//units": 0.5, "NOTE//Letter": 24, "ICU//MICU": 0}
OPTIONS = {
    "delays": {"LAB//50820//.*": 0.5},
    "notes": ["Letter"],
    "rename": {"ICU//(.*)": [r"ICU_IN//\1", r"TRANSFER_IN//\1"], "OFFICE": "NOTE//Letter"},
}
WRITTEN = {"NOTE//Letter": "OFFICE"}
FIELDS = ("value", "hours", "channel", "static", "note_hours")


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """What samples at some hours see of a dataset, one after the other."""
    root = tmp_path_factory.mktemp("meds")

    def look(facts, hours):
        shutil.rmtree(root)
        write(root / "meds", sorted([(0, "MEDS_BIRTH", 0), *facts], key=lambda fact: fact[0]))
        return sight(root, hours)

    return look


def write(root, facts):
    (root / "data").mkdir(parents=True)
    columns = {
        "subject_id": pa.array([1] * len(facts), pa.int64()),
        "time": pa.array([round(hour * HOUR) for hour, _, _ in facts], pa.timestamp("us")),
        "code": [WRITTEN.get(code, code) for _, code, _ in facts],
        "numeric_value": pa.array([value for *_, value in facts], pa.float32()),
        "text_value": pa.array([f"letter {value}" for *_, value in facts], pa.large_string()),
    }
    pq.write_table(pa.table(columns), root / "data" / "0.parquet")


def sight(root, hours):
    prepare = Prepare(cache=str(root / "cache"), n_shards=1, workers=1)
    events, store, notes = (root / name for name in ("events", "store", "notes"))
    for folder in (events, store, notes):
        folder.mkdir()
    Meds(str(root / "meds"), **OPTIONS).read(events, prepare)
    build_store(events, KNOWN, store, prepare)
    collect(events, notes, prepare)
    times = pd.Series([round(hour * HOUR) for hour in hours]).astype("datetime64[us]")
    samples = pd.DataFrame({"subject_id": 1, "prediction_time": times, "label_outcome": np.float32(0)})
    series, bodies = open_store(store, KNOWN), open_notes(notes)
    static = static_features(samples, subject_facts(events), series)
    dataset = SampleDataset(samples, static, series, bodies, WINDOW, SHOWN)
    items = [dataset[row] for row in range(len(hours))]
    seen = [{name: getattr(item, name).tolist() for name in FIELDS} for item in items]
    return [part | {"texts": bodies.texts(dataset.note_rows(row))} for row, part in enumerate(seen)]


def test_a_fact_is_seen_from_the_moment_its_delay_is_over_and_not_before(look):
    facts = [(100 * number, code, 7) for number, code in enumerate(DELAYS, start=1)]
    over = [hour + DELAYS[code] for hour, code, _ in facts]
    seen = look(facts, sorted([*over, *(hour - 1 / HOUR for hour in over)]))
    assert [len(part["value"]) + len(part["texts"]) for part in seen] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_facts_moved_across_t_appear_and_disappear(look):
    moved = ("LAB//50912//mg/dL", "NOTE//Letter")
    rest = [(3, "CHART//220045//bpm", 8)]

    def at(late):
        [seen] = look([*rest, *((30 - DELAYS[code] + late, code, 7) for code in moved)], [30])
        return seen

    [without] = look(rest, [30])
    assert at(1 / HOUR) == without
    assert len(at(0)["value"]) == 2 and at(0)["texts"] == ["letter 7"]


FACT = st.tuples(st.integers(1, 40), st.sampled_from(list(DELAYS)), st.integers(7, 9))


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(facts=st.lists(FACT, min_size=1, max_size=12), others=st.lists(FACT, max_size=12), at=st.integers(0, 50))
def test_whatever_is_not_available_yet_changes_nothing(look, facts, others, at):
    def available(fact):
        return fact[0] + DELAYS[fact[1]] <= at

    swapped = [fact for fact in facts if available(fact)] + [fact for fact in others if not available(fact)]
    assert look(swapped, [at]) == look(facts, [at])
