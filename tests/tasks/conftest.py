"""A hospital that tests of tasks write down by hand, stay by stay."""

from dataclasses import dataclass, field

import duckdb
import pandas as pd
import pytest

from ehrdl.schema import TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.heart_failure import HeartFailure
from ehrdl.tasks.readmission import Readmission

COLUMNS = ["subject_id", "time", "code", "numeric_value", "text_value", "available_time", "encounter_id"]


class Labelled(TaskResult):
    """What the task said, by stay and by step."""

    @property
    def labels(self) -> dict[int, float]:
        return self.samples.set_index("encounter_id")[f"label_{self.outputs[0].name}"].to_dict()

    @property
    def statuses(self) -> dict[int, str]:
        return self.samples.set_index("encounter_id")[f"status_{self.outputs[0].name}"].to_dict()

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Admissions and subjects after each step."""
        return {step.step: (step.admissions, step.subjects) for step in self.flow}


@dataclass
class Hospital:
    """Patients and stays, written down as the EVENTS that a source makes of them. Stays are numbered 100, 101, …"""

    rows: list[tuple] = field(default_factory=list)
    stays: int = 0

    def event(self, subject, time, code, encounter=None, value=None, available=None, text=None):
        self.rows.append((subject, time, code, value, text, available or time, encounter))
        return self

    def patient(self, subject=1, born=2090, dod=None, sex="F", year_group="2014 - 2016", anchor_year=2150):
        self.event(subject, f"{born}-01-01 00:00", "MEDS_BIRTH")
        self.event(subject, None, f"GENDER//{sex}")
        if year_group:
            self.event(subject, None, f"ANCHOR_YEAR_GROUP//{year_group}", value=anchor_year)
        if dod:
            self.event(subject, f"{dod} 23:59:59.999999", "MEDS_DEATH")
        return self

    def stay(self, admit, discharge, kind="EW EMER.", to="HOME", codes=("ICD10//I500",), subject=1, **facts):
        encounter = 100 + self.stays
        self.stays += 1
        self.event(subject, admit, "ADMISSION//EMERGENCY ROOM", encounter)
        for name, value in {"RACE": "WHITE", "LANGUAGE": "ENGLISH", **facts.get("at_admission", {})}.items():
            self.event(subject, admit, f"{name}//{value}", encounter)
        for unit, time in facts.get("units", ()):
            self.event(subject, time, f"ICU_IN//{unit}", encounter)
        self.event(subject, admit, f"SERVICE_IN//{facts.get('service', 'MED')}", encounter)
        self.event(subject, discharge, f"DISCHARGE//{to}", encounter)
        self.event(subject, discharge, f"ADMISSION_TYPE//{kind}", encounter)
        self.event(subject, discharge, f"INSURANCE//{facts.get('insurance', 'Medicare')}", encounter)
        for number, code in enumerate(codes, start=1):
            self.event(subject, discharge, f"DIAGNOSIS//{code}", encounter, number)
        if "deathtime" in facts:
            self.event(subject, facts["deathtime"], "MEDS_DEATH", encounter)
        if "summary" in facts:
            self.event(subject, discharge[:10], "NOTE//discharge//DS", encounter, available=facts["summary"])
        return self

    def label(self, **options) -> Labelled:
        """What the readmission task makes of it."""
        return self.labelled(Readmission(**options))

    def diagnose(self, **options) -> Labelled:
        """What the heart failure task makes of it."""
        return self.labelled(HeartFailure(**options))

    def labelled(self, task: Task) -> Labelled:
        frame = pd.DataFrame(self.rows, columns=COLUMNS)
        for name in ("time", "available_time"):
            frame[name] = pd.to_datetime(frame[name], format="ISO8601").astype("datetime64[us]")
        frame["encounter_id"] = frame["encounter_id"].astype("Int64")
        frame["numeric_value"] = frame["numeric_value"].astype("float32")
        with duckdb.connect(config={"threads": 1}) as con:
            return Labelled(**vars(task.label(con.from_df(frame))))


@pytest.fixture
def empty_hospital() -> Hospital:
    return Hospital()


@pytest.fixture
def hospital(empty_hospital) -> Hospital:
    """A hospital that knows one patient, number 1, born in 2090."""
    return empty_hospital.patient()
