"""The figures of a report: their numbers, their size, their labels, and that they come out the same every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from io import BytesIO

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from made_calibration import made_reliability
from made_evaluation import LESIONS, MACHINE, made_curves, made_evaluation
from made_insight import made_insight
from made_known_sites import made_known_site
from predilect.evaluation.scores import ClassBalance, Evaluation, FoldBalance, PredilectionMap
from predilect.report.curves import CURVES_SCHEMA, check_curves, curves_figure, mean_curves, thinned
from predilect.report.dots import counts_figure, difference_figure, lesion_figure, ranked_lesions, site_figure
from predilect.report.figures import FIGURE_NAMES, draw_all
from predilect.report.gains_figure import gains_figure
from predilect.report.heatmaps import CELL_COLORS, LIFT_LIMIT, balance_figure, predilection_figure
from predilect.report.insight_figures import coincidence_figure, faithfulness_figure, retrieval_figure
from predilect.report.shown import Shown
from predilect.report.style import (
    DOUBLE_COLUMN,
    PNG_DPI,
    SINGLE_COLUMN,
    THEME,
    inline_svg,
    missing_glyphs,
    new_figure,
    render,
    shortened,
    styled,
    wrapped,
)

LARGE = made_evaluation(25, 23)
SMALL = made_evaluation(12, 9)
PIXELS_PER_MM = 72 / 25.4


@pytest.fixture(autouse=True)
def _in_style():
    with styled():
        yield


def laid_out(figure: Figure) -> Figure:
    figure.dpi = 72
    figure.draw_without_rendering()
    return figure


def drawn_texts(figure: Figure) -> list[Text]:
    """The texts around and between the axes; ticks beyond the limits of an axis are objects too, but not drawn."""
    seen: list[Text] = []
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9]
            seen += [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]
            seen.append(axis.label)
        seen += [*axes.texts, axes.title, axes._left_title, axes._right_title]
    for legend in figure.legends:
        seen += legend.get_texts()
    return [text for text in seen if text.get_text() and text.get_visible() and text.get_in_layout()]


ALL_LARGE = {
    "lesions": lambda: lesion_figure(LARGE),
    "lesions, two columns": lambda: lesion_figure(LARGE, DOUBLE_COLUMN),
    "differences": lambda: difference_figure(LARGE),
    "sites": lambda: site_figure(LARGE),
    "predilection": lambda: predilection_figure(LARGE.predilection),
    "folds": lambda: balance_figure(LARGE.folds),
    "counts": lambda: counts_figure(LARGE),
    "gains": lambda: gains_figure(LARGE.gains),
    "curves": lambda: curves_figure(made_curves(steps=60)),
    "coincidence": lambda: coincidence_figure(made_insight(25).attention, ["mtl"]),
    "faithfulness": lambda: faithfulness_figure(made_insight().attention),
    "retrieval": lambda: retrieval_figure(made_insight().retrieval, ["resnet", "resnet-site", "mtl"]),
}


@pytest.mark.parametrize("name", ALL_LARGE)
def test_labels_lie_inside_the_figure_and_apart_with_25_lesions_and_23_sites(name):
    figure = laid_out(ALL_LARGE[name]())
    drawn = drawn_texts(figure)
    boxes = np.array([text.get_window_extent(figure._get_renderer()).extents for text in drawn])
    assert len(boxes) > 10
    assert boxes.min() >= -0.5
    assert (boxes[:, 2:] <= np.array([figure.bbox.x1, figure.bbox.y1]) + 0.5).all()
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.clip(high - low - 0.5, 0, None).prod(axis=2)
    np.fill_diagonal(overlap, 0)
    i, j = np.unravel_index(overlap.argmax(), overlap.shape)
    assert overlap.max() == 0, f"{drawn[i].get_text()!r} overlaps {drawn[j].get_text()!r}"


@pytest.mark.parametrize("draw", [lambda: balance_figure(LARGE.folds), lambda: predilection_figure(SMALL.predilection)])
def test_numbers_fit_into_their_cells(draw):
    figure = laid_out(draw())
    numbers = [text for axes in figure.axes for text in axes.texts]
    assert len(numbers) > 100
    for text in numbers:
        cell = text.axes.transData.transform([(0, 0), (1, 1)])
        assert text.get_window_extent(figure._get_renderer()).width < abs(cell[1] - cell[0])[0]


def test_figures_have_exactly_the_width_of_a_printed_column():
    for width, drawn in ((SINGLE_COLUMN, lesion_figure(SMALL)), (DOUBLE_COLUMN, curves_figure(made_curves(steps=10)))):
        files = render(drawn)
        assert float(re.search(r'<svg[^>]* width="([0-9.]+)pt"', files.svg)[1]) == pytest.approx(width * PIXELS_PER_MM, abs=0.01)
        assert Image.open(BytesIO(files.png)).width == pytest.approx(width / 25.4 * PNG_DPI, abs=1)


def test_lesions_are_ranked_by_mean_ap_and_dots_stand_at_their_ap():
    axes = lesion_figure(SMALL).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "mAP-class"
    assert names[-1] == LESIONS[10]
    assert not set(names) & set(MACHINE)
    scored = [SMALL.systems[name].lesion for name in ("resnet", "mtl")]
    means = [np.mean([scores.per_class[name].ap for scores in scored]) for name in names[1:-1]]
    assert means == sorted(means, reverse=True)
    # Two lines per system, filled and outlined; their points together are all APs.
    dots = [line for line in axes.lines if line.get_marker() in {"o", "D"}]
    drawn = {round(x, 9) for line in dots for x in line.get_xdata() if np.isfinite(x)}
    aps = [item.ap for scores in scored for name, item in scores.per_class.items() if item.ap is not None and name not in MACHINE]
    assert drawn == {round(x, 9) for x in [*aps, *(scores.map_class for scores in scored)]}
    outlined = [line for line in dots if line.get_markerfacecolor() == "#ffffff"]
    few = names.index(LESIONS[11])
    assert [np.rint(line.get_ydata()[np.isfinite(line.get_xdata())]).tolist() for line in outlined] == [[few], [few]]


def test_differences_are_filled_where_holm_allows():
    axes = difference_figure(SMALL).axes[0]
    (filled,) = [line for line in axes.lines if line.get_marker() == "D" and line.get_markerfacecolor() != "#ffffff"]
    clear = [item for item in SMALL.comparisons if item.class_name and item.p_holm is not None and item.p_holm < 0.05]
    mean = next(item for item in SMALL.comparisons if item.metric == "map_class")
    assert sorted(filled.get_xdata()) == pytest.approx(sorted([mean.difference, *(item.difference for item in clear)]))
    assert [text.get_text() for text in axes.texts] == ["too few groups"] * 2


def test_site_figure_shows_the_headline_and_each_site():
    upper, lower = site_figure(SMALL).axes
    assert [label.get_text() for label in upper.get_yticklabels()] == ["top-1", "top-3", "balanced"]
    site = SMALL.systems["mtl"].site
    points = {round(x, 9) for line in upper.lines for x in line.get_xdata()}
    assert {round(x, 9) for x in (site.top1, site.top3, site.balanced_accuracy)} <= points
    assert len(lower.get_yticklabels()) == 9


def test_a_dot_at_the_end_of_the_axis_is_whole():
    site = SMALL.systems["mtl"].site
    per_class = {name: item.model_copy(update={"top1": 0.0, "top1_low": 0.0}) for name, item in site.per_class.items()}
    zero = SMALL.systems["mtl"].model_copy(update={"site": site.model_copy(update={"per_class": per_class})})
    figure = laid_out(site_figure(SMALL.model_copy(update={"systems": {"mtl": zero}})))
    upper, lower = figure.axes
    (dots,) = [line for line in lower.lines if line.get_marker() == "o"]
    assert set(dots.get_xdata()) == {0.0}
    assert dots.get_tightbbox(figure._get_renderer()).x0 < lower.bbox.x0 - 1  # half of a dot lies before the axis begins
    assert upper.bbox.width > 100  # and takes no room from the others


def test_correlation_map_hatches_what_is_undefined_and_centres_the_lift_at_one():
    found = PredilectionMap(
        lesions=("a", "b"),
        sites=("x", "y", "z"),
        ratio=((0.5, 0.5, 0.0), (None, None, None)),
        lift=((1.0, 40.0, 0.0), (None, None, None)),
        n_lesion=(4, 0),
        n_site=(5, 1, 0),
    )
    left, right = predilection_figure(found).axes[:2]
    (hatched,) = right.patches
    assert hatched.get_hatch()
    assert (hatched.get_x(), hatched.get_y(), hatched.get_width()) == (-0.5, 0.5, 3)
    mesh = right.collections[0]
    values = mesh.get_array().filled(np.nan)
    limit = np.log2(LIFT_LIMIT)
    np.testing.assert_allclose(values, [[0, limit, -limit], [np.nan] * 3])
    white, high, low = (mesh.cmap(mesh.norm(value))[:3] for value in values[0])
    assert min(white) > 0.95
    assert high[0] > high[2]
    assert low[2] > low[0]
    assert [text.get_text() for text in left.texts] == [".50", ".50", ".00"]


def test_fold_colours_tell_observed_over_expected_counts():
    balance = FoldBalance(
        folds=(-1, 0, 1),
        n_images=(100, 100, 200),
        n_groups=(10, 10, 20),
        classes=(
            ClassBalance(task="lesion", name="even", n_positive=(10, 10, 20)),
            ClassBalance(task="lesion", name="skewed", n_positive=(30, 5, 5)),
            ClassBalance(task="lesion", name="absent", n_positive=(0, 0, 0)),
        ),
    )
    axes = balance_figure(balance).axes[0]
    values = axes.collections[0].get_array().filled(np.nan)
    np.testing.assert_allclose(values, [[0, 0, 0], [1, -1, -1], [np.nan] * 3], atol=1e-12)
    assert axes.get_xticklabels()[0].get_text() == "tuning\n100"


def test_thinned_curves_are_means_over_stretches_and_their_mean_ends_with_the_shortest_run():
    curves = check_curves(made_curves(("mtl",), seeds=2, folds=3, steps=700))
    thin = thinned(curves)
    assert thin.group_by("seed", "fold").len()["len"].max() <= 122
    run = curves.filter(seed=2, fold=1)
    step = curves["iteration"].max() // 120
    stretch = run["iteration"].to_numpy() // step
    expected = [run["loss_train"].to_numpy()[stretch == k].mean() for k in np.unique(stretch)]
    np.testing.assert_allclose(thin.filter(seed=2, fold=1)["loss_train"].to_numpy(), expected)
    means = mean_curves(thin).drop_nulls("loss_train")
    last = thin.group_by("seed", "fold").agg(pl.col("stretch").max())["stretch"].min()
    assert means["stretch"].to_list() == list(range(last + 1))
    at = thin.filter(stretch=40)
    assert at.height == 6
    assert means.filter(stretch=40)["loss_train"].item() == pytest.approx(at["loss_train"].mean())


def test_curves_that_diverged_or_were_never_validated_are_drawn():
    curves = pl.DataFrame(
        {
            "system": ["mtl"] * 4,
            "seed": [1] * 4,
            "fold": [0] * 4,
            "iteration": [0, 10, 20, 30],
            "loss_train": [1.0, float("nan"), float("inf"), None],
            "loss_validation": [None] * 4,
            "learning_rate": [0.0, 0.0, 0.0, 0.0],
        }
    )
    checked = check_curves(curves)
    assert checked.schema == pl.Schema(CURVES_SCHEMA)
    assert "<svg" in render(curves_figure(checked)).svg


def test_only_losses_that_were_measured_are_in_the_legend():
    curves = made_curves(steps=20)
    blind = curves.with_columns(loss_validation=pl.lit(None, dtype=pl.Float64))
    for table, expected in ((curves, ["training", "validation"]), (blind, ["training"])):
        figure = curves_figure(table)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [*expected, "one fold and seed"]
        losses = figure.axes[0]
        runs = table.filter(system="resnet").select("seed", "fold").n_unique()
        assert len([line for line in losses.lines if len(line.get_xdata())]) == len(expected) * (runs + 1)


def test_the_end_of_a_cosine_does_not_squeeze_its_rates():
    curves = made_curves(("mtl",), seeds=1, folds=1, steps=60)
    ending = curves.with_columns(learning_rate=1e-3 * 0.5 ** pl.int_range(pl.len()))
    low, high = curves_figure(ending).axes[1].get_ylim()
    assert low == pytest.approx(1e-6 / 3)
    assert high == pytest.approx(3e-3)


def test_a_table_of_curves_must_have_its_columns():
    good = made_curves(("mtl",), seeds=1, folds=1, steps=20)
    with pytest.raises(ValueError, match="no column 'learning_rate'"):
        check_curves(good.drop("learning_rate"))
    with pytest.raises(ValueError, match="cannot be used"):
        check_curves(good.with_columns(fold=pl.lit("first")))
    with pytest.raises(ValueError, match="rows without seed"):
        check_curves(good.with_columns(seed=pl.lit(None)))
    with pytest.raises(ValueError, match="no curves"):
        curves_figure(good.clear())


def test_every_figure_that_has_numbers_is_drawn_and_no_other(monkeypatch):
    monkeypatch.setattr("predilect.report.figures.render", lambda figure: figure)
    drawings = draw_all(Shown(SMALL, made_curves(steps=10), None, made_insight(), made_reliability(), made_known_site()))
    assert [drawing.name for drawing in drawings] == list(FIGURE_NAMES)
    assert all(drawing.label.endswith(".") and drawing.caption.endswith(".") for drawing in drawings)
    bare = made_evaluation(3, 1, systems=("resnet-site",)).model_copy(update={"folds": None, "predilection": None})
    assert [drawing.name for drawing in draw_all(Shown(bare))] == ["sites", "counts"]


def test_figures_refuse_an_evaluation_without_their_numbers():
    lesions, sites = made_evaluation(12, 9, systems=("resnet",)), made_evaluation(12, 9, systems=("resnet-site",))
    for draw, evaluation in ((lesion_figure, sites), (difference_figure, sites), (site_figure, lesions)):
        with pytest.raises(ValueError, match="this evaluation"):
            draw(evaluation)
    assert ranked_lesions(sites) == []


def holes() -> Evaluation:
    """Everything that can be undefined is."""
    nothing = {"ap": None, "ap_low": None, "ap_high": None, "n_positive": 0, "n_positive_groups": 0, "n_known": 0}
    systems = {}
    for name in ("resnet", "mtl"):
        lesion = SMALL.systems[name].lesion
        per_class = {each: item.model_copy(update=nothing) for each, item in lesion.per_class.items()}
        means = {field: None for field in type(lesion).model_fields if field.startswith("map_") and "resamples" not in field}
        systems[name] = SMALL.systems[name].model_copy(
            update={"lesion": lesion.model_copy(update={"per_class": per_class, **means}), "site": None}
        )
    none = dict.fromkeys(("difference", "low", "high", "p", "p_holm"))
    empty = tuple((None,) * 9 for _ in range(12))
    return SMALL.model_copy(
        update={
            "systems": systems,
            "comparisons": [item.model_copy(update=none) for item in SMALL.comparisons if item.task == "lesion"],
            "predilection": SMALL.predilection.model_copy(update={"ratio": empty, "lift": empty}),
        }
    )


def test_an_evaluation_of_holes_is_drawn_without_warning(monkeypatch):
    monkeypatch.setattr("predilect.report.figures.render", Figure.draw_without_rendering)
    names = {drawing.name for drawing in draw_all(Shown(holes()))}
    assert names == {"lesions", "differences", "predilection", "gains", "folds", "counts"}


def test_files_are_the_same_bytes_every_time_whatever_the_settings_around():
    first = render(lesion_figure(SMALL))
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none", "savefig.dpi": 40, "axes.grid": True}):
        with styled():
            again = render(lesion_figure(SMALL))
        assert mpl.rcParams["font.size"] == 30
    assert again == first
    assert "<dc:date>" not in first.svg


def test_drawing_leaves_pyplot_and_torch_alone():
    code = "import sys, predilect.report.report; sys.exit(any(name in sys.modules for name in ('matplotlib.pyplot', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_labels_are_drawn_as_they_are():
    figure = new_figure(SINGLE_COLUMN, 30)
    figure.add_subplot().text(0.1, 0.5, r"a $x_1$ & <b> \alpha")
    assert "a $x_1$ &amp; &lt;b&gt;" in render(figure).svg
    assert shortened("erythematosquamous plaque") == "erythematosquamous plaque"
    assert shortened("a very long name of a lesion that nobody can read") == "a very long na…body can read"
    assert len(shortened("x" * 90, 20)) == 20
    assert wrapped("vascular lesion/hemorrhage") == "vascular lesion/hemorrhage"
    assert wrapped("squamous cell carcinoma/keratoacanthoma") == "squamous cell carcinoma/\nkeratoacanthoma"
    assert wrapped("a very long name of a lesion that nobody can read") == "a very long name of a\nlesion that nobody can read"
    assert wrapped("inflammatory " + "x" * 90, 20) == "inflammatory\n" + shortened("x" * 90, 20)
    assert wrapped("x" * 90) == shortened("x" * 90)
    assert missing_glyphs(["plain", "Größe", "⸙\U000f1234"]).endswith("\U000f1234")
    assert not missing_glyphs(["erosion/ulcer/atrophy"])


def test_an_inline_figure_takes_the_colours_of_the_page_and_shares_no_id():
    svg = render(site_figure(SMALL)).svg
    one, two = (inline_svg(svg, name, 'top-1 "and" <top-3>') for name in ("one", "two"))
    tree = ET.fromstring(one)
    assert tree.get("aria-label") == 'top-1 "and" <top-3>'
    ids = re.findall(r'\bid="([^"]+)"', one)
    assert len(ids) == len(set(ids))
    assert set(ids).isdisjoint(re.findall(r'\bid="([^"]+)"', two))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', one)) <= set(ids)
    assert "var(--ink)" in one
    assert not [color for color in THEME if color in one]
    assert "<!--" not in one
    assert "<style" not in one


def test_no_colour_of_a_cell_is_taken_for_one_of_the_theme():
    for colors in CELL_COLORS.values():
        assert not {to_hex(colors(k)) for k in range(colors.N)} & set(THEME)


@pytest.mark.parametrize("draw", [lesion_figure, difference_figure, counts_figure])
def test_long_names_stand_whole_on_two_lines_and_apart(draw):
    """Rows of long names only, one beneath the other, as high as these need and no lower."""
    names = {old: f"keratinocytic {k}/intraepidermal carcinoma {k}" for k, old in enumerate(LESIONS)}
    told = made_evaluation(6, 5).model_dump_json()
    for old, new in names.items():
        told = told.replace(json.dumps(old), json.dumps(new))
    figure = laid_out(draw(Evaluation.model_validate_json(told)))
    labels = [label for label in drawn_texts(figure) if "intraepidermal" in label.get_text()]
    assert len({label.get_text() for label in labels}) == 6
    assert {label.get_text().replace("\n", "") for label in labels} <= set(names.values())
    boxes = np.array(sorted((box.y0, box.y1) for box in (label.get_window_extent() for label in labels)))
    assert (boxes[1:, 0] >= boxes[:-1, 1]).all()
