"""`predilect evaluate` and `predilect report`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import JsonValue

from predilect.cli.show import command_line, console, counting_each, print_headline
from predilect.errors import RunError, TableError
from predilect.evaluation.measured import measure
from predilect.files import try_file
from predilect.predictions import Predictions, Truth
from predilect.report.report import build_report, write_report
from predilect.run import PREDICTIONS_FILE, Run

__all__ = ["evaluate_command", "report_command"]


def evaluate_command(
    *,
    predictions: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    truth: Path,
    out: Path,
    machine_made: Annotated[list[str], Parameter(consume_multiple=True, negative="")] = [],  # noqa: B006 - cyclopts reads the default
    count_machine_made: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Score any program's tables: average precision, site accuracy, paired differences, all with intervals.

    The tables are Parquet or CSV, with a column for each class named lesion/... or site/...; docs/formats.md is their contract.

    Example: `predilect evaluate --predictions resnet=a.parquet mtl=b.csv --truth truth.csv --out scores`

    Args:
        predictions: NAME=FILE for each system, the baseline first; of a run also NAME=RUN/SYSTEM, which takes the tables of all its seeds.
        truth: What is known of the same photographs, such as RUN/truth.parquet.
        out: The folder to make.
        machine_made: Label columns of the truth that a model made, beside those that a Parquet file marks itself; they stay out of
            headline means.
        count_machine_made: Count them in the headline means all the same; they stay marked, and the report begins by saying so.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TableError(f"{out} already exists; choose another folder or remove it")
    files: dict[str, Path] = {}
    for item in predictions:
        name, equals, file = item.partition("=")
        if not (equals and name and file):
            raise TableError(f"--predictions {item}: write it as NAME=FILE, such as mtl=predictions.parquet")
        if name in files:
            raise TableError(f"--predictions {item}: the name {name!r} stands twice")
        files[name] = Path(file)
    known = Truth.read(truth, machine_made)
    if count_machine_made and not any(task.machine for task in known.labels.tasks):
        raise TableError(f"--count-machine-made: {truth} marks no label as machine-made, and --machine-made names none")
    tables = {name: _predictions(file) for name, file in files.items()}
    try_file(out / "report.json")
    with counting_each() as tell:
        measured = measure(known, tables, count_machine_made=count_machine_made, on_progress=tell)
    provenance: dict[str, JsonValue] = {
        "command": command_line(),
        "truth": truth.name,
        "predictions": {name: file.name for name, file in files.items()},
    }
    report = build_report(
        measured.evaluation,
        provenance=provenance,
        notes=known.notes,
        title=", ".join(files),
        calibration=measured.calibration,
        known_site=measured.known_site,
    )
    for note in report.document.notes:
        console.print(f"note      {note}")
    print_headline(measured.evaluation)
    write_report(report, out)
    console.print(f"report    {out / 'report.html'}")


def _predictions(path: Path) -> Predictions:
    """The table at a path, or those of all training seeds of a system of a run."""
    if not path.is_dir():
        return Predictions.read(path)
    files = sorted(path.glob(f"seed-*/{PREDICTIONS_FILE}"))
    if not files:
        raise TableError(
            f"{path} is a folder without seed-<number>/{PREDICTIONS_FILE}; give a table, or the folder of a run's system"
        )
    seeds = [Predictions.read(file) for file in files]
    for file, table in zip(files, seeds, strict=True):
        if table.labels != seeds[0].labels:
            raise TableError(f"{file} has other label columns than {files[0]}, or in another order")
    return replace(Predictions.concatenate(seeds), origin=str(path))


def report_command(run: Path, /) -> None:
    """Evaluate a finished cross-validation again and write its report anew.

    Example: `predilect report runs/clinic`

    Args:
        run: The run folder.
    """
    opened = Run.open(run)
    if not opened.info.get("folds"):
        raise RunError(f"{run}: this run held out no fold, so that nothing was tested and there is nothing to report")
    with counting_each() as tell:
        evaluation = opened.report(on_progress=tell)
    print_headline(evaluation)
    console.print(f"report    {run / 'report' / 'report.html'}")
