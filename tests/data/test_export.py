"""What a MEDS tool, by its rule `time <= t`, sees of an exported hospital, against what `window.bounds` shows."""

from dataclasses import dataclass, replace

import duckdb
import meds
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ehrdl.clinical import concepts
from ehrdl.data.config import NoteOptions
from ehrdl.data.export import export_events
from ehrdl.data.window import bounds
from ehrdl.engine.files import read_json
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.events.source import Source
from ehrdl.events.writer import EventsWriter, validate
from ehrdl.schema import HOUR, NEVER_INPUT, TaskResult
from ehrdl.splits.subjects import Split, assign
from ehrdl.tasks.readmission import Readmission

TIMES = ("happened", "available")


@dataclass(frozen=True)
class Given:
    """A task whose cohort is given."""

    result: TaskResult

    def label(self, events):
        return self.result


@pytest.fixture(scope="module")
def exported(hospital, tmp_path_factory):
    """The small hospital, by both times."""
    root = tmp_path_factory.mktemp("exported")
    for time in TIMES:
        export_events(hospital.config, Readmission(), root / time, time)
    return root


def sql(query):
    with duckdb.connect() as con:
        return con.execute(query).df()


def rows_of(folder, where="true"):
    return sql(f"SELECT * FROM '{folder}/data/*.parquet' WHERE {where} ORDER BY ALL")


# ------------------------------------------------------------------------------------------------ the rule


@pytest.fixture(scope="module")
def moments(hospital):
    """Subjects and times [µs]: each prediction time, and a moment days before it, just before a fact can be seen."""
    samples, store = hospital.result.samples, hospital.prepared.dataset.store
    subject = samples.subject_id.to_numpy()
    t = samples.prediction_time.to_numpy().astype("datetime64[us]").astype(np.int64)
    start, stop = bounds(store.available, store.offsets, store.subjects, subject, t - 60 * HOUR)
    last = np.where(stop > start, store.available[stop - 1], t)
    subject, times = np.repeat(subject, 2), np.stack([last - 1, t], axis=1).ravel()
    order = np.lexsort((times, subject))
    return subject[order], times[order]


def ours(facts, moments, columns):
    """The facts that `window.bounds` shows at each moment."""
    start, stop = bounds(facts.available, facts.offsets, facts.subjects, *moments)
    return [sorted(zip(*(column[a:b] for column in columns), strict=True)) for a, b in zip(start, stop, strict=True)]


def theirs(folder, moments, query):
    """The facts with `time <= t` at each moment; of `query`, the first column is the subject, the second the time."""
    codes = pq.read_table(folder / meds.code_metadata_filepath)["code"].to_pylist()
    with duckdb.connect() as con:
        con.register("concept", concepts.load().match(codes))
        frame = con.execute(query.format(events=f"'{folder}/data/*.parquet'")).df()
    facts = {subject: part.to_numpy(dtype=object)[:, 1:] for subject, part in frame.groupby(frame.columns[0])}
    seen = []
    for subject, t in zip(*moments, strict=True):
        mine = facts.get(subject, np.zeros((0, frame.shape[1] - 1), object))
        seen.append(sorted(map(tuple, mine[mine[:, 0].astype(np.int64) <= t][:, 1:])))
    return seen


SERIES = """
    SELECT subject_id, epoch_us(time) AS t, epoch_us({happened}) AS happened, channel, value FROM (
        SELECT *, CASE WHEN kind = 'event' THEN 1 ELSE CAST(numeric_value * factor + "offset" AS FLOAT) END AS value
        FROM {{events}} JOIN concept USING (code)
        WHERE time IS NOT NULL AND (kind = 'event' OR numeric_value IS NOT NULL))
    WHERE kind = 'event' OR value BETWEEN low::FLOAT AND high::FLOAT
"""
NOTES = """
    SELECT subject_id, epoch_us(time) AS t, epoch_us({happened}) AS happened, text_value
    FROM {{events}} WHERE starts_with(code, 'NOTE//')
"""


@pytest.fixture(scope="module")
def visible(hospital, moments):
    """What ours shows: facts as (time, channel, value) and notes as (time, text)."""
    store, notes = hospital.prepared.dataset.store, hospital.prepared.dataset.notes
    names = np.array([channel.name for channel in store.channels], dtype=object)[store.channel]
    texts = np.array(notes.texts(range(len(notes))), dtype=object)
    return ours(store, moments, (store.time, names, store.value)), ours(notes, moments, (notes.time, texts))


