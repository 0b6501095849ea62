"""Words and codes of MIMIC-IV's layout mean the same however a hospital's export pads and spells them."""

import pandas as pd
import pytest

from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import find_samples, read_events
from ehrdl.engine.options import Prepare
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import write_hospital
from ehrdl.tasks.readmission import Readmission

WORDS = {
    "hosp/patients": ["gender", "anchor_year_group"],
    "hosp/admissions": [
        *("admission_type", "admission_location", "discharge_location"),
        *("insurance", "language", "marital_status", "race"),
    ],
    "hosp/diagnoses_icd": ["icd_code"],
    "hosp/services": ["curr_service"],
}
#: What is written as it stands, but for blanks.
NAMES = {
    "hosp/transfers": ["eventtype", "careunit"],
    "hosp/labevents": ["valueuom"],
    "icu/icustays": ["first_careunit"],
}
NBSP = "\u00a0"
PADDED = {
    "blanks after": lambda text: text + "   ",
    "blanks before": lambda text: "  " + text,
    "no-break space": lambda text: text.replace(" ", NBSP) + NBSP,
    "doubled inner blanks": lambda text: text.replace(" ", "  "),
    "tab": lambda text: text + "\t",
}
SPELLED = {"lower case": str.lower, "title case": str.title, "upper case": str.upper}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    root = tmp_path_factory.mktemp("words") / "hospital"
    write_hospital(root, n_patients=40, seed=3, progress=False)
    return root


def respell(hospital, root, columns, change):
    """The hospital with some columns changed; all other tables are links."""
    for path in hospital.glob("*/*.csv.gz"):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        name = f"{path.parent.name}/{path.name.removesuffix('.csv.gz')}"
        if name not in columns:
            (root / path.parent.name / path.name).symlink_to(path)
            continue
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in columns[name]:
            table[column] = [change(cell) if cell else cell for cell in table[column]]
        table.to_csv(root / path.parent.name / path.name, index=False)
    return root


def read(root, cache):
    folder = read_events(DataConfig(Mimic4(str(root)), prepare=Prepare(cache=str(cache), n_shards=1)))
    return folder, (folder / "data" / "0.parquet").read_bytes()


@pytest.fixture(scope="module")
def clean(hospital, tmp_path_factory):
    return read(hospital, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("change", PADDED.values(), ids=PADDED)
def test_blanks_around_and_within_words_and_codes_make_no_difference(hospital, clean, tmp_path, change):
    root = respell(hospital, tmp_path / "hospital", WORDS | NAMES, change)
    assert read(root, tmp_path / "cache")[1] == clean[1]


@pytest.mark.parametrize("change", SPELLED.values(), ids=SPELLED)
def test_case_of_words_that_rules_compare_makes_no_difference(hospital, clean, tmp_path, change):
    root = respell(hospital, tmp_path / "hospital", WORDS, change)
    assert read(root, tmp_path / "cache")[1] == clean[1]


def test_names_in_lower_case_give_the_same_cohort(hospital, clean, tmp_path):
    events, _ = read(respell(hospital, tmp_path / "hospital", NAMES, str.lower), tmp_path / "cache")
    ours, theirs = find_samples(events, Readmission()), find_samples(clean[0], Readmission())
    assert ours.flow == theirs.flow
    same = [name for name in ours.samples if name != "group_care_unit"]
    pd.testing.assert_frame_equal(ours.samples[same], theirs.samples[same])


def test_a_sex_that_is_written_out_is_known(hospital, clean, tmp_path):
    root = respell(hospital, tmp_path / "hospital", {"hosp/patients": ["gender"]}, {"F": "Female", "M": "male"}.get)
    assert read(root, tmp_path / "cache")[1] == clean[1]


def test_a_cell_of_blanks_is_empty(hospital, tmp_path):
    columns = {"hosp/admissions": ["discharge_location", "race"]}
    blank = read(respell(hospital, tmp_path / "blank", columns, lambda _: "  "), tmp_path / "cache")
    empty = read(respell(hospital, tmp_path / "empty", columns, lambda _: ""), tmp_path / "cache")
    assert blank[1] == empty[1]
