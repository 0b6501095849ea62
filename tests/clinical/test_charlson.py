"""Charlson's comorbidities by Quan's coding algorithms, and the index."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from ehrdl.clinical import charlson
from ehrdl.clinical.codes import matches

#: First, last and inner codes of each group as Quan's table 1 prints them, and neighbours that it leaves out.
IN = {
    "myocardial_infarction": ("41000 412 41091", "I219 I228 I252"),
    "heart_failure": ("39891 4254 4259 4280 40493", "I099 I110 I132 I255 I420 I425 I429 I43 I509 P290"),
    "peripheral_vascular": ("0930 4373 4400 4439 4471 V434", "I700 I739 I771 K559 Z959"),
    "cerebrovascular": ("36234 430 4389", "G459 H340 I60 I698"),
    "dementia": ("2900 2941 3312", "F00 F0390 F051 G309 G311"),
    "chronic_pulmonary": ("4168 490 5059 5064 5088", "I278 J40 J449 J479 J60 J67 J703"),
    "rheumatic": ("4465 7100 7104 7142 7148 725", "M05 M069 M315 M329 M34 M360"),
    "peptic_ulcer": ("53100 5349", "K250 K289"),
    "mild_liver": ("07022 0706 570 5715 5733 V427", "B182 K700 K703 K713 K746 K760 K764 Z944"),
    "diabetes": ("25000 25033 25080", "E100 E101 E119 E118 E149"),
    "diabetes_with_complications": ("25040 25073", "E102 E105 E112 E1121 E117 E147"),
    "paralysis": ("3341 34200 3439 3446 3449", "G041 G801 G819 G834 G839"),
    "renal": ("40301 40493 5829 5830 5837 5859 V4511 V560", "I120 I131 N032 N057 N189 N250 Z490 Z992"),
    "cancer": ("1400 1729 1749 1958 2089 2386", "C000 C269 C349 C439 C509 C76 C859 C88 C900 C969"),
    "severe_liver": ("4560 45621 5722 5728", "I850 I859 K704 K721 K767"),
    "metastatic_cancer": ("1960 1991", "C770 C800"),
    "aids": ("042 044", "B20 B22 B24"),
}
OUT = {
    "myocardial_infarction": ("411 413", "I200 I23 I251"),
    "heart_failure": ("40200 4253 40490", "I10 I111 I421 I424 I51"),
    "diabetes": ("2504 2507 249", "E102 E107 E15 E090"),
    "mild_liver": ("07021 572 V426", "B17 K704 K710 K761 K765"),
    "renal": ("5838 5881 40300", "I129 I130 I132 N031 N038 N179 N251 Z493"),
    "cancer": ("173 1739 1959 196 209 1959", "C44 C42 C77 C80 C86 C35 D000"),
    "severe_liver": ("4563 5720 5729", "I851 K703 K720 K768"),
    "aids": ("041 045", "B19 B23 B25"),
}


def _members(version, code):
    return {codes.name for codes in charlson.COMORBIDITIES if matches(codes, version, code)}


@pytest.mark.parametrize("name", charlson.NAMES)
def test_codes_of_the_table_are_in_their_group(name):
    for version, codes in zip((9, 10), IN[name], strict=True):
        assert [code for code in codes.split() if name not in _members(version, code)] == []


@pytest.mark.parametrize("name", OUT)
def test_neighbours_of_the_table_are_not(name):
    for version, codes in zip((9, 10), OUT[name], strict=True):
        assert [code for code in codes.split() if name in _members(version, code)] == []


def test_there_are_seventeen_and_sql_finds_what_matches_finds():
    assert len(charlson.NAMES) == 17
    codes = [(v, c) for name in charlson.NAMES for v in (9, 10) for c in IN[name][v == 10].split()]
    table = pd.DataFrame({"code": [f"DIAGNOSIS//ICD{version}//{code}" for version, code in codes]})
    with duckdb.connect() as con:
        con.register("diagnosis", table)
        mask = con.execute(f"SELECT {charlson.mask_sql()} AS mask FROM diagnosis").fetchnumpy()["mask"]
    found = [{charlson.NAMES[i] for i in np.flatnonzero(row)} for row in charlson.flags(mask)]
    assert found == [_members(version, code) for version, code in codes]


def test_the_graver_form_counts_alone_and_weights_are_charlsons():
    present = np.zeros((4, 17), dtype=bool)
    for row, names in enumerate(
        (
            ["diabetes", "diabetes_with_complications", "mild_liver", "severe_liver"],
            ["cancer", "metastatic_cancer", "aids"],
            ["mild_liver", "renal", "dementia"],
            [],
        )
    ):
        present[row, [charlson.NAMES.index(name) for name in names]] = True
    assert charlson.index(present).tolist() == [2 + 3, 6 + 6, 1 + 2 + 1, 0]
    assert charlson.index(np.ones((1, 17), dtype=bool)).tolist() == [29]
