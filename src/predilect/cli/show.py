"""What the terminal shows: progress of long work and tables of results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from predilect.evaluation.scores import Evaluation
from predilect.report.tables import terminal_table

__all__ = ["command_line", "console", "counting", "print_headline", "print_table", "training"]

console = Console(soft_wrap=True, highlight=False)


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["predilect", *sys.argv[1:]])


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for work that tells how many of how many are done.

    Args:
        what: The work in a word or two.

    Yields:
        The function to tell: (done, total).
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training(trainings: int) -> Iterator[Callable[..., None]]:
    """A live line for the training that runs, and one for the whole.

    Args:
        trainings: How many there will be.

    Yields:
        The function to tell: (system, seed, fold or None, where it stands).
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        whole = bar.add_task("trainings", total=trainings, figures="")
        lines: dict[str, TaskID] = {}

        def tell(system: str, seed: int, fold: int | None, progress: object) -> None:
            from predilect.training.loop import Progress as Standing

            assert isinstance(progress, Standing)
            name = f"{system} seed {seed} " + ("all groups" if fold is None else f"fold {fold}")
            if name not in lines:
                for line in lines.values():
                    bar.update(line, visible=False)
                lines[name] = bar.add_task(name, figures="")
            held_out = "" if progress.validation_loss is None else f" held out {progress.validation_loss:.3f}"
            figures = (
                f"loss {progress.loss:.3f}{held_out}  rate {progress.learning_rate:.1e}  {progress.images_per_second:.0f} images/s"
            )
            bar.update(lines[name], completed=progress.iteration, total=progress.iterations, figures=figures)
            if progress.iteration == progress.iterations:
                bar.update(whole, completed=len(lines))

        yield tell


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: first column to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold", min_width=0 if number else 18)
    for row in rows:
        table.add_row(*row)
    console.print(table, soft_wrap=False)


def print_headline(evaluation: Evaluation) -> None:
    """Print the systems with their headline numbers and intervals."""
    console.print(terminal_table(evaluation), soft_wrap=False)
