"""The model card: what stands in it, and that names from an atlas stay names."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest

from made_known_sites import SITES, drawn, predictions_of
from predilect.evaluation.decisions import Aim
from predilect.evaluation.fitted_parts import FittedParts, fit_parts
from predilect.evaluation.measured import measure
from predilect.recipe import Preprocessing, Recipe
from predilect.report import card as cards
from predilect.report import card_scores
from predilect.report.wording import INTENDED_USE, interval, number

N = 80


@pytest.fixture(scope="module")
def moved():
    return drawn(n_groups=N, n_lesions=2, strength=1.2)


@pytest.fixture(scope="module")
def table(moved):
    return predictions_of(moved, seeds=(1, 2))


@pytest.fixture(scope="module")
def tested(moved, table):
    return card_scores.Tested(moved.truth, measure(moved.truth, {"mtl": table}))


@pytest.fixture(scope="module")
def fitted(moved, table):
    return fit_parts(table, moved.truth)


def info(labels, **provenance):
    recipe = Recipe(name="small", backbone="resnet18", weights="none", preprocessing=Preprocessing())
    source = {"name": "clinic A", "licence": "CC0-1.0", "credit": "The clinic"}
    made = {"atlas": "clinic", "sources": [source], "seed": 1, "iterations": 1200, "n_images": 321, "command": "predilect crossval"}
    return {
        "system": "mtl",
        "labels": labels.to_json(),
        "preprocessing": recipe.preprocessing.model_dump(mode="json"),
        "recipe": recipe.record(),
        "provenance": {**made, **provenance},
        "licences": ["CC0-1.0"],
    }


def rows_of(card: str, section: str) -> list[list[str]]:
    """Cells of the tables of a section."""
    text = card[card.index(f"## {section}\n") :].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")]


@pytest.fixture(scope="module")
def card(moved, fitted, tested):
    return cards.model_card(info(moved.truth.labels), fitted, tested)


def test_it_says_what_it_is_for_where_it_comes_from_and_what_it_was_fitted_on(card):
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings[0] == "# mtl on clinic"
    assert [line[3:] for line in headings if line.startswith("## ")] == [
        "Intended use", "Data", "Training", "Scores", "Probabilities", "What was fitted on what", "Limits",
    ]  # fmt: skip
    assert INTENDED_USE in card
    assert ["clinic A", "CC0-1.0", "The clinic"] in rows_of(card, "Data")
    assert "**The calibration comes from the folds' networks and is applied to this one**" in card
    assert "Thresholds and the bound of the sets were fitted without a given site" in card
    assert "This network learnt from all of them and was tested on none." in card
    assert ["weights", "321 photographs, all groups"] in rows_of(card, "What was fitted on what")


def test_its_scores_are_those_that_were_measured_with_their_intervals(card, tested):
    scores, rows = tested.measured.evaluation.systems["mtl"], rows_of(card, "Scores")
    assert [
        "mAP-class",
        number(scores.lesion.map_class),
        interval(scores.lesion.map_class_low, scores.lesion.map_class_high),
    ] in rows
    for name, item in scores.lesion.per_class.items():
        (row,) = [row for row in rows if row[0] == name]
        assert row[1:5] == [number(item.ap), interval(item.ap_low, item.ap_high), f"{item.n_positive}", f"{item.n_positive_groups}"]
    for name, place in scores.site.per_class.items():
        (row,) = [row for row in rows if row[0] == name]
        assert row[1:4] == [number(place.top1), interval(place.top1_low, place.top1_high), number(place.top3)]


def test_calibration_stands_before_and_after(card, tested):
    rows = rows_of(card, "Probabilities")
    for name, item in tested.measured.calibration.systems["mtl"].lesions.items():
        (row,) = [row for row in rows if row[0] == name and row[1] == {"platt": "Platt", "isotonic": "isotonic"}[item.method]]
        assert row[2].startswith(number(item.before.ece.value))
        assert row[3].startswith(number(item.after.ece.value))
        assert row[5].startswith(number(item.before.brier.value))
        assert row[6].startswith(number(item.after.brier.value))
    assert "### The site is known" in card


def test_why_nothing_is_calibrated_is_told_and_in_which_folds(moved, fitted, tested):
    calibration = tested.measured.calibration
    whole = calibration.systems["mtl"]
    named = dict(zip(whole.lesions, ({"method": "none"}, {"method": "platt", "n_folds_as_they_were": 1}), strict=True))
    lesions = {name: item.model_copy(update=named[name]) for name, item in whole.lesions.items()}
    changed = calibration.model_copy(update={"systems": {"mtl": whole.model_copy(update={"lesions": lesions})}})
    seen = replace(tested, measured=replace(tested.measured, calibration=changed))
    rows = rows_of(cards.model_card(info(moved.truth.labels), fitted, seen), "Probabilities")
    told = [row[1] for row in rows if row[0] in lesions][:2]
    assert told == ["none: too little to fit", f"Platt; in 1 of {calibration.n_folds} folds none"]


def test_people_are_counted_by_skin_tone_age_and_sex(moved, fitted, tested):
    n = len(moved.truth)
    known = pl.DataFrame(
        {
            "skin_tone": ["10", None, "2"] + ["III"] * (n - 3),
            "skin_tone_scale": ["monk", None, "monk"] + ["fitzpatrick"] * (n - 3),
            "age": [19.5, 20.0, 39.0, 40.0, 79.9, 80.0, 101.0] + [None] * (n - 7),
            "sex": ["female"] * (n - 1) + ["male"],
        }
    )
    truth = replace(moved.truth, covariates=known)
    rows = rows_of(cards.model_card(info(truth.labels), fitted, replace(tested, truth=truth)), "Data")
    assert rows[-12:] == [
        ["skin tone", "2, monk", "1"],
        ["skin tone", "10, monk", "1"],
        ["skin tone", "III, fitzpatrick", f"{n - 3}"],
        ["skin tone", "not known", "1"],
        ["age", "below 20", "1"],
        ["age", "20 to 39", "2"],
        ["age", "40 to 59", "1"],
        ["age", "60 to 79", "1"],
        ["age", "from 80", "2"],
        ["age", "not known", f"{n - 7}"],
        ["sex", "female", f"{n - 1}"],
        ["sex", "male", "1"],
    ]


def test_where_nobody_noted_who_was_photographed_it_says_so(card):
    assert "nothing can be said of subgroups" in card


def test_without_folds_it_claims_nothing(moved):
    card = cards.model_card(info(moved.truth.labels), FittedParts(), None)
    assert "**None.** No fold was held out" in card
    assert "## Probabilities" not in card
    assert "Probabilities are not calibrated and nothing is decided: nothing was fitted." in card
    assert "The calibration comes from" not in card


def test_what_so_few_groups_cannot_promise_stands_among_the_limits(moved, table, tested):
    fitted = fit_parts(table, moved.truth, aim=Aim("sensitivity", 0.999), max_miss_rate=0.001)
    limits = cards.model_card(info(moved.truth.labels), fitted, tested).partition("\n## Limits\n")[2]
    assert len(fitted.unreached()) == 2
    assert all(f"- {sentence}" in limits for sentence in fitted.unreached())


def test_names_stay_names(moved):
    evil = "<img src=x>|*b*\n# heading"
    labels = moved.truth.labels
    data = info(labels, atlas=evil, sources=[{"name": evil, "licence": evil, "credit": evil}], notes=[evil], command=f"a\n# {evil}")
    data["labels"]["lesion"]["classes"][0] = evil
    card = cards.model_card(data, FittedParts(), None)
    assert card.count("\n# ") == 0
    assert not re.search(r"^(?! {4}).*(?<!\\)<img", card, re.MULTILINE)  # within a block of code it is text
    assert all(len(row) == 3 for row in rows_of(card, "Data"))


def test_every_site_is_named(card):
    assert f"Body sites: {', '.join(SITES)}." in card
