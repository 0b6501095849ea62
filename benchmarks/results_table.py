"""The results tables of docs/results.md, made of run folders.

    python benchmarks/results_table.py runs/physionet2012-fold0 runs/physionet2012-fold1 … --into docs/results.md

All runs are of one data set and task. The table goes between `<!-- results: DATA -->` and `<!-- end of results -->` of
the file, DATA being the source's name (`physionet2012`); without `--into` it is printed. A run that shows signs of a
choice by held-out samples is refused in one line, with exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from compare import Finished, read_run, refuse, table

from ehrdl.engine.files import write_text
from ehrdl.errors import ConfigError, EhrdlError

PUBLISHED = Path(__file__).with_name("published.csv")
END = "<!-- end of results -->"
#: What stands in percent, as papers have it, and how a column is called.
PERCENT = {"auroc": "AUROC, %", "auprc": "AUPRC, %"}
OTHERS = {"brier": "Brier", "calibration_slope": "slope", "utility": "utility", "mae": "MAE", "r2": "R2"}
#: What stands where a model has no value.
NONE = "-"


def main(argv: list[str] | None = None) -> None:
    """Print the table of run folders, or write it between the markers of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="file with the markers, such as docs/results.md")
    parser.add_argument("--reference", help="model that the others are paired with; default: the boosted one")
    parser.add_argument("--models", nargs="+", help="rows to show; default: all")
    parser.add_argument("--published", type=Path, default=PUBLISHED)
    options = parser.parse_args(argv)
    try:
        text = markdown([read_run(folder) for folder in options.runs], options)
        if options.into:
            write_between(options.into, data_of(options.runs[0]), text)
        else:
            print(text)
    except EhrdlError as error:
        print(f"results_table: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def data_of(folder: Path) -> str:
    """The name of a run's data."""
    return read_run(folder).data


def markdown(runs: list[Finished], options: argparse.Namespace) -> str:
    """The tables of all outputs."""
    asked = {(run.data, run.held_out["task"]) for run in runs}
    if len(asked) > 1:
        raise ConfigError(f"runs: are of several data sets or tasks ({sorted(asked)}); make a table of each")
    refuse(runs)
    rows = table(runs, [*PERCENT, *OTHERS], options.reference)
    if options.models:
        rows = rows[rows.model.isin(options.models)]
    return "\n\n".join(one_output(part, str(output), runs[0].data, options) for output, part in rows.groupby("output"))


def one_output(rows: pd.DataFrame, output: str, data: str, options: argparse.Namespace) -> str:
    """The table of one output, its notes and its commands."""
    metrics = [name for name in (*PERCENT, *OTHERS) if rows[f"{name}_mean"].notna().any()]
    paired = [name for name in metrics if name in PERCENT] or metrics[:1]
    several = rows.run.nunique() > 1
    titles = ["model", *(PERCENT.get(name, OTHERS.get(name, name)) for name in metrics)]
    titles += [f"{name.upper()} less the boosted one's" for name in paired] + ["trials", "splits x seeds"]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for _, row in rows.iterrows():
        name = f"`{row.model}`" + (f" of {row.run}" if several else "")
        cells = [name, *(spread(row, metric) for metric in metrics), *(difference(row, metric) for metric in paired)]
        cells.append(NONE if pd.isna(row.trials) else f"{row.trials:.0f}")
        cells.append(f"{row.n_splits} x {row.n_fits // row.n_splits}")
        lines.append(f"| {' | '.join(cells)} |")
    published = pd.read_csv(options.published)
    published = published[(published.data == data) & (published.output == output)]
    for _, row in published.iterrows():
        values = {name: figure(row, name) for name in PERCENT}
        cells = [f"{row.model} ({row.source})", *(values.get(name, NONE) for name in metrics)]
        cells += [NONE] * (len(titles) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    notes = [
        "Mean ± standard deviation over splits and seeds, held-out samples; differences are paired by split. Trials: "
        f"settings of the model that its study or its fit compared in one run. {NONE}: none, or not known."
    ]
    if len(published):
        notes.append(f"Rows with a source are not of these runs: {'; '.join(published.protocol.unique())}.")
    commands = [f"- {group}: `{part.command.iloc[0]}`" for group, part in rows.groupby("run", sort=False)]
    return "\n".join([*lines, "", *notes, "", *commands])


def spread(row: pd.Series, metric: str) -> str:
    """A mean with its standard deviation."""
    mean, sd = row[f"{metric}_mean"], row[f"{metric}_sd"]
    scale, form = (100, ".1f") if metric in PERCENT else (1, ".3f")
    if pd.isna(mean):
        return NONE
    return f"{scale * mean:{form}}" + ("" if pd.isna(sd) else f" ± {scale * sd:{form}}")


def difference(row: pd.Series, metric: str) -> str:
    """A paired difference to the boosted model."""
    mean, sd, n = row[f"{metric}_difference"], row[f"{metric}_difference_sd"], row[f"{metric}_n_paired"]
    if not n:
        return NONE
    scale, form = (100, "+.1f") if metric in PERCENT else (1, "+.3f")
    around = "" if pd.isna(sd) else f" ± {scale * sd:{form[1:]}}, above in {row[f'{metric}_n_better']} of {n}"
    return f"{scale * mean:{form}}{around}"


def figure(row: pd.Series, metric: str) -> str:
    """A figure of `published.csv`, which has percentages."""
    if pd.isna(row[metric]):
        return NONE
    return f"{row[metric]:.1f}" + ("" if pd.isna(row[f"{metric}_sd"]) else f" ± {row[f'{metric}_sd']:.1f}")


def write_between(file: Path, data: str, text: str) -> None:
    """Replace what stands between the markers of a data set."""
    begin = f"<!-- results: {data} -->"
    content = file.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, ends, after = rest.partition(END)
    if not found or not ends:
        raise ConfigError(f"{file}: has no line {begin} with {END} after it; add both where the table goes")
    write_text(file, f"{before}{begin}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
