"""The concepts of MIMIC-IV, held against the dictionaries and values of the MIMIC-IV demo and against sums by hand."""

import gzip
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
#: Where the items of a code are charted.
ICU_TABLES = {
    "INPUT_START": "inputevents",
    "INPUT_END": "inputevents",
    "OUTPUT": "outputevents",
    "PROCEDURE_START": "procedureevents",
    "PROCEDURE_END": "procedureevents",
}
ANTIBIOTICS = (
    "cillin|cef|ceph|penem|mycin|micin|floxacin|cycline|aztreonam|linezolid|metronidazole|sulfameth|nitrofur|^trimeth"
)
LOCAL_ROUTES = ["BOTH EYES", "LEFT EYE", "RIGHT EYE", "LEFT EAR", "RIGHT EAR", "TP", "PR", "VG"]
EVENT = "DRUG//a,IV,a,event,drug,,,,,,A,ehrdl\n"
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
def test_each_item_of_the_icu_tables_is_what_the_dictionary_names_in_its_table(known):
    for prefix, table in ICU_TABLES.items():
        listed = known.frame[known.frame.base_code.str.startswith(f"{prefix}//")]
        entry = items("icu/d_items.csv.gz").loc[listed.base_code.str.removeprefix(f"{prefix}//")]
        assert listed.label.tolist() == entry.label.tolist()
        assert set(entry.linksto) == {table}


@needs_demo
def test_each_item_of_the_category_antibiotics_is_an_antibiotic_given(known):
    entry = items("icu/d_items.csv.gz")
    codes = "INPUT_START//" + entry.index[entry.category == "Antibiotics"]
    matched = known.match(codes)
    assert len(matched) == len(codes) == 55
    assert set(matched.channel) == {"antibiotic"}


@needs_demo
def test_rates_amounts_and_volumes_of_the_demo_are_known_and_plausible(known):
    """All but a few: fentanyl of 75 mg/h is an error of entry, as the range says."""
    rows = " UNION ALL ".join(
        f"SELECT '{prefix}//' || itemid || '//' || coalesce(trim({unit}), '') AS code, {value}::DOUBLE AS value"
        f" FROM read_csv('{DEMO / 'icu' / table}.csv.gz', all_varchar = true) WHERE {value} IS NOT NULL"
        for prefix, table, value, unit in (
            ("INPUT_START", "inputevents", "rate", "rateuom"),
            ("INPUT_END", "inputevents", "amount", "amountuom"),
            ("OUTPUT", "outputevents", "value", "valueuom"),
            ("PROCEDURE_END", "procedureevents", "value", "valueuom"),
        )
    )
    with duckdb.connect(config={"threads": 1}) as con:
        found = con.execute(rows).df()
    base = found.code.str.rsplit("//", n=1).str[0]
    numeric = known.frame[known.frame.kind == "numeric"]
    found = found[base.isin(numeric.base_code)].merge(known.match(found.code.unique()), on="code", how="left")
    assert found.code[found.channel.isna()].unique().tolist() == []
    value = found.value * found.factor + found.offset
    outside = ((value < found.low) | (value > found.high)).groupby(found.channel).sum()
    assert outside[outside > 0].to_dict() == {"fentanyl_rate": 2}
    assert len(outside) == 33


@needs_demo
def test_most_antimicrobial_orders_of_the_demo_are_found_by_name_and_route(known):
    """Held against the names in MIT-LCP/mimic-code's antibiotic.sql that the demo has, and its excluded routes."""
    drugs = pd.read_csv(DEMO / "hosp/prescriptions.csv.gz", usecols=["drug", "route"], dtype="str").drop_duplicates()
    drugs["code"] = "DRUG_START//" + drugs.drug.str.strip() + "//" + drugs.route.fillna("")
    named = drugs.drug.str.lower().str.contains(ANTIBIOTICS)
    systemic = ~drugs.drug.str.contains("Oral Liquid|Neomycin|Enema") & ~drugs.route.isin(LOCAL_ROUTES)
    oral = drugs.drug.str.lower().eq("vancomycin") & drugs.route.eq("ORAL")
    matched = known.match(drugs.code).set_index("code").channel
    ordered = set(matched.index[matched == "antibiotic_ordered"])
    assert set(drugs.code[named & systemic & ~oral]) <= ordered
    fungal = drugs.drug.str.lower().str.contains("conazole|fungin|ambisome")
    assert ordered <= set(drugs.code[named | fungal])


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


def test_there_are_at_least_sixty_lab_and_vital_channels_and_all_other_kinds(known):
    counts = pd.Series([channel.category for channel in known.channels if channel.kind == "numeric"]).value_counts()
    assert counts["lab"] + counts["vital"] >= 60
    kinds = {channel.category for channel in known.channels}
    assert kinds == {"lab", "vital", "encounter", "drug", "fluid", "output", "procedure", "culture"}
    assert len(known.channels) < 200  # a channel is a clinical concept, not an item


