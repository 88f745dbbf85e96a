"""`predilect explain`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.folder import Atlas
from predilect.cli.data import splits_of
from predilect.cli.device import fabric_of_run
from predilect.cli.show import command_line, console, counting, counting_each, print_table
from predilect.cli.train import named, whole_numbers
from predilect.errors import InsightError
from predilect.evaluation.insight import Insight
from predilect.labels.tasks import LESION, SITE
from predilect.report.insight_tables import MeasureRow, MeasureTable, attention_tables, retrieval_rows
from predilect.report.insight_wording import MEASURE_TITLES
from predilect.report.wording import interval, listed, number
from predilect.run import Run
from predilect.run.insight import insight_path, shown_insight

__all__ = ["explain_command"]


def explain_command(
    run: Path,
    atlas: Path,
    /,
    *,
    systems: str | None = None,
    seeds: str | None = None,
    sample: Annotated[int, Parameter(validator=Number(gte=0))] = 100,
) -> None:
    """Say of the networks of a finished cross-validation where they look, whether that is true, and which photographs they hold to be alike.

    Each fold's own network looks at its tested photographs, and those of the other folds answer. A fold that is done is not done
    again; give the same command to go on. The report shows the numbers, RUN/insight/insight.json holds them: those of the systems and
    seeds of the last command. To see all beside each other name all; what is done already costs nothing.

    Example: `predilect explain runs/clinic atlases/clinic --systems resnet,mtl`

    Args:
        run: The run folder; the weights of its folds must still be there.
        atlas: The atlas that it was made with.
        systems: Names joined by commas; by default all that the run trained.
        seeds: Training seeds joined by commas; by default all of the run.
        sample: How many tested photographs, the same for each system, have their maps checked by deletion, insertion and random
            weights, which takes some 60 passes for each and each head; 0 leaves these checks out.
    """
    from predilect.insight.explain import explain_folds, summarise
    from predilect.training.folds import TrainedFolds

    opened, photographs = Run.open(run), Atlas.open(atlas)
    folds = TrainedFolds.of(opened, photographs, splits_of(photographs))
    chosen = opened.systems if systems is None else named(systems)
    for name in chosen:
        folds.recipe(name)  # a system that the run has not is told first
    chosen_seeds = opened.info["seeds"] if seeds is None else whole_numbers(seeds)
    for seed in chosen_seeds:
        folds.check_seed(seed)
    opened.predictions()  # of an unfinished run nothing can be summed up: better told now than hours later
    fabric = fabric_of_run(opened)
    if not fabric.is_global_zero:  # of several processes one is enough
        return
    with opened.held(), counting("looking") as tell:
        found = explain_folds(folds, chosen, chosen_seeds, sample=sample, fabric=fabric, on_progress=tell)
        insight = summarise(opened, found, sample=sample, command=command_line())
        dropped = _dropped(opened, insight)
        insight.write(insight_path(run))
    with counting_each() as tell_each:
        opened.report(on_progress=tell_each)
    _print(insight)
    if dropped:
        console.print(
            f"note      the report showed {listed(dropped)} before and no longer does, for it shows the systems of the last explain; name "
            f"{'it' if len(dropped) == 1 else 'them'} with --systems, too: what was done with the same --sample is not done again"
        )
    console.print(f"numbers   {insight_path(run)}")
    console.print(f"report    {run / 'report' / 'report.html'}")


def _dropped(run: Run, insight: Insight) -> list[str]:
    """The systems that the report showed until now, and with the new numbers no longer does."""
    earlier = None
    with suppress(InsightError):  # one that nothing can read is only replaced
        earlier, _ = shown_insight(run.path, run.weights_checksum)
    return [] if earlier is None else [name for name in earlier.cost if name not in insight.cost]


def _print(insight: Insight) -> None:
    for table in attention_tables(insight.attention):
        _print_measures(table)
    for name, reason in insight.attention.unexplained.items():
        console.print(f"note      {name} has no attention maps: {reason}")
    measured = retrieval_rows(insight.retrieval)
    for task in (LESION, SITE):  # one table of both would be wider than a terminal
        places = {k: title.removeprefix(f"{task} ") for k, title in enumerate(MEASURE_TITLES.values()) if title.startswith(task)}
        rows = tuple(MeasureRow(row.name, tuple(row.cells[k] for k in places)) for row in measured)
        _print_measures(MeasureTable(f"Photographs found by their embeddings: {task}", tuple(places.values()), rows))
    for name, cost in insight.cost.items():
        console.print(f"time      {name}: {cost.images:,} inputs in {cost.seconds:.1f} s")


def _print_measures(table: MeasureTable) -> None:
    rows = [
        [row.name, *(f"{number(cell.value)}\n{interval(cell.low, cell.high)}".rstrip() for cell in row.cells)] for row in table.rows
    ]
    print_table(table.title, ["system", *table.measures], rows)
