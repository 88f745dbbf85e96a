"""The tables, the CSV frames and the sentences of a report."""

from __future__ import annotations

import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from made_calibration import made_reliability
from made_evaluation import LESIONS, MACHINE, SITES, made_curves, made_evaluation
from made_insight import made_insight
from made_known_sites import made_known_site
from predilect.evaluation.scores import Comparison, Evaluation
from predilect.report.calibration_tables import CALIBRATION_TABLES
from predilect.report.frames import TABLE_NAMES, csv_tables
from predilect.report.insight_tables import INSIGHT_TABLES
from predilect.report.known_site_tables import KNOWN_SITE_TABLES
from predilect.report.published import published_table
from predilect.report.shown import Shown
from predilect.report.tables import headline_table, lesion_tables, machine_table, site_table, terminal_tables
from predilect.report.wording import Estimate, cautions, interval, number, p_value, reading_guide, signed, verdicts

EVALUATION = made_evaluation(12, 9)


@pytest.fixture
def evaluation() -> Evaluation:
    return EVALUATION


def compared(**changes) -> Comparison:
    plain = {
        "system_a": "mtl",
        "system_b": "resnet",
        "task": "lesion",
        "metric": "map_class",
        "class_name": None,
        "difference": 0.02,
        "low": 0.01,
        "high": 0.03,
        "n_resamples_defined": 1000,
        "p": 0.0004,
        "p_holm": None,
        "fold_mean_difference": 0.01,
    }
    return Comparison(**plain | changes)


def judged(evaluation: Evaluation, **changes):
    return verdicts(evaluation.model_copy(update={"comparisons": [compared(**changes)]}))


def test_numbers_are_written_with_three_decimals_and_a_dash_where_undefined():
    assert [number(x) for x in (0.12349, 1.0, None)] == ["0.123", "1.000", "—"]
    assert [signed(x) for x in (0.0312, -0.0312, 0.0, None)] == ["+0.031", "−0.031", "+0.000", "—"]
    assert interval(-0.0041, 0.025) == "[−0.004, 0.025]"
    assert not interval(None, None)
    assert [p_value(x) for x in (0.0004, 0.001, 0.0436, 1.0, None)] == ["< 0.001", "0.001", "0.044", "1.000", "—"]


def test_headline_rows_hold_the_numbers_of_each_system(evaluation):
    rows = headline_table(evaluation)
    assert [row.system for row in rows] == ["resnet", "resnet-site", "mtl"]
    resnet, site, mtl = rows
    lesion = evaluation.systems["mtl"].lesion
    assert mtl.estimates["map_class"] == Estimate(lesion.map_class, lesion.map_class_low, lesion.map_class_high)
    assert resnet.estimates["top1"] == Estimate(None)
    assert site.estimates["map_image"] == Estimate(None)
    by_seed = headline_table(evaluation, by_seed=True)
    assert [(row.system, row.seed) for row in by_seed] == [(name, seed) for name in evaluation.systems for seed in ("1", "2")]
    assert by_seed[-1].estimates["top3"] == Estimate(evaluation.systems["mtl"].seeds["2"].top3)


SYSTEMS = ("alexnet", "resnet", "resnet-site", "mtl", "ensemble", "ensemble-mean", "mtl-scratch", "modern-mtl")


def test_the_terminal_tables_print_each_number_and_no_empty_metric():
    def printed(evaluation: Evaluation) -> str:
        console = Console(file=io.StringIO(), width=80)
        for table in terminal_tables(evaluation):
            console.print(table)
        return console.file.getvalue()

    many = made_evaluation(3, 2, systems=SYSTEMS)
    shown = printed(many)
    assert "…" not in shown
    for name in SYSTEMS:
        assert name in shown
        lesion = many.systems[name].lesion
        if lesion is not None:
            assert number(lesion.map_class) in shown
            assert interval(lesion.map_image_low, lesion.map_image_high) in shown

    whole = printed(made_evaluation(12, 9))
    assert number(made_evaluation(12, 9).systems["mtl"].site.top3) in whole
    lesions_only = printed(made_evaluation(12, 9, systems=("resnet",)))
    assert "mAP-class" in lesions_only
    assert "top-1" not in lesions_only


