"""How every figure looks, and how it becomes a file: sizes, palette, deterministic SVG and PNG, and SVG that takes a page's colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = [
    "BAND",
    "DOUBLE_COLUMN",
    "FAINT",
    "INK",
    "MARKERS",
    "PAPER",
    "PNG_DPI",
    "RULE",
    "SERIES",
    "SINGLE_COLUMN",
    "THEME",
    "TWO_LINES",
    "Rendering",
    "inline_svg",
    "missing_glyphs",
    "name_ticks",
    "new_figure",
    "render",
    "render_png",
    "room_for",
    "shortened",
    "styled",
    "wrapped",
]

SINGLE_COLUMN = 85.0  # mm, the width of one printed column
DOUBLE_COLUMN = 178.0  # mm, across both
PNG_DPI = 300
TWO_LINES = 5.0  # mm that two lines of small type take

INK = "#1b1f2a"
FAINT = "#667085"
RULE = "#d4d9e2"
BAND = "#f4f6f9"
PAPER = "#ffffff"
# Okabe and Ito's colours and two of Tol's, told apart by the colour-blind; markers tell them apart in black and white.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#332288", "#999933")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")

# Colour in a figure -> variable of the page's style sheet, so that figures follow its light and dark.
THEME: Mapping[str, str] = {
    INK: "--ink",
    FAINT: "--faint",
    RULE: "--rule",
    BAND: "--band",
    PAPER: "--paper",
    **{color: f"--series-{k}" for k, color in enumerate(SERIES)},
}

_MM_PER_INCH = 25.4
_SMALL = 5.5  # points
# The first is part of matplotlib, so a figure looks the same everywhere; the others stand in for scripts it does not have.
_FONT = "DejaVu Sans"
_FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Devanagari",
    "Noto Sans Arabic",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
_STYLE: Mapping[str, Any] = {
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.4,
    "axes.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": "auto",
    "text.color": INK,
    "text.parse_math": False,  # a $ in a label is a $
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.4,
    "lines.linewidth": 0.9,
    "svg.fonttype": "path",  # glyphs as outlines: no reader needs the font
    "svg.hashsalt": "predilect",  # else ids, and so the bytes, differ from run to run
    "path.simplify": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in the style of the report, whatever the settings of the user or the program around it.

    Sizes and colours enter a figure when its parts are made, others when it is saved: both happen inside this context.
    """
    with matplotlib.style.context(["default", {**_STYLE, "font.family": _families()}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # `missing_glyphs` tells of them, once
        yield


def missing_glyphs(texts: Iterable[str]) -> str:
    """The characters of some texts that no font of the figures has, in order, each once; a figure shows boxes for them."""
    known = {code for family in _families() for code in get_font(findfont(family)).get_charmap()}
    return "".join(sorted({character for text in texts for character in text if ord(character) not in known}))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of exact size.

    Args:
        width: In mm; `SINGLE_COLUMN` or `DOUBLE_COLUMN`.
        height: In mm.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.03, hspace=0.03)
    return Figure(figsize=(width / _MM_PER_INCH, height / _MM_PER_INCH), layout=layout)


def shortened(name: str, limit: int = 28) -> str:
    """A class name that fits beside an axis: the middle of a longer one is left out; tables give it whole."""
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[-tail:]}"


def wrapped(name: str, limit: int = 28) -> str:
    """A class name for a place with room for two lines: a longer one than `limit` is broken where its lines are most alike.

    It breaks at blanks, and after slashes and hyphens; the middle of a line that is still too long is left out.
    """
    breaks = [at.end() for at in re.finditer(r"[ /-]", name[:-1])]
    if len(name) <= limit or not breaks:
        return shortened(name, limit)
    at = min(breaks, key=lambda at: max(len(name[:at].rstrip()), len(name[at:])))
    return f"{shortened(name[:at].rstrip(), limit)}\n{shortened(name[at:], limit)}"


def name_ticks(axis: Axis, names: Sequence[str]) -> None:
    """Write names at the ticks 0, 1, ... of an axis; those of two lines, from `wrapped`, are smaller and take `TWO_LINES`."""
    axis.set_ticks(np.arange(len(names)), names)
    for label in axis.get_ticklabels():
        if "\n" in label.get_text():
            label.set_fontsize(_SMALL)
            label.set_linespacing(1.0)


def room_for(names: Iterable[str], least: float) -> float:
    """Height in mm of rows with such names: `least`, or more where one takes two lines."""
    return max(least, TWO_LINES) if any("\n" in wrapped(name) for name in names) else least


@dataclass(frozen=True, slots=True)
class Rendering:
    """A figure as an SVG document and as a PNG image of `PNG_DPI`."""

    svg: str
    png: bytes


def render(figure: Figure) -> Rendering:
    """Make both files of a figure; the same figure gives the same bytes. Call within `styled`."""
    png = render_png(figure)
    vector = io.StringIO()
    figure.savefig(vector, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return Rendering(vector.getvalue(), png)


def render_png(figure: Figure) -> bytes:
    """Make the PNG of a figure alone, for one that shows photographs and gains nothing from outlines. Call within `styled`."""
    layout = figure.get_layout_engine()
    if layout is not None:
        # Laid out once for all files; with an engine still set, each saving would draw twice.
        layout.execute(figure)
        figure.set_layout_engine(None)
    raster = io.BytesIO()
    figure.savefig(raster, format="png", dpi=PNG_DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return raster.getvalue()


def inline_svg(svg: str, name: str, label: str) -> Markup:
    """Make an SVG of `render` part of a page.

    Ids get a prefix, since a page holds several figures; colours of `THEME` become the page's variables; the fixed size gives
    way to the view box.

    Args:
        svg: An SVG of `render`.
        name: A prefix unique on the page.
        label: What the figure shows, for those who do not see it.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    body = re.sub(r"#[0-9a-f]{6}\b", lambda match: _themed(match[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    head = (
        f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg" '
        'stroke-linejoin="round" stroke-linecap="butt">'
    )
    return Markup(head + body[body.index(">") + 1 :].strip())  # noqa: S704  matplotlib's output, in which labels are outlines


def _families() -> list[str]:
    installed = set(fontManager.get_font_names())
    return [_FONT, *(name for name in _FALLBACK_FONTS if name in installed)]


def _themed(color: str) -> str:
    return f"var({THEME[color]})" if color in THEME else color
