"""The section on systems that are told the site: its rows and sentences, its figure, its place on a page."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_hex

from made_evaluation import LESIONS, MACHINE
from made_known_sites import made_known_site
from predilect.evaluation.known_site_scores import KnownSite
from predilect.report.environment import render_page
from predilect.report.known_site_tables import (
    KNOWN_SITE_METRICS,
    KNOWN_SITE_TABLES,
    compared,
    difference_rows,
    effect_rows,
    known_site_frames,
    shown_system,
    system_rows,
)
from predilect.report.known_site_wording import (
    known_site_caption,
    known_site_findings,
    known_site_guide,
    known_site_label,
    known_site_section,
)
from predilect.report.site_prior_figure import effect_lesions, site_prior_figure
from predilect.report.style import render, styled

FOUND = made_known_site(12, 9)
PAIR = ("mtl+site", "mtl recalibrated")


@pytest.fixture(autouse=True)
def _in_style():
    with styled():
        yield


def column(metric):
    return list(KNOWN_SITE_METRICS).index(metric)


def test_each_system_has_a_row_in_the_digits_its_numbers_need():
    rows = system_rows(FOUND)
    assert [row.name for row in rows] == list(FOUND.systems)
    lesion = FOUND.systems["mtl"].lesion
    assert rows[4].cells[column("map_class")].value == f"{lesion.map_class:.3f}"
    assert rows[4].cells[column("log_loss")].value == "0.2000"
    assert rows[4].cells[column("log_loss")].interval == "[0.1960, 0.2040]"


def test_each_pair_has_a_row_with_the_fold_mean_beside_the_pooled_difference():
    rows = {row.name: row.cells for row in difference_rows(FOUND)}
    assert len(rows) == 10
    assert {f"mtl+site − mtl{state}" for state in ("", " calibrated", " recalibrated")} < rows.keys()
    cells = rows["mtl+site − mtl recalibrated"]
    assert (cells[column("map_class")].value, cells[column("map_class")].p) == ("+0.020", "0.004")
    assert (cells[column("map_class_fold_mean")].value, cells[column("map_class_fold_mean")].interval) == ("+0.010", "")
    assert (cells[column("log_loss")].value, cells[column("log_loss")].interval) == ("−0.0020", "[−0.0030, −0.0010]")


def test_the_system_with_a_head_of_its_own_is_shown():
    assert shown_system(FOUND) == "mtl"
    apart = {name: item.model_copy(update={"site_system": None}) for name, item in FOUND.effects.items()}
    assert shown_system(FOUND.model_copy(update={"effects": dict(reversed(apart.items()))})) == "resnet"


def test_lesions_stand_in_order_of_what_the_site_does_and_machine_made_ones_nowhere():
    names = effect_lesions(FOUND, "mtl")
    assert set(names) == set(LESIONS[:12])
    effects = FOUND.effects["mtl"]
    spread = [np.ptp(effects.theta[effects.lesions.index(name)]) for name in names]
    assert spread == sorted(spread, reverse=True)
    rows = effect_rows(FOUND, "mtl")
    assert [row.lesion for row in rows] == names
    strongest = rows[0]
    theta = effects.theta[effects.lesions.index(strongest.lesion)]
    most = int(np.argmax(theta))
    assert strongest.strongest[0] == f"{effects.sites[most]} × {math.exp(theta[most]):.2f}"
    assert len(strongest.strongest) == 2
    assert not set(MACHINE) & set(names)


def test_a_lesion_without_effect_says_so():
    effects = FOUND.effects["mtl"]
    still = effects.model_copy(update={"theta": tuple((0.0,) * 9 for _ in effects.theta)})
    found = FOUND.model_copy(update={"effects": FOUND.effects | {"mtl": still}})
    assert {row.strongest for row in effect_rows(found, "mtl")} == {()}
    assert known_site_label(found, "mtl").endswith("The strongest: none.")
    render(site_prior_figure(found, "mtl"))


def with_comparison(found: KnownSite, metric, pair=PAIR, **changed):
    rows = [row.model_copy(update=changed) if row is compared(found, pair, metric) else row for row in found.comparisons]
    return found.model_copy(update={"comparisons": rows})


def sentence(found, k=1):
    return known_site_findings(found)[k]


def test_a_gain_is_claimed_only_where_all_agree():
    assert (
        "mtl: told the site, it ranks photographs better than mtl recalibrated without the site (mAP-class +0.020 [0.019, 0.021]; fold mean "
        "+0.010), and than mtl itself (+0.020 [0.019, 0.021]; fold mean +0.010). " in sentence(FOUND).sentence
    )
    assert (
        "Its probabilities are better than those of mtl recalibrated (log-loss −0.0020 [−0.0030, −0.0010], 1.0 % of 0.2000)"
        in sentence(FOUND).sentence
    )
    assert sentence(FOUND).claimed
    for changed in ({"low": -0.01}, {"fold_mean_difference": -0.001}, {"low": None, "high": None}):
        doubted = with_comparison(FOUND, "map_class", **changed)
        assert "it is not shown to rank photographs better or worse" in sentence(doubted).sentence
    worse = with_comparison(FOUND, "map_class", difference=-0.02, low=-0.03, high=-0.01, fold_mean_difference=-0.01)
    assert "it ranks photographs worse than mtl recalibrated without the site" in sentence(worse).sentence
    worse = with_comparison(FOUND, "log_loss", difference=0.02, low=0.01, high=0.03)
    assert "Its probabilities are worse than those of mtl recalibrated (" in sentence(worse).sentence
    unsure = with_comparison(with_comparison(FOUND, "map_class", low=-0.01), "log_loss", high=0.01)
    assert not sentence(unsure).claimed
    doubted = with_comparison(with_comparison(FOUND, "map_class", p=0.061), "log_loss", p=0.4)
    assert "not shown to rank photographs better or worse than mtl recalibrated without the site" in sentence(doubted).sentence
    assert "fold mean +0.010; interval and p = 0.061 disagree)" in sentence(doubted).sentence
    assert not sentence(doubted).claimed


def test_a_better_order_is_set_against_the_system_itself():
    itself = ("mtl+site", "mtl")
    unshown = with_comparison(FOUND, "map_class", itself, difference=0.004, low=-0.002, high=0.01, p=0.2)
    assert "; against mtl itself (+0.004 [−0.002, 0.010]; fold mean +0.010) it is not shown. Its" in sentence(unshown).sentence
    assert sentence(unshown).claimed
    other_way = with_comparison(FOUND, "map_class", itself, difference=-0.004, low=-0.01, high=-0.002)
    assert (
        ", but worse than mtl itself (−0.004 [−0.010, −0.002]; fold mean +0.010), so neither is claimed. Its"
        in sentence(other_way).sentence
    )
    assert sentence(other_way).claimed  # of the probabilities
    assert not sentence(with_comparison(other_way, "log_loss", high=0.01)).claimed


def test_a_site_of_no_use_is_told():
    found = made_known_site(12, 9, useless=("resnet",))
    assert sentence(found, 0).sentence == "resnet: in no fold was a given site of any use beyond what the image told."
    assert not sentence(found, 0).claimed
    assert sentence(found, 2).sentence.startswith("Without a photograph, when the share of a lesion at the site")


def test_the_guide_names_who_told_the_site_and_how_much_counted():
    told = " ".join(known_site_guide(FOUND))
    assert "resnet has no site head, and how often each site occurs is all that was known" in told
    assert "mtl by its own site head, 1, 0.5 and not at all, the site being of no use, in the folds" in told
    effects = FOUND.effects["mtl"].model_copy(update={"spreads": (0.4,) * 3, "head_weights": (0.5,) * 3})
    same = FOUND.model_copy(update={"effects": FOUND.effects | {"mtl": effects}})
    assert "mtl by its own site head, 0.5 in every fold" in " ".join(known_site_guide(same))


def test_what_a_second_calibration_gave_is_not_put_down_to_the_site():
    # All that `mtl+site` is better by than `mtl calibrated` it would be better by without the site, too.
    none = {"difference": 0.0, "low": -0.001, "high": 0.001, "fold_mean_difference": 0.0, "p": 1.0}
    found = FOUND
    for metric in ("map_class", "log_loss"):
        found = with_comparison(found, metric, PAIR, **none)
        assert compared(found, ("mtl+site", "mtl calibrated"), metric).p < 0.05
    assert not sentence(found).claimed
    assert "it is not shown to rank photographs better or worse than mtl recalibrated without the site" in sentence(found).sentence
    assert "are not shown to be better or worse than those of mtl recalibrated" in sentence(found).sentence


def test_the_guide_names_the_folds_that_were_calibrated_once_more():
    told = " ".join(known_site_guide(FOUND))
    assert "gains by the site are judged against the system recalibrated" in told
    assert (
        "Calibrated once more here: resnet in none of 3 folds; mtl in 2 of 3 folds. In the other folds that is the calibrated"
        in told
    )
    none = {name: item.model_copy(update={"recalibrations": (0.0,) * 3}) for name, item in FOUND.effects.items()}
    assert "Here nothing was calibrated once more in any fold" in " ".join(
        known_site_guide(FOUND.model_copy(update={"effects": none}))
    )


def test_the_guide_says_which_system_takes_two_networks_that_no_bundle_holds():
    assert "two networks" not in " ".join(known_site_guide(FOUND))
    beside = {**FOUND.effects, "resnet": FOUND.effects["resnet"].model_copy(update={"site_system": "resnet-site"})}
    (said,) = [text for text in known_site_guide(FOUND.model_copy(update={"effects": beside})) if "two networks" in text]
    assert said.startswith("resnet+site takes the site probabilities of resnet-site")
    assert said.endswith("none gives resnet+site.")


def test_frames_hold_every_number():
    frames = known_site_frames(FOUND)
    assert tuple(frames) == KNOWN_SITE_TABLES
    numbers = frames["known_site"]
    assert numbers.filter((numbers["system"] == "mtl+site") & numbers["lesion"].is_null())["metric"].to_list() == list(
        KNOWN_SITE_METRICS
    )
    assert set(numbers["metric"]) == {*KNOWN_SITE_METRICS, "ap"}
    assert frames["known_site_comparisons"].height == len(FOUND.comparisons)
    effects = FOUND.effects["mtl"]
    of_mtl = frames["site_effects"].filter(frames["site_effects"]["system"] == "mtl")
    np.testing.assert_array_equal(of_mtl["theta"].to_numpy().reshape(len(effects.lesions), -1), effects.theta)


def drawn_texts(figure):
    figure.dpi = 72
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label)]
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]  # the others are not drawn
    return [text for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.parametrize(("n_lesions", "n_sites"), [(25, 23), (4, 2)])
def test_labels_of_the_figure_lie_inside_it(n_lesions, n_sites):
    figure = site_prior_figure(made_known_site(n_lesions, n_sites), "mtl")
    boxes = np.array([text.get_window_extent(figure._get_renderer()).extents for text in drawn_texts(figure)])
    assert len(boxes) > n_lesions
    assert boxes.min() >= -0.5
    assert (boxes[:, 2:] <= np.array([figure.bbox.x1, figure.bbox.y1]) + 0.5).all()


def test_the_figure_shows_odds_and_gains_right_of_zero():
    figure = site_prior_figure(FOUND, "mtl")
    cells, ap, saved = figure.axes[:3]
    names = effect_lesions(FOUND, "mtl")
    effects = FOUND.effects["mtl"]
    first = effects.theta[effects.lesions.index(names[0])]
    assert [text.get_text() for text in cells.texts][:9] == [f"{math.exp(theta):.2f}" for theta in first]
    for axes, metric, scale in ((ap, "ap", 1), (saved, "log_loss", -1000)):
        items = [compared(FOUND, PAIR, metric, name) for name in names]
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        drawn = {round(float(y)): float(x) for line in dots for x, y in line.get_xydata()}
        expected = {k: scale * item.difference for k, item in enumerate(items) if item.low is not None}
        assert drawn == pytest.approx(expected)
        filled = {round(float(y)) for line in dots if to_hex(line.get_markerfacecolor()) != "#ffffff" for y in line.get_ydata()}
        assert filled == {k for k, item in enumerate(items) if item.p_holm is not None and item.p_holm < 0.05}
    with pytest.raises(ValueError, match="alexnet"):
        site_prior_figure(FOUND, "alexnet")


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.open = 0, []

    def handle_starttag(self, tag, attrs):
        self.rows += tag == "tr"
        if tag not in {"wbr", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_section_is_well_formed_and_whole():
    page = render_page("known_site.html", figures={}, known_site=known_site_section(FOUND))
    reader = _Page()
    reader.feed(page)
    assert reader.open == []
    assert reader.rows == 3 + len(FOUND.systems) + 10 + 12
    assert page.count('class="won"') == 3
    for text in (*known_site_guide(FOUND), "comedones", "erosion/<wbr>ulcer/<wbr>atrophy", "p 0.004"):
        assert text.replace("'", "&#39;") in page
    assert "shrunk to 1" in known_site_caption("mtl")
