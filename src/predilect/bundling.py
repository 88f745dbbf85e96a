"""A bundle made of a finished cross-validation: the system trained once more, and with it all that its folds' networks taught.

What is fitted on predictions is fitted on those of the folds' networks, each on photographs that it did not learn from, and applied to the
network that learnt from all: there are no other predictions to fit on. The model card says so.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric

from predilect.bundle import Bundle, write_bundle
from predilect.evaluation.answers import MAX_MISS_RATE
from predilect.evaluation.decisions import Aim
from predilect.evaluation.fitted_parts import fit_parts
from predilect.evaluation.measured import Tell, measure
from predilect.files import replacing_folder
from predilect.insight.bundle_index import keep_index
from predilect.insight.familiarity import familiarity_of, novelty_of_folds
from predilect.report.card_scores import Tested
from predilect.training.crossval import Refit
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed

__all__ = ["make_bundle"]

_RESAMPLES_P = 1000  # the card shows no p, and claims nothing where it is 0.05 or more


def make_bundle(
    out: Path,
    folds: TrainedFolds,
    refitted: Refit,
    *,
    fabric: Fabric,
    command: str,
    aim: Aim | None = None,
    max_miss_rate: float = MAX_MISS_RATE,
    index: bool = False,
    photographs: bool = False,
    on_progress: Tell | None = None,
) -> Bundle:
    """Fit what a bundle holds, and write it with its model card.

    Cost: a forward pass over the atlas for each fold, with the run's first seed, and one for the refit; what is measured for the
    card (see `evaluation.measured.measure`, for this system alone); and one site prior more.

    Args:
        out: The folder to make; it must be absent or empty.
        folds: The finished cross-validation of the system.
        refitted: The system, trained on all groups.
        fabric: Gives device and precision.
        command: That makes the bundle, for the record.
        aim: Of the thresholds; None: the largest F1.
        max_miss_rate: Bound on the expected false-negative rate of the sets, between 0 and 1.
        index: Whether the bundle holds the atlas as cases to compare with.
        photographs: Whether that index holds small versions of the photographs, too.
        on_progress: Told what is being done, how much of it is done, and how much there is.

    Raises:
        RunError: If the cross-validation of the system is not finished, or a file of it was changed.
        InsightError: If an embedding is not finite.
        PredilectError: If the folder exists or cannot be written to.
    """

    def tell(what: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(what, done, total)

    system, run = refitted.system.name, folds.run
    truth, predictions = run.truth(), run.system_predictions(system)
    with replacing_folder(out) as folder:  # which is refused here if it may not be; the index comes with it, or nothing does
        tell("fitting", 0, 1)
        fitted = fit_parts(predictions, truth, aim=aim, max_miss_rate=max_miss_rate)
        tell("fitting", 1, 1)
        novelty = novelty_of_folds(folds, system, fabric=fabric, on_progress=partial(tell, "looking, fold by fold"))
        with folds.atlas.images() as images:
            rows = np.arange(len(folds.atlas))
            embeddings = embed(fabric, refitted.network, images, rows, on_progress=partial(tell, "looking at all"))
        found = novelty if isinstance(novelty, str) else familiarity_of(novelty, embeddings, folds.truth)
        measured = measure(
            truth, {system: predictions}, aim=aim, max_miss_rate=max_miss_rate, n_resamples_p=_RESAMPLES_P, on_progress=on_progress
        )
        fitted_on = run.predictions_checksums(system)
        made = replace(refitted, provenance={**refitted.provenance, "fitted_on": fitted_on, "made_by": command})
        bundle = write_bundle(folder, made, fitted.with_familiarity(found), Tested(truth, measured))
        if index:
            steps = partial(tell, "making small photographs")
            keep_index(bundle, folds.atlas, embeddings, photographs=photographs, on_progress=steps)
    return Bundle.open(out)
