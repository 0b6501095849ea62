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
    notebook = nbformat.read(path, as_version=4)
    patient = printed(notebook)[0]
    again = NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(DOCS))
    figures = [o for cell in again.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(figures) == 2
    assert printed(again)[0].startswith("Sex: ") and patient.startswith("Sex: ")
    assert "predicted risk" in printed(again)[-1]
