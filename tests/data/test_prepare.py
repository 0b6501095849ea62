"""Preparation of a small synthetic hospital: the split by time, and sections masked out of notes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ehrdl.cli.main import main
from ehrdl.clinical.concepts import load
from ehrdl.data.apply import Fitted, apply
from ehrdl.data.config import DataConfig, NoteOptions
from ehrdl.data.features.table import tabulate
from ehrdl.data.notes.sections import mask_section
from ehrdl.data.notes.vocabulary import load_tokenizer
from ehrdl.data.prepare import hidden_channels, load_concepts, prepare
from ehrdl.data.prepare_notes import tokenized
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import HELD_OUT, SPLITS, TRAIN
from ehrdl.sources.physionet2012.source import Physionet2012
from ehrdl.sources.synthetic import Synthetic
from ehrdl.splits.subjects import Split


class OwnConcepts(Synthetic):
    """A source that names its table of concepts; `reference_ranges.csv` is shipped, but is none."""

    concepts = "own.csv"


CUT = Split("temporal", cut_year=2017, last_year=2022)
ROOT = Path(__file__).parents[2]
DISPOSITION = "Discharge Disposition"


@pytest.fixture(scope="module")
def temporal(hospital):
    return prepare(replace(hospital.config, split=CUT), hospital.events, hospital.result)


def test_a_temporal_split_drops_and_counts_what_is_on_neither_side(hospital, temporal, capsys):
    facts = temporal.facts["data"]["split"]
    dropped = [facts[name] for name in facts if name.startswith("dropped")]
    assert all(dropped) and len(temporal.samples) + sum(dropped) == len(hospital.result.samples)
    assert set(temporal.samples.split) == set(SPLITS)
    assert temporal.samples.groupby("subject_id").split.nunique().max() == 1
    prepare(replace(hospital.config, split=CUT), hospital.events, hospital.result)
    said = capsys.readouterr().err
    assert f"temporal split at 2017: {dropped[0]} samples dropped" in said
    assert "may be of stays after 2019, where MIMIC-IV-Note 2.2 ends" in said


def test_a_temporal_split_leaves_each_sample_what_it_sees(hospital, temporal):
    """The rows are numbered anew: labels, series and notes are still those of the stay."""
    whole = hospital.prepared.samples.reset_index().set_index("encounter_id")["index"]
    assert temporal.samples.sample_id.tolist() == list(range(len(temporal.dataset)))
    place = {channel.name: i for i, channel in enumerate(hospital.prepared.spec.channels)}
    common = [channel.name for channel in temporal.spec.channels if channel.name in place]
    for row in range(0, len(temporal.samples), 7):
        before = hospital.prepared.dataset[whole[temporal.samples.encounter_id[row]]]
        now = temporal.dataset[row]
        assert (now.row, now.label) == (row, before.label)
        assert now.note.tolist() == before.note.tolist()
        for name in common[:5]:
            mine = now.channel == [channel.name for channel in temporal.spec.channels].index(name)
            assert np.array_equal(now.value[mine], before.value[before.channel == place[name]])


def test_a_temporal_split_is_kept_where_the_same_data_are_scored_again(hospital, temporal):
    config = replace(hospital.config, split=CUT)
    again, _ = apply(config, hospital.events, hospital.result, fitted(temporal, hospital.events.name))
    assert again.samples.equals(temporal.samples)
    new, _ = apply(config, hospital.events, hospital.result, fitted(temporal, "events-elsewhere"))
    assert len(new.samples) == len(hospital.result.samples) and set(new.samples.split) == {HELD_OUT}


def fitted(prepared, events):
    return Fitted(prepared.spec, prepared.tokenizer, events)


@pytest.fixture(scope="module")
def masked(hospital):
    options = NoteOptions(mask_sections=[DISPOSITION])
    return prepare(replace(hospital.config, notes=options), hospital.events, hospital.result)


def section(text):
    return text.partition(f"{DISPOSITION}:")[2].strip()


def test_a_masked_section_is_in_neither_the_tokens_nor_the_text_of_baselines(hospital, masked):
    plain = hospital.prepared
    every = np.arange(len(plain.dataset.notes))
    before, after = plain.dataset.notes.texts(every), masked.dataset.notes.texts(every)
    assert sum(bool(section(text)) for text in before) > 100
    assert not any(section(text) for text in after)
    assert [text.partition(f"{DISPOSITION}:")[0] for text in before] == [
        text.partition(f"{DISPOSITION}:")[0] for text in after
    ]
    reads = load_tokenizer(masked.tokenizer).backend_tokenizer
    for row in np.flatnonzero([bool(section(text)) for text in before])[:20]:
        ids = masked.dataset.notes.tokens[row]
        assert ids.tolist() == reads.encode(after[row], add_special_tokens=False).ids
    rows = masked.rows(TRAIN)[:50]
    assert any(section(text) for text in tabulate(plain.dataset, rows).text)
    assert not any("Discharge Disposition:\nHome" in text for text in tabulate(masked.dataset, rows).text)


def test_masking_has_a_cache_of_its_own_and_predict_masks_too(hospital, masked):
    assert masked.tokenizer != hospital.prepared.tokenizer
    config = replace(hospital.config, notes=NoteOptions(mask_sections=[DISPOSITION]))
    notes, _ = tokenized(config, hospital.events, masked.tokenizer)
    assert not any(section(text) for text in notes.texts(np.arange(len(notes))))


def test_a_section_that_no_summary_has_is_said(hospital, capsys):
    options = NoteOptions(mask_sections=["Dischrage Disposition", DISPOSITION])
    prepare(replace(hospital.config, notes=options), hospital.events, hospital.result)
    said = capsys.readouterr().err
    assert "no discharge summary or radiology report has the section 'Dischrage Disposition'; nothing was cut" in said
    assert f"notes: section '{DISPOSITION}' cut from " in said


def test_only_kept_sections_are_read_by_any_model(hospital, capsys):
    options = NoteOptions(keep_sections=["Chief Complaint", "Hospital Stay"])
    kept = prepare(replace(hospital.config, notes=options), hospital.events, hospital.result)
    said = capsys.readouterr().err
    assert "data.notes.keep_sections: no discharge summary has the section 'Hospital Stay'" in said
    assert "notes: section 'Chief Complaint' kept of " in said
    notes = kept.dataset.notes
    texts = notes.texts(np.flatnonzero(notes.code == notes.codes.index("NOTE//discharge//DS")))
    assert len(texts) > 100
    assert all(text.startswith("Chief Complaint:") and text.count(":") == 1 for text in texts)
    assert not any("Discharge Disposition" in text for text in tabulate(kept.dataset, kept.rows(TRAIN)[:50]).text)


def test_summaries_that_have_no_kept_section_are_counted(hospital, capsys):
    options = NoteOptions(keep_sections=["Transitional Issues"])
    kept = prepare(replace(hospital.config, notes=options), hospital.events, hospital.result)
    n_left_out = len(hospital.prepared.dataset.notes) - len(kept.dataset.notes)
    assert n_left_out > 100
    line = f"notes: {n_left_out:,} NOTE//discharge//DS have none of data.notes.keep_sections and are left out"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prefix", "hidden"),
    [
        ("MICRO_TAKEN//BLOOD CULTURE", {"culture"}),
        ("MICRO_TAKEN//", {"culture", "infection_test"}),
        ("EMAR//Administered//Cefepime", {"antibiotic"}),  # written as the hospital does, the concept in lower case
        ("DRUG_START//cefepime//IV", {"antibiotic_ordered"}),
        ("LAB//50912//mg/dL", {"creatinine"}),
        ("LAB//5091", {"creatinine"}),
        ("DIAGNOSIS//", set()),
    ],
)
def test_a_code_is_hidden_whatever_its_concept_writes_as_a_star(build, prefix, hidden):
    known = load()
    mask = hidden_channels(build.store([], known.channels), known, (prefix,))
    found = {channel.name for channel, masked in zip(known.channels, mask, strict=True) if masked}
    assert found >= hidden and {channel.name for channel in known.channels if channel.category == "encounter"} <= found
    assert bool(hidden) == any(channel.category != "encounter" for channel in known.channels if channel.name in found)


NOTE = (
    "Brief Hospital Course:\nSent home. Discharge Disposition was discussed.\n \n"
    "Discharge Disposition:\nExtended Care\n \nFacility:\n___\n \n"
    "Discharge Condition:\nMental Status: Clear and coherent.\nActivity Status: Bedbound.\n \n"
    "History of Present Illness:\nShe wrote:\nplease call if:\n \nFollowup Instructions:\n___\n"
)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Discharge Disposition", "\nExtended Care\n \n"),
        ("discharge  DISPOSITION", "\nExtended Care\n \n"),
        ("Discharge Condition", "\nMental Status: Clear and coherent.\nActivity Status: Bedbound.\n \n"),
        ("History of Present Illness", "\nShe wrote:\nplease call if:\n \n"),
        ("Followup Instructions", "\n___\n"),
        ("Mental Status", " Clear and coherent.\nActivity Status: Bedbound.\n \n"),
    ],
)
def test_a_section_ends_at_the_next_line_that_is_a_header_alone(name, body):
    words = " ".join(name.split())
    title = words if words in NOTE else DISPOSITION
    assert mask_section(NOTE, name) == (NOTE.replace(f"{title}:{body}", f"{title}:\n"), True)


@pytest.mark.parametrize("name", ["Disposition", "Facilities", "Course", "was discussed"])
def test_what_is_no_header_of_the_note_cuts_nothing(name):
    assert mask_section(NOTE, name) == (NOTE, False)


@pytest.mark.parametrize(
    ("name", "why"), [("", "is empty"), ("  ", "is no header"), ("Discharge Disposition:", "is no header")]
)
def test_a_header_is_given_by_its_words(name, why):
    with pytest.raises(ConfigError, match=rf"data\.notes\.mask_sections: .* {why}"):
        NoteOptions(mask_sections=[name])


def test_prepare_reads_the_configuration_of_a_training_and_finds_what_is_there(hospital, tmp_path, capsys):
    cache = Path(hospital.config.prepare.cache)
    there = sorted(path.name for path in cache.iterdir())
    argv = [
        "prepare",
        f"--config={ROOT / 'configs' / 'quickstart.yaml'}",
        "--data.source.n_patients=300",
        "--data.source.seed=1",
        "--data.source.note_tokens=[40,120]",
        f"--data.prepare.cache={cache}",
        f"--data.notes.vocab_size={hospital.config.notes.vocab_size}",
        f"--run.root={tmp_path / 'runs'}",
    ]
    main(argv)
    said = capsys.readouterr().err
    prepared = hospital.prepared
    assert (
        f"{len(prepared.dataset.notes):,} notes; samples: {(prepared.samples.split == 'train').sum():,} train" in said
    )
    assert f"EVENTS: {hospital.events}" in said
    new = sorted(path.name for path in cache.iterdir() if path.name not in there)
    assert [name.split("-")[0] for name in new] in (["quality"], [])  # the fixture prints no block
    assert not (tmp_path / "runs").exists()


def test_what_is_present_is_one_of_four_where_the_data_have_notes_and_series(hospital):
    samples, dataset = hospital.prepared.samples, hospital.prepared.dataset
    note, series = dataset.has_note(), dataset.has_series()
    assert note.any() and not note.all() and series.any()
    pairs = {(True, True): "notes and series", (True, False): "notes only", (False, True): "series only"}
    expected = [pairs.get((bool(a), bool(b)), "neither") for a, b in zip(note, series, strict=True)]
    assert samples.group_present.tolist() == expected


def test_data_without_any_note_in_sight_say_nothing_of_what_is_present(hospital):
    blind = replace(hospital.config, window=replace(hospital.config.window, note_hours=0.001))
    samples = prepare(blind, hospital.events, hospital.result).samples
    assert set(samples.group_has_note) == {"no"}
    assert "group_present" not in samples


def test_a_source_brings_its_own_concepts_and_data_concepts_replaces_them(tmp_path):
    assert load_concepts(DataConfig(Physionet2012("p12"))).channels != load().channels
    with pytest.raises(SchemaError, match=rf"{Path(__file__).parent}/own\.csv: cannot be read"):  # beside its class
        load_concepts(DataConfig(OwnConcepts(n_patients=300)))
    shipped = (ROOT / "ehrdl" / "clinical" / "concepts.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "two.csv").write_text("\n".join(shipped[:2]) + "\n", encoding="utf-8")
    own = load_concepts(DataConfig(OwnConcepts(n_patients=300), concepts=str(tmp_path / "two.csv")))
    assert [channel.name for channel in own.channels] == ["sodium"]
    assert load_concepts(DataConfig(Synthetic(n_patients=300))).channels == load().channels