def test_the_terminal_tables_say_why_there_are_no_intervals_and_show_no_mean_over_one_fold():
    whole = made_evaluation(12, 9)
    (lesion, _) = terminal_tables(whole)
    assert str(lesion.title) == "Lesion scores of held-out photographs, with 95 % intervals"
    assert "mAP-class, fold mean" in [column.header for column in lesion.columns]
    resnet = whole.systems["resnet"]
    bounds = dict.fromkeys(name for name in type(resnet.lesion).model_fields if name.endswith(("_low", "_high")))
    unsure = resnet.model_copy(update={"lesion": resnet.lesion.model_copy(update=bounds)})
    folds = whole.folds.model_copy(update={"folds": (-1,)})
    (few,) = terminal_tables(whole.model_copy(update={"systems": {"resnet": unsure}, "folds": folds}))
    assert str(few.title) == "Lesion scores of held-out photographs; no intervals: fewer than 10 groups"
    assert [column.header for column in few.columns] == ["system", "mAP-class", "mAP-image"]


def test_lesions_stand_as_rows_with_the_best_as_printed_marked(evaluation):
    (table,) = lesion_tables(evaluation)
    assert table.systems == ("resnet", "mtl")
    assert table.pairs == (("mtl", "resnet"),)
    assert [row.name for row in table.rows] == list(LESIONS[:12])
    for row in table.rows[:10]:
        texts = [number(score.value) for score in row.scores]
        expected = {system for system, text in zip(table.systems, texts, strict=True) if text == max(texts)}
        assert row.best == expected
    undefined, few = table.rows[-2:]
    assert undefined.scores == (Estimate(None), Estimate(None))
    assert few.scores[0].value is not None
    assert few.scores[0].low is None
    assert few.differences[0].p is None
    assert [row.name for row in table.means] == [
        "mAP-class (11 lesions)",
        "mAP-class, fold mean (11 lesions)",
        "mAP-image (20,119 photographs)",
    ]
    assert table.means[0].differences[0].metric == "map_class"


def test_equal_numbers_as_printed_are_all_best_and_a_lone_system_never_is():
    evaluation = made_evaluation(12, 9)
    mtl, resnet = evaluation.systems["mtl"], evaluation.systems["resnet"]
    name = LESIONS[0]
    near = resnet.lesion.per_class[name].model_copy(update={"ap": round(resnet.lesion.per_class[name].ap, 3) + 0.0001})
    same = near.model_copy(update={"ap": near.ap + 0.0002})
    systems = {}
    for system, scores, item in (("resnet", resnet, near), ("mtl", mtl, same)):
        lesion = scores.lesion.model_copy(update={"per_class": scores.lesion.per_class | {name: item}})
        systems[system] = scores.model_copy(update={"lesion": lesion})
    (table,) = lesion_tables(evaluation.model_copy(update={"systems": systems}))
    assert table.rows[0].best == {"resnet", "mtl"}
    (alone,) = lesion_tables(made_evaluation(12, 9, systems=("resnet",)))
    assert not any(row.best for row in alone.rows)


def test_more_than_two_pairs_get_tables_of_their_own(evaluation):
    ap = [item for item in evaluation.comparisons if item.metric == "ap"]
    more = [item.model_copy(update={"system_a": name}) for name in ("x", "y") for item in ap]
    tables = lesion_tables(evaluation.model_copy(update={"comparisons": [*evaluation.comparisons, *more]}))
    assert [(table.systems, table.pairs) for table in tables] == [
        (("resnet", "mtl"), ()),
        ((), (("mtl", "resnet"),)),
        ((), (("x", "resnet"),)),
        ((), (("y", "resnet"),)),
    ]
    assert tables[2].rows[0].differences[0].system_a == "x"


def test_machine_made_lesions_have_a_table_of_their_own(evaluation):
    assert [row.name for row in machine_table(evaluation).rows] == list(MACHINE)
    assert not {row.name for row in lesion_tables(evaluation)[0].rows} & set(MACHINE)


