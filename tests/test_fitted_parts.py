"""What is fitted for a bundle: on what, how it travels as JSON, and what is said where a part cannot be had."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from made_known_sites import drawn, predictions_of
from made_serving import fitted_parts
from predilect.evaluation.answers import fit_answer_rule
from predilect.evaluation.decisions import Aim
from predilect.evaluation.fitted_parts import PARTS, FittedParts, fit_parts
from predilect.evaluation.known_site import site_prior_on_all
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Truth

LESIONS, SITES = ("papule", "crust"), ("arm", "face")
LABELS = LabelSpace((Task("lesion", LESIONS), Task("site", SITES)))


@pytest.fixture(scope="module")
def parts():
    return fitted_parts(LESIONS, SITES, 2.5)


@pytest.fixture(scope="module")
def small():
    return drawn(n_groups=60, n_lesions=2)


def with_tasks(truth, *tasks):
    values = {task: truth.values[task] for task in tasks}
    return Truth(truth.image_ids, truth.labels.restricted_to(tasks), values, truth.groups, truth.covariates)


# --- as JSON ---------------------------------------------------------------------------------------------------------------


def test_json_gives_back_the_same(parts):
    value = json.loads(json.dumps(parts.to_json(), allow_nan=False))
    found = FittedParts.from_json({**value, "labels": "of somebody else"})
    assert (found.rule, found.site_prior, found.familiarity) == (parts.rule, parts.site_prior, parts.familiarity)
    assert found.missing == {}
    assert found.caveats() == []


def test_what_is_missing_is_null_with_its_reason(parts):
    value = replace(parts, familiarity=None, missing={"novelty": "nobody looked"}).to_json()
    assert value["novelty"] is None
    found = FittedParts.from_json(json.loads(json.dumps(value)))
    assert found.missing == {"novelty": "nobody looked"}
    assert found.caveats() == ["There is no warning of photographs unlike those of the atlas: nobody looked."]


def test_nothing_at_all_says_so_of_each_part():
    nothing = FittedParts()
    assert nothing.missing.keys() == set(PARTS)
    assert FittedParts.from_json(nothing.to_json()).missing == nothing.missing
    assert len(nothing.caveats()) == 3


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("missing",), {"novelty": "why"}, "must say why nothing is null"),
        (("novelty",), None, "must say why novelty is null"),
        (("missing",), [], "must say why nothing is null"),
        (("novelty", "usual"), 0, "novelty: .*usual"),
        (("novelty", "usual"), "2.5", "novelty: .*usual"),
        (("novelty", "novelty", "beyond"), [1.0], "novelty: "),
        (("site_prior", "theta"), [], "site_prior: "),
        (("calibration", "sets", "threshold"), 1.5, "calibration: .*threshold"),
        (("calibration", "thresholds", "aim"), {"kind": "f2"}, "calibration: "),
        (("calibration", "extra"), 1, "calibration: .*extra"),
    ],
)
def test_json_that_was_not_written_so_is_refused_by_its_place(parts, place, value, message):
    found = json.loads(json.dumps(parts.to_json()))
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        FittedParts.from_json(found)


@pytest.mark.parametrize("name", [*PARTS, "missing"])
def test_json_without_a_key_is_refused(parts, name):
    value = parts.to_json()
    del value[name]
    with pytest.raises(ValueError, match=f"there is no '{name}'"):
        FittedParts.from_json(value)


def test_parts_that_do_not_belong_together(parts):
    with pytest.raises(ValueError, match="needs their rule"):
        replace(parts, rule=None)
    with pytest.raises(ValueError, match="reasons are given"):
        replace(parts, missing={"novelty": "though it is there"})
    parts.check_labels(LABELS)
    for labels in ((LESIONS[::-1], SITES), (LESIONS, SITES[::-1])):
        with pytest.raises(ValueError, match=r"classes|lesions|sites"):
            parts.check_labels(LabelSpace((Task("lesion", labels[0]), Task("site", labels[1]))))


# --- fitting ---------------------------------------------------------------------------------------------------------------


def test_rule_and_prior_are_those_of_all_photographs(small):
    table, aim = predictions_of(small, seeds=(1, 2)), Aim("sensitivity", 0.8)
    found = fit_parts(table, small.truth, aim=aim, max_miss_rate=0.2)
    assert found.rule == fit_answer_rule(table, small.truth, aim=aim, max_miss_rate=0.2)
    assert found.site_prior == site_prior_on_all(table, small.truth)
    assert found.missing == {"novelty": "nothing was fitted"}


def test_what_so_few_groups_cannot_promise_is_told(small):
    found = fit_parts(predictions_of(small), small.truth, aim=Aim("sensitivity", 0.999), max_miss_rate=0.001)
    of_thresholds, of_sets = found.unreached()
    assert of_thresholds == found.rule.thresholds.unreached()
    n_groups = found.rule.sets.n_groups
    assert of_sets == f"Nothing can be excluded: a bound of 0.1 % takes 999 groups that show a lesion, and there are {n_groups}."
    assert found.rule.sets.threshold == 0
    assert fit_parts(predictions_of(small), small.truth).unreached() == []
    assert FittedParts().unreached() == []


def test_familiarity_comes_later_or_its_reason(small, parts):
    bare = FittedParts(parts.rule, parts.site_prior)
    whole = bare.with_familiarity(parts.familiarity)
    assert whole.familiarity == parts.familiarity
    assert whole.missing == {}
    assert whole.with_familiarity("the weights are gone").missing == {"novelty": "the weights are gone"}


@pytest.mark.parametrize(("n_folds", "told"), [(None, "in no fold,"), (1, "in 1 fold,")])
def test_without_folds_nothing_is_fitted(small, n_folds, told):
    table = predictions_of(small, n_folds=n_folds or 1)
    found = fit_parts(replace(table, folds=None) if n_folds is None else table, small.truth)
    assert (found.rule, found.site_prior) == (None, None)
    assert told in found.missing["calibration"]
    assert found.missing["calibration"] == found.missing["site_prior"]


def test_a_site_prior_needs_lesions_and_sites_that_persons_named(small):
    def why(tasks, truth):
        found = fit_parts(predictions_of(small, tasks), truth)
        assert found.rule is not None
        assert found.site_prior is None
        return found.missing["site_prior"]

    nowhere = np.full_like(small.truth.values["site"], -1)
    unnamed = replace(small.truth, values={**small.truth.values, "site": nowhere})
    assert why(["site"], small.truth) == "the system predicts no lesions"
    assert why(["lesion"], with_tasks(small.truth, "lesion")) == "the atlas names no body sites"
    assert why(["lesion", "site"], unnamed) == "no photograph has a body site that a person named"
