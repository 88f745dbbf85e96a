"""The figure of gains and the names in it: none covers another or a dot, and no two lines to names cross."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_evaluation import made_evaluation, made_gain
from predilect.report.gains_figure import gains_figure
from predilect.report.placing import place_names
from predilect.report.style import PNG_DPI, render, styled

LARGE = made_evaluation(25, 23)
SMALL = made_evaluation(12, 9)


@pytest.fixture(autouse=True)
def _in_style():
    with styled():
        yield


def crowd(n: int):
    """So many lesions of long names, nearly at one place."""
    made = made_gain("mtl", "resnet", tuple(f"a lesion of number {k}" for k in range(n)))
    near = {"strength_low": 0.1, "strength_high": 0.3, "gain_low": 0.0, "gain_high": 0.1}
    items = [item.model_copy(update={"strength": 0.2 + k * 1e-4, "gain": 0.05, **near}) for k, item in enumerate(made.lesions)]
    return made.model_copy(update={"lesions": tuple(items)})


@pytest.mark.parametrize(("gains", "all_named"), [(LARGE.gains, True), (SMALL.gains * 2, True), ((crowd(30),), False)])
def test_names_of_lesions_cover_neither_each_other_nor_a_dot(gains, all_named):
    figure = gains_figure(gains)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)
    figure.dpi = PNG_DPI  # laid out once and then drawn, as `render` does it
    figure.draw_without_rendering()
    for axes, pair in zip(figure.axes, gains, strict=True):
        names = [text for text in axes.texts if text.get_text()]
        assert len(names) == len({text.get_text() for text in names})
        assert len(names) == len(pair.lesions) or not all_named
        assert len(names) > 5
        to_points = 72 / PNG_DPI
        boxes = np.array([text.get_window_extent().extents for text in names]) * to_points
        frame = np.array(axes.get_window_extent().extents) * to_points
        assert (boxes[:, :2] >= frame[:2] - 0.5).all()
        assert (boxes[:, 2:] <= frame[2:] + 0.5).all()
        dots = axes.transData.transform([(item.strength, item.gain) for item in pair.lesions]) * to_points
        others = np.concatenate([boxes, np.concatenate([dots - 1.2, dots + 1.2], axis=1)])
        low, high = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
        overlap = (high - low).min(axis=2)
        np.fill_diagonal(overlap, -1)
        assert overlap.max() < 0


def test_long_names_stand_whole_on_two_lines_and_off_the_zero_line():
    """Four dots just above no gain, with room on all sides: not one name lies along the line."""
    made = made_gain("mtl", "resnet", tuple(f"keratosis {k}/intraepidermal carcinoma" for k in range(4)))
    items = [
        item.model_copy(update={"strength": 0.1 + 0.4 * k, "gain": 0.002, "gain_low": -0.1, "gain_high": 0.1})
        for k, item in enumerate(made.lesions)
    ]
    figure = gains_figure((made.model_copy(update={"lesions": tuple(items)}),))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text()]
    assert {text.get_text().replace("\n", "") for text in names} == {item.lesion for item in items}
    zero = axes.transData.transform((0, 0))[1]
    assert not any(text.get_window_extent().y0 < zero < text.get_window_extent().y1 for text in names)


def cross(a, b, c, d) -> bool:
    """Whether the lines from a to b and from c to d share a point inside both, by solving for it."""
    ways = np.column_stack([b - a, c - d])
    if abs(np.linalg.det(ways)) < 1e-9:
        return False
    return bool((np.abs(np.linalg.solve(ways, c - a) - 0.5) < 0.5 - 1e-6).all())


@pytest.mark.parametrize("n", [10, 20, 30])
def test_lines_to_names_cross_in_no_crowd(n):
    """Dots nearly at one place, whose names must go far: as many lines as can be, each of them followed by the eye."""
    dots = np.array([110.0, 90.0]) + np.random.default_rng(n).normal(0, 6, (n, 2))
    sizes = np.column_stack([np.full(n, 42.0), np.full(n, 7.0)])
    frame = np.array([0.0, 0.0, 220.0, 180.0])
    places = place_names(dots, sizes, 3.4, np.empty((0, 4)), frame)
    joined = [(dots[k], place.end) for k, place in enumerate(places) if place is not None and place.joined]
    assert len(joined) > n / 3
    assert not any(cross(*one, *other) for one, other in itertools.combinations(joined, 2))


def from_line(start, end, dot) -> float:
    """How far a dot is from the line between two points."""
    way = end - start
    along = np.clip(np.dot(dot - start, way) / np.dot(way, way), 0, 1)
    return float(np.hypot(*(start + along * way - dot)))


@pytest.mark.parametrize("apart", [5.0, 6.0])
@pytest.mark.parametrize("seed", range(4))
def test_lines_to_names_go_through_no_other_dot(seed, apart):
    """Ten dots close together, yet apart: a line through one of them would seem to be its own."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2)
    dots = np.array([90.0, 70.0]) + apart * rng.permutation(grid)[:10] + rng.uniform(-0.5, 0.5, (10, 2))
    sizes = np.column_stack([rng.uniform(50, 80, 10), np.full(10, 8.0)])
    places = place_names(dots, sizes, 3.4, np.empty((0, 4)), np.array([0.0, 0.0, 220.0, 180.0]))
    assert None not in places
    lines = [(k, place.end) for k, place in enumerate(places) if place.joined]
    assert len(lines) > 1
    assert min(from_line(dots[k], end, dot) for k, end in lines for j, dot in enumerate(dots) if j != k) > 1.7


