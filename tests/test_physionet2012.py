"""The real sets of PhysioNet/CinC 2012, where they are: what they hold, and that nothing of later reaches a sample."""

import json
import os
import shutil
import tarfile
import time
from dataclasses import fields, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from ehrdl.batch import Batch
from ehrdl.cli.commands.train import run as train
from ehrdl.data.config import DataConfig
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.collate import Collate
from ehrdl.data.prepare import find_samples, prepare, read_events
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.sources.physionet2012.source import Physionet2012
from ehrdl.splits.subjects import Split
from ehrdl.tasks.mortality import Mortality

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("EHRDL_DATA", ROOT.parent / "shared" / "data")) / "physionet-2012"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"PhysioNet 2012 is not at {DATA}; set EHRDL_DATA")
WINDOW = Window(series_hours=48, max_observations=4096)
#: Sets that are here; the figures below are those of a and b.
SETS = {"set-a": 554, "set-b": 568}


@pytest.fixture(scope="module")
def stays(tmp_path_factory):
    """The data of the config, their cohort, and what each sample sees."""
    cache = tmp_path_factory.mktemp("physionet")
    source = Physionet2012(str(DATA))
    config = DataConfig(source, prepare=Prepare(cache=str(cache)), window=WINDOW, split=Split(held_out=0.1))
    events = read_events(config)
    result = find_samples(events, Mortality(min_age=0))
    return config, events, result, prepare(config, events, result)


def test_all_stays_and_deaths_are_there(stays):
    _, events, result, prepared = stays
    tables = json.loads((events / "source.json").read_text())["tables"]
    for name, deaths in SETS.items():
        assert (tables[name]["records"], tables[name]["deaths"]) == (4000, deaths)
    assert {step.admissions for step in result.flow} == {4000 * len(tables)}
    label = result.samples.label_mortality
    assert label.sum() == sum(table["deaths"] for table in tables.values())
    assert (label.isna().sum(), result.samples.group_care_unit.nunique()) == (0, 4)
    assert len(prepared.samples) == len(label) and (prepared.samples.group_has_series == "yes").all()


def test_the_traps_are_counted_as_they_are_known(stays):
    """Counted apart from this reader, with pandas over the unpacked files."""
    tables = json.loads((stays[1] / "source.json").read_text())["tables"]
    both = [tables[name] for name in SETS]
    assert sum(table["records_without_measurement"] for table in both) == 9
    assert sum(table["repeated_rows"] for table in both) == 7705
    assert sum(sum(table["implausible"].values()) for table in both) == 4003
    assert sum(sum(table["converted"].values()) for table in both) == 13
    assert sum(sum(table["missing"].values()) for table in both) == 4505
    assert sum(table["ages_at_the_cap"] for table in both) == 308
    assert sum(table["deaths_at_any_time"] for table in both) == 2990


def test_the_store_leaves_out_what_the_source_counted(stays):
    _, events, _, prepared = stays
    tables = json.loads((events / "source.json").read_text())["tables"]
    counted = sum(sum(table["implausible"].values()) for table in tables.values())
    assert sum(prepared.facts["implausible_values"].values()) == counted
    assert prepared.facts["unknown_units"] == {}


def test_a_stay_is_the_one_in_its_file(stays):
    """132539, the first of set a: a woman of 54 years in the surgical ICU, weight and height unknown."""
    *_, prepared = stays
    row = prepared.samples.index[prepared.samples.subject_id == 132539][0]
    item, names = prepared.dataset[row], [channel.name for channel in prepared.spec.channels]
    with tarfile.open(DATA / "set-a.tar.gz") as packed:
        lines = packed.extractfile("set-a/132539.txt").read().decode().splitlines()[7:]
    rates = [line.split(",") for line in lines if ",HR," in line]
    own = item.channel == names.index("heart_rate")
    minutes = [int(when[:2]) * 60 + int(when[3:]) for when, *_ in rates]
    assert (item.hours[own] * 60 + 2880).round().tolist() == minutes
    assert item.value[own].tolist() == [float(value) for *_, value in rates]
    assert len(item.value) == len(lines) + 1  # and the unit
    assert item.static[0, :4].round(1).tolist() == [54.0, 0.0, 1.0, 0.0]


def test_what_comes_at_48_hours_is_seen_and_nothing_after(stays):
    """928 values in sets a and b are stamped 48:00."""
    *_, prepared = stays
    dataset, last = prepared.dataset, 0
    for start in range(0, len(dataset), 2000):
        hours = dataset.__getitems__(np.arange(start, min(start + 2000, len(dataset)))).hours
        assert hours.max() <= 0 and hours.min() > -48
        last += int((hours == 0).sum())
    assert last >= 900