def test_a_tool_with_the_inclusive_rule_sees_what_ours_sees_on_the_export_by_available_time(exported, moments, visible):
    for query, facts in zip((SERIES, NOTES), visible, strict=True):
        assert theirs(exported / "available", moments, query.format(happened="happened_time")) == facts
        assert sum(map(len, facts)) > 500


def test_it_sees_labs_and_notes_too_early_on_the_export_by_the_time_when_they_happened(exported, moments, visible):
    for query, facts in zip((SERIES, NOTES), visible, strict=True):
        seen = theirs(exported / "happened", moments, query.format(happened="time"))
        assert all(set(a) <= set(b) for a, b in zip(facts, seen, strict=True))
        early = [fact for a, b in zip(facts, seen, strict=True) for fact in set(b) - set(a)]
        assert len(early) > 50
        if query is SERIES:
            labs = {channel.name for channel in concepts.load().channels if channel.category == "lab"}
            assert {channel for _, channel, _ in early} & labs


# ------------------------------------------------------------------------------------------------ the dataset


@pytest.mark.parametrize("time", TIMES)
def test_every_file_is_valid_meds(exported, time):
    root = exported / time
    subjects = []
    for file in sorted((root / meds.data_subdirectory).rglob("*.parquet")):
        table = pq.read_table(file)
        meds.DataSchema.validate(table)
        assert meds.DataSchema.align(table).schema == table.schema
        order = table.select(["subject_id", "time"]).to_pandas()
        by_time = order.sort_values(["subject_id", "time"], na_position="first", kind="stable")
        assert by_time.index.equals(order.index)
        subjects.append(set(order.subject_id))
    assert sum(map(len, subjects)) == len(set().union(*subjects)) == 300
    codes = pq.read_table(root / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    assert set(codes["code"].to_pylist()) == set(rows_of(root)["code"])
    meds.SubjectSplitSchema.validate(pq.read_table(root / meds.subject_splits_filepath))
    meds.DatasetMetadataSchema.validate(read_json(root / meds.dataset_metadata_filepath))
    meds.LabelSchema.validate(pq.read_table(root / "labels" / "readmission" / "0.parquet"))


def test_the_events_folder_itself_is_valid_meds(hospital):
    meds.DatasetMetadataSchema.validate(read_json(hospital.events / meds.dataset_metadata_filepath))
    for file in (hospital.events / "data").glob("*.parquet"):
        meds.DataSchema.validate(pq.read_table(file))
    assert validate(hospital.events)["subjects"] == 300


def test_what_happened_is_exported_as_events_has_it(exported, hospital):
    assert validate(exported / "happened") == validate(hospital.events)
    assert rows_of(exported / "happened").equals(rows_of(hospital.events))
    assert read_json(exported / "happened" / meds.dataset_metadata_filepath)["other_extension_columns"] == [
        "available_time"
    ]


def test_only_what_no_model_reads_is_missing_by_available_time_and_it_is_counted(exported, hospital):
    never = " OR ".join(f"starts_with(code, '{code}')" for code in NEVER_INPUT)
    columns = "subject_id, coalesce({}, NULL) AS happened, code, numeric_value, text_value, encounter_id"
    query = "SELECT {} FROM '{}/data/*.parquet' WHERE NOT ({}) ORDER BY ALL"
    there = sql(query.format(columns.format("happened_time"), exported / "available", "false"))
    assert there.equals(sql(query.format(columns.format("time"), hospital.events, never)))
    left_out = read_json(exported / "available" / "export.json")["left_out"]
    assert left_out == {"ANCHOR_YEAR_GROUP": 300, "MEDS_DEATH": len(rows_of(hospital.events, "code = 'MEDS_DEATH'"))}
    assert left_out["MEDS_DEATH"] > 10


def test_static_facts_stay_and_births_keep_their_time(exported, hospital):
    for where in ("time IS NULL AND starts_with(code, 'GENDER//')", "code = 'MEDS_BIRTH'"):
        before, after = rows_of(hospital.events, where), rows_of(exported / "available", where)
        assert len(after) == 300
        assert after[["subject_id", "time", "code"]].equals(before[["subject_id", "time", "code"]])


@pytest.mark.slow  # processes that import everything
def test_processes_write_the_same_bytes(hospital, exported, tmp_path):
    config = replace(hospital.config, prepare=replace(hospital.config.prepare, workers=2))
    export_events(config, Given(hospital.result), tmp_path / "out", "available")
    for file in (exported / "available").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "out" / file.relative_to(exported / "available")).read_bytes()


