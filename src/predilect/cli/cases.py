"""`predilect cases`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.folder import Atlas
from predilect.cli.data import splits_of
from predilect.cli.device import fabric_of_run
from predilect.cli.insight import print_credits
from predilect.cli.show import Seed, command_line, console, counting
from predilect.report.cases_page import write_cases_page
from predilect.report.wording import many
from predilect.run import Run

__all__ = ["cases_command"]

_Number = Annotated[int, Parameter(validator=Number(gte=0))]


def cases_command(
    run: Path,
    atlas: Path,
    /,
    *,
    out: Path,
    system: str = "mtl",
    seed: Seed | None = None,
    ids: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    random: _Number = 5,
    worst: _Number = 5,
) -> None:
    """Show tested photographs of a finished cross-validation with both heads' attention and the five most alike (the paper's Figure 3).

    Each photograph is seen by the network of its own fold, and answered by photographs of the other folds. OUT/cases.html is one
    file and holds photographs of the atlas: keep it as safe as the atlas. The weights of the folds must still be there.

    Example: `predilect cases runs/clinic atlases/clinic --out cases --ids 0001 0417`

    Args:
        run: The run folder.
        atlas: The atlas that it was made with.
        out: The folder for the page.
        system: A system that the run trained.
        seed: A training seed of the run, by default its first; it also draws the random cases.
        ids: The image_id of photographs to show.
        random: How many photographs to draw at random.
        worst: How many of those to show whose lesions (or, for a system without lesions, whose site) the system ranked worst.
    """
    from predilect.insight.cases import CaseChoice, make_cases
    from predilect.training.folds import TrainedFolds

    opened, photographs = Run.open(run), Atlas.open(atlas)
    folds = TrainedFolds.of(opened, photographs, splits_of(photographs))
    fabric = fabric_of_run(opened)
    if not fabric.is_global_zero:  # of several processes one is enough
        return
    chosen_seed = opened.info["seeds"][0] if seed is None else seed
    choice = CaseChoice(ids, random, worst)
    with counting("looking") as tell:
        page = make_cases(folds, system, chosen_seed, choice, fabric=fabric, command=command_line(), on_progress=tell)
    path = write_cases_page(page, out)
    for section in page.sections:
        console.print(f"{section.title.lower():<10}{many(len(section.cases), 'case')}")
    if page.unexplained is not None:
        console.print(f"note      no attention is shown: {page.unexplained}")
    console.print(f"note      the page shows photographs of {page.atlas}: keep it as safe as the atlas")
    print_credits(page.sources)
    console.print(f"page      {path}")
