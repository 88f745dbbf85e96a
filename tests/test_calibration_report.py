"""The section on calibration: its figure, its rows and frames, and what it claims in words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from markupsafe import Markup

from made_calibration import LESIONS, made
from predilect.evaluation.calibration_scores import CalibrationEvaluation, Number, Reliability
from predilect.evaluation.evaluate_calibration import evaluate_calibration
from predilect.report import environment
from predilect.report.calibration_figure import calibration_figure, common_lesions
from predilect.report.calibration_tables import CALIBRATION_TABLES, calibration_frames, calibration_rows, set_rows
from predilect.report.calibration_wording import (
    calibration_caption,
    calibration_findings,
    calibration_guide,
    calibration_label,
    drawn_system,
)
from predilect.report.style import DOUBLE_COLUMN, SINGLE_COLUMN, render, styled


@pytest.fixture(scope="module")
def evaluation():
    truth, predictions = made(300, folds=3)
    return evaluate_calibration(truth, {"first": predictions, "mtl": predictions}, n_resamples=20)


@pytest.fixture(autouse=True)
def _in_style():
    with styled():
        yield


def with_lesions(system, n):
    """The same system with so many lesions, all like the first, of falling number."""
    like = system.lesions["common"]
    lesions = {f"lesion number {k} of many": like.model_copy(update={"n_positive_groups": 500 - k}) for k in range(n)}
    return system.model_copy(update={"lesions": lesions})


def shown(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def points(axes, label_color):
    (line,) = [each for each in axes.lines if each.get_color() == label_color and len(each.get_xdata()) > 2]
    return np.array(line.get_xdata()), np.array(line.get_ydata())


def test_common_lesions_are_those_in_most_groups_that_persons_labelled(evaluation):
    assert common_lesions(evaluation.systems["mtl"]) == ["common", "seldom"]
    many = with_lesions(evaluation.systems["mtl"], 30)
    assert common_lesions(many) == [f"lesion number {k} of many" for k in range(11)]


def test_dots_stand_where_the_bins_are_before_and_after(evaluation):
    system = evaluation.systems["mtl"]
    panels = shown(calibration_figure(system))
    assert [axes.get_title(loc="left") for axes in panels] == ["common", "seldom", "most probable site"]
    for axes, item in zip(panels, [system.lesions["common"], system.lesions["seldom"], system.site], strict=True):
        for color, state in (("#d55e00", item.before), ("#0072b2", item.after)):
            x, y = points(axes, color)
            assert x == pytest.approx([each.probability for each in state.bins])
            assert y == pytest.approx([each.frequency.value for each in state.bins])
        end = axes.get_xlim()[1]
        assert axes.get_xlim() == axes.get_ylim() == (0, end)
        assert max(each.frequency.high for each in item.after.bins) <= end
        (told,) = axes.texts
        assert told.get_text() == f"ECE {item.before.ece.value:.3f} → {item.after.ece.value:.3f}"


@pytest.mark.parametrize(
    ("n", "panels", "width"), [(0, 1, SINGLE_COLUMN), (1, 2, SINGLE_COLUMN), (2, 3, DOUBLE_COLUMN), (30, 12, DOUBLE_COLUMN)]
)
def test_labels_lie_inside_the_figure_and_apart_whatever_the_number_of_panels(evaluation, n, panels, width):
    figure = calibration_figure(with_lesions(evaluation.systems["mtl"], n))
    assert len(shown(figure)) == panels
    assert figure.get_figwidth() * 25.4 == pytest.approx(width)
    figure.dpi = 72
    figure.draw_without_rendering()
    texts = [axes.title for axes in figure.axes] + [axes._left_title for axes in shown(figure)]
    texts += [label for axes in shown(figure) for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    texts += [*figure.legends[0].get_texts(), figure._supxlabel, figure._supylabel]
    boxes = np.array([text.get_window_extent(figure._get_renderer()).extents for text in texts if text.get_text()])
    assert boxes.min() >= -0.5
    assert (boxes[:, 2:] <= np.array([figure.bbox.x1, figure.bbox.y1]) + 0.5).all()
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.clip(high - low - 0.5, 0, None).prod(axis=2)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() == 0


def test_a_figure_comes_out_the_same_every_time(evaluation):
    system = with_lesions(evaluation.systems["mtl"], 0)
    assert render(calibration_figure(system)) == render(calibration_figure(system))


def test_nothing_to_draw_is_said(evaluation):
    bare = evaluation.systems["mtl"].model_copy(update={"lesions": {}, "site": None})
    with pytest.raises(ValueError, match="no lesion of this system has groups enough"):
        calibration_figure(bare)
    assert drawn_system(evaluation.model_copy(update={"systems": {"none": bare}})) is None


def test_the_last_system_with_most_tasks_is_drawn(evaluation):
    whole = evaluation.systems["mtl"]
    systems = {
        "resnet": whole.model_copy(update={"site": None}),
        "mtl": whole,
        "site only": whole.model_copy(update={"lesions": {}}),
    }
    assert drawn_system(evaluation.model_copy(update={"systems": systems})) == "mtl"
    assert drawn_system(evaluation) == "mtl"


def test_rows_hold_every_class_and_the_mean(evaluation):
    rows = calibration_rows(evaluation)["mtl"]
    assert [row.name for row in rows] == ["common", "seldom", "rare", "by a model", "mean over 2 lesions", "most probable site"]
    system = evaluation.systems["mtl"]
    assert rows[0].ece[1].value == system.lesions["common"].after.ece.value
    assert rows[0].ece[2].high == system.lesions["common"].ece_change.high
    assert rows[3].machine_made
    assert (rows[4].n_groups, rows[4].brier[2].value) == (None, system.mean.brier_change.value)
    assert [row.method for row in rows] == ["Platt", "Platt", "none: too little to fit", "Platt", "", "temperature"]
    (first, second) = set_rows(evaluation)
    assert (first.system, second.system) == ("first", "mtl")
    assert second.miss_rate.value == system.sets.miss_rate.value


def test_a_lesion_that_some_folds_left_alone_says_so(evaluation):
    item = evaluation.systems["mtl"].lesions["seldom"].model_copy(update={"n_folds_as_they_were": 2})
    system = evaluation.systems["mtl"].model_copy(update={"lesions": {"seldom": item}})
    (row, *_) = calibration_rows(evaluation.model_copy(update={"systems": {"mtl": system}}))["mtl"]
    assert row.method == "Platt; in 2 of 3 folds none"


def test_frames_hold_the_same_numbers(evaluation):
    frames = calibration_frames(evaluation)
    assert tuple(frames) == CALIBRATION_TABLES
    system = evaluation.systems["mtl"]
    (row,) = frames["calibration"].filter(system="mtl", **{"class": "common"}).to_dicts()
    assert row["ece_after_high"] == system.lesions["common"].after.ece.high
    assert row["brier_change"] == system.lesions["common"].brier_change.value
    assert frames["calibration"].height == 2 * (len(LESIONS) + 1)
    assert frames["reliability"].filter(system="mtl", task="site", side="after").height == len(system.site.after.bins)
    assert frames["decisions"].filter(system="mtl", lesion="seldom")["f1_low"].to_list() == [system.decisions["seldom"].f1.low]
    assert frames["sets"]["share_unsure"].to_list() == [system.sets.share_unsure.value] * 2


def changed(evaluation, ece_change, **sets):
    whole = evaluation.systems["mtl"]
    mean = whole.mean.model_copy(update={"ece_change": ece_change})
    system = whole.model_copy(update={"mean": mean, "site": None, "sets": whole.sets.model_copy(update=sets)})
    return calibration_findings(evaluation.model_copy(update={"systems": {"mtl": system}}))


def test_a_claim_needs_an_interval_on_one_side(evaluation):
    lower, *_ = changed(evaluation, Number(value=-0.02, low=-0.03, high=-0.01))
    assert (lower.claimed, "lowers the calibration error (change −0.020, 95 % interval −0.030 to −0.010)" in lower.sentence) == (
        True,
        True,
    )
    unclear, *_ = changed(evaluation, Number(value=-0.02, low=-0.03, high=0.01))
    assert (unclear.claimed, "it is not shown that" in unclear.sentence) == (False, True)
    higher, *_ = changed(evaluation, Number(value=0.02, low=0.01, high=0.03))
    assert (higher.claimed, "raises" in higher.sentence) == (True, True)
    few, *_ = changed(evaluation, Number(value=0.02))
    assert (few.claimed, "too few groups" in few.sentence) == (False, True)


def test_sets_that_break_their_promise_are_told_of(evaluation):
    change = Number(value=-0.02, low=-0.03, high=-0.01)
    for miss_rate, claimed, words in (
        (Number(value=0.15, low=0.12, high=0.18), True, "leave out more (0.150"),
        (Number(value=0.10, low=0.08, high=0.12), False, "leave out 0.100, 95 % interval 0.080 to 0.120"),
        (Number(value=0.07, low=0.06, high=0.08), True, "leave out 0.070"),
        (Number(value=0.07), False, "without an interval"),
    ):
        found = changed(evaluation, change, miss_rate=miss_rate)[1]
        assert "sets asked to leave out at most 10 % of a photograph's lesions" in found.sentence
        assert words in found.sentence
        sets = evaluation.systems["mtl"].sets
        assert f"they hold {sets.mean_size.value:.1f} lesions on average" in found.sentence
        assert found.claimed == claimed


def test_what_was_left_alone_is_named(evaluation):
    last = calibration_findings(evaluation)[-1]
    assert last.sentence == "mtl: scores stand as the network gave them, for too few groups, of rare."


def test_words_for_the_figure_and_the_reader(evaluation):
    assert "for the 2 lesions in most groups and the site" in calibration_caption(evaluation, "mtl")
    item = evaluation.systems["mtl"].lesions["common"]
    assert f"common {item.before.ece.value:.3f} and {item.after.ece.value:.3f}" in calibration_label(evaluation, "mtl")
    assert any("at most 10 %" in text for text in calibration_guide(evaluation))
    systems = {name: system.model_copy(update={"sets": None}) for name, system in evaluation.systems.items()}
    assert not any("at most" in text for text in calibration_guide(evaluation.model_copy(update={"systems": systems})))


def test_the_section_of_the_page_holds_all_of_it(evaluation):
    drawing = SimpleNamespace(caption=calibration_caption(evaluation, "mtl"))
    page = (
        environment._environment()
        .from_string(
            '{% from "calibration.html" import calibration_section with context %}{{ calibration_section(rows, sets, findings) }}'
        )
        .render(
            figures={"calibration": (drawing, Markup("<svg>drawn</svg>"))},
            rows=calibration_rows(evaluation),
            sets=set_rows(evaluation),
            findings=calibration_findings(evaluation),
        )
    )
    assert page.count("<table") == 3
    assert page.count('<table class="wide">') == 2
    assert page.count('<td class="words">') == 2 * 6
    assert page.count("<tr>") == 2 * (2 + 6) + 1 + 2
    assert page.count('class="won"') == sum(finding.claimed for finding in calibration_findings(evaluation))
    for text in ("<svg>drawn</svg>", drawing.caption, "by a model*", "mean over 2 lesions", "What cannot be excluded", "−0."):
        assert text in page
    assert "None" not in page
    size = evaluation.systems["mtl"].sets.mean_size
    assert f'<td>{size.value:.1f}<span class="ci">[{size.low:.1f}, {size.high:.1f}]</span>' in page.replace("\n", "")


def test_results_come_back_from_json(evaluation):
    assert CalibrationEvaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    item = evaluation.systems["mtl"].lesions["common"]
    with pytest.raises(ValueError, match="finite"):
        Reliability.model_validate({**item.model_dump(), "base_rate_brier": float("nan")})