def sight(prepared, row):
    """All that a deep model or a baseline gets of one sample."""
    batch = Collate(prepared.dataset.notes, prepared.frame)(prepared.dataset[row])
    seen = {field.name: getattr(batch, field.name).numpy().tobytes() for field in fields(Batch)}
    return seen | {"table": tabulate(prepared.dataset, np.array([row])).drop(columns="text").to_numpy().tobytes()}


#: Every stay ends otherwise and elsewhere, and after t0 come the worst values that could leak.
REWRITTEN = """
    SELECT * REPLACE (
        CASE code WHEN 'DISCHARGE//DIED' THEN 'DISCHARGE//ALIVE' WHEN 'DISCHARGE//ALIVE' THEN 'DISCHARGE//DIED'
        ELSE code END AS code,
        CASE WHEN code LIKE 'DISCHARGE//%' THEN time + INTERVAL 9 DAY ELSE time END AS time,
        CASE WHEN code LIKE 'DISCHARGE//%' THEN available_time + INTERVAL 9 DAY ELSE available_time END
        AS available_time) FROM shard
    UNION ALL
    SELECT subject_id, TIMESTAMP '2012-01-03 00:00:00.000001' AS time, added.code, added.number AS numeric_value,
        NULL AS text_value, TIMESTAMP '2012-01-03 00:00:00.000001' AS available_time, subject_id AS encounter_id
    FROM (SELECT DISTINCT subject_id FROM shard)
    CROSS JOIN (VALUES ('P12//HR', 299), ('P12//MechVent', NULL), ('P12//ICUType//1', NULL), ('P12//GCS', 3),
        ('MEDS_DEATH', NULL)) AS added(code, number)
    ORDER BY subject_id, time NULLS FIRST, available_time, code, encounter_id, numeric_value, text_value"""


def test_no_outcome_and_no_value_after_48_hours_changes_what_any_sample_sees(stays):
    config, events, result, ours = stays
    folder = events.with_name("events-after-t0")
    shutil.copytree(events, folder)
    with duckdb.connect() as con:
        for file in (folder / "data").glob("*.parquet"):
            con.register("shard", con.from_arrow(pq.read_table(file)))
            pq.write_table(con.sql(REWRITTEN).to_arrow_table(), file)
    theirs = prepare(config, folder, result)
    assert len(theirs.dataset.store.value) == len(ours.dataset.store.value) + 4 * len(ours.samples)
    assert theirs.spec.statics == ours.spec.statics and theirs.spec.static_mean == ours.spec.static_mean
    assert [channel.name for channel in theirs.spec.channels] == [channel.name for channel in ours.spec.channels]
    for row in range(0, len(ours.samples), 40):
        assert sight(theirs, row) == sight(ours, row)


def test_no_channel_and_no_static_tells_the_outcome_by_its_name(stays):
    *_, prepared = stays
    names = {channel.name for channel in prepared.spec.channels}
    assert not {name for name in names if any(word in name for word in ("sofa", "saps", "surviv", "stay", "death"))}
    assert {"discharge", "admission", "icu_in"}.isdisjoint(names)


def test_published_files_of_record_ids_split_the_real_data(stays, tmp_path):
    config, events, result, _ = stays
    subjects = result.samples.subject_id.tolist()
    parts = {"train": subjects[:3000], "tuning": subjects[3000:3500], "held_out": subjects[3500:4200]}
    for name, ids in parts.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(map(str, ids)))
    prepared = prepare(replace(config, split=Split(files=str(tmp_path))), events, result)
    assert prepared.facts["data"]["n_samples"] == {"train": 3000, "tuning": 500, "held_out": 700}
    assert prepared.facts["data"]["split"]["dropped_in_no_file"] == len(subjects) - 4200


@pytest.mark.slow
@pytest.mark.timed
def test_one_gru_goes_from_the_archives_to_a_report_in_under_four_minutes(tmp_path):
    start = time.perf_counter()
    where = [f"--run.root={tmp_path}", f"--data.prepare.cache={tmp_path / 'cache'}", f"--data.source.root={DATA}"]
    train(
        [
            "--config",
            str(ROOT / "configs" / "benchmarks" / "physionet2012_gru.yaml"),
            *where,
            "--trainer.accelerator=cpu",
        ]
    )
    assert time.perf_counter() - start < 240
    run = tmp_path / "physionet2012_gru"
    models = json.loads((run / "metrics.json").read_text())["outputs"]["mortality"]["models"]
    assert {"series_only", "logistic_regression", "gradient_boosting"} <= models.keys()
    assert 0.80 < models["series_only"]["auroc"]["value"] < 0.93
    assert (run / "report.html").is_file()
