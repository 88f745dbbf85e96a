"""What the terminal shows: progress of long work and tables of results."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from predilect.evaluation.scores import Evaluation
from predilect.report.tables import terminal_tables
from predilect.run import Run

__all__ = [
    "Seed",
    "command_line",
    "console",
    "counting",
    "counting_each",
    "print_fresh_start",
    "print_headline",
    "print_resumed",
    "print_table",
    "repeating_command",
    "resuming_command",
    "training",
    "typed",
    "without_folders",
]

Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))]  # tables keep it in 64 bits

# Under torchrun every process runs the command, and one of them speaks.
# Names and terms may hold brackets, which are no markup here.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, quiet=os.environ.get("RANK", "0") != "0")

_NO_BARS = console.quiet or not console.is_terminal

typed: ContextVar[Sequence[str]] = ContextVar("typed")
"""The arguments of the command that runs."""


def command_line() -> str:
    """The command as it was typed, for the record, without --resume; of paths the last component only, since folders may name people."""
    arguments = [argument for argument in typed.get(sys.argv[1:]) if argument != "--resume"]
    return shlex.join(["predilect", *map(without_folders, arguments)])


def repeating_command() -> str:
    """This very command again, for the person at the terminal."""
    return shlex.join(["predilect", *typed.get(sys.argv[1:])])


def resuming_command() -> str:
    """The very command that goes on with this one, for the person at the terminal."""
    return repeating_command() if "--resume" in typed.get(sys.argv[1:]) else f"{repeating_command()} --resume"


def print_fresh_start(out: Path, *, resume: bool) -> None:
    """Say so where --resume is asked for and there is no run yet."""
    if resume and not (out.exists() and any(out.iterdir())):
        console.print(f"resume    {out} holds no run yet: nothing to resume, it starts from the beginning")


def print_resumed(run: Run) -> None:
    """Say what of a run that goes on is no longer as it was."""
    for note in run.notes()[len(run.info["notes"]) :]:
        console.print(f"note      {note}")


def without_folders(argument: str) -> str:
    """An argument of the command line with the last component only of a path in it, since folders may name people."""
    after_equals = (at + 1 for at, letter in enumerate(argument) if letter == "=")
    for start in (0, *after_equals):
        path = Path(argument[start:].strip("\"'"))
        here = Path()
        if path.is_absolute() or any(folder.is_dir() for folder in path.parents if folder != here):
            return argument[:start] + (path.name or path.anchor)
    return argument


@contextmanager
def counting(what: str, *, beside: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for work that tells how many of how many are done.

    Args:
        what: The work in a word or two.
        beside: Show it where errors are shown, since the output is an answer for other programs; and nothing where that is no terminal.

    Yields:
        The function to tell: (done, total).
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shown_on = Console(stderr=True, quiet=console.quiet) if beside else console
    with Progress(*columns, console=shown_on, transient=True, disable=shown_on.quiet or not shown_on.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        named = shown_on.is_terminal or beside

        def tell(done: int, total: int) -> None:
            nonlocal named
            if not named:  # a log shows no bars
                console.print(what)
                named = True
            bar.update(task, completed=done, total=total)

        yield tell


@contextmanager
def counting_each() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each part of some work, one after the other.

    Yields:
        The function to tell: (what is being done, done, total).
    """
    with ExitStack() as stack:
        bars: dict[str, Callable[[int, int], None]] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                stack.close()  # the part before has ended
                bars[what] = stack.enter_context(counting(what))
            bars[what](done, total)

        yield tell


@contextmanager
def training(trainings: int, finished: int = 0) -> Iterator[Callable[..., None]]:
    """A live line for the training that runs, and one for the whole.

    Args:
        trainings: How many there are in all.
        finished: How many of them were finished before.

    Yields:
        The function to tell: (system, seed, fold or None, where it stands).
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=_NO_BARS) as bar:
        whole = bar.add_task("trainings", total=trainings, completed=finished, figures="")
        lines: dict[str, TaskID] = {}

        def tell(system: str, seed: int, fold: int | None, progress: object) -> None:
            from predilect.training.trainer import Progress as Standing

            assert isinstance(progress, Standing)
            name = f"{system} seed {seed} " + ("all groups" if fold is None else f"fold {fold}")
            if name not in lines:
                for line in lines.values():
                    bar.update(line, visible=False)
                # A training may end before its last iteration: it is over when the next one tells something.
                bar.update(whole, completed=finished + len(lines))
                lines[name] = bar.add_task(name, figures="")
                if not console.is_terminal:  # a log shows no bars, and hours of silence look like a fault
                    console.print(f"training {finished + len(lines)} of {trainings}: {name}")
            held_out = "" if progress.validation_loss is None else f" held out {progress.validation_loss:.3f}"
            figures = (
                f"loss {progress.loss:.3f}{held_out}  rate {progress.learning_rate:.1e}  {progress.images_per_second:.0f} images/s"
            )
            bar.update(lines[name], completed=progress.iteration, total=progress.iterations, figures=figures)

        yield tell


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[str] = ()) -> None:
    """Print a table: words to the left, numbers to the right; a narrow terminal folds words, and no cell is lost.

    Where the output is no terminal nothing is folded, so that each row is a line for other programs.

    Args:
        title: Above it.
        header: Names of the columns.
        rows: Their cells.
        words: Columns of words; where none is named, the first and those with lists in them.
    """
    tall = any("\n" in cell for row in rows for cell in row)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, leading=int(tall))
    for column, name in enumerate(header):
        listed = column == 0 or any(", " in row[column] or "\n" in row[column] for row in rows)
        foldable = name in words if words else listed
        longest = max((len(line) for row in rows for line in row[column].split("\n")), default=0)
        table.add_column(
            name,
            justify="left" if foldable else "right",
            overflow="fold",
            no_wrap=not foldable,
            min_width=min(18, max(longest, len(name))) if foldable else 0,
        )
    for row in rows:
        table.add_row(*row)
    _print_whole(table)


def _print_whole(table: Table) -> None:
    """Print a table never narrower than its numbers, for rich would cut columns off without a sign."""
    needed = Measurement.get(console, console.options.update(width=1000), table)
    table.width = max(min(console.width, needed.maximum), needed.minimum) if console.is_terminal else needed.maximum
    console.print(table, crop=False, soft_wrap=False)


def print_headline(evaluation: Evaluation) -> None:
    """Print the systems with their headline numbers and intervals."""
    for table in terminal_tables(evaluation):
        _print_whole(table)
