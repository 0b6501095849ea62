#!/usr/bin/env bash
# jsonargparse 4.53.0: a class that a later config or option names in place of another keeps the values of the class before, where name and
# type fit. That is documented for values that were given. Where the key is an argument of another class, is of the type Callable[..., Base]
# and has a class as its default, the defaults of the class before, which nobody gave, are kept as well, and its own never apply. A key
# without that default, or at the top of the config, gets its own. Nothing is printed.
# Seen: at the top Second(hidden=8, hours=2.0); inside another class Second(hidden=8, hours=12.0), though nobody gave hours.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'jsonargparse[signatures]==4.53.0'
cd "$work"
cat > encoders.py <<'PY'
from collections.abc import Callable


class Encoder:
    pass


class First(Encoder):
    def __init__(self, spec: str, hidden: int = 64, hours: float = 12.0):
        pass


class Second(Encoder):
    def __init__(self, spec: str, hidden: int = 64, hours: float = 2.0):
        pass


class Model:
    def __init__(self, spec: str, series: Callable[[str], Encoder] = First, bare: Callable[[str], Encoder] | None = None):
        pass
PY
cat > config.yaml <<'YAML'
top: {class_path: encoders.First, init_args: {hidden: 8}}
model:
  class_path: encoders.Model
  init_args:
    series: {class_path: encoders.First, init_args: {hidden: 8}}
    bare: {class_path: encoders.First, init_args: {hidden: 8}}
YAML
"$work/venv/bin/python" - <<'PY'
from collections.abc import Callable

import jsonargparse

from encoders import Encoder, Model

parser = jsonargparse.ArgumentParser()
parser.add_argument("--config", action="config")
parser.add_argument("--top", type=Callable[[str], Encoder])
parser.add_argument("--model", type=Callable[[str], Model])
keys = ("top", "model.init_args.series", "model.init_args.bare")
parsed = parser.parse_args(["--config", "config.yaml", *(f"--{key}.class_path=encoders.Second" for key in keys)])
seen = {key: vars(parsed[key].init_args) for key in keys}
for key, values in seen.items():
    print(key, parsed[key].class_path, values)
own, kept = {"hidden": 8, "hours": 2.0}, {"hidden": 8, "hours": 12.0}
assert seen == dict(zip(keys, (own, kept, own), strict=True)), "jsonargparse has changed"
PY