def test_what_sofa_and_kdigo_need_is_there(known):
    names = {channel.name for channel in known.channels}
    pressors = {f"{drug}_rate" for drug in ("dopamine", "dobutamine", "epinephrine", "norepinephrine", "vasopressin")}
    assert pressors | {"phenylephrine_rate", "urine_output", "bladder_irrigation", "crrt_mode"} <= names
    assert {"invasive_ventilation_start", "noninvasive_ventilation_start", "renal_replacement_start"} <= names
    assert {"po2", "fio2", "platelets", "bilirubin_total", "mean_bp_invasive", "gcs_motor", "creatinine"} <= names
    dialysis = ["225441", "225802", "225803", "225805", "225809", "225955"]
    starts = known.match(f"PROCEDURE_START//{item}" for item in dialysis)
    assert starts.channel.tolist() == ["renal_replacement_start"] * 6
    assert known.match(["PROCEDURE_START//224270"]).empty  # the catheter is no dialysis


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
        ("OMR//Weight (Lbs)//", 220.0, 99.79),
        ("INPUT_START//221906//mcg/kg/min", 0.1, 0.1),
        ("INPUT_START//221906//mg/kg/min", 0.0001, 0.1),
        ("INPUT_START//221289//mcg/kg/hour", 6.0, 0.1),
        ("INPUT_START//222315//units/min", 0.04, 2.4),
        ("INPUT_START//222315//units/hour", 2.4, 2.4),
        ("INPUT_END//225158//L", 0.5, 500.0),
        ("PROCEDURE_END//225802//day", 0.5, 720.0),
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


@pytest.mark.parametrize("code", ["LOINC/2160-0", "LAB//RESULT//50912//mg/dL", "Creatinine"])
def test_a_code_of_another_make_is_known_as_a_whole(tmp_path, code):
    file = tmp_path / "own.csv"
    file.write_text(HEADER + f"{code},,creatinine,numeric,lab,mg/dL,1,0,0,66,Creatinine,ehrdl\n")
    assert concepts.load(file).match([code, f"{code}//", f"{code}X"]).code.tolist()[0] == code
    assert f"{code}X" not in concepts.load(file).match([f"{code}X"]).code.tolist()


def test_encounter_events_are_known_by_their_first_part(known):
    codes = ["ED_IN", "ADMISSION//EMERGENCY ROOM", "DISCHARGE//HOME", "ICU_IN//Medical Intensive Care Unit (MICU)"]
    matched = known.match(codes)
    assert matched.code.tolist() == codes
    assert matched.channel.tolist() == ["ed_in", "admission", "discharge", "icu_in"]
    assert set(matched.kind) == {"event"}
    assert matched.low.isna().all()
    assert matched.factor.eq(1).all()
    assert known.match(["ICU_OUT//x", "ED_OUT", "ADMISSIONS//x"]).empty


@pytest.mark.parametrize(
    ("code", "channel"),
    [
        ("INPUT_START//225798//", "antibiotic"),
        ("INPUT_START//225798//mg", "antibiotic"),
        ("INPUT_START//221794//mg/hour", "iv_loop_diuretic_given"),
        ("INPUT_START//228340//", "iv_loop_diuretic_given"),
        ("EMAR//Administered//CefePIME", "antibiotic"),
        ("EMAR//Administered in Other Location//CefePIME", "antibiotic"),
        ("EMAR//Started//Fluconazole", "antibiotic"),
        ("EMAR//Not Given//CefePIME", None),
        ("EMAR//Not Started//CefePIME", None),
        ("EMAR//Administered//Ciprofloxacin 0.3% Ophth Soln", "antibiotic_local"),
        ("EMAR//Administered//Furosemide", "loop_diuretic_given"),
        ("DRUG_START//Vancomycin//IV", "antibiotic_ordered"),
        ("DRUG_START//vancomycin//ORAL", None),
        ("DRUG_START//Vancomycin Oral Liquid//PO/NG", "antibiotic_local"),
        ("DRUG_START//*NF* Ertapenem Sodium//IV", "antibiotic_ordered"),
        ("DRUG_START//moxifloxacin//BOTH EYES", None),
        ("DRUG_STOP//Vancomycin//IV", None),
        ("DRUG_START//Furosemide//IV DRIP", "iv_loop_diuretic_ordered"),
        ("DRUG_START//Furosemide//PO/NG", "oral_loop_diuretic_ordered"),
        ("MICRO_TAKEN//BLOOD CULTURE", "culture"),
        ("MICRO_TAKEN//MRSA SCREEN", "infection_test"),
        ("MICRO_TAKEN//JOINT FLUID", "culture"),
        ("MICRO_TAKEN//SEROLOGY/BLOOD", "infection_test"),
        ("MICRO_RESULT//Blood Culture, Routine//NEGATIVE", "culture_negative"),
        ("MICRO_RESULT//GRAM STAIN//", None),
        ("MICRO_RESULT//Blood Culture, Routine//ESCHERICHIA COLI", "culture_positive"),
        ("MICRO_RESULT//VIRAL CULTURE//NEGATIVE", "infection_test_result"),
        ("MICRO_RESULT//Blood Culture, Routine//CANCELLED", "culture_cancelled"),
        ("LAB//52033//", "blood_gas_specimen"),
        ("CHART//227290//", "crrt_mode"),
    ],
)
def test_drugs_and_cultures_are_known_by_name_and_by_what_was_done(known, code, channel):
    matched = known.match([code]).channel.tolist()
    assert matched == ([channel] if channel else [])


