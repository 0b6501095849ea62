"""The rule above all rules: a fact is visible to a prediction at time t if and only if available_time <= t.

Hospitals are drawn at random; what a sample may not see is changed, added and deleted, and everything at t stays bit
for bit the same. Facts are (subject, time, available, channel, value) and notes (subject, time, available, text); times
are hours.
"""

import shutil
from dataclasses import fields, replace

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ehrdl.batch import Batch
from ehrdl.clinical import concepts
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import static_features, subject_facts
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.loading.collate import Collate
from ehrdl.data.notes.build import collect, tokenize
from ehrdl.data.notes.store import open_notes
from ehrdl.data.notes.vocabulary import fit_tokenizer, load_tokenizer
from ehrdl.data.prepare import prepare
from ehrdl.data.series.store import build as build_store
from ehrdl.data.series.store import open_store
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.schema import HELD_OUT, HOUR, TRAIN, TUNING

SODIUM, DRUG, MICROSECOND = 2, 4, 1 / HOUR
WINDOW = Window(series_hours=24, note_hours=30, max_observations=6, max_notes=3)
FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=8)
EXAMPLES = settings(max_examples=200, deadline=None, derandomize=True)

PEOPLE, HOURS, DELAYS = st.integers(1, 3), st.integers(0, 40), st.integers(0, 20)
FACT = st.tuples(PEOPLE, HOURS, DELAYS, st.integers(0, 4), st.integers(1, 99)).map(
    lambda f: (*f[:2], f[1] + f[2], *f[3:])
)
NOTE = st.tuples(PEOPLE, HOURS, DELAYS, st.text("abc", max_size=14)).map(lambda n: (*n[:2], n[1] + n[2], n[3]))
FACTS, NOTES = st.lists(FACT, max_size=25), st.lists(NOTE, max_size=6)
AT = st.lists(st.tuples(PEOPLE, HOURS), min_size=1, max_size=3).map(sorted)


def visible(row, at):
    return row[0] == at[0] and row[2] <= at[1]


def sight(dataset, frame, row):
    """All that anything downstream gets of one sample, as plain values that compare bit for bit."""
    own = slice(int(dataset.start[row]), int(dataset.stop[row]))
    item = dataset[row]
    batch = Collate(dataset.notes, frame)(dataset.__getitems__([row]))
    return {
        "slice": [getattr(dataset.store, name)[own].tobytes() for name in ("available", "time", "channel", "value")],
        "texts": [] if dataset.notes is None else dataset.notes.texts(dataset.note_rows(row)),
        "item": [getattr(item, field).tobytes() for field in ("value", "hours", "channel", "static", "note_hours")],
        "batch": {field.name: getattr(batch, field.name).numpy().tobytes() for field in fields(Batch)},
        "table": tabulate(dataset, np.array([row]), rich=True)
        .iloc[0]
        .map(lambda v: v if isinstance(v, str) else v.tobytes())
        .tolist(),
    }


@pytest.fixture(scope="session")
def look(build):
    """What the sample `row` sees of a hospital built in memory."""
    shown = [channel for i, channel in enumerate(build.channels) if i not in (0, 1, DRUG)]
    nobody = pd.DataFrame({"birth": [], "birth_available": [], "sex": []})

    def look(facts, bodies, at, row):
        samples, store, notes = build.samples(at), build.store(facts), build.notes(bodies)
        static = static_features(samples, nobody, store)
        return sight(SampleDataset(samples, static, store, notes, WINDOW, shown), FRAME, row)

    return look


@EXAMPLES
@given(facts=FACTS, bodies=NOTES, other_facts=FACTS, other_bodies=NOTES, at=AT, data=st.data())
def test_whatever_is_not_visible_changes_nothing(look, facts, bodies, other_facts, other_bodies, at, data):
    """All invisible facts and notes, later ones and other subjects', are deleted and others put in their place."""
    row = data.draw(st.integers(0, len(at) - 1))
    before = look(facts, bodies, at, row)
    swapped = [
        [r for r in ours if visible(r, at[row])] + [r for r in theirs if not visible(r, at[row])]
        for ours, theirs in ((facts, other_facts), (bodies, other_bodies))
    ]
    assert look(*swapped, at, row) == before