def test_hidden_codes_and_masked_sections_are_no_part_of_what_can_be_seen(hospital, tmp_path):
    config = replace(hospital.config, notes=NoteOptions(mask_sections=["Discharge Disposition"]))
    result = replace(hospital.result, hidden_codes=("DIAGNOSIS//", "it's"))
    facts = export_events(config, Given(result), tmp_path / "out", "available")
    rows = rows_of(tmp_path / "out")
    summaries = rows[rows.code.str.startswith("NOTE//discharge")].text_value
    assert not rows.code.str.startswith("DIAGNOSIS//").any()
    assert facts["left_out"]["DIAGNOSIS"] > 1000
    assert facts["masked"] == {"Discharge Disposition": len(summaries)}
    assert not summaries.str.contains("Expired").any()
    plain = rows_of(hospital.events, "starts_with(code, 'NOTE//discharge')").text_value
    assert plain.str.contains("Expired").any()


def test_what_is_kept_of_summaries_is_all_that_can_be_seen_of_them(hospital, tmp_path):
    config = replace(hospital.config, notes=NoteOptions(keep_sections=["Transitional Issues"]))
    facts = export_events(config, Given(hospital.result), tmp_path / "out", "available")
    kept, plain = rows_of(tmp_path / "out"), rows_of(hospital.events)
    summaries, reports = kept.code.str.startswith("NOTE//discharge"), kept.code.str.startswith("NOTE//radiology")
    assert kept[summaries].text_value.str.startswith("Transitional Issues:").all()
    of_all = plain[plain.code.str.startswith("NOTE//discharge")].text_value
    assert 0 < summaries.sum() == of_all.str.contains("Transitional Issues:").sum() < len(of_all)
    assert facts["left_out"]["NOTE"] == len(of_all) - summaries.sum()
    assert reports.sum() == plain.code.str.startswith("NOTE//radiology").sum()


BY_HAND = """
    SELECT 1::BIGINT AS subject_id, '1970-01-01'::TIMESTAMP + hour * INTERVAL 1 HOUR AS time, code,
        number::FLOAT AS numeric_value, NULL::VARCHAR AS text_value,
        '1970-01-01'::TIMESTAMP + available * INTERVAL 1 HOUR AS available_time, NULL::BIGINT AS encounter_id,
        false AS fallback
    FROM (VALUES (0, 'MEDS_BIRTH', NULL, 1), (2, 'LAB//50983//mEq/L', 140, 5), (3, 'ADMISSION//URGENT', NULL, 3))
        AS t(hour, code, number, available)
"""


class ByHand(Source):
    """One patient, whose birth was registered an hour after it, and whose sodium came back after three."""

    VERSION = 1

    def read(self, out, prepare):
        writer = EventsWriter(out, prepare)
        with duckdb.connect() as con:
            writer.stage(con, "facts", BY_HAND)
        writer.finish(lambda code: code, "by hand")
        return {"tables": writer.counts, "missing": []}

    def fingerprint(self, verify="fast"):
        return {"by": "hand"}


