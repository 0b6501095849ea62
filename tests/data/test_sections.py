"""Sections of notes in the published format of MIMIC-IV-Note; the texts are made up."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrdl.data.apply import Fitted, apply
from ehrdl.data.config import NoteOptions
from ehrdl.data.loading.collate import Collate
from ehrdl.data.notes.build import collect, tokenize
from ehrdl.data.notes.sections import REPORT, SUMMARY, keep_sections, mask_section, normalized, split_sections
from ehrdl.data.notes.store import open_notes
from ehrdl.data.notes.vocabulary import fit_tokenizer, load_tokenizer
from ehrdl.data.prepare import prepare
from ehrdl.engine.files import read_json
from ehrdl.engine.options import Prepare
from ehrdl.schema import TRAIN
from ehrdl.simulator.illness import CONDITIONS
from ehrdl.simulator.risk import NOTE_NAMES
from ehrdl.simulator.text import summary

DISCHARGE = """ 
Name:  ___                    Unit No:   ___
 
Admission Date:  ___              Discharge Date:   ___
 
Date of Birth:  ___             Sex:   F
 
Service: MEDICINE
 
Allergies: 
Penicillins
 
Attending: ___.
 
Chief Complaint:
Dyspnea
 
Major Surgical or Invasive Procedure:
None

 
History of Present Illness:
___ yo F who was well until ___.
Service: seen by cardiology before.
In the ED: T 98 HR 90

Past Medical History:
1. Gout
 
Physical Exam:
HEENT: normal
Lungs: clear
 
Pertinent Results:
CHEST (PORTABLE AP)
FINDINGS: no edema
IMPRESSION: no acute process.
 
___ Hospital Course:
# Dyspnea: resolved.

Medications on Admission:
1. Allopurinol 100 mg PO DAILY

Discharge medications:
1. Allopurinol 100 mg PO DAILY
 
DISCHARGE DISPOSITION:
Home
 
Follow-up Instructions:
___
"""
RADIOLOGY = """EXAMINATION:  CHEST (PORTABLE AP)

INDICATION:  ___ year old woman with dyspnea  // edema?

TECHNIQUE:  Portable

COMPARISON:  None.

FINDINGS: 

LUNGS: clear.

IMPRESSION: 
 