@EXAMPLES
@given(facts=FACTS, bodies=NOTES, at=AT, data=st.data())
def test_a_fact_and_a_note_moved_across_t_appear_and_disappear(look, facts, bodies, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    subject, t = at[row]

    def moved(moment):
        return look([*facts, (subject, t, moment, SODIUM, 50)], [*bodies, (subject, t, moment, "moved")], at, row)

    without, on_time, late = look(facts, bodies, at, row), moved(t), moved(t + MICROSECOND)
    assert late == without
    assert "moved" in on_time["texts"]
    assert all(on_time[part] != without[part] for part in ("slice", "item", "batch", "table"))


@EXAMPLES
@given(facts=FACTS, other_facts=FACTS, bodies=NOTES, at=AT, data=st.data())
def test_hidden_channels_change_nothing(look, facts, other_facts, bodies, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    swapped = [r for r in facts if r[3] != DRUG] + [r for r in other_facts if r[3] == DRUG]
    before, after = look(facts, bodies, at, row), look(swapped, bodies, at, row)
    assert all(after[part] == before[part] for part in ("texts", "item", "batch", "table"))


@settings(EXAMPLES, max_examples=50)
@given(facts=FACTS, bodies=NOTES, at=AT, data=st.data())
def test_which_sample_stands_beside_it_changes_nothing(look, facts, bodies, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    alone, together = look(facts, bodies, [at[row]], 0), look(facts, bodies, at, row)
    for sample in (alone, together):
        del sample["batch"]["row"], sample["batch"]["label"]
    assert alone == together


CODES = {
    0: "ADMISSION//EMERGENCY",
    1: "DISCHARGE//HOME",
    2: "LAB//50983//mEq/L",
    3: "LAB//50912//mg/dL",
    4: "LAB//50971//mEq/L",
}
BIRTH = st.tuples(PEOPLE, HOURS, DELAYS).map(lambda f: (*f[:2], f[1] + f[2], "MEDS_BIRTH", None))


def written(facts, bodies, births):
    rows = [(s, t, CODES[c], v / 10 if c == 3 else 50 + v, None, a) for s, t, a, c, v in facts if c > 1]
    rows += [(s, t, CODES[c], None, None, a) for s, t, a, c, _ in facts if c < 2]
    rows += [(s, t, "NOTE//discharge//DS", None, text, a) for s, t, a, text in bodies]
    return rows + [(s, t, code, value, None, a) for s, t, a, code, value in births]


@pytest.fixture(scope="session")
def read(build, tmp_path_factory):
    """What a sample sees of a hospital that goes the whole way through files, and back."""
    root, known, prepare = tmp_path_factory.mktemp("real"), concepts.load(), Prepare()
    fit_tokenizer(
        build.notes([(1, 0, 0, "abc cab bca aa bb cc")]), np.array([1]), 100, root / "tokenizer", min_patients=1
    )
    tokenizer = load_tokenizer(str(root / "tokenizer"))
    frame = Chunking(tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, 8)
    shown = [channel for channel in known.channels if channel.category != "encounter"]

    def read(rows, at, row):
        folder = root / "hospital"
        shutil.rmtree(folder, ignore_errors=True)
        events = build.events(folder / "events", rows, n_shards=2)
        for name in ("store", "notes", "tokens"):
            (folder / name).mkdir()
        build_store(events, known, folder / "store", prepare)
        collect(events, folder / "notes", prepare)
        tokenize(open_notes(folder / "notes"), tokenizer, folder / "tokens", prepare)
        store, notes, samples = (
            open_store(folder / "store", known),
            open_notes(folder / "notes", folder / "tokens"),
            build.samples(at),
        )
        static = static_features(samples, subject_facts(events), store)
        return sight(SampleDataset(samples, static, store, notes, WINDOW, shown), frame, row)

    return read


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    here=st.tuples(FACTS, NOTES, st.lists(BIRTH, max_size=3)),
    other=st.tuples(FACTS, NOTES, st.lists(BIRTH, max_size=3)),
    at=AT,
)
def test_whatever_is_not_visible_changes_nothing_on_the_way_through_files(read, here, other, at):
    at_row = at[0]
    swapped = [
        [r for r in ours if visible(r, at_row)] + [r for r in theirs if not visible(r, at_row)]
        for ours, theirs in zip(here, other, strict=True)
    ]
    assert read(written(*swapped), at, 0) == read(written(*here), at, 0)


def altered(hospital, name, select):
    """The EVENTS of the small hospital with every shard replaced by `select` over `shard`."""
    folder = hospital.events.with_name(name)
    shutil.copytree(hospital.events, folder)
    with duckdb.connect() as con:
        for file in (folder / "data").glob("*.parquet"):
            shard = con.from_arrow(pq.read_table(file))  # noqa: F841 - read by the query
            pq.write_table(con.sql(select).to_arrow_table(), file)
    return folder


def test_what_is_fitted_before_training_never_reads_tuning_and_held_out_subjects(hospital):
    samples = hospital.prepared.samples
    ids = ", ".join(map(str, samples.subject_id[samples.split == TRAIN].unique()))
    change = f"""SELECT * REPLACE (
        CASE WHEN subject_id IN ({ids}) THEN numeric_value ELSE numeric_value * 1.2 END AS numeric_value,
        CASE WHEN subject_id IN ({ids}) THEN text_value ELSE reverse(text_value) || ' Zyx' END AS text_value)
        FROM shard"""
    again = prepare(hospital.config, altered(hospital, "events-others", change), hospital.result)
    ours, theirs = hospital.prepared.dataset, again.dataset
    assert not np.array_equal(ours.store.value, theirs.store.value)
    assert ours.notes.texts(range(len(ours.notes))) != theirs.notes.texts(range(len(theirs.notes)))
    assert again.spec == hospital.prepared.spec
    assert tokenizer_bytes(again) == tokenizer_bytes(hospital.prepared)


def tokenizer_bytes(prepared):
    return load_tokenizer(prepared.tokenizer).backend_tokenizer.to_str()


def test_the_future_of_every_held_out_subject_can_be_deleted(hospital):
    """Each one's record ends at its first prediction, in the whole hospital: the first sample does not change."""
    samples = hospital.prepared.samples
    first = samples[samples.split == HELD_OUT].drop_duplicates("subject_id")
    ends = ", ".join(f"({s}, TIMESTAMP '{t}')" for s, t in zip(first.subject_id, first.prediction_time, strict=True))
    cut = f"""SELECT shard.* FROM shard LEFT JOIN (VALUES {ends}) AS ends(subject, t) ON subject = subject_id
        WHERE t IS NULL OR available_time IS NULL OR available_time <= t"""
    again = prepare(hospital.config, altered(hospital, "events-cut", cut), hospital.result)
    assert len(again.dataset.store.value) < len(hospital.prepared.dataset.store.value)
    for row in first.index:
        ours = sight(hospital.prepared.dataset, hospital.prepared.frame, row)
        assert sight(again.dataset, again.frame, row) == ours
    assert again.samples.loc[first.index].equals(samples.loc[first.index])


def test_codes_that_define_the_outcome_are_never_loaded(hospital):
    result = replace(hospital.result, hidden_codes=("LAB//50912",))
    again = prepare(hospital.config, hospital.events, result)

    def seen(data):
        return {data.spec.channels[c].name for row in range(60) for c in data.dataset[row].channel}

    assert seen(hospital.prepared) - seen(again) == {"creatinine"}
    assert not [name for name in tabulate(again.dataset, np.arange(5)) if name.startswith("creatinine")]


def test_no_subject_stands_in_two_splits(prepared):
    assert (prepared.samples.groupby("subject_id").split.nunique() == 1).all()
    rows = [set(prepared.samples.subject_id.iloc[prepared.rows(split)]) for split in (TRAIN, TUNING, HELD_OUT)]
    assert all(rows) and not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


def test_a_spec_is_made_of_training_samples(prepared):
    train = prepared.samples[prepared.samples.split == TRAIN]
    assert prepared.spec.prevalence == (pytest.approx(train.label_readmission.mean()),)
    static = prepared.dataset.static[train.index].astype(float)
    assert prepared.spec.static_mean == pytest.approx(tuple(static.mean(axis=0)))


def within_three_standard_errors(scores):
    """Whether the mean AUROC over permutations is 0.50; one fit alone may point at the risk, or away from it."""
    return abs(np.mean(scores) - 0.5) <= 3 * np.std(scores, ddof=1) / np.sqrt(len(scores))


def shuffled(label, n):
    return [np.random.default_rng(seed).permutation(label) for seed in range(n)]


@pytest.fixture(scope="module")
def split_tables(prepared):
    """Features without text, and labels, of the training samples and of all the others."""
    tables = []
    for splits in ((TRAIN,), (TUNING, HELD_OUT)):
        rows = np.concatenate([prepared.rows(split) for split in splits])
        features = tabulate(prepared.dataset, rows).drop(columns="text")
        tables.append((features, prepared.samples.label_readmission.to_numpy()[rows].astype(int)))
    measured = tables[0][0].notna().sum() > 10
    return [(features.loc[:, measured].to_numpy(), label) for features, label in tables]


def logistic_regression():
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.001))


