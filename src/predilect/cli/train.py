"""`predilect train` and `predilect crossval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.folder import Atlas
from predilect.atlas.splits import Splits
from predilect.cli.data import SPLITS_FILE, note_stale_audit, split_atlas, splits_of
from predilect.cli.device import fabric_to_train
from predilect.cli.show import (
    Seed,
    command_line,
    console,
    counting,
    counting_each,
    print_fresh_start,
    print_headline,
    print_resumed,
    training,
)
from predilect.errors import RecipeError, RunError, SplitError
from predilect.evaluation.fitted_parts import PARTS, FittedParts
from predilect.files import check_place
from predilect.recipe import Recipe, System, system, with_weights
from predilect.run import ENSEMBLES, ReportPlan, Run, check_members

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "Flag",
    "Settings",
    "Weights",
    "compare",
    "crossval_command",
    "folds_to_make",
    "local_weights",
    "named",
    "run_folds",
    "train_command",
    "whole_numbers",
]

Settings = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative="", show_default=False)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Weights = Annotated[tuple[str, ...], Parameter(name="--weights", consume_multiple=True, negative="", show_default=False)]


def train_command(
    atlas: Path,
    /,
    *,
    recipe: str,
    out: Path,
    system_name: Annotated[str, Parameter(name="--system")] = "mtl",
    fold: Annotated[int | None, Parameter(validator=Number(gte=-1))] = None,
    seed: Seed = 1,
    weights: Weights = (),
    from_scratch: Flag = False,
    set_: Settings = (),
    resume: Flag = False,
) -> None:
    """Train one system: against one fold, or on everything into a bundle.

    With --fold the fold is held out, predicted and scored (-1 is the tuning slice). Without it all groups are learnt from, but
    for the slice that watches the training, and the weights become OUT/bundle.

    Example: `predilect train atlases/clinic --recipe quick-resnet18 --out runs/trial --fold -1`

    Args:
        atlas: The atlas folder, already split.
        recipe: A shipped recipe's name or a .toml file.
        out: The run folder to make.
        system_name: mtl, resnet (lesions only), resnet-site (site only), alexnet or mtl-scratch (from random weights).
        fold: The fold to hold out.
        seed: Decides weights, order and augmentation.
        weights: A local file of starting weights, as BACKBONE=FILE, such as resnet50=weights.safetensors.
        from_scratch: Start from random weights.
        set_: A setting that replaces the recipe's, as key=value; several may follow one another.
        resume: Go on with a run that was stopped.
    """
    from predilect.bundle import write_bundle
    from predilect.training.crossval import train_whole
    from predilect.training.start import start_run

    (chosen,) = with_weights([system(system_name, Recipe.open(recipe, set_))], local_weights(weights), from_scratch=from_scratch)
    opened = Atlas.open(atlas)
    splits = splits_of(opened)
    fabric = fabric_to_train(chosen.recipe, out, resume=resume)
    if fold is not None:
        compare(opened, [chosen], out, seeds=[seed], folds=[fold], fabric=fabric, resume=resume)
        return
    print_fresh_start(out, resume=resume)
    note_stale_audit(opened, out)
    command = command_line()
    with counting("checking the images") as check:
        run = start_run(
            out, opened, splits, [chosen], seeds=[seed], folds=[], fabric=fabric, command=command, resume=resume, on_check=check
        )
    print_resumed(run)
    bundle = out / "bundle"
    finished = _holds(bundle, chosen.name)
    fabric.barrier()  # no process looks for the bundle once another may have written it
    if not finished:
        with training(1) as tell:
            trained = train_whole(run, opened, splits, chosen, fabric=fabric, on_progress=tell)
        if fabric.is_global_zero:
            untested = "the system was trained without holding out a fold"
            write_bundle(bundle, trained, FittedParts(missing=dict.fromkeys(PARTS, untested)))
    console.print(f"bundle    {bundle}")


def crossval_command(
    atlas: Path,
    /,
    *,
    systems: str,
    recipe: str,
    out: Path,
    folds: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    seeds: str = "1",
    weights: Weights = (),
    from_scratch: Flag = False,
    set_: Settings = (),
    resume: Flag = False,
    refit: str | None = None,
) -> None:
    """Cross-validate systems on the same folds, and report them side by side.

    Nothing finished is repeated by --resume. The report lies in OUT/report.

    Example: `predilect crossval atlases/clinic --systems resnet,resnet-site,mtl --recipe quick-resnet18 --out runs/clinic
    --seeds 1,2 --refit mtl`

    Args:
        atlas: The atlas folder; it is split first if it is not yet.
        systems: Names joined by commas, the baseline first: resnet, resnet-site, mtl, alexnet, mtl-scratch. All take the same recipe;
            alexnet replaces its backbone, mtl-scratch its starting weights. ensemble and ensemble-mean put resnet and mtl together.
        recipe: A shipped recipe's name or a .toml file.
        out: The run folder to make.
        folds: Split the atlas into so many, 5 if not given; an atlas that is already split keeps its folds.
        seeds: Training seeds joined by commas.
        weights: A local file of starting weights, as BACKBONE=FILE, such as resnet50=weights.safetensors; once for each backbone.
        from_scratch: Start from random weights.
        set_: A setting that replaces the recipe's, as key=value; several may follow one another.
        resume: Go on with a run that was stopped.
        refit: A system to train once more on all groups, with the first seed, into the bundle OUT/bundle.
    """
    names = named(systems)
    chosen_recipe = Recipe.open(recipe, set_)
    chosen = [system(name, chosen_recipe) for name in names if name not in ENSEMBLES]
    chosen = with_weights(chosen, local_weights(weights), from_scratch=from_scratch)
    check_members(names)
    trained = [item.name for item in chosen]
    if refit is not None and refit not in trained:
        raise RecipeError(f"--refit {refit}: allowed are the systems that this run trains, {', '.join(trained)}")
    chosen_seeds = whole_numbers(seeds)
    plan = ReportPlan(ensembles=tuple(name for name in names if name in ENSEMBLES))
    opened = Atlas.open(atlas)
    n_folds = folds_to_make(opened, folds, 5)
    run_folds(opened, chosen, out, seeds=chosen_seeds, n_folds=n_folds, plan=plan, resume=resume, refit_name=refit)


def folds_to_make(atlas: Atlas, asked_for: int | None, default: int) -> int:
    """How many folds a cross-validation has: those of the atlas, or those that it is to be split into.

    Args:
        atlas: The photographs.
        asked_for: By the user, or None.
        default: Into how many an atlas is split where nobody asked for a number.

    Raises:
        SplitError: If the atlas is split into another number of folds than was asked for.
    """
    path = atlas.path / SPLITS_FILE
    if not path.exists():
        return default if asked_for is None else asked_for
    k = Splits.read(path).k
    if asked_for not in (None, k):
        raise SplitError(f"--folds {asked_for}: {atlas.path} is split into {k}; leave --folds out, or run predilect split again")
    return k


def run_folds(
    atlas: Atlas,
    systems: Sequence[System],
    out: Path,
    *,
    seeds: Sequence[int],
    n_folds: int,
    plan: ReportPlan,
    resume: bool,
    refit_name: str | None = None,
) -> None:
    """Cross-validate over all folds of an atlas, which is split first if it is not yet.

    Args:
        atlas: The photographs.
        systems: What to compare.
        out: The run folder.
        seeds: Training seeds.
        n_folds: From `folds_to_make`.
        plan: What the report shows beside the systems.
        resume: Whether an existing run is gone on with.
        refit_name: A system to train on all groups, or None.

    Raises:
        PredilectError: If anything the user gave cannot be used.
    """
    if not (out / "run.json").exists():
        check_place(out)  # before an atlas is split, which may take minutes
    fabric = fabric_to_train(systems[0].recipe, out, resume=resume)
    if fabric.is_global_zero and not (atlas.path / SPLITS_FILE).exists():
        split_atlas(atlas, folds=n_folds)
    fabric.barrier()
    compare(atlas, systems, out, seeds=seeds, folds=range(n_folds), fabric=fabric, plan=plan, resume=resume, refit_name=refit_name)


def compare(
    atlas: Atlas,
    systems: Sequence[System],
    out: Path,
    *,
    seeds: Sequence[int],
    folds: Sequence[int],
    fabric: Fabric,
    plan: ReportPlan | None = None,
    resume: bool = False,
    refit_name: str | None = None,
    with_cases: bool = False,
) -> None:
    """Cross-validate, refit if asked for, report, and print the result table and where everything lies.

    Args:
        atlas: The photographs.
        systems: What to compare.
        out: The run folder.
        seeds: Training seeds.
        folds: The folds to hold out in turn.
        fabric: The device; of several processes the first alone writes and prints.
        plan: What the report shows beside the systems; None: nothing.
        resume: Whether an existing run is gone on with.
        refit_name: A system to train on all groups, for a bundle, or None.
        with_cases: Whether that bundle holds the atlas as cases to compare with, photographs among it.

    Raises:
        PredilectError: If anything the user gave cannot be used.
    """
    from predilect.bundling import make_bundle
    from predilect.training.crossval import cross_validate, refit
    from predilect.training.folds import TrainedFolds
    from predilect.training.start import start_run

    splits = splits_of(atlas)
    print_fresh_start(out, resume=resume)
    note_stale_audit(atlas, out)
    command = command_line()
    shown = Run.open(out).shown if resume and (out / "run.json").is_file() else None
    with counting("checking the images") as check:
        run = start_run(
            out,
            atlas,
            splits,
            systems,
            seeds=seeds,
            folds=folds,
            fabric=fabric,
            command=command,
            resume=resume,
            plan=plan,
            on_check=check,
        )
    print_resumed(run)
    if shown is not None and shown != run.shown:
        console.print(
            f"resume    the report now shows {', '.join(run.shown)}, before {', '.join(shown)}; nothing is trained for that"
        )
    bundle = out / "bundle"
    refitted = refit_name is not None and _holds(bundle, refit_name)
    parts = [(item.name, seed, fold) for item in systems for seed in seeds for fold in folds]
    finished = sum(run.fold_result(*part) is not None for part in parts) + refitted
    fabric.barrier()  # no process looks for what is finished once another may have finished more
    trained = None
    with training(len(parts) + (refit_name is not None), finished) as tell:
        cross_validate(run, atlas, splits, systems, fabric=fabric, on_progress=tell)
        if refit_name is not None and not refitted:
            chosen = next(item for item in systems if item.name == refit_name)
            trained = refit(run, atlas, splits, chosen, fabric=fabric, on_progress=tell)
    if fabric.is_global_zero:
        if trained is not None:
            with counting_each() as tell_each:
                make_bundle(
                    bundle,
                    TrainedFolds.of(run, atlas, splits),
                    trained,
                    fabric=fabric,
                    command=command,
                    index=with_cases,
                    photographs=with_cases,
                    on_progress=tell_each,
                )
        with counting_each() as tell_each:
            evaluation = run.report(on_progress=tell_each)
        print_headline(evaluation)
        console.print(f"report    {out / 'report' / 'report.html'}")
        if refit_name is not None:
            _check_current(bundle, run, refit_name)
            console.print(f"bundle    {bundle}")


def _holds(bundle: Path, system_name: str) -> bool:
    """Whether a system's bundle is there already.

    Raises:
        BundleError: If what is there is no bundle, or a damaged one.
        RunError: If it is another system's.
    """
    from predilect.bundle import Bundle

    if not bundle.exists():
        return False
    found = Bundle.open(bundle).system
    if found != system_name:
        raise RunError(f"{bundle} holds {found}, not {system_name}; move it elsewhere to refit {system_name} in its place")
    return True


def _check_current(bundle: Path, run: Run, system_name: str) -> None:
    """Refuse a bundle from before folds were trained again, which has another calibration and may have other weights.

    Raises:
        RunError: If the run's predictions are no longer those that it was fitted on.
    """
    from predilect.bundle import Bundle

    if Bundle.open(bundle).provenance.get("fitted_on") != run.predictions_checksums(system_name):
        raise RunError(
            f"{bundle} was fitted on other predictions of {system_name} than {run.path} holds now; "
            f"remove it, and give the same command again to make it anew"
        )


def named(systems: str) -> list[str]:
    """The names that commas join.

    Raises:
        RecipeError: If one stands twice.
    """
    names = [name.strip() for name in systems.split(",")]
    if len(set(names)) < len(names):
        raise RecipeError(f"--systems {systems}: each system is named once")
    return names


def local_weights(items: Sequence[str]) -> dict[str, Path]:
    """Files of starting weights by backbone, from BACKBONE=FILE.

    Raises:
        RecipeError: If an item is written otherwise, or a backbone stands twice.
    """
    found: dict[str, Path] = {}
    for item in items:
        name, equals, file = item.partition("=")
        if not (equals and name and Path(file).suffix == ".safetensors") or name in found:
            raise RecipeError(f"--weights {item}: write BACKBONE=FILE once for each backbone, such as resnet50=weights.safetensors")
        found[name] = Path(file)
    return found


def whole_numbers(text: str) -> list[int]:
    """The seeds that commas join.

    Raises:
        RecipeError: If they are not different whole numbers from 0.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal() and len(part) < 19]
    if len(set(numbers)) < len(parts):
        raise RecipeError(f"--seeds {text}: allowed are different whole numbers from 0, joined by commas, such as 1,2,3")
    return numbers
