"""Nothing of after 48:00 and no outcome reaches a sample of PhysioNet 2012, from the challenge's own files on."""

import io
import tarfile
from dataclasses import fields

import numpy as np
import pytest

from ehrdl.batch import Batch
from ehrdl.data.config import DataConfig
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.collate import Collate
from ehrdl.data.prepare import find_samples, prepare, read_events
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.sources.physionet2012.source import Physionet2012
from ehrdl.tasks.mortality import Mortality

RECORDS = range(1000, 1060)
VARIABLES = {"HR": 85, "Temp": 37, "GCS": 12, "Weight": 80}
WINDOW = Window(series_hours=48)
AUXILIARY = ["death_30d", "death_known", "length_of_stay"]


def measured(number):
    """A record's lines up to 48:00, of which one is at 00:00 and one at 48:00."""
    rng = np.random.default_rng(number)
    minutes = [0, *sorted(rng.integers(1, 2880, 20)), 2880]
    names = [list(VARIABLES)[i] for i in rng.integers(len(VARIABLES), size=len(minutes))]
    values = [round(VARIABLES[name] * rng.normal(1, 0.03), 1) for name in names]
    head = {
        "RecordID": number,
        "Age": rng.integers(20, 91),
        "Gender": rng.integers(2),
        "Height": 170,
        "ICUType": 2,
        "MechVent": 1,
    }
    first = [f"00:00,{name},{value}" for name, value in head.items()]
    return first + [f"{m // 60:02}:{m % 60:02},{n},{v}" for m, n, v in zip(minutes, names, values, strict=True)]


def seen(root, added=(), outcome=lambda number: (5, 5, 3 + number % 7, number % 50 - 10, number % 3 == 0)):
    """What each sample sees of the records with some lines more; outcomes are SAPS-I, SOFA, days, survival, death."""
    root.mkdir()
    with tarfile.open(root / "set-a.tar", "w") as packed:
        for number in RECORDS:
            body = "\n".join(["Time,Parameter,Value", *measured(number), *added]) + "\n"
            info = tarfile.TarInfo(f"set-a/{number}.txt")
            info.size = len(body)
            packed.addfile(info, io.BytesIO(body.encode()))
    rows = [",".join(str(int(x)) for x in (number, *outcome(number))) for number in RECORDS]
    header = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
    (root / "Outcomes-a.txt").write_text("\n".join([header, *rows]) + "\n")
    config = DataConfig(Physionet2012(str(root)), prepare=Prepare(cache=str(root / "cache"), n_shards=1), window=WINDOW)
    events = read_events(config)
    prepared = prepare(config, events, find_samples(events, Mortality(auxiliary=AUXILIARY)))
    return prepared, [sight(prepared, row) for row in range(len(prepared.samples))]


def sight(prepared, row):
    """All but the label that a deep model or a baseline gets of one sample."""
    batch = Collate(prepared.dataset.notes, prepared.frame)(prepared.dataset[row])
    given = {
        field.name: getattr(batch, field.name).numpy().tobytes() for field in fields(Batch) if field.name != "label"
    }
    return given | {"table": tabulate(prepared.dataset, np.array([row])).drop(columns="text").to_numpy().tobytes()}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return seen(tmp_path_factory.mktemp("leak") / "ours")


def test_every_sample_sees_its_first_and_its_last_minute(ours):
    prepared, _ = ours
    for row in range(len(prepared.samples)):
        hours = prepared.dataset[row].hours
        assert hours.max() == 0 and hours.min() == pytest.approx(-48, abs=1e-3)
        assert len(hours) == 22 + 3  # measured, with the height, the unit and the ventilation


def test_whatever_is_measured_after_48_hours_changes_nothing(ours, tmp_path):
    late = [f"48:{minute:02},{name},{value}" for minute in (1, 59) for name, value in (("HR", 290), ("GCS", 3))]
    late += [
        "49:00,MechVent,1",
        "60:00,Weight,300",
        "60:00,ICUType,1",
        "60:00,Age,20",
        "60:00,Gender,0",
        "60:00,Height,249",
    ]
    theirs, views = seen(tmp_path / "late", late)
    assert len(theirs.dataset.store.value) == len(ours[0].dataset.store.value) + 7 * len(RECORDS)
    assert views == ours[1]
    assert theirs.samples.equals(ours[0].samples)


def test_the_same_at_48_hours_is_seen(ours, tmp_path):
    _, views = seen(tmp_path / "on_time", ["48:00,HR,290"])
    assert all(now != before for now, before in zip(views, ours[1], strict=True))


@pytest.mark.parametrize("days", [0, 2, 3, 300, -1])
def test_no_column_of_the_outcomes_changes_what_a_sample_sees(ours, tmp_path, days):
    """Other scores, stays of any length, however short on paper, and other deaths: the labels alone change."""
    theirs, views = seen(
        tmp_path / "ends",
        outcome=lambda number: (30, 20, days + 9 * (number % 3), 5 if number % 2 else -1, number % 3 != 0),
    )
    assert (theirs.samples.label_mortality == 1 - ours[0].samples.label_mortality).all()
    assert [output.name for output in theirs.spec.outputs] == ["mortality"]
    assert [extra.output.name for extra in theirs.spec.auxiliary] == AUXILIARY
    for name in AUXILIARY:
        assert not theirs.samples[f"label_{name}"].equals(ours[0].samples[f"label_{name}"])
    assert views == ours[1]