def test_a_fact_moves_to_the_time_when_it_could_be_seen_and_a_birth_does_not(hospital, tmp_path):
    config = replace(hospital.config, source=ByHand(), prepare=Prepare(cache=str(tmp_path / "cache")))
    samples = hospital.result.samples.iloc[:1].assign(subject_id=1)
    facts = export_events(config, Given(replace(hospital.result, samples=samples)), tmp_path / "out", "available")
    [file] = (tmp_path / "out" / "data").iterdir()
    table = pq.read_table(file).to_pandas()
    hours = lambda name: (table[name].astype("int64") // HOUR).tolist()  # noqa: E731
    assert table.code.tolist() == ["MEDS_BIRTH", "ADMISSION//URGENT", "LAB//50983//mEq/L"]
    assert (hours("time"), hours("happened_time")) == ([0, 3, 5], [0, 3, 2])
    assert facts["births_seen_early"] == 1
    dataset = read_json(tmp_path / "out" / meds.dataset_metadata_filepath)
    assert dataset["dataset_name"] == "by hand, time := available_time"


# ------------------------------------------------------------------------------------------------ labels, splits


def labels_of(folder, output="readmission"):
    return pq.read_table(folder / "labels" / output / "0.parquet").to_pandas()


def test_labels_are_those_of_the_task(exported, hospital):
    samples = hospital.result.samples
    for time in TIMES:
        labels = labels_of(exported / time)
        assert labels.subject_id.tolist() == samples.subject_id.tolist()
        assert labels.prediction_time.tolist() == samples.prediction_time.tolist()
        assert labels.boolean_value.tolist() == (samples.label_readmission == 1).tolist()


def with_labels(hospital, **columns):
    return Given(replace(hospital.result, samples=hospital.result.samples.assign(**columns)))


def test_unknown_labels_are_left_out_and_counted(hospital, tmp_path):
    label = hospital.result.samples.label_readmission.copy()
    label[3:7] = np.nan
    facts = export_events(hospital.config, with_labels(hospital, label_readmission=label), tmp_path / "out")
    n, positive = len(label) - 4, int(label.sum())
    assert facts["labels"] == {"readmission": {"n": n, "positive": positive, "unknown": 4}}
    assert len(labels_of(tmp_path / "out")) == n


def twins(hospital, label):
    """The first two samples at one time, of two encounters."""
    samples = hospital.result.samples
    first = samples.iloc[[0, 0]].assign(label_readmission=np.array(label, np.float32))
    both = pd.concat([first.assign(encounter_id=[1, 2]), samples.iloc[1:]], ignore_index=True)
    both = both.sort_values(["subject_id", "prediction_time", "encounter_id"], ignore_index=True)
    return Given(replace(hospital.result, samples=both.assign(sample_id=np.arange(len(both)))))


def test_two_encounters_with_one_answer_are_one_label(hospital, tmp_path):
    export_events(hospital.config, twins(hospital, [1, 1]), tmp_path / "out")
    assert len(labels_of(tmp_path / "out")) == len(hospital.result.samples)


def test_two_encounters_with_two_answers_are_refused_and_leave_nothing(hospital, tmp_path):
    with pytest.raises(SchemaError, match=r"label_readmission: subject \d+ has two labels at .*of two encounters"):
        export_events(hospital.config, twins(hospital, [0, 1]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def splits_of(folder):
    return pq.read_table(folder / meds.subject_splits_filepath).to_pandas()


def test_the_split_is_the_configs_own(hospital, tmp_path):
    split = Split(tuning=0.3, held_out=0.3, seed=5)
    facts = export_events(replace(hospital.config, split=split), Given(hospital.result), tmp_path / "out")
    written = splits_of(tmp_path / "out")
    assert written.split.tolist() == assign(written.subject_id.to_numpy(), split).tolist()
    assert len(written) == 300
    assert facts["subjects"] == written.split.value_counts().to_dict() | {"without_split": 0}
    assert written.split.tolist() != splits_of(hospital.events).split.tolist()


def test_a_temporal_split_is_that_of_each_subjects_samples(hospital, tmp_path, capsys):
    config = replace(hospital.config, split=Split(kind="temporal", cut_year=2014, last_year=2022))
    facts = export_events(config, Given(hospital.result), tmp_path / "out")
    written, labels = splits_of(tmp_path / "out"), labels_of(tmp_path / "out")
    assert set(written.subject_id) == set(labels.subject_id)
    assert set(written.split) == {"train", "tuning", "held_out"}
    assert len(written) + facts["subjects"]["without_split"] == 300
    dropped = sum(n for name, n in facts["split"].items() if name.startswith("dropped"))
    assert len(labels) + dropped == len(hospital.result.samples) and dropped > 0
    assert "temporal split at 2014" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the folder


def test_a_folder_that_is_taken_is_left_alone(hospital, tmp_path):
    (tmp_path / "thesis.doc").write_text("all of it")
    for taken in (tmp_path, tmp_path / "thesis.doc"):
        with pytest.raises(ConfigError, match=r"exists and is not an empty folder; choose another"):
            export_events(hospital.config, Given(hospital.result), taken)
    with pytest.raises(ConfigError, match=r"thesis.doc is no folder that can be written to"):
        export_events(hospital.config, Given(hospital.result), tmp_path / "thesis.doc" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_an_empty_folder_is_filled(hospital, tmp_path):
    (tmp_path / "out").mkdir()
    export_events(hospital.config, Given(hospital.result), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "export.json", "labels", "metadata"]
