"""The synthetic hospital's reasons for admission, and the ICD codes that are billed for them.

The reason for admission does not depend on the latent states of `risk`. One of these states, chronic burden, decides
how many secondary codes a stay has, and thereby how likely each of them is. Codes become available seven days after
discharge, too late for the prediction at that discharge.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ehrdl.simulator.files import Columns
from ehrdl.simulator.risk import Ints
from ehrdl.simulator.stays import ANCHOR_GROUPS, OBSERVATION, PLANNED, UNPLANNED, Block, year_of

DELIVERY = 3  # some unplanned episodes of women under 45
P_DELIVERY = 0.12
ICD10_YEAR = 2015  # in fact 1 October 2015


@dataclass(frozen=True)
class Condition:
    """A reason for admission.

    Attributes:
        name: the diagnosis, in the words of the note.
        complaint: the patient's complaints, in the words of the note.
        codes: the ICD-9 code and the ICD-10 code.
        service: the hospital service that treats it.
        ward: the care unit of the stay.
        kind: the kind of episode: `UNPLANNED`, `PLANNED`, `OBSERVATION` or `DELIVERY`.
        weight: the relative frequency among the reasons of the same kind.
    """

    name: str
    complaint: str
    codes: tuple[str, str]
    service: str
    ward: str
    kind: int
    weight: float


_ED_OBSERVATION = "Emergency Department Observation"
CONDITIONS = (
    Condition("heart failure", "dyspnea", ("42833", "I5033"), "CMED", "Medicine/Cardiology", UNPLANNED, 13),
    Condition("pneumonia", "cough, fever", ("486", "J189"), "MED", "Medicine", UNPLANNED, 11),
    Condition("sepsis", "fever, hypotension", ("0389", "A419"), "MED", "Medicine", UNPLANNED, 10),
    Condition("acute kidney injury", "weakness", ("5849", "N179"), "MED", "Medicine", UNPLANNED, 8),
    Condition("COPD exacerbation", "shortness of breath", ("49121", "J441"), "MED", "Medicine", UNPLANNED, 8),
    Condition("GI bleed", "melena", ("5789", "K922"), "MED", "Medicine", UNPLANNED, 7),
    Condition("urinary tract infection", "dysuria, confusion", ("5990", "N390"), "MED", "Medicine", UNPLANNED, 7),
    Condition("atrial fibrillation", "palpitations", ("42731", "I4891"), "CMED", "Medicine/Cardiology", UNPLANNED, 7),
    Condition("NSTEMI", "chest pain", ("41071", "I214"), "CMED", "Medicine/Cardiology", UNPLANNED, 6),
    Condition("stroke", "facial droop", ("43491", "I639"), "NMED", "Neurology", UNPLANNED, 5),
    Condition("cellulitis", "leg swelling", ("6826", "L03115"), "MED", "Med/Surg", UNPLANNED, 5),
    Condition("hip fracture", "hip pain", ("82021", "S72141A"), "ORTHO", "Med/Surg/Trauma", UNPLANNED, 5),
    Condition("depression", "suicidal ideation", ("29620", "F329"), "PSYCH", "Psychiatry", UNPLANNED, 2.5),
    Condition("lung cancer", "hemoptysis", ("1629", "C3490"), "OMED", "Hematology/Oncology", UNPLANNED, 2.5),
    Condition("labor", "contractions", ("650", "O80"), "OBS", "Obstetrics (Postpartum & Antepartum)", DELIVERY, 1),
    Condition("hip osteoarthritis", "elective hip replacement", ("71535", "M1611"), "ORTHO", "Med/Surg", PLANNED, 10),
    Condition("coronary artery disease", "elective CABG", ("41401", "I2510"), "CSURG", "Cardiac Surgery", PLANNED, 8),
    Condition("inguinal hernia", "elective hernia repair", ("55090", "K4090"), "SURG", "Med/Surg", PLANNED, 6),
    Condition("aortic stenosis", "elective AVR", ("4241", "I350"), "CSURG", "Cardiac Surgery", PLANNED, 5),
    Condition("colon cancer", "elective colectomy", ("1539", "C189"), "SURG", "Med/Surg", PLANNED, 4),
    Condition("chemotherapy", "chemotherapy", ("V5811", "Z5111"), "OMED", "Hematology/Oncology", PLANNED, 4),
    Condition("rehabilitation", "deconditioning", ("V5789", "Z5189"), "MED", "Medicine", PLANNED, 1),
    Condition("chest pain", "chest pain", ("78659", "R0789"), "MED", _ED_OBSERVATION, OBSERVATION, 5),
    Condition("syncope", "syncope", ("7802", "R55"), "MED", _ED_OBSERVATION, OBSERVATION, 4),
    Condition("abdominal pain", "abdominal pain", ("78900", "R109"), "MED", _ED_OBSERVATION, OBSERVATION, 4),
)
_OUTCOME_OF_DELIVERY = ("V270", "Z370")
_FURTHER = (  # (ICD-9, ICD-10), weight
    (("4019", "I10"), 40),
    (("25000", "E119"), 25),
    (("5853", "N183"), 14),
    (("2859", "D649"), 16),
    (("2724", "E785"), 28),
    (("53081", "K219"), 18),
    (("2761", "E871"), 10),
    (("496", "J449"), 12),
    (("4280", "I509"), 4),  # chronic heart failure, without a sign of it on the first day
    (("3051", "F17210"), 9),
    (("30500", "F1010"), 5),
    (("V1588", "Z9181"), 4),
)
TITLES = {
    ("42833", 9): "Acute on chronic diastolic heart failure",
    ("I5033", 10): "Acute on chronic diastolic (congestive) heart failure",
    ("486", 9): "Pneumonia, organism unspecified",
    ("J189", 10): "Pneumonia, unspecified organism",
    ("0389", 9): "Unspecified septicemia",
    ("A419", 10): "Sepsis, unspecified organism",
    ("5849", 9): "Acute kidney failure, unspecified",
    ("N179", 10): "Acute kidney failure, unspecified",
    ("49121", 9): "Obstructive chronic bronchitis with (acute) exacerbation",
    ("J441", 10): "Chronic obstructive pulmonary disease with (acute) exacerbation",
    ("5789", 9): "Hemorrhage of gastrointestinal tract, unspecified",
    ("K922", 10): "Gastrointestinal hemorrhage, unspecified",
    ("5990", 9): "Urinary tract infection, site not specified",
    ("N390", 10): "Urinary tract infection, site not specified",
    ("42731", 9): "Atrial fibrillation",
    ("I4891", 10): "Unspecified atrial fibrillation",
    ("41071", 9): "Subendocardial infarction, initial episode of care",
    ("I214", 10): "Non-ST elevation (NSTEMI) myocardial infarction",
    ("43491", 9): "Cerebral artery occlusion, unspecified with cerebral infarction",
    ("I639", 10): "Cerebral infarction, unspecified",
    ("6826", 9): "Cellulitis and abscess of leg, except foot",
    ("L03115", 10): "Cellulitis of right lower limb",
    ("82021", 9): "Closed fracture of intertrochanteric section of neck of femur",
    ("S72141A", 10): "Displaced intertrochanteric fracture of right femur, initial encounter for closed fracture",
    ("29620", 9): "Major depressive affective disorder, single episode, unspecified",
    ("F329", 10): "Major depressive disorder, single episode, unspecified",
    ("1629", 9): "Malignant neoplasm of bronchus and lung, unspecified",
    ("C3490", 10): "Malignant neoplasm of unspecified part of unspecified bronchus or lung",
    ("650", 9): "Normal delivery",
    ("O80", 10): "Encounter for full-term uncomplicated delivery",
    ("71535", 9): "Osteoarthrosis, localized, not specified whether primary or secondary, pelvic region and thigh",
    ("M1611", 10): "Unilateral primary osteoarthritis, right hip",
    ("41401", 9): "Coronary atherosclerosis of native coronary artery",
    ("I2510", 10): "Atherosclerotic heart disease of native coronary artery without angina pectoris",
    ("55090", 9): "Inguinal hernia, without mention of obstruction or gangrene, "
    "unilateral or unspecified (not specified as recurrent)",
    ("K4090", 10): "Unilateral inguinal hernia, without obstruction or gangrene, not specified as recurrent",
    ("4241", 9): "Aortic valve disorders",
    ("I350", 10): "Nonrheumatic aortic (valve) stenosis",
    ("1539", 9): "Malignant neoplasm of colon, unspecified site",
    ("C189", 10): "Malignant neoplasm of colon, unspecified",
    ("V5811", 9): "Encounter for antineoplastic chemotherapy",
    ("Z5111", 10): "Encounter for antineoplastic chemotherapy",
    ("V5789", 9): "Care involving other specified rehabilitation procedure",
    ("Z5189", 10): "Encounter for other specified aftercare",
    ("78659", 9): "Other chest pain",
    ("R0789", 10): "Other chest pain",
    ("7802", 9): "Syncope and collapse",
    ("R55", 10): "Syncope and collapse",
    ("78900", 9): "Abdominal pain, unspecified site",
    ("R109", 10): "Unspecified abdominal pain",
    ("V270", 9): "Outcome of delivery, single liveborn",
    ("Z370", 10): "Single live birth",
    ("4019", 9): "Unspecified essential hypertension",
    ("I10", 10): "Essential (primary) hypertension",
    ("25000", 9): "Diabetes mellitus without mention of complication, type II or "
    "unspecified type, not stated as uncontrolled",
    ("E119", 10): "Type 2 diabetes mellitus without complications",
    ("5853", 9): "Chronic kidney disease, Stage III (moderate)",
    ("N183", 10): "Chronic kidney disease, stage 3 (moderate)",
    ("2859", 9): "Anemia, unspecified",
    ("D649", 10): "Anemia, unspecified",
    ("2724", 9): "Other and unspecified hyperlipidemia",
    ("E785", 10): "Hyperlipidemia, unspecified",
    ("53081", 9): "Esophageal reflux",
    ("K219", 10): "Gastro-esophageal reflux disease without esophagitis",
    ("2761", 9): "Hyposmolality and/or hyponatremia",
    ("E871", 10): "Hypo-osmolality and hyponatremia",
    ("496", 9): "Chronic airway obstruction, not elsewhere classified",
    ("J449", 10): "Chronic obstructive pulmonary disease, unspecified",
    ("4280", 9): "Congestive heart failure, unspecified",
    ("I509", 10): "Heart failure, unspecified",
    ("3051", 9): "Tobacco use disorder",
    ("F17210", 10): "Nicotine dependence, cigarettes, uncomplicated",
    ("30500", 9): "Alcohol abuse, unspecified",
    ("F1010", 10): "Alcohol abuse, uncomplicated",
    ("V1588", 9): "History of fall",
    ("Z9181", 10): "History of falling",
}


def draw_conditions(rng: np.random.Generator, block: Block) -> Ints:
    """Draw the reason for admission of each episode, as a row number of `CONDITIONS`."""
    episodes, who = block.episodes, block.patients.iloc[block.episodes["patient"]]
    kind = episodes["kind"].to_numpy().copy()
    young = (who["female"] & (who["anchor_age"] < 45)).to_numpy()
    kind[young & (kind == UNPLANNED) & (rng.random(len(kind)) < P_DELIVERY)] = DELIVERY
    drawn = np.zeros(len(kind), dtype=np.int64)
    for value in (UNPLANNED, PLANNED, OBSERVATION, DELIVERY):
        rows = np.flatnonzero([condition.kind == value for condition in CONDITIONS])
        weight = np.array([CONDITIONS[row].weight for row in rows])
        of_kind = kind == value
        drawn[of_kind] = rng.choice(rows, of_kind.sum(), p=weight / weight.sum())
    return drawn


def diagnoses(rng: np.random.Generator, block: Block, conditions: Ints) -> Columns:
    """Draw the rows of the table diagnoses_icd for a block of patients.

    Each stay has a principal code for its reason for admission, then secondary codes. Chronic burden and chance decide
    how many.
    """
    stays, episodes = block.stays, block.episodes
    episode = stays["episode"].to_numpy()
    patient = block.patients.iloc[episodes["patient"].to_numpy()[episode]]
    icd10 = _icd10(block, patient)
    principal = conditions[episode]
    n_further = 1 + 2 * patient["chronic"].to_numpy() + rng.poisson(1.5, len(stays))
    n_further = np.minimum(n_further, len(_FURTHER))
    # each code's rank in a weighted shuffle; the first n_further codes are billed
    weight = np.array([weight for _, weight in _FURTHER], dtype=np.float64)
    order = np.argsort(rng.exponential(size=(len(stays), len(weight))) / weight, axis=1)
    stay, position = np.nonzero(np.arange(len(weight)) < n_further[:, None])
    delivered = np.flatnonzero([CONDITIONS[row].kind == DELIVERY for row in principal])

    all_codes = np.array([c.codes for c in CONDITIONS] + [codes for codes, _ in _FURTHER] + [_OUTCOME_OF_DELIVERY])
    code_row = np.concatenate(
        [principal, len(CONDITIONS) + order[stay, position], np.full(len(delivered), len(all_codes) - 1)]
    )
    of_stay = np.concatenate([np.arange(len(stays)), stay, delivered])
    return {
        "subject_id": patient["subject_id"].to_numpy()[of_stay],
        "hadm_id": stays["hadm_id"].to_numpy()[of_stay],
        "seq_num": np.concatenate([np.ones(len(stays), dtype=np.int64), position + 2, n_further[delivered] + 2]),
        "icd_code": all_codes.astype(object)[code_row, icd10[of_stay].astype(np.int64)],
        "icd_version": np.where(icd10[of_stay], 10, 9),
    }


def code_titles() -> Columns:
    """Return the rows of the table d_icd_diagnoses: every code that this hospital uses, with its title."""
    return {
        "icd_code": [code for code, _ in TITLES],
        "icd_version": [version for _, version in TITLES],
        "long_title": list(TITLES.values()),
    }


def _icd10(block: Block, patient: pd.DataFrame) -> Ints:
    """Return whether each stay is coded in ICD-10, which is used from the true year `ICD10_YEAR` on."""
    group_start = np.array([int(group[:4]) for group in ANCHOR_GROUPS])[patient["anchor_group"]]
    year = group_start + year_of(block.stays["start"].to_numpy()) - patient["anchor_year"].to_numpy()
    return np.asarray(year >= ICD10_YEAR)
