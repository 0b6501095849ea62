#!/usr/bin/env bash
# pytorch-lightning 2.6.6 saves checkpoints in an fsspec transaction, which is called atomic. fsspec 2026.x writes the bytes to a file in
# the temporary folder and moves it to its place at the end. Where TMPDIR is another file system than the checkpoint's folder (a node's
# scratch disk and a shared home, as on most clusters) that move is a copy, and a kill or a full disk leaves a cut checkpoint
# under the final name.
# Seen: while the checkpoint is written, the file that grows lies in TMPDIR, not beside its target.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
mkdir "$work/scratch" "$work/run"
TMPDIR="$work/scratch" "$work/venv/bin/python" -W ignore - "$work" <<'PY'
import shutil
import sys
from pathlib import Path

import torch
from lightning_fabric.utilities.cloud_io import _atomic_save

work, moves = Path(sys.argv[1]), []
move = shutil.move
shutil.move = lambda source, target, *rest: (moves.append((Path(source).parent.name, Path(target).parent.name)), move(source, target, *rest))[1]
_atomic_save({"weight": torch.zeros(10)}, work / "run" / "last.ckpt")
print("moved from, to:", moves)
assert moves == [("scratch", "run")], "Lightning or fsspec has changed"
PY
