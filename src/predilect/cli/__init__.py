"""The command line: each command parses, calls one function and prints where the result is.

Commands import what they need when they run, so that help and scoring never wait for torch.
"""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError
from rich.console import Console

from predilect.cli.data import import_command, refine_command, split_command
from predilect.cli.demo import demo_command
from predilect.cli.scores import evaluate_command, predict_command, report_command
from predilect.cli.train import crossval_command, train_command
from predilect.errors import PredilectError

__all__ = ["app", "main"]

app = App(
    name="predilect",
    help="Learn from photographs of skin which lesions they show and on which body site, and say how well.",
    help_epilogue="Not a medical device: for research and development only.",
    help_format="markdown",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.command(demo_command, name="demo")
app.command(import_command, name="import")
app.command(refine_command, name="refine")
app.command(split_command, name="split")
app.command(train_command, name="train")
app.command(crossval_command, name="crossval")
app.command(evaluate_command, name="evaluate")
app.command(report_command, name="report")
app.command(predict_command, name="predict")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with 0, 1 (bad input) or 2 (usage); 130 after Ctrl-C.

    Args:
        arguments: In place of those the process was started with.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        code = app(arguments)
    except CycloptsError as error:
        errors.print("[bold red]usage[/]", end=" ")
        errors.print(f"{error}; see predilect {' '.join(error.command_chain or ())} --help".replace("  ", " "), markup=False)
        sys.exit(2)
    except PredilectError as error:
        errors.print("[bold red]error[/]", end=" ")
        errors.print(str(error), markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print(
            "stopped; what was finished is kept, and the same command with --resume goes on where there is one", markup=False
        )
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
