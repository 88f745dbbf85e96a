"""`predilect bundle`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.folder import Atlas
from predilect.cli.data import splits_of
from predilect.cli.device import fabric_of_run
from predilect.cli.show import command_line, console, counting, counting_each, training
from predilect.cli.train import Flag, Weights, local_weights
from predilect.errors import BundleError, RunError
from predilect.evaluation.answers import MAX_MISS_RATE, MISS_RATES
from predilect.evaluation.decisions import Aim
from predilect.files import check_place, checksum
from predilect.recipe import System, with_weights
from predilect.run import WEIGHTS_FILE, Run
from predilect.run.finished import REFIT_FOLDER, read_result

if TYPE_CHECKING:
    from predilect.training.folds import TrainedFolds

__all__ = ["bundle_command"]


def bundle_command(
    run: Path,
    atlas: Path,
    /,
    *,
    system: str = "mtl",
    out: Path,
    aim: str = "f1",
    max_miss: Annotated[float, Parameter(validator=Number(gt=MISS_RATES[0], lt=MISS_RATES[1]))] = MAX_MISS_RATE,
    index: Flag = False,
    photographs: Flag = False,
    weights: Weights = (),
) -> None:
    """Make a bundle of a finished cross-validation: one folder with everything that a system needs to be used.

    The system is trained once more, on all groups, unless that was done before; give the same command to go on with a training that was
    stopped. Calibration, thresholds, sets, the site prior and the warning of strange photographs are fitted on what the folds' networks said of
    photographs that they had not seen. OUT/card.md is the model card: read it before the bundle is used.

    Example: `predilect bundle runs/clinic atlases/clinic --system mtl --out bundles/clinic --aim sensitivity=0.9 --index`

    Args:
        run: The run folder.
        atlas: The atlas that it was made with.
        system: A system that the run trained.
        out: The bundle folder to make.
        aim: What thresholds are to achieve: f1, or a sensitivity such as sensitivity=0.9, above 0.1 and below 0.9999.
        max_miss: Of the lesions that a photograph shows, the set of those that cannot be excluded leaves out at most this share, on average;
            above 0.0001 and below 0.9.
        index: Put the photographs' embeddings and labels into the bundle, to find similar cases and to warn of strange photographs.
        photographs: Put small versions of the photographs into that index, too. They are patients' photographs: give such a bundle only to
            those who may see the atlas itself.
        weights: The local file of starting weights that the run was given, as BACKBONE=FILE.
    """
    try:
        aimed = Aim.parse(aim)
    except ValueError as error:
        raise BundleError(f"--aim {aim}: {error}") from error
    if photographs and not index:
        raise BundleError("--photographs puts photographs into the bundle's index: say --index, too")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BundleError(f"{out} already exists; choose another folder or remove it")
    check_place(out)
    opened, cases = Run.open(run), Atlas.open(atlas)

    from predilect.bundling import make_bundle
    from predilect.training.crossval import refit
    from predilect.training.folds import TrainedFolds

    splits = splits_of(cases)
    folds = TrainedFolds.of(opened, cases, splits)
    chosen = _as_trained(folds, system, weights)
    fabric = fabric_of_run(opened)
    with opened.held() if fabric.is_global_zero else nullcontext():
        with counting("checking the images") as check:
            cases.check_images(check)
        with training(1) as tell:
            refitted = refit(opened, cases, splits, chosen, fabric=fabric, on_progress=tell)
        if not fabric.is_global_zero:
            return
        with counting_each() as tell_each:
            made = make_bundle(
                out,
                folds,
                refitted,
                fabric=fabric,
                command=command_line(),
                aim=aimed,
                max_miss_rate=max_miss,
                index=index,
                photographs=photographs,
                on_progress=tell_each,
            )
    for caveat in (*made.fitted.caveats(), *made.fitted.unreached()):
        console.print(f"note      {caveat}")
    console.print(f"card      {out / 'card.md'}")
    console.print(f"bundle    {out}")


def _as_trained(folds: TrainedFolds, name: str, weights: Weights) -> System:
    """A system of a run, with the file of starting weights that it needs if it is yet to be trained on all groups.

    Raises:
        RunError: If the run has no such system, or the file is not given or another one.
    """
    run, recipe = folds.run, folds.recipe(name)
    system = System(name, tuple(run.info["systems"][name]["tasks"]), recipe)
    recorded = run.info["weights"].get(name)
    if recorded is None and weights:
        raise RunError(f"--weights {' '.join(weights)}: {name} of {run.path} started from no file; leave it out")
    refitted = run.seed_folder(name, run.info["seeds"][0]) / REFIT_FOLDER
    if recorded is None or (read_result(refitted) is not None and (refitted / WEIGHTS_FILE).is_file()):
        return system
    if not weights:
        raise RunError(
            f"{name} of {run.path} started from the file {recipe.weights}: give it by --weights {recipe.backbone}={recipe.weights}"
        )
    (chosen,) = with_weights([system], local_weights(weights), from_scratch=False)
    file = chosen.recipe.weights_file
    if file is None or not file.is_file() or checksum(file) != recorded:
        raise RunError(f"--weights {' '.join(weights)}: this is not the file that {run.path} was given (its checksum differs)")
    return chosen
