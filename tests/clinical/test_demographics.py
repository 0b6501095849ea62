"""Words of race, language, sex and insurance that mean the same are one group; words for not knowing are unknown."""

import pandas as pd
import pytest

from ehrdl.clinical.demographics import merged
from ehrdl.data.groups import merged_words

RACES = {
    "white": ["WHITE", "WHITE - RUSSIAN", "WHITE - BRAZILIAN", "PORTUGUESE", "Caucasian", "2106-3"],
    "black": ["BLACK/AFRICAN AMERICAN", "BLACK/CAPE VERDEAN", "BLACK/CARIBBEAN ISLAND", "AfricanAmerican"],
    "hispanic": ["HISPANIC OR LATINO", "HISPANIC/LATINO - PUERTO RICAN", "SOUTH AMERICAN", "Hispanic"],
    "asian": ["ASIAN", "ASIAN - CHINESE", "ASIAN - SOUTH EAST ASIAN", " asian  - korean "],
    "american indian or alaska native": ["AMERICAN INDIAN/ALASKA NATIVE", "Native American"],
    "native hawaiian or pacific islander": ["NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER"],
    "other": ["OTHER", "MULTIPLE RACE/ETHNICITY", "Other/Unknown"],
}  # fmt: skip


@pytest.mark.parametrize(("group", "words"), RACES.items())
def test_words_of_a_race_are_one_group(group, words):
    assert set(merged(pd.Series(words), "race")) == {group}


@pytest.mark.parametrize("column", ["sex", "race", "language", "insurance"])
def test_words_for_not_knowing_are_unknown(column):
    words = ["UNKNOWN", "Unknown", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER", "DECLINED", "?", "", None]
    assert merged(pd.Series(words), column).isna().all()


def test_other_columns_are_merged_and_unknown_words_are_kept():
    assert merged(pd.Series(["ENGLISH", "English", "ENGL"]), "language").unique().tolist() == ["english"]
    assert merged(pd.Series(["Female", "F", "male", "M"]), "sex").tolist() == ["F", "F", "M", "M"]
    assert merged(pd.Series(["Medicare", "No charge", "HMO"]), "insurance").tolist() == [
        "medicare",
        "no insurance",
        "HMO",
    ]
    assert merged(pd.Series(["Han"]), "race").tolist() == ["Han"]


def test_languages_of_few_patients_are_other():
    language = ["English"] * 1970 + ["Spanish"] * 20 + ["Thai"] * 6 + ["Somali"] * 3 + [None]
    samples = pd.DataFrame({"subject_id": range(2000), "group_language": language, "group_race": "WHITE - RUSSIAN"})
    found = merged_words(samples)
    assert found.group_language.value_counts().to_dict() == {"english": 1970, "spanish": 20, "other": 9}
    assert found.group_language.isna().sum() == 1 and set(found.group_race) == {"white"}
    assert merged_words(samples[["subject_id"]]).equals(samples[["subject_id"]])
