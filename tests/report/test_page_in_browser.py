"""The report in a real browser: tabs, slider and keyboard work, nothing overflows, axe-core finds no serious fault."""

import json
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest
from made_report import CHROMIUM, FLOW, MANIFEST, fake_predictions

from ehrdl.comparators.known import model_infos
from ehrdl.report.remake import remake

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files --virtual-time-budget=20000"
)
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    table = fake_predictions()
    table.to_parquet(folder / "predictions.parquet")
    models = [info.to_dict() for info in model_infos(table["model"])]
    for name, content in (("manifest.json", MANIFEST | {"models": models}), ("flow.json", FLOW)):
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return remake(folder).read_text(encoding="utf-8")


@pytest.fixture
def browse(page, tmp_path):
    """Open the page, run a script in it, and return the JSON that the script gives to `done`."""

    def run(script, width=1200, scheme="light", extra=""):
        text = re.sub("<meta http-equiv[^>]*>", "", page)  # it allows no script but its own
        text = text.replace('<html lang="en">', f'<html lang="en" data-scheme="{scheme}">')
        errors = "const errors = []; addEventListener('error', (event) => errors.push(event.message));"
        errors += "console.error = (...words) => errors.push(words.join(' '));"
        text = text.replace("<head>", f"<head><script>{errors}</script>", 1)
        done = "const done = (found) => parent.postMessage(JSON.stringify([found, errors]), '*');"
        text = text.replace("</body>", f"{extra}<script>{done}{script}</script></body>")
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        frame = f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe><pre id="out"></pre>'
        listen = "addEventListener('message', (event) => document.getElementById('out').textContent = event.data)"
        (tmp_path / "frame.html").write_text(f"<!DOCTYPE html>{frame}<script>{listen}</script>", encoding="utf-8")
        command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,1000"]
        command += ["--dump-dom", (tmp_path / "frame.html").as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        found, errors = json.loads(re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)[1].replace("&amp;", "&"))
        assert errors == []
        return found

    return run


def test_tabs_follow_the_mouse_and_the_keyboard_and_show_one_part(browse):
    script = """
    const open = () => [...document.querySelectorAll('main > section[id]')].filter((part) => part.role && !part.hidden)
      .map((part) => part.id);
    const seen = [open()];
    const tabs = [...document.querySelectorAll('[role=tab]')];
    tabs[2].click(); seen.push(open());
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    tabs[2].focus();
    for (const key of ['ArrowRight', 'End', 'ArrowRight', 'ArrowLeft', 'Home']) { press(key); seen.push(open()); }
    seen.push(tabs.map((tab) => tab.tabIndex), document.activeElement.textContent);
    done(seen);
    """
    *seen, order, focused = browse(script)
    wanted = ["comparison", "decisions", "subgroups", "reproduction", "comparison", "reproduction", "comparison"]
    assert seen == [[name] for name in wanted]
    assert order == [0] + 7 * [-1] and focused == "Comparison"


def test_slider_updates_counts_and_squares(browse):
    script = """
    const box = document.querySelector('.slider'), input = box.querySelector('input');
    const texts = () => [...box.querySelectorAll('[data-of]')].map((one) => [one.dataset.of, one.textContent]);
    const read = () => Object.fromEntries(texts()), count = (name) => box.querySelectorAll('rect.' + name).length;
    const squares = () => ['true', 'false', 'missed', 'quiet'].map(count);
    const seen = [[read(), squares()]];
    for (const value of [0, input.max]) {
      input.value = value; input.dispatchEvent(new Event('input')); seen.push([read(), squares()]);
    }
    done([seen, JSON.parse(box.querySelector('script').textContent), input.getAttribute('aria-valuetext')]);
    """
    seen, positions, words = browse(script)
    assert len(positions) > 5 and words.startswith("alarm at a risk of ")
    for (text, squares), position in zip(seen[1:], (positions[0], positions[-1]), strict=True):
        assert all(abs(float(text[name]) - position[name]) <= 0.051 for name in ("true", "false", "missed"))
        assert sum(squares) == 100
        assert all(abs(n - position[name]) <= 1 for n, name in zip(squares, ("true", "false", "missed"), strict=False))
    alarms = [float(text["alarms"]) for text, _ in seen]
    assert alarms[1] > alarms[0] > alarms[2] and seen[0][0]["threshold"] == "10.0 %"


def test_button_switches_between_light_and_dark(browse):
    script = """
    const colour = () => getComputedStyle(document.body).backgroundColor;
    const seen = [colour()];
    for (const _ of [1, 2]) { document.querySelector('button.scheme').click(); seen.push(colour()); }
    done(seen);
    """
    light, dark, again = browse(script)
    assert light == again == "rgb(255, 255, 255)" != dark


@pytest.mark.parametrize("width", [360, *(pytest.param(width, marks=pytest.mark.slow) for width in (768, 1200))])
def test_no_part_is_wider_than_the_page_and_no_text_overlaps(browse, width):
    script = """
    const wide = [], overlaps = [];
    for (const tab of document.querySelectorAll('[role=tab]')) {
      tab.click();
      if (document.documentElement.scrollWidth > innerWidth) wide.push(tab.textContent);
      const kinds = 'p, li, h2, h3, h4, table, figure, .headline > div';
      const seen = (one) => one.checkVisibility() && !one.closest('svg, details:not([open])');
      const boxes = [...document.querySelectorAll(kinds)].filter(seen);
      for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
        if (boxes[i].contains(boxes[j]) || boxes[j].contains(boxes[i])) continue;
        const a = boxes[i].getBoundingClientRect(), b = boxes[j].getBoundingClientRect();
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (x > 2 && y > 2 && !boxes[i].closest('.scroll') && !boxes[j].closest('.scroll'))
          overlaps.push([boxes[i].textContent.slice(0, 40), boxes[j].textContent.slice(0, 40)]);
      }
    }
    done([wide, overlaps]);
    """
    assert browse(script, width) == [[], []]


def axe_source():
    package = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    (file,) = Path(package.__path__[0]).rglob("axe.min.js")
    return file.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light"), (360, "dark")])
def test_axe_core_finds_no_serious_fault(browse, width, scheme):
    script = """
    (async () => {
      const found = [];
      for (const tab of document.querySelectorAll('[role=tab]')) {
        tab.click();
        const result = await axe.run(document, {resultTypes: ['violations']});
        for (const one of result.violations)
          if (['serious', 'critical'].includes(one.impact))
            found.push([tab.textContent, one.id, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 120))]);
      }
      done(found);
    })();
    """
    assert browse(script, width, scheme, extra=f"<script>{axe_source()}</script>") == []


def test_print_shows_every_part_and_clips_no_table(page, tmp_path):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    target = tmp_path / "page.pdf"
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}"]
    subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, timeout=120, check=True)
    words = unicodedata.normalize("NFKC", "\n".join(one.extract_text() for one in pypdf.PdfReader(target).pages))
    for heading in (
        "Comparison",
        "Calibration",
        "Decisions",
        "Subgroups",
        "Data and flow",
        "Limits and checks",
        "Reproduction",
    ):
        assert re.search(rf"^\s*{heading}\s*$", words, re.MULTILINE)
    assert "Intercept" in words and "Net benefit" in words  # the last columns of the widest tables
