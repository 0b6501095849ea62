import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(command, cwd, **env):
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_wheel_installed_outside_the_checkout_trains_as_train_py_does(tmp_path):
    _run(["-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)], tmp_path)
    site = tmp_path / "site"
    wheel = next(tmp_path.glob("ehrdl-*.whl"))
    _run(["-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], tmp_path)
    where = _run(["-c", "import ehrdl; print(ehrdl.__file__)"], tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)

    def options(name):
        return [
            "--config", "quickstart", "--run.name", name, "--run.root", str(tmp_path),
            "--data.source.n_patients", "300", "--data.prepare.cache", str(tmp_path / name / "cache"),
            "--trainer.max_epochs", "1", '--baselines=["prevalence", "bag_of_words"]',
        ]  # fmt: skip

    main = ["-c", "from ehrdl.cli.main import main; main()", "train"]
    _run([*main, *options("wheel")], tmp_path, PYTHONPATH=str(site))
    found = _run(
        ["-c", "from ehrdl.cli.configs import shipped; print(*shipped().values())"], tmp_path, PYTHONPATH=str(site)
    )
    assert (
        all(Path(file).is_relative_to(site.resolve()) for file in found.split()) and "physionet2012_gru.yaml" in found
    )
    _run([str(ROOT / "train.py"), *options("checkout")], tmp_path)
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("wheel", "checkout")]
    assert metrics[0] == metrics[1]
    assert (tmp_path / "wheel" / "report.html").stat().st_size > 20_000
