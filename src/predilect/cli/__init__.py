"""The command line: each command parses, calls one function and prints where the result is.

Commands import what they need when they run, so that help and scoring never wait for torch.
"""

from __future__ import annotations

import inspect
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, UnusedCliTokensError
from rich.console import Console

from predilect.allocator import keep_memory
from predilect.cli.audit import audit_command
from predilect.cli.bundle import bundle_command
from predilect.cli.cases import cases_command
from predilect.cli.data import import_command, refine_command, split_command
from predilect.cli.demo import demo_command
from predilect.cli.explain import explain_command
from predilect.cli.export import export_command
from predilect.cli.insight import attend_command, index_command, similar_command
from predilect.cli.predict import predict_command
from predilect.cli.reproduce import reproduce_command
from predilect.cli.scores import evaluate_command, report_command
from predilect.cli.serve import serve_command
from predilect.cli.show import repeating_command, resuming_command, typed
from predilect.cli.train import crossval_command, train_command
from predilect.errors import PredilectError

__all__ = ["app", "main"]

app = App(
    name="predilect",
    help="Learn from photographs of skin which lesions they show and on which body site, and say how well.",
    help_epilogue="Exit codes: 0 done; 1 it cannot be done, or not wholly; 2 the command line is not understood; 130 or 143 stopped.\n\n"
    "Not a medical device: for research and development only.",
    help_format="markdown",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo_command,
    "import": import_command,
    "refine": refine_command,
    "audit": audit_command,
    "split": split_command,
    "train": train_command,
    "crossval": crossval_command,
    "reproduce": reproduce_command,
    "evaluate": evaluate_command,
    "report": report_command,
    "explain": explain_command,
    "bundle": bundle_command,
    "predict": predict_command,
    "export": export_command,
    "serve": serve_command,
    "attend": attend_command,
    "index": index_command,
    "similar": similar_command,
    "cases": cases_command,
}
_GO_ON_BY_THEMSELVES = frozenset({"bundle", "explain"})
"""Commands that, given again, do not repeat what they have finished; others are asked to by ``--resume``, or begin anew."""

for _number, (_name, _command) in enumerate(_COMMANDS.items()):
    app.command(_command, name=_name, sort_key=_number)  # help lists them in the order of the work


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with an exit code, as docs/formats.md lists them.

    0: it is done. 1, after ``error``: what the command line says was understood, and cannot be done. 2, after ``usage``: it was not
    understood, and nothing was looked at. 130 after Ctrl-C, 143 after SIGTERM.

    Args:
        arguments: In place of those the process was started with.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    keep_memory()
    tokens = sys.argv[1:] if arguments is None else arguments
    typed.set(tokens)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        with _ended_by_sigterm():
            code = app(tokens)
    except CycloptsError as error:
        errors.print("[bold red]usage[/]", end=" ")
        errors.print(_usage(error), markup=False)
        sys.exit(2)
    except PredilectError as error:
        errors.print("[bold red]error[/]", end=" ")
        errors.print(str(error), markup=False)
        sys.exit(1)
    except OSError as error:  # a path that cannot be asked for, a device that fails
        errors.print("[bold red]error[/]", end=" ")
        errors.print(f"{error.filename}: {error.strerror}" if error.filename else str(error), markup=False)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        way_on = _way_on(tokens[0]) if tokens else None
        errors.print("stopped" if way_on is None else f"stopped; go on with: {way_on}", markup=False)
        sys.exit(143 if isinstance(stop, _TerminatedError) else 130)
    sys.exit(code if isinstance(code, int) else 0)


def _way_on(name: str) -> str | None:
    """The command line that goes on with a command that was stopped, or None where there is nothing to go on with."""
    if name in _GO_ON_BY_THEMSELVES:
        return repeating_command()
    return resuming_command() if "resume" in inspect.signature(_COMMANDS.get(name, main)).parameters else None


def _usage(error: CycloptsError) -> str:
    """What is wrong with the words of a command, and where it says what is right."""
    if isinstance(error, UnusedCliTokensError):
        said = f"Nothing takes {', '.join(map(repr, error.unused_tokens or ()))}."
    else:
        # Cyclopts ends with a list of commands, of which it cuts off all but the first.
        said = str(error).partition(" Available commands:")[0]
    return f"{' '.join(said.split())} See {' '.join(['predilect', *(error.command_chain or ()), '--help'])}"


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, as a cluster sends it before it takes a machine away, ends a command as tidily as Ctrl-C does."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to no other
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
