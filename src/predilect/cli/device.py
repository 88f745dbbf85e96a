"""The device of a command, in the precision of the run that it goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from predilect.cli.show import console
from predilect.recipe import Recipe
from predilect.run import Run
from predilect.run.record import RECORD_FILE

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["fabric_of_run", "fabric_to_train"]


def fabric_of_run(run: Run) -> Fabric:
    """The best device there is, in the precision in which a run was begun, whatever machine that was on.

    Args:
        run: Whose networks are looked through or trained further; a precision that this device only emulates is told.
    """
    from predilect.training.devices import computes_bf16, make_fabric  # loads torch, which takes seconds

    if run.precision == "bf16" and not computes_bf16():
        console.print(
            f"note      {run.path} computes in bf16, for which this machine has no instructions: it takes much longer here"
        )
    return make_fabric(run.precision)


def fabric_to_train(recipe: Recipe, out: Path, *, resume: bool) -> Fabric:
    """The best device there is, in the precision of a recipe; where a run is gone on with, ``auto`` is what it was at its start.

    Args:
        recipe: What is trained.
        out: The run folder.
        resume: Whether a run there is gone on with.

    Raises:
        RunError: If the run there is damaged.
    """
    from predilect.training.devices import make_fabric

    if resume and recipe.precision == "auto" and (out / RECORD_FILE).is_file():
        return fabric_of_run(Run.open(out))
    return make_fabric(recipe.precision)
