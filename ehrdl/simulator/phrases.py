"""The words of the synthetic hospital's notes: sentences that state a fact, deny it, or only resemble one that does.

Slots in braces are filled for each note. `___` marks text that de-identification removed, as in MIMIC. No sentence
states a laboratory value, so a note does not reveal the facts that the laboratory series show.
"""

from dataclasses import dataclass

HPI, PMH, SOCIAL, FAMILY = "History of Present Illness", "Past Medical History", "Social History", "Family History"
EXAM, COURSE, ISSUES = "Physical Exam", "Brief Hospital Course", "Transitional Issues"
MEDICATIONS, INSTRUCTIONS, FOLLOWUP = "Discharge Medications", "Discharge Instructions", "Followup Instructions"
SECTIONS = (HPI, PMH, SOCIAL, FAMILY, EXAM, COURSE, ISSUES, MEDICATIONS, INSTRUCTIONS, FOLLOWUP)


@dataclass(frozen=True)
class Wording:
    """The sentences for one fact about a patient.

    Attributes:
        sections: the sections of a note in which the fact may appear.
        stated: the sentences that state the fact, for each level.
        negated: the sentences that deny the fact; empty = it is never denied.
    """

    sections: tuple[str, ...]
    stated: dict[int, tuple[str, ...]]
    negated: tuple[str, ...] = ()


WORDINGS = {
    "lives_alone": Wording(
        (SOCIAL,),
        {
            1: (
                "Pt lives alone.",
                "Lives by {self} in a ___ floor apt.",
                "Resides by {self}, no family nearby.",
                "No one at home to help {him}.",
                "Widowed, now living on {his} own.",
                "Lives alone in senior housing.",
                "Stays alone since divorce.",
                "Single-person household, few social supports.",
                "Has been on {his} own since {spouse} passed away.",
                "SH: lives alone, independent in ADLs.",
            )
        },
        (
            "Lives with {spouse}.",
            "Does not live alone, daughter in same house.",
            "Lives w/ {spouse} and two children.",
            "Resides in assisted living with 24h staff.",
            "Not living alone; son moved in.",
            "Has {spouse} at home to help {him}.",
        ),
    ),
    "missed_medication": Wording(
        (HPI, COURSE),
        {
            1: (
                "Missed several doses of {drug} prior to admission.",
                "Nonadherent w/ meds.",
                "Pt ran out of {drug} ___ days ago.",
                "Has not been taking {drug} as prescribed.",
                "Admits to skipping {his} {drug}.",
                "Med noncompliance contributing to presentation.",
                "Stopped taking {drug} on {his} own.",
                "Often forgets {his} evening pills.",
                "Poor adherence to {drug} at home.",
                "Could not afford refills, off {drug} x 2 weeks.",
            )
        },
        (
            "Denies missing doses of {drug}.",
            "Reports taking all meds as prescribed.",
            "No missed doses per pillbox.",
            "Adherent w/ {drug}.",
            "Denies nonadherence, fills confirmed with pharmacy.",
            "No evidence of med noncompliance.",
        ),
    ),
    "follow_up": Wording(
        (FOLLOWUP,),
        {
            0: (
                "F/u with PCP scheduled for ___.",
                "Appointment made with Dr. ___ in 1 week.",
                "Has f/u in clinic on ___ at 10:30.",
                "PCP appt arranged before discharge.",
                "Follow-up booked w/ ___ clinic.",
                "Will be seen by Dr. ___ on ___.",
                "Scheduled to see PCP within 7 days.",
                "Transition visit confirmed with pt's PCP office.",
            ),
            2: (
                "No f/u appointment made at time of discharge.",
                "Unable to schedule f/u w/ PCP prior to discharge.",
                "Follow-up was not arranged.",
                "Pt has no PCP, no appointment could be booked.",
                "PCP office closed, no appt scheduled.",
                "Pt declined to have f/u scheduled.",
                "Appointment not confirmed; clinic did not call back.",
                "Left without a follow-up visit in place.",
            ),
        },
    ),
    "recent_falls": Wording(
        (HPI,),
        {
            1: (
                "Multiple falls at home over past month.",
                "Had a mechanical fall last week.",
                "Fell twice since {his} last visit.",
                "Found down by neighbor ___ days prior.",
                "Recurrent falls, now mostly bedbound.",
                "Barely out of bed for 2 weeks.",
                "Unsteady, s/p fall in bathroom on ___.",
                "Essentially chair-bound at baseline, recent fall.",
                "Pt has been falling more often lately.",
            )
        },
        (
            "Denies recent falls.",
            "No falls, ambulates without device.",
            "No h/o falls.",
            "Walks independently, no falls or syncope.",
            "Denies falling or gait instability.",
        ),
    ),
    "substance_use": Wording(
        (SOCIAL,),
        {
            1: (
                "Drinks ___ beers daily.",
                "Active EtOH abuse, last drink day of admission.",
                "Ongoing IVDU, last used ___.",
                "Uses cocaine on weekends.",
                "Endorses daily heroin use.",
                "Heavy etoh, 1 pint of vodka/day.",
                "Continues to use opioids not prescribed to {him}.",
                "Current polysubstance use.",
                "+EtOH, several drinks nightly.",
            )
        },
        (
            "Denies etoh, tobacco or illicits.",
            "No alcohol or drug use.",
            "Never drinks, no IVDU.",
            "Denies EtOH abuse.",
            "Rare glass of wine, no cocaine or heroin.",
        ),
    ),
    "poor_understanding": Wording(
        (COURSE, INSTRUCTIONS),
        {
            1: (
                "Pt could not repeat back {his} discharge plan.",
                "Teach-back unsuccessful x2.",
                "Limited insight into {his} illness and plan.",
                "Unclear which meds to take despite teaching.",
                "Poor understanding of discharge instructions.",
                "Did not understand when to call MD.",
                "Low health literacy, plan not understood.",
                "Remained confused about {his} med changes.",
                "Unable to explain {his} new regimen to RN.",
            )
        },
        (
            "Teach-back done, pt understands plan.",
            "Verbalized understanding of discharge instructions.",
            "No barriers to understanding identified.",
            "Pt able to repeat back {his} plan.",
            "Good insight into illness and meds.",
        ),
    ),
    "pending_workup": Wording(
        (ISSUES, COURSE),
        {
            1: (
                "Bx results pending at discharge.",
                "Workup not completed, to be finished as outpt.",
                "Source never identified.",
                "Outstanding labs at time of discharge.",
                "Left with symptoms not fully resolved.",
                "Cultures still pending.",
                "Etiology remains unclear, needs further w/u.",
                "Discharged with persistent symptoms.",
                "Imaging deferred, still needs to be done.",
            )
        },
        (
            "No results pending at discharge.",
            "Workup completed, no outstanding issues.",
            "Symptoms fully resolved.",
            "All cultures final and negative.",
            "No evidence of unresolved infection.",
        ),
    ),
}

