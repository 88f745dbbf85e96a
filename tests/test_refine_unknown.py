"""What was not assessed is unknown, whoever did not assess it."""

from __future__ import annotations

import polars as pl

from made_refinement import cells, fate, photos, taxonomy
from predilect.atlas.refine import refine
from predilect.labels.rules import LesionRules


def test_a_dropped_photograph_keeps_its_unknown_cells():
    rules = LesionRules(terms=("scar", "cyst", "ink"), drops={"ink": "no lesion"})
    table = photos((("ink",), None, ("cyst",)), (("ink",), None, ("*",)), (("scar", "cyst"), None))
    refined = refine(table, taxonomy(lesion=rules))
    assert cells(refined, "lesion/scar") == [0, None, 1]
    assert cells(refined, "lesion/cyst") == [None, None, 1]
    assert cells(refined, "refinement_flag") == ["lesions dropped", "lesions dropped", None]


def test_unknown_is_never_absent():
    rules = LesionRules(terms=("erosion", "ulcer", "scar"), merges={"erosion/ulcer": ("erosion", "ulcer")})
    table = photos(
        (("erosion", "scar"), None),
        ((), None, ("Ulcer",)),  # one of the merged terms was not assessed
        (("erosion",), None, ("ulcer",)),  # yet the class is there by the other
        (("scar",), None, ("*",)),
        ((), None, ("*",)),
        (None, None, ("scar",)),
    )
    refined = refine(table, taxonomy(lesion=rules))
    assert cells(refined, "lesion/erosion/ulcer") == [1, None, 1, None, None, None]
    assert cells(refined, "lesion/scar") == [1, 0, 0, 1, None, None]
    assert cells(refined, "refinement_flag") == [None] * 6


def test_a_term_that_is_only_ever_unknown_is_no_class_but_in_the_log():
    refined = refine(photos((("scar",), None, ("Cyst",))), taxonomy())
    assert refined.labels["lesion"].classes == ("scar",)
    assert (fate(refined, "Cyst")["became"], fate(refined, "Cyst")["n_images"]) == (None, 0)


def test_a_source_has_not_assessed_what_it_does_not_list():
    table = photos((("scar",), None, None, "a"), ((), None, None, "a"), (("crust",), None, None, "b"), ((), None, None, "c"))
    refined = refine(table, taxonomy(), assessed={"a": {"scar"}, "b": {"scar", "Crust"}})
    assert cells(refined, "lesion/scar") == [1, 0, 0, 0]
    assert cells(refined, "lesion/crust") == [None, None, 1, 0]


def test_assessing_a_parent_covers_what_folds_into_it_but_not_what_stays_apart():
    rules = LesionRules(terms=("papule", "flat papule"), parents={"flat papule": "papule"})
    table = photos((("papule",), None, None, "a"), ((), None, None, "a"), (("flat papule",), None, None, "b"))
    folded = refine(table, taxonomy(lesion=rules), assessed={"a": ["papule"]})
    assert cells(folded, "lesion/papule") == [1, 0, 1]
    apart = refine(table, taxonomy(lesion=rules, keep_above=0), assessed={"a": ["papule"]})
    assert cells(apart, "lesion/papule") == [1, 0, 0]
    assert cells(apart, "lesion/flat papule") == [None, None, 1]


def test_assessing_only_a_sub_lesion_or_a_part_of_a_merge_leaves_the_class_unknown():
    rules = LesionRules(
        terms=("papule", "flat papule", "erosion", "ulcer"),
        parents={"flat papule": "papule"},
        merges={"erosion/ulcer": ("erosion", "ulcer")},
    )
    table = photos((("papule", "ulcer"), None, None, "b"), ((), None, None, "a"), (("flat papule", "erosion"), None, None, "a"))
    refined = refine(table, taxonomy(lesion=rules), assessed={"a": ["flat papule", "erosion"]})
    assert cells(refined, "lesion/papule") == [1, None, 1]
    assert cells(refined, "lesion/erosion/ulcer") == [1, None, 1]
    whole = refine(table, taxonomy(lesion=rules), assessed={"a": ["flat papule", "erosion/ulcer"]})
    assert cells(whole, "lesion/erosion/ulcer") == [1, 0, 1]


def test_a_merge_named_like_one_of_its_terms_is_not_assessed_by_that_term_alone():
    rules = LesionRules(terms=("ulcer", "erosion"), merges={"ulcer": ("erosion",)})
    table = photos((("erosion",), None, None, "b"), ((), None, None, "a"))
    assert cells(refine(table, taxonomy(lesion=rules), assessed={"a": ["ulcer"]}), "lesion/ulcer") == [1, None]


def test_a_class_left_with_its_own_name_only_is_assessed_by_that_name_only():
    # ab folds into a, so that the merge x gathers nothing: there is x only where a source wrote so itself.
    rules = LesionRules(terms=("a", "ab"), parents={"ab": "a"}, merges={"x": ("ab",)})
    table = photos((("x",), None, None, "b"), ((), None, None, "a"), ((), None, None, "c"))
    refined = refine(table, taxonomy(lesion=rules), assessed={"a": ["a", "ab"], "c": ["x"]})
    assert cells(refined, "lesion/x") == [1, None, 0]


def test_photographs_without_a_source_assess_everything():
    table = photos((("scar",), None), ((), None), ((), None)).with_columns(source=pl.Series([None, None, "a"], dtype=pl.String))
    assert cells(refine(table, taxonomy(), assessed={"a": []}), "lesion/scar") == [1, 0, None]
