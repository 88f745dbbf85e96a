"""What the terminal shows: progress of long work and tables of results."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from predilect.cli.pace import CountLog, TrainingLog
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

_PIPED = 100  # columns of what only people read, where the output is no terminal
_GAP = 3  # between columns, and at both edges together
_SHORTEST_PATH = 20

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


class _Count(MofNCompleteColumn):
    """How many of how many; nothing before the work has told of how many."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


@dataclass(frozen=True, slots=True)
class _AsManyAsFit:
    """Figures, the most telling first: those for which there is room, each of them whole."""

    figures: Sequence[str]

    def __rich_measure__(self, _: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(options.max_width, len("  ".join(self.figures))))

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        fitting = next(
            shown for n in range(len(self.figures), -1, -1) if len(shown := "  ".join(self.figures[:n])) <= options.max_width
        )
        yield Text(fitting, no_wrap=True)


class _Figures(ProgressColumn):
    """What a task tells beside its count."""

    def render(self, task: Task) -> _AsManyAsFit:
        return _AsManyAsFit(task.fields.get("figures", ()))


def _columns(shown_on: Console) -> tuple[ProgressColumn, ...]:
    """What a line of progress shows; where it is too long, figures go, and all else stands whole."""
    whole = Column(no_wrap=True)
    return (
        TextColumn("{task.description}", markup=False, table_column=whole),
        BarColumn(bar_width=max(6, min(24, shown_on.width // 8)), table_column=whole),
        _Count(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        _Figures(),  # last, since most lines have none
    )


@contextmanager
def counting(what: str, *, beside: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for work that tells how many of how many are done; where the output is no terminal, lines.

    Args:
        what: The work in a word or two.
        beside: Show it where errors are shown, since the output is an answer for other programs; and nothing where that is no terminal.

    Yields:
        The function to tell: (done, total).
    """
    shown_on = Console(stderr=True, quiet=console.quiet) if beside else console
    with Progress(*_columns(shown_on), console=shown_on, transient=True, disable=shown_on.quiet or not shown_on.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        log = None if shown_on.is_terminal or beside else CountLog(what, console.print)

        def tell(done: int, total: int) -> None:
            if log is not None:
                log.tell(done, total)
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
    """A live line for the training that runs, and one for the whole; where the output is no terminal, lines that stay.

    Args:
        trainings: How many there are in all.
        finished: How many of them were finished before.

    Yields:
        The function to tell: (system, seed, fold or None, where it stands).
    """
    with Progress(*_columns(console), console=console, transient=True, disable=_NO_BARS) as bar:
        whole = bar.add_task("trainings", total=trainings, completed=finished)
        lines: dict[str, TaskID] = {}
        log = None if console.is_terminal else TrainingLog(trainings, finished, console.print)

        def tell(system: str, seed: int, fold: int | None, progress: object) -> None:
            from predilect.training.trainer import Progress as Standing

            assert isinstance(progress, Standing)
            name = f"{system} seed {seed} " + ("all groups" if fold is None else f"fold {fold}")
            if name not in lines:
                for line in lines.values():
                    bar.update(line, visible=False)
                # A training may end before its last iteration: it is over when the next one tells something.
                bar.update(whole, completed=finished + len(lines))
                lines[name] = bar.add_task(name, total=progress.iterations)
                if log is not None:
                    log.begin(name, 1 - progress.iteration / progress.iterations)
            held_out = () if progress.validation_loss is None else (f"held out {progress.validation_loss:.3f}",)
            rates = f"rate {progress.learning_rate:.1e}", f"{progress.images_per_second:.0f} images/s"
            loss = () if progress.loss is None else (f"loss {progress.loss:.3f}",)
            figures = (*loss, *held_out, *rates)
            bar.update(lines[name], completed=progress.iteration, total=progress.iterations, figures=figures)

        yield tell
        if log is not None:
            log.end()


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[str] = (), paths: Collection[str] = ()
) -> None:
    """Print a table: words to the left, numbers to the right; a narrow terminal folds words, and no cell but a path loses any.

    Where the output is no terminal nothing is folded, so that each row is a line for other programs. Only a table of paths, or with
    lines inside its cells, which no program reads by lines, is folded to 100 columns there too.

    Args:
        title: Above it.
        header: Names of the columns.
        rows: Their cells.
        words: Columns of words; where none is named, the first and those with lists in them.
        paths: Columns of paths, which are shortened in the middle where the table would be too wide.
    """
    tall = any("\n" in cell for row in rows for cell in row)
    room = console.width if console.is_terminal else _PIPED if tall or paths else None
    shown = rows if room is None else _shortened(header, rows, paths, room)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, leading=int(tall))
    least = _GAP * len(header)
    for column, name in enumerate(header):
        listed = column == 0 or any(", " in row[column] or "\n" in row[column] for row in rows)
        foldable = name in words if words else listed
        widest = _widest(header, shown, column)
        narrowest = min(18, widest, max(11, (room or _PIPED) // len(header) - 2 * _GAP)) if foldable else 0
        table.add_column(
            name,
            justify="left" if foldable else "right",
            overflow="fold",
            no_wrap=not foldable or name in paths,
            min_width=narrowest,
        )
        least += narrowest if foldable and name not in paths else widest
    for row in shown:
        table.add_row(*row)
    _print_whole(table, room, least)


def _widest(header: Sequence[str], rows: Sequence[Sequence[str]], column: int) -> int:
    """Letters of the longest line in a column, its name among them."""
    return max(len(line) for cell in (header[column], *(row[column] for row in rows)) for line in cell.split("\n"))


def _shortened(header: Sequence[str], rows: Sequence[Sequence[str]], paths: Collection[str], room: int) -> list[list[str]]:
    """Rows whose paths leave the other columns their width, as far as that leaves enough of the paths."""
    widths = {name: _widest(header, rows, column) for column, name in enumerate(header)}
    spare = room - _GAP * len(header) - sum(width for name, width in widths.items() if name not in paths)
    most = max(_SHORTEST_PATH, spare // max(1, len(paths)))
    return [[_middle_out(cell, most) if name in paths else cell for name, cell in zip(header, row, strict=True)] for row in rows]


def _middle_out(text: str, most: int) -> str:
    """A text of at most so many letters: of a longer one the beginning and, since names differ there, twice as much of the end."""
    if len(text) <= most:
        return text
    end = 2 * (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def _print_whole(table: Table, room: int | None = None, least: int | None = None) -> None:
    """Print a table in a room, yet never narrower than its numbers, for rich would cut columns off without a sign."""
    needed = Measurement.get(console, console.options.update(width=1000), table)
    table.width = needed.maximum if room is None else max(min(room, needed.maximum), needed.minimum if least is None else least)
    console.print(table, crop=False, soft_wrap=False)


def print_headline(evaluation: Evaluation) -> None:
    """Print the systems with their headline numbers and intervals."""
    for table in terminal_tables(evaluation):
        _print_whole(table, console.width if console.is_terminal else None)
