"""What a report says of attention and retrieval: sentences that follow from intervals, tables, figures, and nothing where nobody asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from made_evaluation import LESIONS, made_evaluation
from made_insight import SHORTCUT, WITHOUT_INTERVAL, made_insight
from predilect.evaluation.group_means import PairedDifference
from predilect.evaluation.overlap import overlap_by_chance
from predilect.report.insight_figures import coincidence_figure, faithfulness_figure, retrieval_figure
from predilect.report.insight_tables import (
    attention_tables,
    coincidence_rows,
    insight_frames,
    retrieval_differences,
    retrieval_rows,
)
from predilect.report.insight_wording import (
    MEASURE_TITLES,
    attention_findings,
    chance_overlap,
    coincidence_label,
    insight_guide,
    map_findings,
    retrieval_findings,
)
from predilect.report.report import build_report, write_report
from predilect.report.style import SERIES, styled
from predilect.report.wording import Estimate, interval, number, signed
from test_report import Page

INSIGHT = made_insight(12)
SYSTEMS = ["resnet", "resnet-site", "mtl"]


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])


@pytest.fixture(autouse=True)
def _in_style():
    with styled():
        yield


def sentences(findings, word=""):
    return [item.sentence for item in findings if word in item.sentence]


# --- sentences


def test_the_short_tables_hold_what_the_report_does():
    tables = {table.title.removeprefix("Attention: ").split(",")[0]: table for table in attention_tables(INSIGHT.attention)}
    coinciding, *checks = tables.values()
    assert [row.name for row in coinciding.rows] == ["mtl"]
    found = INSIGHT.attention.systems["mtl"].coincidence
    assert coinciding.rows[0].cells == (
        *(Estimate(item.value, item.low, item.high) for item in (found.correlation, found.overlap)),
        Estimate(INSIGHT.attention.systems["mtl"].overlap_by_chance),
    )
    assert coinciding.measures == ("correlation", "overlap", "by chance")
    assert len(checks) == 3
    for table in checks:
        assert [row.name for row in table.rows] == ["resnet, lesion", "resnet-site, site", "mtl, lesion", "mtl, site"]
    head = INSIGHT.attention.systems["mtl"].heads["lesion"]
    maps = head.perturbation.maps
    for curve in ("deletion", "insertion"):
        area, *above = tables[curve].rows[2].cells
        found = {kind: getattr(item, f"{curve}_area").value for kind, item in maps.items()}
        assert area.value == found["map"]
        assert [item.value for item in above] == pytest.approx([found["map"] - found[kind] for kind in ("random", "gaussian")])
        assert tables[curve].measures == ("area", "− random", "− middle")
    cells = tables["rank correlation without its sign"].rows[2].cells
    assert [cell.value for cell in cells] == [head.randomisation.absolute.value, head.randomisation.unrelated.value]


def test_without_checks_or_two_heads_there_are_no_short_tables_of_them():
    assert len(attention_tables(made_insight(12, checked=False).attention)) == 1
    assert attention_tables(made_insight(12, ("resnet",), checked=False).attention) == []


def test_maps_are_judged_against_each_baseline_by_their_intervals():
    found = {item.sentence.split(" point")[0]: item for item in map_findings(INSIGHT.attention) if " point at" in item.sentence}
    lesion, site = found["mtl, maps of the lesion"], found["mtl, maps of the site"]
    assert lesion.claimed
    assert lesion.sentence.endswith(
        "more than random maps (deletion and insertion) and the middle of the photograph (deletion and insertion) would."
    )
    assert site.claimed
    assert (
        "more than random maps (deletion and insertion) would; not shown to differ from the middle of the photograph"
        in site.sentence
    )


@pytest.mark.parametrize(
    ("low", "high", "p", "word", "claimed"),
    [
        (-0.1, -0.05, 0.001, "more than", True),
        (-0.1, -0.05, 0.06, "(deletion); interval and p disagree against", False),
        (0.05, 0.1, 0.001, "less than", True),
        (0.05, 0.1, 0.05, "(deletion); interval and p disagree against", False),
        (-0.1, 0.1, 0.2, "any better than", False),
        (-0.1, 0.0, 0.04, "(deletion); interval and p disagree against", False),
        (None, None, None, "any better than", False),
    ],
)
def test_a_map_is_called_true_only_where_deletion_is_clearly_faster(low, high, p, word, claimed):
    system = INSIGHT.attention.systems["resnet"]
    head = system.heads["lesion"]
    difference = PairedDifference(difference=0.0, low=low, high=high, p=p, n_images=9, n_groups=9)
    comparisons = [
        item.model_copy(update={"difference": difference}) for item in head.perturbation.comparisons if item.curve == "deletion"
    ]
    head = head.model_copy(update={"perturbation": head.perturbation.model_copy(update={"comparisons": tuple(comparisons)})})
    changed = INSIGHT.attention.model_copy(update={"systems": {"resnet": system.model_copy(update={"heads": {"lesion": head}})}})
    found = map_findings(changed)[0]
    assert word in found.sentence
    assert ("interval and p disagree" in found.sentence) == ("disagree" in word)
    assert found.claimed == claimed


def test_what_is_not_claimed_of_one_curve_leaves_the_others():
    system = INSIGHT.attention.systems["mtl"]
    head = system.heads["lesion"]
    doubted = [
        item.model_copy(update={"difference": item.difference.model_copy(update={"p": 0.2})})
        if (item.curve, item.baseline) == ("insertion", "gaussian")
        else item
        for item in head.perturbation.comparisons
    ]
    head = head.model_copy(update={"perturbation": head.perturbation.model_copy(update={"comparisons": tuple(doubted)})})
    changed = INSIGHT.attention.model_copy(update={"systems": {"mtl": system.model_copy(update={"heads": {"lesion": head}})}})
    found = map_findings(changed)[0]
    assert found.claimed
    assert found.sentence.endswith(
        "more than random maps (deletion and insertion) and the middle of the photograph (deletion) would; not shown to differ from the "
        "middle of the photograph (insertion); interval and p disagree against the middle of the photograph (insertion)."
    )


def test_maps_that_random_weights_give_too_are_told():
    lesion, site = sentences(map_findings(INSIGHT.attention), "mtl, maps of the lesion, random") + sentences(
        map_findings(INSIGHT.attention), "mtl, maps of the site, random"
    )
    assert "not shown to give maps more like" in lesion
    assert "part of what the maps show was not learned" in site
    assert "0.310 [0.260, 0.360], between maps of different photographs 0.100 [0.050, 0.150]" in site


def test_shortcuts_are_listed_with_their_thresholds():
    (found,) = sentences(attention_findings(INSIGHT.attention), "nearly the same")
    assert (
        found
        == f"mtl: the maps of lesion and site are nearly the same (mean correlation at least 0.8 and mean overlap at least 0.5) for {SHORTCUT}."
    )
    assert sentences(
        attention_findings(INSIGHT.attention), "lesions whose maps coincide with the site's gain less (rank correlation −0.500"
    )
    assert sentences(attention_findings(INSIGHT.attention), "have 4 × 4 cells only") == [
        "The maps of resnet, resnet-site and mtl have 4 × 4 cells only, too few to tell places well apart."
    ]
    assert sentences(attention_findings(INSIGHT.attention), "alexnet") == [
        "alexnet has no attention maps: the backbone AlexNet cannot be explained."
    ]


@pytest.mark.parametrize(
    ("ends", "word"), [((0.1, 0.6), "gain more"), ((-0.5, 0.6), "not shown"), ((None, None), "cannot be compared")]
)
def test_gain_and_coincidence_are_judged_by_their_interval(ends, word):
    mtl = INSIGHT.attention.systems["mtl"]
    gain = mtl.coincidence.gains[0].model_copy(update={"rank_correlation_low": ends[0], "rank_correlation_high": ends[1]})
    coincidence = mtl.coincidence.model_copy(update={"gains": (gain,), "lesions": mtl.coincidence.lesions[2:]})
    changed = INSIGHT.attention.model_copy(update={"systems": {"mtl": mtl.model_copy(update={"coincidence": coincidence})}})
    assert len(sentences(attention_findings(changed), f"mtl − resnet, {len(gain.lesions)} lesions")) == 1
    assert word in sentences(attention_findings(changed), "mtl − resnet")[0]
    assert sentences(attention_findings(changed), "for no lesion are its map and the site's nearly the same")


def test_why_the_interval_of_a_coincidence_lies_nearer_to_0_is_told():
    mtl = INSIGHT.attention.systems["mtl"]
    gain = mtl.coincidence.gains[0].model_copy(update={"rank_correlation": -0.9})  # its interval ends at -0.8
    coincidence = mtl.coincidence.model_copy(update={"gains": (gain,)})
    changed = INSIGHT.attention.model_copy(update={"systems": {"mtl": mtl.model_copy(update={"coincidence": coincidence})}})
    assert len(sentences(attention_findings(changed), "can only become weaker.")) == 1
    assert not sentences(attention_findings(INSIGHT.attention), "lies more towards 0")


def test_retrieval_names_a_winner_only_where_an_interval_excludes_0():
    first, second, third = retrieval_findings(INSIGHT.retrieval)
    assert (first.sentence, first.claimed) == ("No winner is claimed between resnet-site and resnet.", False)
    expected = (
        "mtl is better than {} in site precision@5 and site mAP@R; no winner is claimed in lesion precision@5, lesion mAP@R, lesion nDCG@5 "
        "and lesion nDCG."
    )
    assert {second.sentence, third.sentence} == {expected.format("resnet"), expected.format("resnet-site")}


def test_retrieval_says_where_interval_and_p_disagree():
    doubted = [
        item.model_copy(update={"p": 0.06 if item.measure == "site_map_at_r" else item.p}) for item in INSIGHT.retrieval.comparisons
    ]
    none, found, _ = retrieval_findings(INSIGHT.retrieval.model_copy(update={"comparisons": doubted}))
    assert none.sentence == "No winner is claimed between resnet-site and resnet."
    assert found.sentence.startswith("mtl is better than resnet in site precision@5; no winner is claimed in ")
    assert found.sentence.endswith(" and lesion nDCG (interval and p disagree in site mAP@R).")
    of_first = [item.model_copy(update={"p": 0.04}) for item in INSIGHT.retrieval.comparisons[:1]]
    (neither,) = retrieval_findings(INSIGHT.retrieval.model_copy(update={"comparisons": of_first}))
    assert "No winner is claimed between resnet-site and resnet (interval and p disagree in " in neither.sentence


def test_the_guide_says_what_was_done():
    both, maps, checks = insight_guide(INSIGHT)
    assert "900 tested photographs" in both
    assert "not why" in maps
    assert "on the centre crop, of each lesion that a photograph is known to show" in maps
    assert "100 tested photographs" in checks
    assert "the network predicts: deletion and insertion on the whole photograph, random weights on its centre crop." in checks
    assert len(insight_guide(made_insight(checked=False))) == 2


# --- tables


def test_tables_hold_the_numbers_and_end_with_chance():
    rows = retrieval_rows(INSIGHT.retrieval)
    assert [row.name for row in rows] == [*SYSTEMS, "random order"]
    assert [cell.value for cell in rows[2].cells] == [
        getattr(INSIGHT.retrieval.systems["mtl"], name).value for name in MEASURE_TITLES
    ]
    assert [cell.value for cell in rows[3].cells] == [
        getattr(INSIGHT.retrieval.systems["mtl"], name).chance for name in MEASURE_TITLES
    ]
    assert [row.name for row in retrieval_differences(INSIGHT.retrieval)] == [
        "resnet-site − resnet",
        "mtl − resnet",
        "mtl − resnet-site",
    ]
    assert [item.measure for item in retrieval_differences(INSIGHT.retrieval)[1].items] == list(MEASURE_TITLES)
    found = coincidence_rows(INSIGHT.attention)
    assert [row.lesion.lesion for row in found] == list(LESIONS[:12])
    assert [row.gain is None for row in found] == [name == WITHOUT_INTERVAL for name in LESIONS[:12]]


def test_frames_have_a_row_for_each_number():
    frames = insight_frames(INSIGHT)
    assert {name: frame.height for name, frame in frames.items()} == {
        "coincidence": 12, "perturbation": 4 * 3 * 2 * 11, "perturbation_comparisons": 4 * 2 * 2, "randomisation": 4 * 3,
        "retrieval": 3 * 6, "retrieval_comparisons": 3 * 6,
    }  # fmt: skip
    expected = INSIGHT.attention.systems["mtl"].heads["site"].perturbation.comparisons[3]
    assert frames["perturbation_comparisons"].row(-1, named=True) == {
        "system": "mtl", "task": "site", "curve": "insertion", "baseline": "gaussian", **expected.difference.model_dump(),
    }  # fmt: skip
    row = frames["coincidence"].row(0, named=True)
    assert (row["lesion"], row["correlation"], row["shortcut"], row["correlation_n_images"]) == (
        SHORTCUT,
        pytest.approx(0.9),
        True,
        100,
    )
    assert frames["coincidence"]["overlap_by_chance"].to_list() == [overlap_by_chance(16)] * 12
    assert frames["coincidence"].row(1, named=True)["correlation_low"] is None
    alone = insight_frames(made_insight(checked=False, systems=("resnet",)))
    assert [name for name, frame in alone.items() if frame.height] == ["retrieval"]


# --- figures


def test_the_network_own_map_stands_out_beside_the_two_that_know_nothing():
    figure = faithfulness_figure(INSIGHT.attention)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 8
    deletion, insertion = shown[4:6]
    assert deletion.get_title("left") == "mtl, lesion"
    maps = INSIGHT.attention.systems["mtl"].heads["lesion"].perturbation.maps
    for axes, curve in ((deletion, "deletion"), (insertion, "insertion")):
        drawn = {line.get_linestyle(): line.get_ydata() for line in axes.lines}
        for kind, style in (("map", "-"), ("random", "--"), ("gaussian", ":")):
            np.testing.assert_allclose(drawn[style], getattr(maps[kind], curve).value)
        assert len(axes.collections) == 1
        assert axes.get_ylim()[0] == 0
    assert deletion.get_ylim() == insertion.get_ylim()
    with pytest.raises(ValueError, match="no head's maps"):
        faithfulness_figure(made_insight(checked=False).attention)


def test_coincidence_is_ranked_and_a_shortcut_is_filled():
    figure = coincidence_figure(INSIGHT.attention, SYSTEMS)
    correlation, overlap, gain = figure.axes
    assert [label.get_text() for label in correlation.get_yticklabels()] == list(LESIONS[:12])
    for axes in (correlation, overlap):
        dots = [line for line in axes.lines if line.get_marker() == "D"]
        (filled,) = [line for line in dots if line.get_markerfacecolor() != "#ffffff"]
        assert len(filled.get_xdata()) == 1
        assert to_hex(filled.get_color()) == SERIES[2]  # as in all figures of the report
    (gains,) = [line for line in gain.lines if line.get_marker() == "D"]
    rows = coincidence_rows(INSIGHT.attention)
    np.testing.assert_allclose(gains.get_xdata(), [row.gain.gain for row in rows if row.gain is not None])
    with pytest.raises(ValueError, match="no system has maps of lesions and sites"):
        coincidence_figure(made_insight(systems=("resnet",)).attention, ["resnet"])


def test_without_a_baseline_there_is_no_panel_of_gains():
    mtl = INSIGHT.attention.systems["mtl"]
    alone = mtl.model_copy(update={"coincidence": mtl.coincidence.model_copy(update={"gains": ()})})
    assert len(coincidence_figure(INSIGHT.attention.model_copy(update={"systems": {"mtl": alone}}), ["mtl"]).axes) == 2


def test_the_overlap_of_chance_is_that_of_the_cells_of_each_system():
    mtl = INSIGHT.attention.systems["mtl"]
    coarse = mtl.model_copy(update={"cells": (2, 2), "overlap_by_chance": 0.25})
    both = INSIGHT.attention.model_copy(update={"systems": {"mtl": mtl, "coarse": coarse, "again": mtl}})
    for attention, expected in ((INSIGHT.attention, [overlap_by_chance(16)]), (both, [overlap_by_chance(16), 0.25])):
        lines = coincidence_figure(attention, list(attention.systems)).axes[1].lines
        upright = {line.get_xdata()[0] for line in lines if list(line.get_ydata()) == [0, 1]}
        assert sorted(upright) == expected
    assert chance_overlap(INSIGHT.attention) == "0.120 for maps of 4 × 4 cells"
    assert chance_overlap(both) == "0.120 for maps of 4 × 4 cells and 0.250 for maps of 2 × 2 cells"
    assert chance_overlap(made_insight(systems=("resnet",)).attention) == ""
    assert {row.system: row.overlap_by_chance for row in coincidence_rows(both)}["coarse"] == 0.25
    assert "mean overlap 0.300 (by chance 0.250)" in coincidence_label(both)


def test_retrieval_stands_beside_chance():
    axes = retrieval_figure(INSIGHT.retrieval, SYSTEMS).axes[0]
    (ticks,) = [line for line in axes.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(
        ticks.get_xdata(), [getattr(INSIGHT.retrieval.systems["mtl"], name).chance for name in MEASURE_TITLES]
    )
    assert sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() in {"o", "s", "D"}) == 18


# --- the page


@pytest.mark.usefixtures("undrawn")
def test_the_page_has_both_sections_with_numbers_and_findings(tmp_path):
    path = write_report(build_report(made_evaluation(12, 9), provenance={}, insight=INSIGHT), tmp_path)
    text = Page(path.read_text(encoding="utf-8")).text()
    found = (*attention_findings(INSIGHT.attention), *map_findings(INSIGHT.attention), *retrieval_findings(INSIGHT.retrieval))
    for item in found:
        assert item.sentence in text
    for guide in insight_guide(INSIGHT):
        assert guide in text
    assert "overlap by 0.120 for maps of 4 × 4 cells on average" in text
    first = INSIGHT.attention.systems["resnet"].heads["lesion"].perturbation.comparisons[0].difference
    assert f"{signed(first.difference)} {interval(first.low, first.high)} p < 0.001" in text
    mtl = INSIGHT.retrieval.systems["mtl"].site_map_at_r
    assert f"{number(mtl.value)} {interval(mtl.low, mtl.high)}" in text
    assert text.index("Attention mtl: the maps of") < text.index("Retrieval How alike") < text.index("Machine-made labels A model")
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert document["attention"] == INSIGHT.attention.model_dump(mode="json")
    assert document["retrieval"] == INSIGHT.retrieval.model_dump(mode="json")


@pytest.mark.usefixtures("undrawn")
def test_where_nobody_asked_there_is_nothing(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "retrieval.csv").write_text("of an earlier report")
    path = write_report(build_report(made_evaluation(12, 9), provenance={}), tmp_path)
    page = path.read_text(encoding="utf-8")
    assert 'id="attention"' not in page
    assert 'id="retrieval"' not in page
    assert not {"attention", "retrieval"} & json.loads((tmp_path / "report.json").read_text(encoding="utf-8")).keys()
    assert not (tmp_path / "tables" / "retrieval.csv").exists()


@pytest.mark.usefixtures("undrawn")
def test_systems_without_maps_and_heads_without_checks_make_no_holes(tmp_path):
    plain = made_insight(checked=False, systems=("resnet",))
    none = plain.model_copy(update={"attention": plain.attention.model_copy(update={"systems": {}, "unexplained": {}})})
    for insight, there in ((plain, True), (none, False)):
        text = write_report(build_report(made_evaluation(12, 9), provenance={}, insight=insight), tmp_path).read_text(
            encoding="utf-8"
        )
        assert ('id="attention"' in text) == there
        assert "Table: deletion" not in text
        assert 'id="retrieval"' in text
        Page(text)


def test_curves_without_intervals_are_drawn_without_a_band():
    mtl = INSIGHT.attention.systems["mtl"]
    head = mtl.heads["lesion"]
    bare = {
        kind: maps.model_copy(
            update={
                curve: getattr(maps, curve).model_copy(update={"low": None, "high": None}) for curve in ("deletion", "insertion")
            }
        )
        for kind, maps in head.perturbation.maps.items()
    }
    head = head.model_copy(update={"perturbation": head.perturbation.model_copy(update={"maps": bare})})
    system = mtl.model_copy(update={"heads": {"lesion": head}})
    attention = INSIGHT.attention.model_copy(update={"systems": {"mtl": system}})
    assert not [axes for axes in faithfulness_figure(attention).axes if axes.collections]
    assert insight_frames(INSIGHT.model_copy(update={"attention": attention}))["perturbation"]["low"].is_null().all()