@given(seed=st.integers(0, 10_000), n=st.integers(1, 14))
@settings(max_examples=12, deadline=None)
def test_names_find_places_of_their_own_in_any_scatter(seed, n):
    rng = np.random.default_rng(seed)
    frame = np.array([0.0, 0.0, 220.0, 180.0])
    dots = rng.uniform(frame[:2], frame[2:], (n, 2)) * rng.choice([0.2, 1.0])
    sizes = np.column_stack([rng.uniform(15, 90, n), np.full(n, 7.0)])
    reach = np.array([0.0, 20.0])
    whiskers = np.concatenate([dots - reach, dots + reach], axis=1)
    places = place_names(dots, sizes, 3.4, whiskers, frame)
    found = [(k, place) for k, place in enumerate(places) if place is not None]
    assert len(found) > n / 2
    for k, place in found:
        low, high = place.centre - sizes[k] / 2, place.centre + sizes[k] / 2
        assert (low >= frame[:2]).all()
        assert (high <= frame[2:]).all()
        assert not ((dots > low) & (dots < high)).all(axis=1).any()
        np.testing.assert_allclose(place.end, np.clip(dots[k], low, high))
        for j, other in found:
            assert j == k or (np.abs(place.centre - other.centre) >= (sizes[k] + sizes[j]) / 2 - 1e-9).any()
    joined = [(dots[k], place.end) for k, place in found if place.joined]
    assert not any(cross(*one, *other) for one, other in itertools.combinations(joined, 2))
    again = place_names(dots, sizes, 3.4, whiskers, frame)
    assert [None if p is None else p.centre.tolist() for p in again] == [None if p is None else p.centre.tolist() for p in places]


def test_gains_stand_at_their_strength_and_the_papers_alopecia_is_marked():
    (pair,) = SMALL.gains
    (axes,) = gains_figure([pair]).axes
    dots = {line.get_marker(): set(zip(*line.get_data(), strict=True)) for line in axes.lines if line.get_marker() in {"o", "D"}}
    assert dots["D"] == {(item.strength, item.gain) for item in pair.lesions if item.strong_without_gain}
    assert dots["o"] == {(item.strength, item.gain) for item in pair.lesions if not item.strong_without_gain}
    assert (pair.lesions[0].strength, pair.lesions[0].gain) in dots["D"]
    assert axes.get_title("left").endswith("rank correlation 0.310 [−0.120, 0.640]")
    across, down = axes.collections[0].get_segments(), axes.collections[1].get_segments()
    drawn = {tuple(segment[:, 0]) for segment in across} | {tuple(segment[:, 1]) for segment in down}
    plain = [item for item in pair.lesions if not item.strong_without_gain]
    assert drawn == {ends for item in plain for ends in ((item.strength_low, item.strength_high), (item.gain_low, item.gain_high))}


def test_a_gain_without_interval_or_correlation_is_drawn():
    (pair,) = SMALL.gains
    none = dict.fromkeys(("gain_low", "gain_high", "strength_low", "strength_high"))
    bare = pair.model_copy(
        update={
            "lesions": tuple(item.model_copy(update={**none, "strong_without_gain": False}) for item in pair.lesions[:1]),
            "rank_correlation": None,
        }
    )
    figure = gains_figure([bare])
    assert figure.axes[0].get_title("left").endswith("rank correlation not defined")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lesion"]
    assert "<svg" in render(figure).svg
    with pytest.raises(ValueError, match="no gains"):
        gains_figure([])