def test_a_star_stands_for_text_within_a_part_and_the_first_row_that_fits_decides(tmp_path):
    file = tmp_path / "ours.csv"
    drug = "DRUG//a*,{},{},event,drug,,,,,,A,ehrdl\n"
    file.write_text(HEADER + drug.format("IV|IM", "a_iv") + drug.format("P*", "a_oral") + drug.format("", "a"))
    ours = concepts.load(file)
    codes = ["DRUG//Ab c//iv", "DRUG//A//IM", "DRUG//A//PO//x", "DRUG//A//TP", "DRUG//A", "DRUG//b//A", "DRUG//A//IVX"]
    found = ours.match(codes).set_index("code").channel.to_dict()
    expected = dict(zip(codes, ["a_iv", "a_iv", "a_oral", "a", "a", None, "a"], strict=True))
    assert found == {code: name for code, name in expected.items() if name}


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
        (
            HEADER + SODIUM.replace("lab,", "labs,"),
            "line 2: column category: 'labs' is none of lab, vital, encounter, ",
        ),
        (HEADER + SODIUM.replace(",1,0,", ",one,0,"), "line 2: column factor: 'one' is not a finite number"),
        (HEADER + SODIUM.replace(",1,0,", ",1,inf,"), "line 2: column offset: 'inf' is not a finite number"),
        (HEADER + SODIUM.replace(",1,0,", ",0,0,"), "line 2: column factor: '0' is not above 0"),
        (HEADER + SODIUM.replace("225", "50"), "line 2: column high: '50' is not above low, '50'"),
        (HEADER + SODIUM.replace("numeric", "event"), "line 2: column unit: 'mmol/L', but an event has none"),
        (HEADER + SODIUM.replace("LAB//1", "LAB//*"), "line 2: column code: 'LAB//*' has a *, which only an event may"),
        (HEADER + EVENT * 2, "line 3: column source_unit: 'IV' is already given for DRUG//a"),
        (HEADER + EVENT + SODIUM.replace("LAB//1", "DRUG//a"), "line 3: column channel: 'sodium', but DRUG//a is"),
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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe" + HEADER.encode("utf-16-le"), "line 1: is not UTF-8 text; save the table as CSV in UTF-8"),
        (gzip.compress(HEADER.encode(), mtime=0), "line 1: is not UTF-8 text"),
        (
            (HEADER + SODIUM).encode() + SODIUM.replace("Sodium", "Natrium bl\xe5").encode("latin-1"),
            "line 3: is not UTF-8",
        ),
        (
            HEADER.replace(",", ";").encode(),
            "line 1: column code stands 0 times; expected once; are its columns separated",
        ),
        (
            HEADER.replace(",", "\t").encode(),
            "line 1: column code stands 0 times; expected once; are its columns separated",
        ),
        ((HEADER + SODIUM + HEADER).encode(), "line 3: column kind: 'kind' is none of numeric, event"),
        (HEADER.replace("source\n", "source,unit\n").encode(), "line 1: column unit stands 2 times; expected once"),
        ((HEADER + SODIUM.replace("LAB//1", "LAB//1\0")).encode(), "line 2: holds a NUL byte"),
        (
            (HEADER + SODIUM.replace(",ehrdl", ',"ehrdl')).encode(),
            "line 2: is no row of a CSV (unexpected end of data)",
        ),
        ((HEADER + SODIUM.replace("\n", ",more\n")).encode(), "line 2: 13 cells; the header has 12"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, data, message):
    file = tmp_path / "broken.csv"
    file.write_bytes(data)
    with pytest.raises(SchemaError) as caught:
        concepts.load(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SchemaError, match=r"absent\.csv: cannot be read as a table of concepts"):
        concepts.load(tmp_path / "absent.csv")
