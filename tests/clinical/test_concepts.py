"""The concepts of MIMIC-IV, held against the dictionaries and values of the MIMIC-IV demo and against sums by hand."""

import os
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from ehrdl.clinical import concepts
from ehrdl.errors import SchemaError

DEMO = Path(os.environ.get("EHRDL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mimic-iv-demo-2.2"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")
HEADER = "code,source_unit,channel,kind,category,unit,factor,offset,low,high,label,source\n"
SODIUM = "LAB//1,mmol/L,sodium,numeric,lab,mmol/L,1,0,50,225,Sodium,ehrdl\n"


@pytest.fixture(scope="module")
def known():
    return concepts.load()


def items(file: str) -> pd.DataFrame:
    return pd.read_csv(DEMO / file, dtype="str", keep_default_na=False).set_index("itemid")


@pytest.fixture(scope="module")
def demo_values(known):
    """Every number of labevents and chartevents: base_code, code, and its canonical value and range where known."""
    rows = " UNION ALL ".join(
        f"SELECT '{stem}//' || itemid AS base_code, base_code || '//' || coalesce(trim(valueuom), '') AS code,"
        f" CAST(valuenum AS DOUBLE) AS value FROM read_csv('{DEMO / file}', all_varchar = true)"
        " WHERE valuenum IS NOT NULL"
        for stem, file in (("LAB", "hosp/labevents.csv.gz"), ("CHART", "icu/chartevents.csv.gz"))
    )
    with duckdb.connect(config={"threads": 1}) as con:
        counts = con.execute(f"SELECT base_code, code, value, count(*) AS n FROM ({rows}) GROUP BY ALL").df()
    counts = counts[counts.base_code.isin(known.base_codes())]
    matched = known.match(counts.code.unique())[["code", "channel", "factor", "offset", "low", "high"]]
    return counts.merge(matched, on="code", how="left")


@needs_demo
def test_each_lab_item_is_the_blood_item_that_the_dictionary_names(known):
    labs = known.frame[known.frame.base_code.str.startswith("LAB//")]
    entry = items("hosp/d_labitems.csv.gz").loc[labs.base_code.str.removeprefix("LAB//")]
    assert labs.label.tolist() == entry.label.tolist()
    assert set(entry.fluid) == {"Blood"}
    assert set(labs.category) == {"lab"}


@needs_demo
def test_each_chart_item_is_what_the_dictionary_names_and_its_labs_are_labs(known):
    charted = known.frame[known.frame.base_code.str.startswith("CHART//")]
    entry = items("icu/d_items.csv.gz").loc[charted.base_code.str.removeprefix("CHART//")]
    assert charted.label.tolist() == entry.label.tolist()
    assert (charted.category == "lab").tolist() == (entry.category == "Labs").tolist()


@needs_demo
def test_every_unit_of_the_demo_is_known(demo_values):
    assert demo_values.code[demo_values.channel.isna()].unique().tolist() == []


@needs_demo
def test_fewer_than_one_value_in_a_thousand_of_the_demo_is_implausible(demo_values):
    value = demo_values.value * demo_values.factor + demo_values.offset
    outside = demo_values.n.where((value < demo_values.low) | (value > demo_values.high), 0)
    assert outside.sum() / demo_values.n.sum() < 0.001
    share = outside.groupby(demo_values.channel).sum() / demo_values.n.groupby(demo_values.channel).sum()
    # Height holds inches entered as centimetres; central venous pressure holds transducer flushes of 200 to 340 mmHg.
    assert sorted(share[share > 0.005].index) == ["central_venous_pressure", "height"]
    assert share.max() < 0.03


@needs_demo
def test_the_usual_unit_of_the_demo_stands_first(known, demo_values):
    common = demo_values.assign(unit=demo_values.code.str.split("//").str[2])
    common = common[common.unit != ""].groupby(["base_code", "unit"]).n.sum().reset_index().sort_values("n")
    common = common.drop_duplicates("base_code", keep="last").set_index("base_code").unit.map(concepts.unit_key)
    default = known.frame[known.frame.is_default].set_index("base_code").source_unit
    assert default[common.index].to_dict() == common.to_dict()


def test_there_are_at_least_thirty_lab_and_vital_channels(known):
    counts = pd.Series([channel.category for channel in known.channels]).value_counts()
    assert counts["lab"] >= 30
    assert counts["vital"] >= 20


def test_channel_ids_are_positions_in_the_order_of_the_file(known):
    names = [channel.name for channel in known.channels]
    assert names == known.frame.channel.drop_duplicates().tolist()
    assert [names[position] for position in known.frame.channel_id] == known.frame.channel.tolist()


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        ("CHART//223761//°F", 98.6, 37.0),
        ("CHART//223762//°C", 37.0, 37.0),
        ("LAB//50912//umol/L", 88.4, 1.0),
        ("LAB//50931//mmol/L", 5.55, 100.0),
        ("LAB//51006//mmol/L", 7.14, 20.0),
        ("LAB//50885//umol/L", 17.1, 1.0),
        ("LAB//50893//mmol/L", 2.5, 10.0),
        ("LAB//51222//g/L", 120.0, 12.0),
        ("LAB//50983//mmol/L", 140.0, 140.0),
        ("LAB//51301//#/uL", 7500.0, 7.5),
        ("LAB//52769//#/uL", 1880.0, 1.88),
        ("LAB//50813//mg/dL", 18.0, 2.0),
        ("LAB//50818//kPa", 5.33, 40.0),
        ("LAB//51003//ng/L", 14.0, 0.014),
        ("LAB//50889//mg/dL", 1.5, 15.0),
        ("LAB//50907//mmol/L", 5.17, 200.0),
        ("CHART//226531//", 220.0, 99.79),
        ("CHART//226707//Inch", 70.0, 177.8),
    ],
)
def test_values_are_converted_as_by_hand(known, code, value, expected):
    row = known.match([code]).iloc[0]
    assert value * row.factor + row.offset == pytest.approx(expected, rel=3e-3)


