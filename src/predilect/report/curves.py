"""Training and validation curves: the table they come in, thinned for drawing, and their figure."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from predilect.report.style import DOUBLE_COLUMN, INK, SERIES, SINGLE_COLUMN, new_figure, shortened

__all__ = ["CURVES_SCHEMA", "check_curves", "curves_figure", "mean_curves", "thinned"]

CURVES_SCHEMA: Mapping[str, pl.DataType] = {
    "system": pl.String(),
    "seed": pl.Int64(),
    "fold": pl.Int64(),
    "iteration": pl.Int64(),
    "loss_train": pl.Float64(),
    "loss_validation": pl.Float64(),
    "learning_rate": pl.Float64(),
}

_POINTS = 120  # per curve, as many as a printed column resolves
_RUN = ("system", "seed", "fold")
_LOSSES = {"loss_train": ("training", SERIES[0]), "loss_validation": ("validation", SERIES[1])}
_ACROSS = 3  # panels beside each other
_RATES_SHOWN = 1e3  # the last steps of a cosine fall far below any rate that moves a weight


def check_curves(curves: pl.DataFrame) -> pl.DataFrame:
    """Bring a table of curves into the columns and types of `CURVES_SCHEMA`; any other column is left out.

    A loss or a rate is null where it was not measured.

    Raises:
        ValueError: If a column is missing or holds another type, or a row does not say which run it belongs to.
    """
    missing = [name for name in CURVES_SCHEMA if name not in curves.columns]
    if missing:
        raise ValueError(f"the table of curves has no column {missing[0]!r}; it needs {', '.join(CURVES_SCHEMA)}")
    try:
        found = curves.select(pl.col(name).cast(dtype) for name, dtype in CURVES_SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"the table of curves cannot be used: {error}") from error
    unnamed = [name for name in (*_RUN, "iteration") if found[name].has_nulls()]
    if unnamed:
        raise ValueError(f"the table of curves has rows without {unnamed[0]}")
    return found


def thinned(curves: pl.DataFrame) -> pl.DataFrame:
    """Average each curve over equal stretches of iterations, so that its length does not grow with the training.

    Args:
        curves: Columns of `CURVES_SCHEMA`.

    Returns:
        The same columns and `stretch`, at most about 120 rows per run, in order of iteration; systems in their order.
    """
    step = (pl.col("iteration").max().over("system") // _POINTS).clip(lower_bound=1)
    return (
        curves.sort("iteration")
        .with_columns(stretch=pl.col("iteration") // step)
        .group_by(*_RUN, "stretch", maintain_order=True)
        .agg(pl.col("iteration", "loss_train", "loss_validation", "learning_rate").mean())
    )


def mean_curves(thin: pl.DataFrame) -> pl.DataFrame:
    """The mean over all runs of a system, where all of them have a value: it ends where the shortest run ends.

    Args:
        thin: What `thinned` returned.

    Returns:
        Columns `system`, `stretch`, `iteration`, `loss_train`, `loss_validation`; a loss is null where a run lacks it.
    """
    runs = pl.struct(*_RUN).n_unique().over("system")
    losses = [pl.when(pl.col(name).count() == pl.col("runs").first()).then(pl.col(name).mean()).alias(name) for name in _LOSSES]
    return (
        thin.with_columns(runs=runs)
        .group_by("system", "stretch", maintain_order=True)
        .agg(pl.col("iteration").mean(), *losses)
        .sort("stretch", maintain_order=True)
    )


def curves_figure(curves: pl.DataFrame) -> Figure:
    """Losses and learning rate against iterations, a panel per system: a thin line per fold and seed, a thick one for their mean.

    Args:
        curves: Columns of `CURVES_SCHEMA`, at least one row.

    Raises:
        ValueError: If there is no row.
    """
    systems = curves["system"].unique(maintain_order=True).to_list()
    if not systems:
        raise ValueError("there are no curves to draw")
    thin = thinned(curves)
    means = mean_curves(thin)
    across = 2 if len(systems) == 4 else min(len(systems), _ACROSS)
    down = -(-len(systems) // across)
    figure = new_figure(SINGLE_COLUMN if across == 1 else DOUBLE_COLUMN, 7 + 62 * down)
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=[3.2, 1] * down)
    for k, system in enumerate(systems):
        losses, rate = grid[2 * (k // across), k % across], grid[2 * (k // across) + 1, k % across]
        _losses(losses, thin.filter(system=system), means.filter(system=system))
        _rates(rate, thin.filter(system=system))
        losses.set_title(shortened(system))
        rate.sharex(losses)
        losses.tick_params(labelbottom=False)
        rate.set_xlabel("iteration")
        if k % across == 0:
            losses.set_ylabel("loss")
            rate.set_ylabel("learning\nrate")
    figure.align_ylabels()
    for axes in grid[-2:].T.reshape(-1)[2 * (len(systems) - across * (down - 1)) :]:
        axes.set_visible(False)
    measured = [look for name, look in _LOSSES.items() if curves[name].count()]
    thick = [Line2D([], [], color=color, linewidth=1.5, label=label) for label, color in measured]
    one = Line2D([], [], color=INK, linewidth=0.5, alpha=0.5, label="one fold and seed")
    figure.legend(handles=[*thick, one], loc="outside upper right", ncols=3)
    return figure


def _losses(axes: Axes, thin: pl.DataFrame, means: pl.DataFrame) -> None:
    for name, (_, color) in _LOSSES.items():
        for run in thin.drop_nulls(name).partition_by(*_RUN, maintain_order=True):
            axes.plot(run["iteration"].to_numpy(), run[name].to_numpy(), color=color, linewidth=0.5, alpha=0.35)
        mean = means.drop_nulls(name)
        axes.plot(mean["iteration"].to_numpy(), mean[name].to_numpy(), color=color, linewidth=1.5)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _rates(axes: Axes, thin: pl.DataFrame) -> None:
    # A logarithmic axis has no place for a rate of 0, as at the first step of a warm-up.
    positive = thin.filter(pl.col("learning_rate") > 0)
    for run in positive.partition_by(*_RUN, maintain_order=True):
        axes.plot(
            run["iteration"].to_numpy(),
            run["learning_rate"].to_numpy(),
            color=INK,
            linewidth=0.5,
            alpha=0.5,
            drawstyle="steps-post",
        )
    if positive.height:
        rates = positive["learning_rate"].to_numpy()
        axes.set_yscale("log")
        axes.set_ylim(max(rates.min(), rates.max() / _RATES_SHOWN) / 3, rates.max() * 3)
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