def test_sites_stand_as_rows_with_top1_and_top3(evaluation):
    table = site_table(evaluation)
    assert table.systems == ("resnet-site", "mtl")
    assert [row.name for row in table.rows] == list(SITES[:9])
    item = evaluation.systems["mtl"].site.per_class[SITES[0]]
    assert table.rows[0].scores[1] == Estimate(item.top1, item.top1_low, item.top1_high)
    assert table.rows[0].extra[1] == item.top3
    assert sum(row.base_rate for row in table.rows) == pytest.approx(1)
    assert site_table(made_evaluation(12, 9, systems=("resnet",))).rows == ()


def test_csv_tables_give_back_the_numbers(evaluation):
    curves = made_curves(steps=20)
    tables = csv_tables(Shown(evaluation, curves, published_table(), made_insight(), made_reliability(), made_known_site()))
    assert set(tables) == set(TABLE_NAMES)
    assert set(csv_tables(Shown(evaluation, curves))) == set(TABLE_NAMES) - {
        "published",
        *KNOWN_SITE_TABLES,
        *CALIBRATION_TABLES,
        *INSIGHT_TABLES,
    }
    lesions = pl.read_csv(io.BytesIO(tables["lesions"].write_csv().encode()))
    cell = lesions.row(by_predicate=(pl.col("system") == "mtl") & (pl.col("lesion") == "crust"), named=True)
    assert cell["ap"] == evaluation.systems["mtl"].lesion.per_class["crust"].ap
    assert lesions.filter(lesion=LESIONS[10])["ap"].null_count() == 2
    cells = tables["predilection"].filter(lesion="crust", site="nose")
    assert cells["lift"].item() == evaluation.predilection.lift[2][4]
    assert tables["predilection"].height == 12 * 9
    folds = tables["folds"].filter(name="photographs")["n"].to_list()
    assert folds == list(evaluation.folds.n_images)
    assert tables["comparisons"].height == len(evaluation.comparisons)
    assert tables["headline"].filter(pl.col("seed").is_null(), metric="top1")["low"].null_count() == 0
    assert tables["curves"].equals(curves)


def test_csv_tables_leave_out_what_there_is_not():
    bare = made_evaluation(12, 9, systems=("resnet",)).model_copy(update={"folds": None, "predilection": None})
    assert set(csv_tables(Shown(bare))) == {"headline", "lesions"}


@given(
    low=st.floats(-0.2, 0.2),
    width=st.floats(0, 0.2),
    inside=st.floats(0, 1),
    fold_mean=st.none() | st.floats(-0.2, 0.2),
    p=st.none() | st.floats(0.0002, 1),
)
def test_a_winner_is_claimed_only_where_the_interval_excludes_zero_and_p_and_the_folds_agree(low, width, inside, fold_mean, p):
    high = low + width
    difference = min(max(low + inside * width, low), high)
    (verdict,) = judged(EVALUATION, difference=difference, low=low, high=high, fold_mean_difference=fold_mean, p=p)
    agrees = fold_mean is None or (fold_mean > 0 and difference > 0) or (fold_mean < 0 and difference < 0)
    agrees = agrees and (p is None or p < 0.05)
    expected = None
    if agrees and low > 0:
        expected = "mtl"
    if agrees and high < 0:
        expected = "resnet"
    assert verdict.winner == expected
    assert verdict.sentence.startswith(f"{expected} is better" if expected else "No winner is claimed")


