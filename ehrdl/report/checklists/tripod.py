"""TRIPOD+AI: what the report of a prediction model should tell.

The numbers of the items are those of Collins et al., BMJ 2024;385:e078378 (27 items, 52 with their parts). Their words
are ours; the published checklist has the full text.
"""

from __future__ import annotations

from ehrdl.report.checklists import inputs, modelling, people, scores
from ehrdl.report.checklists.items import Applies, Item, nobody

NAME = "TRIPOD+AI"
SOURCE = "Collins et al., BMJ 2024;385:e078378"
_D: Applies = "development"
_E: Applies = "evaluation"
_B: Applies = "both"

ITEMS = (
    Item("1", "Title", _B, "Title: kind of study, population and outcome", people.title),
    Item("2", "Abstract", _B, "Abstract with the parts that TRIPOD+AI lists for abstracts", people.abstract),
    Item("3a", "Introduction", _B, "Clinical context, reason for the model, earlier models", nobody),
    Item("3b", "Introduction", _B, "Intended use: patients, place in care, users", nobody),
    Item("3c", "Introduction", _B, "Known inequalities in health between groups", nobody),
    Item("4", "Introduction", _B, "Objectives: development, evaluation, or both", people.objectives),
    Item("5a", "Methods: data", _B, "Sources of data, reason for them, whom they represent", people.source),
    Item("5b", "Methods: data", _B, "Dates of accrual and of the end of follow-up", people.dates),
    Item("6a", "Methods: participants", _B, "Setting: level of care, number and place of centres", people.setting),
    Item("6b", "Methods: participants", _B, "Rules of inclusion and exclusion", people.eligibility),
    Item("6c", "Methods: participants", _B, "Treatments, and how they were dealt with", nobody),
    Item("7", "Methods: data preparation", _B, "Cleaning and quality checks, alike in all groups", inputs.quality),
    Item("8a", "Methods: outcome", _B, "Outcome and horizon: how, when and why", inputs.outcome),
    Item("8b", "Methods: outcome", _B, "Who judged the outcome, if it needs judgement", inputs.assessors),
    Item("8c", "Methods: outcome", _B, "Whether the outcome was judged blind", nobody),
    Item("9a", "Methods: predictors", _D, "How predictors were chosen before fitting", inputs.choice_of_predictors),
    Item("9b", "Methods: predictors", _B, "Definition of each predictor: how and when measured", inputs.predictors),
    Item("9c", "Methods: predictors", _B, "Who judged predictors, if they need judgement", nobody),
    Item("10", "Methods: sample size", _B, "Reason for the size, and whether it is enough", scores.size),
    Item("11", "Methods: missing data", _B, "How missing data were handled; what was left out", inputs.missing),
    Item("12a", "Methods: analysis", _D, "Which data served for fitting and for evaluation", modelling.split),
    Item("12b", "Methods: analysis", _D, "How predictors enter: form, scaling, transformation", inputs.handling),
    Item(
        "12c", "Methods: analysis", _D, "Type of model, steps of fitting, tuning, internal validation", modelling.models
    ),
    Item("12d", "Methods: analysis", _B, "Differences between clusters, such as hospitals", scores.clusters),
    Item("12e", "Methods: analysis", _B, "Measures and plots of performance; comparison of models", scores.measures),
    Item("12f", "Methods: analysis", _E, "Any update of the model after evaluation", modelling.updating),
    Item("12g", "Methods: analysis", _E, "How predictions were calculated", modelling.calculated),
    Item(
        "13", "Methods: class imbalance", _B, "Methods against class imbalance, and recalibration", modelling.imbalance
    ),
    Item("14", "Methods: fairness", _B, "What was done for fairness, and why", scores.fairness),
    Item("15", "Methods: model output", _D, "What the model gives; thresholds and their reason", scores.output_form),
    Item("16", "Methods: fit and evaluation", _B, "Differences between the two sets of data", people.differences),
    Item("17", "Methods: ethics", _B, "Ethics committee and consent", nobody),
    Item("18a", "Open science", _B, "Funding and the role of funders", nobody),
    Item("18b", "Open science", _B, "Conflicts of interest", nobody),
    Item("18c", "Open science", _B, "Where the protocol is", nobody),
    Item("18d", "Open science", _B, "Registration", nobody),
    Item("18e", "Open science", _B, "How the data can be obtained", modelling.data_sharing),
    Item("18f", "Open science", _B, "How the code can be obtained", modelling.code),
    Item("19", "Patients and public", _B, "Involvement of patients and the public", nobody),
    Item("20a", "Results: participants", _B, "Flow of participants; with and without the outcome", people.flow),
    Item("20b", "Results: participants", _B, "Characteristics of participants (Table 1)", people.characteristics),
    Item(
        "20c", "Results: participants", _E, "Predictors and outcome compared with the data of the fit", people.compared
    ),
    Item("21", "Results: development", _B, "Participants and events in each analysis", scores.in_each_analysis),
    Item("22", "Results: full model", _D, "The full model, for use on new patients", modelling.specification),
    Item("23a", "Results: performance", _B, "Performance with intervals, also in groups", scores.performance),
    Item("23b", "Results: performance", _B, "Performance in clusters, if examined", scores.clusters),
    Item("24", "Results: updating", _E, "Results of any update of the model", modelling.updating),
    Item("25", "Discussion", _B, "Interpretation, also of fairness", scores.interpretation),
    Item("26", "Discussion", _B, "Limits and their effect", scores.limits),
    Item("27a", "Discussion: use in care", _D, "What to do with poor or absent input", nobody),
    Item("27b", "Discussion: use in care", _D, "What users must do and know", nobody),
    Item("27c", "Discussion: use in care", _B, "Next steps of research", nobody),
)
