"""The command `ehrdl pretrain`."""

from __future__ import annotations

import os
from typing import Any

import yaml

from ehrdl.cli.configured import configured, named, train_parser
from ehrdl.cli.parser import Parser
from ehrdl.cli.start import one_line_errors, set_environment
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.processes.ranks import begin_others_with

DESCRIPTION = "Teach an encoder the language of a configuration's training notes, before any label is seen."
EXAMPLE = "--config readmission_mimic4 --data.source.root /path/to/mimiciv --out encoder"


def run(argv: list[str], prog: str) -> None:
    """Pretrain a note encoder on the training notes of a training configuration."""
    set_environment()
    begin_others_with(["pretrain", *argv])
    with one_line_errors(), named(argv) as argv:
        keys = parser(prog)
        objects, parsed = configured(keys, argv)
        if not objects.out:
            raise ConfigError("--out: missing; name the folder that the encoder goes to")
        from ehrdl.pretraining.command import pretrain

        start = os.path.expanduser(parsed["from"] or "") or _pretrained(
            yaml.safe_load(keys.dump(parsed, skip_unset=False)), objects.out
        )
        pretrain(objects.data, objects.task, expanded(objects.out), start, objects.pretrain, objects.trainer)


def parser(prog: str) -> Parser:
    """Return the parser of the command's options: the keys of a training configuration, and those of pretraining."""
    from ehrdl.options.training import Pretraining

    made = train_parser(prog, DESCRIPTION, EXAMPLE)
    made.add_argument("--out", type=str | None, metavar="FOLDER", help="is made; must not hold anything yet")
    made.add_argument(
        "--from",
        type=str | None,
        metavar="NAME_OR_FOLDER",
        help="Hugging Face encoder to go on from; default: the `pretrained` of the model's `note`, else from scratch",
    )
    made.add_class_arguments(Pretraining, "pretrain")
    return made


def _pretrained(config: dict[str, Any], out: str) -> str | None:
    """Return the pretrained encoder that a configuration names. The output folder itself does not count."""
    from ehrdl.pretraining.command import PRETRAINED

    value: Any = config
    for key in PRETRAINED.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    value = value.get("name") if isinstance(value, dict) else value
    return value if value and expanded(value).resolve() != expanded(out).resolve() else None