# sentences without a fact; many use words of a fact, but are about relatives, the past, or something else
DISTRACTORS = {
    HPI: (
        "Denies chest pain, fevers or chills.",
        "No n/v/d.",
        "In the ED, initial VS were stable.",
        "{He} was in {his} USOH until ___.",
        "Symptoms began ___ days prior to arrival.",
        "Missed breakfast on day of arrival.",
        "Called {his} PCP, who sent {him} to the ED.",
        "Received {drug} in the ED.",
        "ROS otherwise negative.",
        "Pt's neighbor drove {him} in.",
        "BP fell after one dose of {drug}, recovered with IVF.",
        "Last seen in clinic on ___.",
        "Denies orthopnea, PND or edema.",
        "No headache, vision change or weakness.",
    ),
    PMH: (
        "HTN.",
        "HLD.",
        "DM2 on {drug}.",
        "CAD s/p stent in ___.",
        "GERD.",
        "CKD, baseline per PCP.",
        "s/p appendectomy ___.",
        "OA of both knees.",
        "COPD, no home O2.",
        "Fall from bicycle in childhood, wrist fx.",
        "Hypothyroidism on {drug}.",
        "Gout, no flare in years.",
        "Depression, stable on {drug}.",
    ),
    SOCIAL: (
        "Retired teacher.",
        "Worked at ___.",
        "Originally from ___.",
        "Former smoker, quit ___ years ago.",
        "Enjoys gardening.",
        "Lived alone in college, later in ___.",
        "Has ___ grandchildren.",
        "Sister lives alone in ___.",
        "Used to run a bar with {his} brother.",
        "HCP is {his} daughter ___.",
    ),
    FAMILY: (
        "Father w/ multiple falls in old age.",
        "Mother nonadherent with DM meds.",
        "Brother with EtOH abuse.",
        "Father died of MI at ___.",
        "Mother with HTN and CVA.",
        "Uncle with heroin use.",
        "Grandmother lived alone until 90.",
        "No family history of sudden death.",
        "Sister with breast cancer.",
        "Aunt missed cancer screening, died of colon ca.",
        "No early CAD.",
    ),
    EXAM: (
        "NAD, AOx3.",
        "RRR, no m/r/g.",
        "CTAB, no wheezes.",
        "Abd soft, NT, ND.",
        "No edema.",
        "Neuro: CN II-XII intact.",
        "Gait deferred, fall precautions per protocol.",
        "Pulses fell short of strong at L foot, unchanged.",
        "Skin warm, no rash.",
        "JVP not elevated.",
        "MMM, OP clear.",
    ),
    COURSE: (
        "Pt was admitted to ___ and treated with {drug}.",
        "{drug} was held on day 1 and resumed.",
        "Seen by PT, cleared for discharge.",
        "CXR without acute process.",
        "Culture data reviewed with ID.",
        "Diet was advanced as tolerated.",
        "Remained hemodynamically stable.",
        "One dose of {drug} missed while NPO, given later.",
        "Social work met with pt's family.",
        "Prior alcohol level from ___ not relevant.",
        "Transitioned from IV to PO {drug}.",
        "TTE was obtained, EF preserved.",
        "Pain controlled with {drug}.",
        "Initial workup in ___ had been unremarkable.",
        "Nutrition was consulted.",
        "Home {drug} continued at {dose} mg {often}.",
    ),
    ISSUES: (
        "Please recheck weight at next visit.",
        "{drug} increased to {dose} mg {often}.",
        "Consider outpt sleep study.",
        "Code status: full.",
        "Contact: ___.",
        "Eye exam due next year.",
        "Vaccines up to date.",
        "Prior auth for {drug} pending with insurer, filled for 90 days.",
    ),
    MEDICATIONS: (
        "{drug} {dose} mg PO {often}.",
        "{drug} {dose} mg PO {often} PRN.",
        "Acetaminophen 650 mg PO Q6H:PRN pain.",
        "Docusate 100 mg PO BID.",
        "Senna 8.6 mg PO BID:PRN constipation.",
    ),
    INSTRUCTIONS: (
        "Dear ___, it was a pleasure caring for you.",
        "You were treated with {drug}.",
        "Weigh yourself every morning.",
        "Do not miss your {drug}.",
        "Please avoid alcohol with these pills.",
        "Use caution to prevent falls.",
        "Please call if you do not understand these instructions.",
        "Drink fluids and rest.",
        "Your ___ Care Team.",
        "Take your meds as prescribed.",
    ),
    FOLLOWUP: (
        "Bring this letter with you.",
        "Bring your pill bottles along.",
        "Clinic fax: ___.",
        "Parking is free at ___ garage.",
        "Interpreter not needed.",
    ),
}
DRUGS = (
    *("lasix", "metoprolol", "lisinopril", "warfarin", "insulin", "metformin", "atorvastatin", "amlodipine"),
    *("prednisone", "omeprazole", "levothyroxine", "gabapentin", "apixaban", "torsemide", "losartan", "sertraline"),
)
DOSES = ("5", "10", "20", "25", "40", "50", "81", "100")
OFTEN = ("daily", "BID", "TID", "QHS", "Q12H")
SERVICES = {
    **{"MED": "MEDICINE", "CMED": "MEDICINE", "NMED": "NEUROLOGY", "OMED": "MEDICINE", "SURG": "SURGERY"},
    **{"CSURG": "CARDIOTHORACIC", "ORTHO": "ORTHOPAEDICS", "PSYCH": "PSYCHIATRY", "OBS": "OBSTETRICS"},
}
DISPOSITIONS = {
    **{"HOME": "Home", "HOME HEALTH CARE": "Home With Service", "DIED": "Expired", "HOSPICE": "Extended Care"},
    **{"SKILLED NURSING FACILITY": "Extended Care", "REHAB": "Extended Care", "AGAINST ADVICE": "Home"},
    **{"CHRONIC/LONG TERM ACUTE CARE": "Extended Care", "ACUTE HOSPITAL": "Extended Care"},
}
STUDIES = (
    (
        "CHEST (PORTABLE AP)",
        (
            "Lungs are clear.",
            "No focal consolidation.",
            "Mild pulmonary vascular congestion.",
            "Small left effusion.",
            "Heart size is normal.",
            "Lung volumes are low.",
        ),
        ("No acute cardiopulmonary process.", "No evidence of pneumonia.", "Bibasilar atelectasis."),
    ),
    (
        "CT HEAD W/O CONTRAST",
        (
            "No hemorrhage or infarct.",
            "Ventricles are normal in size.",
            "Mild atrophy.",
            "Paranasal sinuses are clear.",
        ),
        ("No acute intracranial process.", "Chronic small vessel disease."),
    ),
    (
        "RENAL U.S.",
        (
            "No hydronephrosis.",
            "Kidneys are normal in size.",
            "Simple cyst in left kidney.",
            "Bladder is decompressed.",
        ),
        ("Normal renal ultrasound.", "No hydronephrosis."),
    ),
    (
        "CT ABD & PELVIS WITH CONTRAST",
        ("Liver is homogeneous.", "No free air.", "Scattered diverticula.", "Appendix is normal.", "No adenopathy."),
        ("No acute abdominal process.", "Diverticulosis without diverticulitis."),
    ),
)
