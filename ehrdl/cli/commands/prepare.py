"""The command `ehrdl prepare`."""

from __future__ import annotations

from ehrdl.cli.configured import configured, named, train_parser
from ehrdl.cli.parser import Parser
from ehrdl.cli.start import one_line_errors, set_environment
from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded

DESCRIPTION = "Read and prepare a configuration's data, as training does first, and stop there."
EXAMPLE = "--config readmission_mimic4 --data.source.root /path/to/mimiciv"


def parser(prog: str) -> Parser:
    """Return the parser of the command's options, which are the keys of a training configuration."""
    return train_parser(prog, DESCRIPTION, EXAMPLE)


def run(argv: list[str], prog: str) -> None:
    """Prepare the data of a training configuration, as `ehrdl train` does first, and keep them in the cache."""
    from ehrdl.cohort import prepare
    from ehrdl.runs import trail

    set_environment()
    with one_line_errors(), named(argv) as argv:
        objects, _ = configured(parser(prog), argv)
        prepared = prepare(objects.data, objects.task).prepared
        traced = {"source": type(objects.data.source).__name__, "events": prepared.events.name}
        trail.enter(expanded(objects.run.root), "prepare", traced)
        facts = prepared.facts["data"]
        samples = ", ".join(f"{n:,} {split}" for split, n in facts["n_samples"].items())
        records = f", {facts['n_records']:,} verbalised records" if facts["n_records"] else ""
        say(f"prepared: {facts['n_facts']:,} facts, {facts['n_notes']:,} notes{records}; samples: {samples}")
        say(f"EVENTS: {prepared.events}\nnext: ehrdl train with the same arguments")
