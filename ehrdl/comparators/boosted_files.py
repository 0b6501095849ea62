"""Files of boosted models: for each, a file in its library's own format, and a JSON file of its columns and trials."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ehrdl.engine.files import read_json, whole, write_json
from ehrdl.models.baselines.boosted import LIBRARIES, BoostedModel, require
from ehrdl.runs.files import reading


def save_boosted(model: BoostedModel, folder: Path, output: str) -> None:
    """Write a boosted model to `<library>-<output>.txt` (LightGBM) or `.ubj` (XGBoost), and a `.json` file beside it.

    Each file is written whole or not at all.

    Args:
        model: the fitted model.
        folder: the folder of the files.
        output: the name of the output that the model predicts.
    """
    library = LIBRARIES[model.library]
    path = folder / f"{model.library}-{output}.{library.suffix}"
    content = library.to_bytes(model.booster)
    with whole(path) as part:
        part.write_bytes(content)
    facts = {
        "library": model.library,
        "version": require(model.library).__version__,
        "sha256": hashlib.sha256(content).hexdigest(),
        "kind": model.kind,
        "n_trees": model.n_trees,
        "trials": model.trials,
        "columns": model.columns,
    }
    write_json(path.with_suffix(".json"), facts)


def load_boosted(folder: Path, library: str, output: str) -> BoostedModel:
    """Read a boosted model that `save_boosted` wrote. No code in its files is run.

    Raises:
        ConfigError: a file is missing, or is not a model of this library.
        MissingExtraError: the library is not installed.
    """
    require(library)
    path = folder / f"{library}-{output}.{LIBRARIES[library].suffix}"
    with reading(path, f"model of {library}"):
        facts = read_json(path.with_suffix(".json"), dict)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:  # damaged bytes make XGBoost abort the process
            raise ValueError(f"its bytes are not those that {path.stem}.json names")
        booster = LIBRARIES[library].from_bytes(content)
        return BoostedModel(library, facts["kind"], facts["columns"], booster, facts["n_trees"], facts["trials"])
