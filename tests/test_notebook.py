"""The notebook in `docs/` runs from top to bottom, and says what it printed when it was stored."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))


def printed(notebook):
    return [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_no_place_of_the_machine_that_made_it(path):
    text = path.read_text(encoding="utf-8")
    assert "/tmp" not in text and "/home" not in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    before = sorted(DOCS.iterdir())
    stored = nbformat.read(path, as_version=4)
    again = NotebookClient(nbformat.read(path, as_version=4), timeout=600, kernel_name="python3").execute(cwd=str(DOCS))
    kinds = [
        [
            [
                (o["output_type"], sorted(o.get("data", {})))
                for o in cell.get("outputs", [])
                if o.get("name") != "stderr"
            ]
            for cell in notebook.cells
        ]
        for notebook in (stored, again)
    ]
    assert kinds[0] == kinds[1]  # what is stored is what running it shows, but for progress
    assert sorted(DOCS.iterdir()) == before


def test_the_six_lines_are_in_a_notebook():
    text = "\n".join(cell.source for cell in nbformat.read(DOCS / "compare_models.ipynb", as_version=4).cells)
    for call in (
        "ehrdl.load(",
        "ehrdl.fit(",
        "run.metrics",
        "run.report(",
        "run.predict(",
        "new.gaps",
        "ehrdl.open_run(",
    ):
        assert call in text


def test_the_notebook_of_one_patient_says_what_is_predicted():
    said = printed(nbformat.read(DOCS / "one_patient.ipynb", as_version=4))
    assert said[0].startswith("Sex: ") and "predicted risk" in said[-1]
