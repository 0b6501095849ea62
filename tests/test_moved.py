"""Scripts, configs and run folders that name the places of before the rooms still work."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from ehrdl.cli import train_parser
from ehrdl.moved import MOVED, current

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_gives_the_module_of_the_new_place(old, new):
    there = import_module(f"ehrdl.{new}")
    assert import_module(f"ehrdl.{old}") is there
    assert (there.__name__, there.__spec__.name) == (f"ehrdl.{new}", f"ehrdl.{new}")


def test_nothing_that_is_there_today_has_an_old_name():
    files = {path.relative_to(ROOT / "ehrdl").with_suffix("").as_posix() for path in (ROOT / "ehrdl").rglob("*.py")}
    assert {old for old in MOVED if old.replace(".", "/") in files} == set()


def test_a_script_of_before_runs_before_the_new_places_are_imported():
    script = """
from ehrdl.data.sources.meds import Meds
from ehrdl.data.sources.synthetic import write_hospital
from ehrdl.data.sources import mimic4
from ehrdl.engine import Prepare, cached, say
from ehrdl.models.series import SeriesGRU
from ehrdl.models.fusion import GatedFusion
from ehrdl.models.multimodal import MultimodalModel
from ehrdl.tasks.diagnosis import HeartFailure
from ehrdl.training.config import Optim
import ehrdl.sources.meds.source as source
import ehrdl.sources.mimic4.source
assert source.Meds is Meds and ehrdl.sources.mimic4.source is mimic4
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_config_of_before_is_read_and_dumped_by_todays_names(tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8"))
    config["data"]["source"]["class_path"] = "ehrdl.data.sources.synthetic.Synthetic"
    config["task"]["class_path"] = "ehrdl.tasks.diagnosis.HeartFailure"
    config["model"]["class_path"] = "ehrdl.models.multimodal.MultimodalModel"
    config["model"]["init_args"]["note"] = {"class_path": "ehrdl.models.note.NoteTransformer"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    parser = train_parser()
    read = yaml.safe_load(parser.dump(parser.parse_args(["--config", str(file)])))
    assert read["data"]["source"]["class_path"] == "ehrdl.sources.Synthetic"
    assert read["task"]["class_path"] == "ehrdl.tasks.HeartFailure"
    assert read["model"]["init_args"]["note"]["class_path"] == "ehrdl.models.NoteTransformer"


def test_the_place_of_a_class_is_told_and_other_names_are_left_alone():
    assert current("ehrdl.models.note.NoteTransformer") == "ehrdl.models.notes.transformer.NoteTransformer"
    assert [current(name) for name in ("ehrdl.schema.EVENTS", "torch.nn.Module", "")] == [
        *("ehrdl.schema.EVENTS", "torch.nn.Module", ""),
    ]