No edema.
"""


def named(text):
    return [(section.name, text[section.start : section.stop]) for section in split_sections(text)]


def test_a_discharge_summary_is_split_at_its_headings():
    names = [name for name, _ in named(DISCHARGE)]
    assert names == [
        "identification", "service", "allergies", "attending", "chief complaint",
        "major surgical or invasive procedure", "history of present illness", "past medical history", "physical exam",
        "pertinent results", "brief hospital course", "medications on admission", "discharge medications",
        "discharge disposition", "followup instructions",
    ]  # fmt: skip
    bodies = dict(named(DISCHARGE))
    assert bodies["service"] == "Service: MEDICINE\n \n"
    assert "Sex:   F" in bodies["identification"]
    assert "seen by cardiology" in bodies["history of present illness"]  # in front alone does such a line begin one
    assert "IMPRESSION: no acute process." in bodies["pertinent results"]  # a report that was pasted in
    assert bodies["discharge disposition"] == "DISCHARGE DISPOSITION:\nHome\n \n"


def test_a_radiology_report_is_split_at_its_headings_in_capitals():
    assert [name for name, _ in named(RADIOLOGY)] == [
        "examination", "indication", "technique", "comparison", "findings", "impression",
    ]  # fmt: skip
    assert dict(named(RADIOLOGY))["findings"] == "FINDINGS: \n\nLUNGS: clear.\n\n"


@pytest.mark.parametrize("name", [*SUMMARY, *REPORT])
def test_every_listed_heading_is_found_as_it_is_written(name):
    writings = [name.title(), name.upper(), name.capitalize()] if name in SUMMARY else [name.upper()]
    for heading in writings:
        text = f"{heading}:\nbody\n"
        assert named(text) == [(name, text)]
        assert normalized(f" {heading.replace(' ', '  ')} ") == name


@pytest.mark.parametrize("text", ["", "\n", "no heading at all", "see: below", "a\n\nB c:\n", "12:\n", "___:\n"])
def test_a_text_without_headings_is_one_section_without_a_name(text):
    assert named(text) == ([("", text)] if text else [])


def test_what_stands_before_the_first_heading_has_no_name_and_neighbours_of_one_name_are_one():
    text = "dictated by ___\nSocial History:\na\nSOCIAL HISTORY:\nb\nFamily History:\nc\n"
    assert named(text) == [
        ("", "dictated by ___\n"),
        ("social history", "Social History:\na\nSOCIAL HISTORY:\nb\n"),
        ("family history", "Family History:\nc\n"),
    ]


LINE = st.sampled_from(
    ["Service: X", "Social History:", "Physical Exam:  ", "FINDINGS: a", "IMPRESSION:", "Labs:", "b: c", "", " ",
     "text", "Allergies:", "Attending: ___", "Discharge Disposition:", "Discharge Disposition: home", "Facility:"]
)  # fmt: skip
TEXTS = st.lists(LINE, max_size=14).map("\n".join)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=TEXTS | st.text("aA:_ \n\tB", max_size=40))
def test_the_sections_are_the_whole_text(text):
    found = split_sections(text)
    assert "".join(text[section.start : section.stop] for section in found) == text
    assert all(section.stop > section.start for section in found)


BODY = st.lists(LINE, max_size=14, unique=True).map(lambda lines: "\n".join(["Chief Complaint:", *lines]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=BODY.filter(lambda text: "home" not in text), data=st.data())
def test_what_cuts_and_what_splits_agree_on_the_headings(text, data):
    sections = named(text)
    name, _ = data.draw(st.sampled_from(sections))
    cut = "".join(body.partition(":")[0] + ":\n" if one == name else body for one, body in sections)
    assert mask_section(text, name) == (cut, True)
    assert keep_sections(text, [name]) == (dict(sections)[name], {name})


def test_a_mask_takes_every_way_to_write_a_heading():
    for name in ("Discharge Disposition", "discharge  disposition", "Follow-up Instructions", "Brief Hospital Course"):
        cut, found = mask_section(DISCHARGE, name)
        assert found
        assert dict(named(cut))[normalized(name)].partition(":")[2] == "\n"
        assert [t for n, t in named(cut) if n != normalized(name)] == [
            t for n, t in named(DISCHARGE) if n != normalized(name)
        ]


def test_a_section_that_begins_on_a_line_with_text_is_masked_up_to_a_heading_that_stands_alone():
    text = "Discharge Disposition: Hospice\nName: of the hospice\nIMPRESSION: dying\nDischarge Diagnosis:\nCHF\n"
    assert mask_section(text, "Discharge Disposition")[0] == "Discharge Disposition:\nDischarge Diagnosis:\nCHF\n"


def test_only_kept_sections_are_kept():
    kept, found = keep_sections(DISCHARGE, ["Chief Complaint", "Followup Instructions", "Transitional Issues"])
    assert kept == "Chief Complaint:\nDyspnea\n \nFollow-up Instructions:\n___\n"
    assert found == {"Chief Complaint", "Followup Instructions"}
    assert keep_sections("no headings", ["Chief Complaint"]) == ("", set())


def test_the_synthetic_hospital_writes_sections():
    pick = random.Random(0)
    for words in ((60, 80), (300, 400)):
        text = summary(pick, dict.fromkeys(NOTE_NAMES, 1), True, CONDITIONS[0], None, words)
        names = [name for name, _ in named(text)]
        assert names[0] == "identification" and "" not in names
        assert set(names) <= {"identification", "service", "allergies", "attending", *SUMMARY}
        assert names[-1] == "discharge disposition"


ROWS = [
    (1, 0, "NOTE//discharge//DS", None, DISCHARGE, 1),
    (1, 1, "NOTE//radiology//RR", None, RADIOLOGY, 2),
    (1, 2, "NOTE//discharge//AD", None, "Addendum only.", 3),
    (2, 0, "NOTE//discharge//DS", None, "", 1),
]


@pytest.fixture(scope="module")
def tokenizer(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer")
    fit_tokenizer(build.notes([(1, 0, 0, DISCHARGE + RADIOLOGY)] * 3), np.array([1]), 300, out, min_patients=1)
    return load_tokenizer(str(out))


@pytest.fixture
def opened(build, tokenizer, tmp_path):
    def make(rows, by_section=True, **sections):
        events = build.events(tmp_path / f"events{len(list(tmp_path.iterdir()))}", rows)
        texts, tokens = events / "notes", events / "tokens"
        texts.mkdir(), tokens.mkdir()
        collect(events, texts, Prepare(), **sections)
        tokenize(open_notes(texts), tokenizer, tokens, Prepare(), by_section)
        return open_notes(texts, tokens)

    return make


def test_sections_are_stored_in_tokens_beside_the_notes(opened, tokenizer):
    notes, whole = opened(ROWS), opened(ROWS, by_section=False)
    assert whole.sections is None
    sections = notes.sections
    assert sections.offsets.tolist() == [0, 15, 21, 22, 22]
    for row, text in enumerate([DISCHARGE, RADIOLOGY, "Addendum only."]):
        own = slice(*sections.offsets[row : row + 2])
        assert [sections.names[name] for name in sections.name[own]] == [name for name, _ in named(text)]
        encode = tokenizer.backend_tokenizer.encode
        bodies = [encode(body, add_special_tokens=False).ids for _, body in named(text)]
        assert sections.length[own].tolist() == [len(body) for body in bodies]
        assert notes.tokens[row].tolist() == [one for body in bodies for one in body]
        assert notes.tokens[row].tolist() == whole.tokens[row].tolist()  # WordPiece: as the whole note
    assert notes.tokens[3].tolist() == []
    assert [notes.codes[code] for code in notes.code] == [row[2] for row in ROWS]


def test_a_section_knows_nothing_of_its_neighbours_text(opened):
    changed = DISCHARGE.replace("Gout", "Lupus of many words").replace("Penicillins\n", "")
    assert changed != DISCHARGE

    def tokens_by_section(text):
        notes = opened([(1, 0, "NOTE//discharge//DS", None, text, 1)])
        edges = np.r_[0, np.cumsum(notes.sections.length)]
        ids = notes.tokens[0]
        names = [notes.sections.names[name] for name in notes.sections.name]
        return {name: ids[a:b].tolist() for name, a, b in zip(names, edges, edges[1:], strict=False)}

    before, after = tokens_by_section(DISCHARGE), tokens_by_section(changed)
    assert {name for name in before if before[name] != after[name]} == {"allergies", "past medical history"}


def test_summaries_of_which_nothing_is_kept_are_no_notes_and_reports_are_whole(opened):
    notes = opened(ROWS, keep_sections=("Discharge Disposition",), mask_sections=())
    assert notes.texts([0, 1, 2]) == ["DISCHARGE DISPOSITION:\nHome\n \n", RADIOLOGY, "Addendum only."]
    assert len(notes) == 3


@pytest.fixture
def collected(build, tmp_path):
    """The texts of some notes of one subject, by code, and how many were cut, kept and left out."""

    def make(notes, **sections):
        events = build.events(tmp_path, [(1, i, code, None, text, i) for i, (code, text) in enumerate(notes)])
        (events / "notes").mkdir()
        collect(events, events / "notes", Prepare(), **sections)
        found = open_notes(events / "notes")
        codes = [found.codes[code] for code in found.code]
        return list(zip(codes, found.texts(np.arange(len(found))), strict=True)), read_json(
            events / "notes" / "sections.json"
        )

    return make


@pytest.mark.parametrize(
    "text",
    [
        "The culture grew MRSA.",
        "Service: MEDICINE\n \nAllergies: \nPenicillins\n \nAddendum:\nThe culture grew MRSA.\n",
        "Please note: Discharge Disposition: was discussed.\n",  # within a line
    ],
)
def test_an_addendum_without_headings_of_its_own_is_kept_whole(collected, text):
    notes, counts = collected([("NOTE//discharge//AD", text)], keep_sections=["Chief Complaint"])
    assert notes == [("NOTE//discharge//AD", text)]
    assert counts == {"masked": {}, "kept": {"Chief Complaint": 0}, "left_out": {}}


def test_an_addendum_with_headings_is_cut_as_a_summary_and_what_is_left_out_is_counted(collected):
    text = "Service: MEDICINE\n \nAddendum:\nThe culture grew.\n \nDischarge Disposition:\nHome\n"
    rows = [("NOTE//discharge//AD", text), ("NOTE//discharge//DS", DISCHARGE), ("NOTE//discharge//DS", "No headings.")]
    notes, counts = collected(rows, keep_sections=["Addendum"])
    assert notes == [("NOTE//discharge//AD", "Addendum:\nThe culture grew.\n \n")]
    assert counts == {"masked": {}, "kept": {"Addendum": 1}, "left_out": {"NOTE//discharge//DS": 2}}


def test_sections_of_radiology_reports_are_masked_and_never_kept_alone(collected):
    rows = [("NOTE//radiology//RR", RADIOLOGY), ("NOTE//discharge//DS", DISCHARGE), ("NOTE//other", RADIOLOGY)]
    masks = ["Impression", "FINDINGS", "Social History"]
    notes, counts = collected(rows, mask_sections=masks, keep_sections=["Discharge Disposition"])
    assert [code for code, _ in notes] == [code for code, _ in rows]
    report, summary, other = (text for _, text in notes)
    assert report == RADIOLOGY.replace(" \n\nLUNGS: clear.\n\n", "\n").replace(" \n \nNo edema.\n", "\n")
    assert summary == "DISCHARGE DISPOSITION:\nHome\n \n" and other == RADIOLOGY
    # The summary holds a report that was pasted in, so it has these lines too.
    assert counts["masked"] == {"Impression": 2, "FINDINGS": 2, "Social History": 0}


@pytest.mark.parametrize("heading", ["IMPRESSION", "CONCLUSION", "Conclusion", "Impression"])
def test_a_section_of_a_report_is_masked_by_whatever_name_and_case_it_has(heading):
    report = f"INDICATION: Dyspnea.\n{heading}: Heart failure.\nCOMPARISON: None."
    assert mask_section(report, "Impression", is_report=True) == (
        f"INDICATION: Dyspnea.\n{heading}:\nCOMPARISON: None.",
        True,
    )


def test_a_masked_section_of_a_report_ends_at_the_next_heading_with_text_on_its_line():
    report = "INDICATION:  Dyspnea\nCOMPARISON:  None.\nWET READ: VERSION 1\nEdema.\nFINDINGS:  Clear."
    assert mask_section(report, "wet read", is_report=True)[0] == report.replace(" VERSION 1\nEdema.", "")
    assert mask_section(report, "Reason for Exam", is_report=True) == (report.replace("  Dyspnea", ""), True)
    assert mask_section(report, "Findings", is_report=True)[0] == report.replace("  Clear.", "\n")
    assert mask_section(report, "Impression", is_report=True) == (report, False)


@pytest.fixture(scope="module")
def sectioned(hospital):
    options = NoteOptions(split_sections=True, mask_sections=["Social History"])
    return prepare(replace(hospital.config, notes=options), hospital.events, hospital.result)


def test_a_hospital_split_into_sections_has_their_kinds_and_chunks_of_one_section(sectioned):
    kinds = sectioned.spec.note_kinds
    assert kinds[0] == "other" and "discharge//DS//history of present illness" in kinds
    assert "radiology//RR//impression" in kinds and "discharge//DS" not in kinds
    assert sectioned.frame.kinds == kinds
    reads = load_tokenizer(sectioned.tokenizer)
    rows = sectioned.rows(TRAIN)[:40]
    batch = Collate(sectioned.dataset.notes, sectioned.frame)(sectioned.dataset.__getitems__(rows))
    heading = {"history of present illness", "impression", "discharge disposition", "chief complaint"}
    seen = set()
    for tokens, valid, kind in zip(batch.tokens, batch.token_valid, batch.kind, strict=True):
        words = reads.decode(tokens[valid][1:-1])
        name = kinds[kind].rpartition("//")[2]
        inside = {other for other in heading if f"{other} :" in words}
        assert inside <= {name}
        seen |= inside
    assert seen == heading


def test_the_text_of_a_masked_section_is_in_no_chunk(hospital, sectioned):
    plain = hospital.prepared.dataset.notes.texts(np.arange(len(hospital.prepared.dataset.notes)))
    bodies = {
        body.partition(":")[2].strip() for text in plain for name, body in named(text) if name == "social history"
    }
    assert len(bodies) > 100
    notes = sectioned.dataset.notes
    social = notes.sections.names.index("social history")
    empty = load_tokenizer(sectioned.tokenizer).backend_tokenizer.encode("Social History:\n", add_special_tokens=False)
    assert set(notes.sections.length[notes.sections.name == social]) == {len(empty.ids)}
    assert not any(body in text for text in notes.texts(np.arange(len(notes))) for body in bodies if len(body) > 60)


def test_kinds_of_the_run_are_kept_where_it_is_applied(hospital, sectioned):
    options = NoteOptions(split_sections=True, mask_sections=["Social History"])
    fitted = Fitted(sectioned.spec, sectioned.tokenizer, hospital.events.name)
    again, _ = apply(replace(hospital.config, notes=options), hospital.events, hospital.result, fitted)
    assert again.frame == sectioned.frame
    ours, theirs = (Collate(p.dataset.notes, p.frame)(p.dataset.__getitems__(range(30))) for p in (sectioned, again))
    assert ours.kind.equal(theirs.kind) and ours.tokens.equal(theirs.tokens) and ours.kind.max() > 3
