"""`predilect reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.folder import Atlas
from predilect.cli.show import without_folders
from predilect.cli.train import Flag, Settings, Weights, folds_to_make, local_weights, named, run_folds, whole_numbers
from predilect.reproduction import BUDGETS, experiments, plan_of

__all__ = ["reproduce_command"]


def reproduce_command(
    atlas: Path,
    /,
    *,
    out: Path,
    budget: Literal["quick", "paper"] = "quick",
    systems: str | None = None,
    folds: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    seeds: str | None = None,
    weights: Weights = (),
    from_scratch: Flag = False,
    set_: Settings = (),
    resume: Flag = False,
) -> None:
    """Run every experiment of Liao & Luo on an atlas, and report it beside the paper's own numbers.

    docs/paper.md tells how each part of the paper is read. Nothing finished is repeated by --resume.

    Example: `predilect reproduce atlases/clinic --out runs/paper --systems resnet,resnet-site,mtl,ensemble`

    Args:
        atlas: The atlas folder; it is split first if it is not yet.
        out: The run folder to make.
        budget: quick shrinks the paper's recipes to what two processor cores do in some hours; paper trains them as printed, for a
            GPU.
        systems: Names joined by commas: alexnet, resnet, resnet-site, mtl, ensemble, ensemble-mean, mtl-scratch, modern-mtl; by
            default all of the budget.
        folds: Split the atlas into so many, the budget's if not given; an atlas that is already split keeps its folds.
        seeds: Training seeds joined by commas, the budget's if not given.
        weights: A local file of starting weights, as BACKBONE=FILE, such as resnet50=weights.safetensors; once for each backbone.
        from_scratch: Start every system from random weights, which the report says.
        set_: A setting that replaces that of every recipe, as key=value; several may follow one another.
        resume: Go on with a run that was stopped.
    """
    chosen = BUDGETS[budget]
    by_default = [name for name in chosen.experiments if not (from_scratch and name == "mtl-scratch")]
    names = by_default if systems is None else named(systems)
    trained = experiments(chosen, names, weights=local_weights(weights), from_scratch=from_scratch, settings=set_)
    chosen_seeds = list(chosen.seeds) if seeds is None else whole_numbers(seeds)
    opened = Atlas.open(atlas)
    n_folds = folds_to_make(opened, folds, chosen.folds)
    told = [without_folders(setting) for setting in set_]
    plan = plan_of(chosen, names, trained, n_folds=n_folds, seeds=chosen_seeds, settings=told)
    run_folds(opened, trained, out, seeds=chosen_seeds, n_folds=n_folds, plan=plan, resume=resume)