def test_glycated_haemoglobin_of_48_mmol_per_mol_is_the_diagnostic_limit_of_6_5_percent(known):
    row = known.match(["LAB//50852//mmol/mol"]).iloc[0]
    assert 48 * row.factor + row.offset == pytest.approx(6.5, abs=0.05)


@pytest.mark.parametrize("unit", ["", "mm Hg", "mmHg", " MMHG "])
def test_a_unit_is_matched_without_case_or_spaces_and_an_empty_one_is_the_usual_one(known, unit):
    row = known.match([f"LAB//50821//{unit}"]).iloc[0]
    assert (row.channel, row.source_unit, row.factor) == ("po2", "mmhg", 1.0)


def test_an_unknown_unit_or_item_has_no_concept(known):
    assert known.match(["LAB//50912//furlong", "LAB//1//mg/dL", "LAB//", "NOTE//DS", "DIAGNOSIS//ICD10//I500"]).empty


def test_encounter_events_are_known_by_their_first_part(known):
    codes = ["ED_IN", "ADMISSION//EMERGENCY ROOM", "DISCHARGE//HOME", "ICU_IN//Medical Intensive Care Unit (MICU)"]
    matched = known.match(codes)
    assert matched.code.tolist() == codes
    assert matched.channel.tolist() == ["ed_in", "admission", "discharge", "icu_in"]
    assert set(matched.kind) == {"event"}
    assert matched.low.isna().all()
    assert matched.factor.eq(1).all()
    assert known.match(["ICU_OUT//x", "ED_OUT"]).empty


def test_lab_and_its_chart_copy_feed_one_channel(known):
    matched = known.match(["LAB//50912//mg/dL", "LAB//52546//mg/dL", "LAB//52024//", "CHART//220615//"])
    assert matched.channel.tolist() == ["creatinine"] * 4


def test_base_codes_are_listed_once_by_prefix(known):
    labs = known.base_codes("LAB//")
    assert len(labs) == len(set(labs))
    assert {"LAB//50912", "LAB//50811"} <= set(labs)
    assert known.base_codes("ED_") == ["ED_IN"]
    assert len(known.base_codes()) == known.frame.base_code.nunique()


def test_sql_needs_only_an_equality_join(known):
    events = pd.DataFrame({"code": ["LAB//50912//umol/L", "CHART//223761//", "X"], "numeric_value": [88.4, 98.6, 1.0]})
    matched = known.match(events.code.unique())
    with duckdb.connect() as con:
        con.register("events", events)
        con.register("concepts", matched)
        rows = con.execute(
            "SELECT channel, round(numeric_value * factor + concepts.offset, 2)"
            " FROM events JOIN concepts USING (code) ORDER BY channel"
        ).fetchall()
    assert rows == [("creatinine", 1.0), ("temperature", 37.0)]


def test_another_hospital_brings_its_own_table(tmp_path):
    file = tmp_path / "ours.csv"
    file.write_text(HEADER + SODIUM + "LAB//1,mg/dL,sodium,numeric,lab,mmol/L,0.435,0,50,225,Sodium,ehrdl\n\n")
    ours = concepts.load(file)
    assert ours.channels == (concepts.Channel("sodium", "numeric", "lab", "mmol/L", 50, 225),)
    assert ours.frame.is_default.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace(",unit", ""), "line 1: column unit stands 0 times"),
        (HEADER, "no rows"),
        (HEADER + SODIUM.replace(",ehrdl", ""), "line 2: 11 cells; the header has 12"),
        (HEADER + SODIUM.replace("LAB//1", ""), "line 2: column code: is empty"),
        (HEADER + SODIUM.replace("numeric", "number"), "line 2: column kind: 'number' is none of numeric, event"),
        (HEADER + SODIUM.replace("lab,", "labs,"), "line 2: column category: 'labs' is none of lab, vital, encounter"),
        (HEADER + SODIUM.replace(",1,0,", ",one,0,"), "line 2: column factor: 'one' is not a finite number"),
        (HEADER + SODIUM.replace(",1,0,", ",1,inf,"), "line 2: column offset: 'inf' is not a finite number"),
        (HEADER + SODIUM.replace(",1,0,", ",0,0,"), "line 2: column factor: '0' is not above 0"),
        (HEADER + SODIUM.replace("225", "50"), "line 2: column high: '50' is not above low, '50'"),
        (HEADER + SODIUM.replace("numeric", "event"), "line 2: column source_unit: 'mmol/L', but an event has none"),
        (HEADER + SODIUM * 2, "line 3: column source_unit: 'mmol/l' is already given for LAB//1"),
        (
            HEADER + SODIUM + SODIUM.replace(",mmol/L,s", ",,s"),
            "line 3: column source_unit: '' must stand in the first",
        ),
        (HEADER + SODIUM + SODIUM.replace("sodium", "salt"), "line 3: column channel: 'salt', but LAB//1 is already"),
        (
            HEADER + SODIUM + SODIUM.replace("//1", "//2").replace("225", "300"),
            "line 3: column high: 300.0, but channel",
        ),
    ],
)
def test_a_broken_table_is_named_in_one_line(tmp_path, text, message):
    file = tmp_path / "broken.csv"
    file.write_text(text)
    with pytest.raises(SchemaError) as caught:
        concepts.load(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SchemaError, match=r"absent\.csv: cannot be read as a table of concepts"):
        concepts.load(tmp_path / "absent.csv")
