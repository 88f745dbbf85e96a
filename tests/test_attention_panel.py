"""Attention laid over photographs: the pixels, the scale, and the figure."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from predilect.report.attention_panel import ShownMap, attention_panel, fitted, overlaid, scale_colors
from predilect.report.style import render_png, styled


def ramp(height, width):
    return np.linspace(-3, 5, height * width, dtype=np.float32).reshape(height, width)


def shown(values, *, task="lesion", name="papule", method="cam", calibrated=True):
    return ShownMap(task, name, 0.25, method, values, calibrated)


def test_only_the_map_has_colours_and_the_photograph_shows_through():
    values = np.tile(np.linspace(0, 1, 50, dtype=np.float32), (40, 1))
    values[0, 0], values[0, 1] = 0, 1  # the scale stays when columns are compared
    black, white, red = (np.zeros((40, 50, 3), np.uint8) + np.array(color, np.uint8) for color in (0, 255, (255, 0, 0)))
    over_black, over_white, over_red = (overlaid(photograph, values).astype(int) for photograph in (black, white, red))
    assert np.abs((over_white - over_black)[5:, :35] - 0.45 * 255).max() <= 1
    assert np.ptp((over_red - over_black)[5:, :35], axis=2).max() <= 1  # red became grey
    viridis = mpl.colormaps["viridis"](values)[..., :3]
    assert np.abs(over_black - 0.55 * 255 * viridis)[5:, :35].max() <= 1


@given(st.integers(12, 60), st.integers(12, 60), st.integers(0, 2**16))
def test_the_line_lies_around_the_highest_fifth(height, width, seed):
    values = np.random.default_rng(seed).permutation(height * width).reshape(height, width).astype(np.float32)
    white = (overlaid(np.zeros((height, width, 3), np.uint8), values) == 255).all(axis=2)
    assert (values[white] >= np.quantile(values, 0.8)).all()
    assert white.any()


def test_the_line_is_closed_at_the_edges_by_them():
    values = np.zeros((60, 60), np.float32)
    values[:15, :40] = 1
    white = (overlaid(np.zeros((60, 60, 3), np.uint8), values) == 255).all(axis=2)
    assert white[14, 5]
    assert white[5, 39]
    assert not white[:13, :38].any()  # neither inside nor along the upper and the left edge


def test_a_map_that_is_the_same_everywhere_has_no_line_and_no_warning():
    pixels = overlaid(np.full((20, 30, 3), 100, np.uint8), np.full((20, 30), -2.5, np.float32))
    assert (pixels == pixels[0, 0]).all()
    with styled():
        assert render_png(attention_panel(np.full((20, 30, 3), 100, np.uint8), [shown(np.zeros((20, 30), np.float32))]))


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"a map \(4, 5\) does not lie over a photograph \(5, 4, 3\)"):
        overlaid(np.zeros((5, 4, 3), np.uint8), np.zeros((4, 5), np.float32))


def test_the_scale_runs_as_that_of_the_overlay():
    colors = scale_colors(3)
    assert [tuple(int(color[k : k + 2], 16) for k in (1, 3, 5)) for color in colors] == [
        pytest.approx(tuple(255 * part for part in mpl.colormaps["viridis"](at)[:3]), abs=1) for at in (0.0, 0.5, 1.0)
    ]


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (100, 100), (2000, 100), (100, 2000)])
def test_a_photograph_fills_its_column_or_its_height_and_keeps_its_shape(size):
    width, height = fitted(*size)
    assert width == 661 or height == 1299
    assert width <= 661
    assert height <= 1299
    assert width / height == pytest.approx(size[0] / size[1], rel=0.03)


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]


def test_a_panel_names_what_it_shows():
    width, height = fitted(120, 90)
    photograph = np.full((height, width, 3), 180, np.uint8)
    with styled():
        figure = attention_panel(
            photograph,
            [
                shown(ramp(height, width)),
                shown(ramp(height, width) + 10, task="site", name="face", method="grad-cam", calibrated=False),
            ],
            "A note.",
        )
        FigureCanvasAgg(figure).draw()
        found = texts(figure)
    assert {"photograph", "papule", "lesion, probability 0.25", "face", "site, score 0.25, not calibrated", "A note."} <= set(found)
    assert {"−3", "0", "5", "7", "15"} <= set(found)  # ends of the scales, and 0 where it lies between them
    assert "class activation map, in logits" in found
    assert "Grad-CAM, an approximation, in units of its own" in found


def test_a_zero_next_to_the_end_of_a_scale_has_a_mark_and_no_number():
    with styled():
        figure = attention_panel(np.zeros((30, 30, 3), np.uint8), [shown(ramp(30, 30) + 2.9)])
        FigureCanvasAgg(figure).draw()
        assert "0" not in texts(figure)
        assert {"−0.1", "7.9"} <= set(texts(figure))
        assert len(figure.axes[-1].get_xticks()) == 3


@pytest.mark.parametrize(("n", "width", "size"), [(2, 178, (90, 90)), (2, 178, (900, 45)), (1, 119, (45, 900))])
def test_a_panel_is_as_wide_as_a_page_and_its_texts_lie_inside(n, width, size):
    across, down = fitted(*size)
    maps = [shown(ramp(down, across), name="a very long name of a lesion or of many lesions", calibrated=False) for _ in range(n)]
    with styled():
        figure = attention_panel(np.zeros((down, across, 3), np.uint8), maps, "One line.\nAnother line.")
        FigureCanvasAgg(figure).draw()
        boxes = [text.get_window_extent() for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]
        png = render_png(figure)
    image = Image.open(io.BytesIO(png))
    assert image.width == pytest.approx(width / 25.4 * 300, abs=14)
    assert set(image.info) <= {"dpi"}
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width + 1
        assert box.y1 <= figure.bbox.height + 1


def test_the_same_panel_has_the_same_bytes():
    def made():
        with styled():
            return render_png(attention_panel(np.full((60, 60, 3), 90, np.uint8), [shown(ramp(60, 60))], "x"))

    assert made() == made()
