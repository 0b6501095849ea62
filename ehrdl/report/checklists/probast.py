"""PROBAST+AI: questions on the quality of a model's development and the risk of bias of its evaluation.

The domains and the order of the questions are those of Moons et al., BMJ 2025;388:e082505: 16 on development (D) and
18 on evaluation (E). Their words are ours; the published tool has the full text. It asks for judgements of each domain
and of applicability. They are not made here.
"""

from __future__ import annotations

from ehrdl.report.checklists import inputs, modelling, people, scores
from ehrdl.report.checklists.items import Applies, Item, nobody

NAME = "PROBAST+AI"
SOURCE = "Moons et al., BMJ 2025;388:e082505"
_DOMAINS = {"1": "participants and data sources", "2": "predictors", "3": "outcome", "4": "analysis"}
_D: Applies = "development"
_E: Applies = "evaluation"

#: The questions that are asked of development and of evaluation alike.
_BOTH = (
    ("1.1", "Were the sources of data suitable?", people.source_fits),
    ("1.2", "Was the design of the study suitable?", nobody),
    ("1.3", "Do inclusions and exclusions leave those whom the model is for?", people.representative),
    ("2.1", "Were predictors defined and measured alike for all?", inputs.same_for_all),
    ("2.2", "Were predictors prepared alike for all?", inputs.handling),
    ("2.3", "Were predictors assessed without knowledge of the outcome?", inputs.blind),
    ("2.4", "Are all predictors known when the model is to be used?", inputs.in_time),
    ("3.1", "Was the outcome defined and assessed suitably?", inputs.outcome_fits),
    ("3.2", "Was the outcome defined and assessed alike for all?", inputs.one_rule),
    ("3.3", "Was the outcome assessed without use of predictors?", nobody),
    ("3.4", "Is the time between predictors and outcome suitable?", inputs.interval),
)
_DEVELOPMENT = (
    ("4.1", "Was the sample large enough?", scores.development_size),
    ("4.2", "Were continuous and categorical predictors handled suitably?", inputs.handling),
    ("4.3", "Were missing and censored data handled suitably?", inputs.missing),
    ("4.4", "If imbalance was corrected, were risks recalibrated?", modelling.imbalance),
    ("4.5", "Was something done against overfitting?", modelling.overfitting),
)
_EVALUATION = (
    ("4.1", "Is there more than the performance on the data of the fit?", modelling.unseen),
    ("4.2", "Was the sample large enough?", scores.evaluation_size),
    ("4.3", "Were missing and censored data handled suitably?", inputs.missing),
    ("4.4", "If imbalance was corrected, was the evaluation without the correction?", modelling.not_rebalanced),
    ("4.5", "If data were split, was leakage avoided?", modelling.leakage),
    ("4.6", "If data were resampled, was every step of development repeated?", modelling.resampling),
    ("4.7", "Were discrimination, calibration and net benefit evaluated?", scores.all_three),
)

ITEMS = tuple(
    Item(f"{letter} {number}", f"{part.capitalize()}: {_DOMAINS[number[0]]}", part, question, answer)
    for letter, part, questions in (("D", _D, _DEVELOPMENT), ("E", _E, _EVALUATION))
    for number, question, answer in (*_BOTH, *questions)
)