def gradient_boosting():
    return HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=7, max_features=0.2, random_state=0)


@pytest.mark.parametrize("make", [logistic_regression, gradient_boosting])
def test_classical_models_of_permuted_labels_know_nothing(split_tables, make):
    (train, label), (others, truth) = split_tables

    def score(label):
        return roc_auc_score(truth, make().fit(train, label).predict_proba(others)[:, 1])

    scores = [score(permuted) for permuted in shuffled(label, 20)]
    assert within_three_standard_errors(scores), np.mean(scores)
    assert score(label) > 0.6  # the same models do learn from true labels


def train_small_network(spec, batches):
    """One epoch of a small multimodal network."""
    torch.manual_seed(0)
    network = MultimodalModel(
        spec,
        note=lambda spec: NoteTransformer(spec, width=16, layers=1, heads=2),
        series=lambda spec: SeriesGRU(spec, hidden=8, bin_hours=24),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for batch in batches:
        optimizer.zero_grad()
        network.loss(batch).backward()
        optimizer.step()
    return network.eval()


def test_a_network_of_permuted_labels_knows_nothing_but_finds_a_leak(prepared):
    others = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    collate = Collate(prepared.dataset.notes, prepared.frame)
    parts = np.array_split(prepared.rows(TRAIN), 8)
    batches = [collate(prepared.dataset.__getitems__(part)) for part in parts]
    rest = collate(prepared.dataset.__getitems__(others))

    def score(label, leak=0.0):
        """AUROC on others after training on permuted labels; `leak` times the label is added to a static feature."""

        def labelled(batch, label):
            label = torch.from_numpy(label).float().unsqueeze(1)
            return replace(
                batch, label=label, static=torch.cat([batch.static[:, :1] + leak * label, batch.static[:, 1:]], 1)
            )

        parts = np.array_split(label, 8)
        network = train_small_network(prepared.spec, [labelled(b, p) for b, p in zip(batches, parts, strict=True)])
        with torch.no_grad():
            return roc_auc_score(truth[others], network(labelled(rest, truth[others])).squeeze(1))

    truth = prepared.samples.label_readmission.to_numpy()
    permuted = shuffled(truth[prepared.rows(TRAIN)], 6)
    scores = [score(label) for label in permuted]
    assert within_three_standard_errors(scores), np.mean(scores)
    assert score(permuted[0], leak=1000) > 0.9
