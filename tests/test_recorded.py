"""What a call through the library leaves in the config: the same for the same objects, other for others."""

import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from ehrdl.data.config import DataConfig
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.recorded import UNKNOWABLE, describe, not_recorded, unknowable
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import Synthetic
from ehrdl.tasks.heart_failure import HeartFailure
from ehrdl.tasks.joint import Joint
from ehrdl.tasks.length_of_stay import LengthOfStay
from ehrdl.tasks.readmission import Readmission

WIDTH = 8


def make(spec):
    return MultimodalModel(spec, series=partial(SeriesGRU, hidden=WIDTH))


class Slotted:
    __slots__ = ("size",)


def test_a_source_and_a_task_are_a_class_path_and_the_arguments_with_their_defaults():
    assert describe(Synthetic(300, note_tokens=(4, 9))) == {
        "class_path": "ehrdl.sources.synthetic.Synthetic",
        "init_args": {"n_patients": 300, "seed": 0, "note_tokens": [4, 9]},
    }
    found = describe(Readmission(death="exclude"))
    assert found["class_path"] == "ehrdl.tasks.readmission.Readmission"
    assert (found["init_args"]["death"], found["init_args"]["min_age"]) == ("exclude", 18)


def test_parts_of_parts_are_described_too():
    found = describe(Joint([HeartFailure(), LengthOfStay("hospital", over_days=[3])]))
    assert [task["class_path"].rsplit(".")[-1] for task in found["init_args"]["tasks"]] == [
        "HeartFailure",
        "LengthOfStay",
    ]
    assert found["init_args"]["tasks"][1]["init_args"]["over_days"] == [3]
    data = describe(DataConfig(Mimic4(root="somewhere")))
    assert data["source"]["init_args"]["root"] == "somewhere" and data["window"]["series_hours"] > 0


def test_a_partial_of_a_class_is_a_config_and_needs_no_hash():
    found = describe(partial(MultimodalModel, series=partial(SeriesGRU, hidden=4)))
    assert found["class_path"] == "ehrdl.models.networks.multimodal.MultimodalModel"
    assert found["init_args"]["series"]["class_path"] == "ehrdl.models.series.gru.SeriesGRU"
    assert found["init_args"]["series"]["init_args"]["hidden"] == 4
    assert list(not_recorded({"model": found})) == [] and "spec" not in found["init_args"]
    assert describe(MultimodalModel)["class_path"] == "ehrdl.models.networks.multimodal.MultimodalModel"


def test_what_is_described_survives_a_pickle():
    task = Readmission(min_age=0)
    assert describe(pickle.loads(pickle.dumps(task))) == describe(task)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda spec: MultimodalModel(spec, width=4), lambda spec: MultimodalModel(spec, width=5)),
        (lambda spec, width=4: (spec, width), lambda spec, width=5: (spec, width)),
        (partial(make, 1), partial(make, 2)),
        (make, lambda spec: spec),
        (lambda spec: [part + 1 for part in spec], lambda spec: [part + 2 for part in spec]),
    ],
)
def test_functions_are_told_apart_by_what_they_do(one, other):
    mine, theirs = describe(one), describe(other)
    assert mine == describe(one) and mine["hash"] != theirs["hash"]
    assert not unknowable(mine) and len(list(not_recorded({"model": mine}))) == 1


@pytest.mark.parametrize("values", [(1, 2), (np.zeros(2), np.ones(2)), (torch.zeros(2), torch.ones(2)), ({"a": 1}, {})])
def test_functions_are_told_apart_by_what_they_refer_to(values):
    def closed(value):
        return lambda spec: (spec, value)

    one, other = map(describe, map(closed, values))
    assert one == describe(closed(values[0])) and one["hash"] != other["hash"]


def test_a_function_is_another_where_a_name_that_it_reads_changes(monkeypatch):
    before = describe(make)
    assert before["not_recorded"] == "make of test_recorded.py"
    monkeypatch.setattr(sys.modules[__name__], "WIDTH", 9)
    assert describe(make)["hash"] != before["hash"]


def test_a_class_of_the_script_is_told_apart_by_its_lines():
    class Small(Readmission):
        horizon = 1

    first = describe(Small())

    class Small(Readmission):
        horizon = 2

    assert first["not_recorded"].endswith("Small") and describe(Small())["hash"] != first["hash"]


def test_what_cannot_be_told_apart_says_so():
    thing = Slotted()
    found = describe(lambda spec: (spec, thing))
    assert found["hash"] == UNKNOWABLE or unknowable(describe({"model": lambda spec, thing=thing: thing}))
    assert unknowable(describe({"trainer": {"strategy": thing}}))


MODULE = """
from ehrdl.recorded import describe
WIDTH = {4, 5, 6}
def make(spec):
    return spec, WIDTH, lambda part: part in ("a", "b")
print(describe(make)["hash"])
"""


def test_another_process_finds_the_same_hash():
    command = [sys.executable, "-c", MODULE]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second and len(first.strip()) == 16
