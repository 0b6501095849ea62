import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "pytorch_lightning", "torchmetrics", "transformers", "datasets", "sklearn", "matplotlib", "wandb")
PROBE = """
import json, sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
print(json.dumps([seconds, [name for name in {heavy} if name in sys.modules]]))
"""
#: All that the parser of a configuration imports.
CONFIGURATION = [
    "ehrdl.experiment.experiment",
    "ehrdl.pretraining.command",
    "ehrdl.batch",
    "ehrdl.data.config",
    "ehrdl.events.source",
    "ehrdl.tasks.common.base",
    "ehrdl.models.base",
    "ehrdl.options.training",
    "ehrdl.cli.parser",
    "ehrdl.cli.main",
]


def probe(module):
    command = [sys.executable, "-c", PROBE.format(module=module, heavy=HEAVY)]
    seconds, heavy = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return seconds, heavy


def test_importing_ehrdl_takes_less_than_three_tenths_of_a_second_and_loads_nothing_heavy():
    runs = [probe("ehrdl") for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 0.3
    assert runs[0][1] == []


@pytest.mark.parametrize("module", CONFIGURATION)
def test_what_the_parser_imports_loads_nothing_heavy(module):
    assert probe(module)[1] == []