def test_verdicts_say_why_no_winner_is_claimed(evaluation):
    (includes,) = judged(evaluation, low=-0.001, p=0.2)
    assert includes.sentence == (
        "No winner is claimed between mtl and resnet in mAP-class: the interval includes 0 "
        "(+0.020, 95 % interval −0.001 to 0.030, p = 0.200)."
    )
    (only_p,) = judged(evaluation, low=-0.001, p=0.038)
    assert only_p.sentence == (
        "No winner is claimed between mtl and resnet in mAP-class: the interval includes 0, although p by itself speaks against chance "
        "(+0.020, 95 % interval −0.001 to 0.030, p = 0.038)."
    )
    (only_interval,) = judged(evaluation, low=0.001, p=0.061)
    assert only_interval.winner is None
    assert only_interval.sentence == (
        "No winner is claimed between mtl and resnet in mAP-class: the interval excludes 0, but p does not speak against chance "
        "(+0.020, 95 % interval 0.001 to 0.030, p = 0.061)."
    )
    (disagree,) = judged(evaluation, fold_mean_difference=-0.004)
    assert "the mean over folds (−0.004) disagree in sign" in disagree.sentence
    (skewed,) = judged(evaluation, difference=-0.001)
    assert skewed.winner is None
    assert "the difference and its interval disagree in sign" in skewed.sentence
    (no_interval,) = judged(evaluation, low=None, high=None, p=None)
    assert "has no interval" in no_interval.sentence
    (undefined,) = judged(evaluation, difference=None, low=None, high=None, p=None)
    assert undefined.winner is None
    assert "not defined for both" in undefined.sentence


def test_verdicts_name_the_winner_whichever_side_it_stands_on(evaluation):
    (lost,) = judged(evaluation, difference=-0.02, low=-0.03, high=-0.01, fold_mean_difference=-0.01, p=0.02)
    assert lost.winner == "resnet"
    assert lost.sentence == (
        "resnet is better than mtl in mAP-class (mtl − resnet: −0.020, 95 % interval −0.030 to −0.010, p = 0.020; "
        "the mean over folds agrees in sign (−0.010))."
    )
    for folds in (None, evaluation.folds):  # no claim goes unmarked, whatever the evaluation holds beside it
        (unchecked,) = judged(evaluation.model_copy(update={"folds": folds}), fold_mean_difference=None)
        assert "could not be checked" in unchecked.sentence
    (other,) = judged(evaluation, metric="map_image", fold_mean_difference=None)
    assert "folds" not in other.sentence


def test_verdicts_judge_headline_metrics_and_not_single_lesions(evaluation):
    metrics = [verdict.comparison.metric for verdict in verdicts(evaluation)]
    assert metrics == ["map_class", "map_image", "top1", "top3", "balanced_accuracy"]


def test_cautions_follow_from_the_numbers(evaluation):
    ungrouped = evaluation.model_copy(update={"truth": evaluation.truth.model_copy(update={"grouped": False, "machine_made": ()})})
    assert len(cautions(ungrouped)) == 1
    assert "names no groups" in cautions(ungrouped)[0]
    assert f"{MACHINE[0]} and {MACHINE[1]}" in cautions(evaluation)[0]
    assert any("one seed only" in text for text in cautions(made_evaluation(12, 9, seeds=1)))


def test_the_reading_guide_names_lesions_without_ap_or_interval(evaluation):
    guide = "\n".join(reading_guide(evaluation))
    assert f"no photograph is known to show it: {LESIONS[10]}." in guide
    assert f"fewer than 10 positive groups: {LESIONS[11]}." in guide
    assert "not training" in guide


def with_rare(evaluation, rare):
    """The evaluation with 5 % of the photographs showing the named lesions, and 20 % each other one."""
    mtl = evaluation.systems["mtl"]
    per_class = {
        name: item.model_copy(update={"n_positive": item.n_known // (20 if name in rare else 5)})
        for name, item in mtl.lesion.per_class.items()
    }
    lesion = mtl.lesion.model_copy(update={"per_class": per_class})
    return evaluation.model_copy(update={"systems": {"mtl": mtl.model_copy(update={"lesion": lesion})}})


@pytest.mark.parametrize(
    ("rare", "counted", "told"),
    [(LESIONS[:6], False, True), (LESIONS[:5], False, False), ((*LESIONS[:4], *MACHINE), False, False), (LESIONS[:6], True, False)],
)
def test_the_reading_guide_says_what_intervals_over_many_rare_lesions_are_worth(evaluation, rare, counted, told):
    """Eleven lesions have an AP; counted with the two machine-made ones six are no longer most of them."""
    truth = evaluation.truth.model_copy(update={"machine_made_counted": counted})
    guide = reading_guide(with_rare(evaluation.model_copy(update={"truth": truth}), rare))
    assert ("covers less than its name: 87 %" in "\n".join(guide)) == told
