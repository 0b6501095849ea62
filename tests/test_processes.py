"""Two real processes train, by `devices: 2`, torchrun and SLURM's variables: they equal one that accumulates."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
EHRDL = ["-c", "from ehrdl.cli.main import main; main()"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
#: 200 patients and models so small that a fit takes a second; without dropout, so that two processes equal one.
CONFIG = {
    "data": {
        "source": {
            "class_path": "ehrdl.sources.synthetic.Synthetic",
            "init_args": {"n_patients": 200, "seed": 0, "note_tokens": [20, 40]},
        },
        "notes": {"chunk_tokens": 64, "vocab_size": 300},
        "batch": {"size": 14},  # 24 batches: both processes have as many, and no rest is left out
    },
    "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
    "model": {
        "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
        "init_args": {
            "note": {
                "class_path": "ehrdl.models.notes.transformer.NoteTransformer",
                "init_args": {"width": 16, "layers": 1, "dropout": 0.0, "token_dropout": 0.0},
            },
            "series": {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8, "dropout": 0.0}},
            "static": {"class_path": "ehrdl.models.static.StaticMlp", "init_args": {"dropout": 0.0}},
            "head": {"class_path": "ehrdl.models.head.LinearHead"},
            "fusion": {
                "class_path": "ehrdl.models.fusion.simple.GatedFusion",
                "init_args": {"dropout": 0.0, "modality_dropout": 0.0},
            },
        },
    },
    "optim": {"lr": 0.002, "pretrain_epochs": 1, "stages": 2},
    "baselines": ["prevalence"],
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "audit": False,
}

pytestmark = pytest.mark.slow


class Hospital:
    """Runs of one prepared hospital, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = CONFIG | {"run": {"name": "x", "root": str(folder / "runs")}}
        config["data"] = CONFIG["data"] | {"prepare": {"cache": str(folder / "cache")}}
        (folder / "small.yaml").write_text(yaml.safe_dump(config))

    def command(self, name: str, *more: str, start: Sequence[str] = ()) -> list[str]:
        begin = [*start, sys.executable, *EHRDL]
        return [*begin, "train", "--config", str(self.folder / "small.yaml"), f"--run.name={name}", *more]

    def start(self, command: list[str], **env: str) -> subprocess.Popen:
        """In a session of its own, which can be killed whole."""
        own = os.environ | {"PYTHONPATH": f"{ROOT}:{self.folder}", "OMP_NUM_THREADS": "1"} | env
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=own, start_new_session=True, **pipes)

    def end(self, process: subprocess.Popen, timeout: float = 240) -> tuple[int, list[str]]:
        """Status, and our lines on standard error; whatever the process has left is an orphan, and killed."""
        try:
            errors = process.communicate(timeout=timeout)[1]
        finally:
            left = self.left(process)
            if left:
                os.killpg(process.pid, signal.SIGKILL)
        assert not left
        return process.returncode, errors.splitlines()

    def run(self, name: str, *more: str, start: Sequence[str] = (), **env: str) -> tuple[int, list[str]]:
        return self.end(self.start(self.command(name, *more, start=start), **env))

    @staticmethod
    def left(process: subprocess.Popen) -> list[int]:
        """Processes of the session that live on a moment after its first has ended."""
        if process.poll() is None:
            return [process.pid]
        for _ in range(50):
            found = [pid for pid in _processes() if _session(pid) == process.pid]
            if not found:
                break
            time.sleep(0.1)
        return found

    def files(self, name: str) -> set[str]:
        run = self.folder / "runs" / name
        return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}

    def prob(self, name: str) -> pd.Series:
        """Probabilities of the deep models, by model, seed and sample."""
        rows = pd.read_parquet(self.folder / "runs" / name / "predictions.parquet")
        rows = rows[~rows.model.isin(["prevalence", "bayes"])]
        index = ["model", "seed", "split", "sample_id"]
        assert not rows.duplicated(index).any()
        return rows.set_index(index).prob.sort_index()


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _session(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[3])


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return Hospital(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def pair(hospital):
    """Two processes by `devices: 2`, two seeds, two stages, notes pretrained: the run, and its lines."""
    status, lines = hospital.run("pair", *TWO, "--seeds=[0,1]")
    assert status == 0, lines
    return lines


def test_two_processes_end_as_one_that_accumulates_two_batches_a_step(hospital, pair):
    status, lines = hospital.run("one", "--trainer.accumulate_grad_batches=2", "--seeds=[0,1]")
    assert status == 0
    assert hospital.prob("pair").index.equals(hospital.prob("one").index)
    assert (hospital.prob("pair") - hospital.prob("one")).abs().max() < 1e-5
    assert [line for line in pair if "epochs, tuning" in line] and not [line for line in pair if "warning" in line]
    assert len(pair) == len(lines)
    assert hospital.files("pair") == hospital.files("one")


def test_only_one_process_enters_the_ledger(hospital, pair):
    rows = (hospital.folder / "runs" / ".held_out.jsonl").read_text().split()
    assert sum('"pair"' in row for row in rows) == 1


def test_a_finished_run_is_left_alone_and_an_overwritten_one_is_made_again(hospital, pair):
    before = hospital.prob("pair")
    status, lines = hospital.run("pair", *TWO, "--seeds=[0,1]")
    assert (status, len(lines)) == (0, 1)
    status, _ = hospital.run("pair", *TWO, "--seeds=[0,1]", "--run.overwrite=true")
    assert status == 0
    pd.testing.assert_series_equal(hospital.prob("pair"), before, rtol=0, atol=0)


def test_torchrun_starts_the_same_two_processes(hospital, pair):
    status, _ = hospital.run("torchrun", *TWO, "--seeds=[0,1]", "--run.overwrite=true", start=TORCHRUN)
    assert status == 0
    pd.testing.assert_series_equal(hospital.prob("torchrun"), hospital.prob("pair"), rtol=0, atol=0)


def test_two_tasks_of_slurm_are_the_same_two_processes(hospital, pair):
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    slurm |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    command = hospital.command("slurm", *TWO, "--seeds=[0,1]")
    tasks = [hospital.start(command, **slurm, SLURM_PROCID=str(i), SLURM_LOCALID=str(i)) for i in range(2)]
    assert [hospital.end(task)[0] for task in tasks] == [0, 0]
    pd.testing.assert_series_equal(hospital.prob("slurm"), hospital.prob("pair"), rtol=0, atol=0)


def test_two_processes_stop_early_in_the_same_epoch(hospital):
    early = ["--optim.selection=best_tuning", "--optim.patience=1", "--optim.stages=1", "--trainer.max_epochs=6"]
    unused = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true"]
    status, lines = hospital.run("early", *early, *unused)
    assert status == 0
    assert sum("epochs, tuning" in line for line in lines) == 3


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_all_and_the_same_command_resumes(hospital, pair, victim):
    name = f"killed-{victim}"
    process = hospital.start(hospital.command(name, *TWO, "--seeds=[0,1]"))
    scratch = hospital.folder / "runs" / name / "checkpoints"
    until = time.monotonic() + 200
    while not list(scratch.glob(".*-seed1/last.ckpt")) and time.monotonic() < until:
        time.sleep(0.02)
    children = [pid for pid in _processes() if _session(pid) == process.pid and pid != process.pid]
    began = time.monotonic()
    os.kill([process.pid, *children][victim], signal.SIGKILL)
    status, lines = hospital.end(process, 60)
    assert time.monotonic() - began < 60
    assert status == (-signal.SIGKILL if victim == 0 else 2)
    assert sum("the same command resumes" in line for line in lines) == 1
    assert not any("Traceback" in line for line in lines)
    assert hospital.run(name, *TWO, "--seeds=[0,1]")[0] == 0
    pd.testing.assert_series_equal(hospital.prob(name), hospital.prob("pair"), rtol=0, atol=0)


def test_sigterm_to_the_first_process_ends_both_where_the_command_resumes(hospital, pair):
    process = hospital.start(hospital.command("term", *TWO, "--seeds=[0,1]"))
    scratch = hospital.folder / "runs" / "term" / "checkpoints"
    until = time.monotonic() + 200
    while not list(scratch.glob(".*-seed0/last.ckpt")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status, lines = hospital.end(process, 60)
    assert status == 143
    assert [line for line in lines if "SIGTERM" in line] == ["ehrdl: stopped by SIGTERM; the same command resumes"]
    assert hospital.run("term", *TWO, "--seeds=[0,1]")[0] == 0
    pd.testing.assert_series_equal(hospital.prob("term"), hospital.prob("pair"), rtol=0, atol=0)


#: A network of which one process fails in its third step.
BROKEN = """
import os
from ehrdl.models.networks.multimodal import MultimodalModel

class Broken(MultimodalModel):
    steps = 0

    def loss(self, batch):
        self.steps += 1
        if self.steps == 3 and os.environ["LOCAL_RANK"] == "1":
            raise ArithmeticError("a bad batch")
        return super().loss(batch)
"""


@pytest.mark.parametrize("start", [(), TORCHRUN], ids=["devices", "torchrun"])
def test_an_error_of_one_process_ends_all_with_its_traceback_and_one_line(hospital, start):
    (hospital.folder / "broken.py").write_text(BROKEN)
    name = f"broken-{len(start)}"
    began = time.monotonic()
    status, lines = hospital.run(name, *TWO, "--model=broken.Broken", "--optim.pretrain_epochs=0", start=start)
    assert status == (1 if start else 2), lines
    assert sum("ArithmeticError: a bad batch" in line for line in lines) >= 2
    said = [line for line in lines if line.startswith("ehrdl:")]
    assert len(said) == 1 and said[0].startswith("ehrdl: process 1 of 2 failed: ArithmeticError: a bad batch")
    assert time.monotonic() - began < 240


def test_two_nodes_are_the_same_two_processes(hospital, pair):
    nodes = [*TORCHRUN[:3], "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", "--master-port=29517"]
    trainer = ["--trainer.devices=1", "--trainer.num_nodes=2", "--trainer.strategy=ddp"]
    commands = [
        hospital.command("nodes", *trainer, "--seeds=[0,1]", start=(*nodes, f"--node-rank={rank}", "--no-python"))
        for rank in range(2)
    ]
    agents = [hospital.start(command) for command in commands]
    assert [hospital.end(agent)[0] for agent in agents] == [0, 0]
    pd.testing.assert_series_equal(hospital.prob("nodes"), hospital.prob("pair"), rtol=0, atol=0)


def test_what_was_started_otherwise_than_the_trainer_asks_is_one_line(hospital):
    status, lines = hospital.run("wrong", start=TORCHRUN)
    assert status != 0
    assert sum("torchrun has started 2 processes, and the trainer asks for 1" in line for line in lines) == 1
    assert not (hospital.folder / "runs" / "wrong").exists()


def test_manifest_and_metrics_are_those_of_one_process(hospital, pair):
    run = hospital.folder / "runs" / "pair"
    assert json.loads((run / "manifest.json").read_text())["seeds"] == [0, 1]
    metrics = json.loads((run / "metrics.json").read_text())
    models = metrics["outputs"]["readmission"]["models"]
    assert {"fused", "notes_only", "series_only"} <= set(models)
