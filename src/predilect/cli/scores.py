"""`predilect evaluate`, `predilect report` and `predilect predict`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import JsonValue

from predilect.cli.show import command_line, console, counting, print_headline, print_table
from predilect.errors import RunError, TableError
from predilect.evaluation.evaluate import evaluate
from predilect.files import try_file
from predilect.predictions import Predictions, Truth
from predilect.report.report import build_report, write_report
from predilect.run import PREDICTIONS_FILE, Run

__all__ = ["evaluate_command", "predict_command", "report_command"]


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
    with counting("resampling") as tell:
        evaluation = evaluate(known, tables, count_machine_made=count_machine_made, on_progress=tell)
    provenance: dict[str, JsonValue] = {
        "command": command_line(),
        "truth": truth.name,
        "predictions": {name: file.name for name, file in files.items()},
    }
    report = build_report(evaluation, provenance=provenance, curves=None, notes=known.notes, title=", ".join(files))
    for note in report.document.notes:
        console.print(f"note      {note}")
    print_headline(evaluation)
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
    with counting("resampling") as tell:
        evaluation = opened.report(on_progress=tell)
    print_headline(evaluation)
    console.print(f"report    {run / 'report' / 'report.html'}")


def predict_command(
    bundle: Path,
    images: list[Path],
    /,
    *,
    format_: Annotated[Literal["table", "json", "csv"], Parameter(name="--format")] = "table",
    runtime: str = "torch",
) -> int:
    """Say of photographs which lesions they show and on which body site.

    Scores are probabilities, not yet calibrated. A photograph that cannot be read is named, the others go on, and the exit code is 1.

    Example: `predilect predict runs/clinic/bundle photograph.jpg --format json`

    Args:
        bundle: The bundle folder.
        images: Photographs.
        format_: table for people, json, or csv in the form that evaluate reads; image_id there is the file's name without its
            ending, with its folders where names repeat.
        runtime: What computes: torch, onnx with the model that `predilect export BUNDLE` made, or onnx=FILE with one elsewhere.
    """
    from predilect.bundle import Bundle
    from predilect.serving.runtime import open_runtime
    from predilect.training.inference import predict_files

    opened = Bundle.open(bundle)
    ready = open_runtime(opened, runtime)
    if console.quiet:  # of several processes one is enough
        return 0
    results = predict_files(ready.observe, opened.preprocessing, images)
    failed = {path: reason for path, reason in results.items() if isinstance(reason, str)}
    scored = {path: scores for path, scores in results.items() if not isinstance(scores, str)}
    if format_ == "json":
        named = {
            str(path): {
                task: dict(zip(opened.labels[task].classes, map(float, values), strict=True)) for task, values in scores.items()
            }
            for path, scores in scored.items()
        }
        json.dump({"predictions": named, "errors": {str(path): reason for path, reason in failed.items()}}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    elif format_ == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image_id", *opened.labels.columns])
        ids = _image_ids(images)
        for path, scores in scored.items():
            writer.writerow([ids[path], *(f"{value:.6g}" for task in opened.labels.names for value in scores[task])])
    else:
        rows = []
        for path, scores in scored.items():
            best = [
                "\n".join(f"{scores[task][k]:.2f} {opened.labels[task].classes[k]}" for k in scores[task].argsort()[::-1][:3])
                for task in opened.labels.names
            ]
            rows.append([str(path), *best])
        print_table("Most probable, not calibrated", ["photograph", *opened.labels.names], rows)
    for path, reason in failed.items():
        sys.stderr.write(f"error {path}: {reason}\n")
    return 1 if failed else 0


def _image_ids(paths: Sequence[Path]) -> dict[Path, str]:
    """An identifier for each file: as short as the files still differ in it."""
    shorter_first: tuple[Callable[[Path], str], ...] = (lambda path: path.stem, lambda path: str(path.with_suffix("")))
    distinct = dict.fromkeys(paths)
    for name in shorter_first:
        ids = {path: name(path) for path in distinct}
        if len(set(ids.values())) == len(ids):
            return ids
    return {path: str(path) for path in distinct}
