"""Raw terms become classes: read, folded, merged, left out, and each decision logged; what cannot be is refused."""

from __future__ import annotations

import itertools

import polars as pl
import pytest

from made_refinement import cells, fate, photos, taxonomy
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.atlas.refine import refine
from predilect.errors import LabelError
from predilect.labels.rules import LesionRules, SiteRules
from predilect.labels.taxonomy import Taxonomy


def test_terms_become_sorted_classes_row_by_row():
    table = photos((("papule", "crust"), ("hand",)), ((), ("face",)), (None, None), (("crust",), ()))
    refined = refine(table, taxonomy())
    assert refined.labels.columns == ("lesion/crust", "lesion/papule", "site/face", "site/hand")
    assert refined.table.columns == ["image_id", *refined.labels.columns, "refinement_flag"]
    assert refined.table.schema["lesion/crust"] == refined.table.schema["site/face"] == pl.Int8
    assert refined.table.schema["refinement_flag"] == pl.String
    assert refined.table.rows() == [
        ("i0", 1, 1, 0, 1, None),
        ("i1", 0, 0, 1, 0, None),
        ("i2", None, None, None, None, None),
        ("i3", 1, 0, None, None, None),
    ]


def test_aliases_and_spellings_are_read_as_one_term():
    rules = LesionRules(terms=("papule", "scar"), aliases={"Bump": "papule"})
    refined = refine(photos((("PAPULE ", "bump"), None), (("papule",), None), (("scar",), None)), taxonomy(lesion=rules))
    assert cells(refined, "lesion/papule") == [1, 1, 0]
    assert refined.log.select("raw_term", "became", "reason", "n_images").rows() == [
        ("PAPULE ", "papule", "spelt 'papule'", 1),
        ("bump", "papule", "alias of 'papule'", 1),
        ("papule", "papule", "kept", 1),
        ("scar", "scar", "kept", 1),
    ]


def test_of_kept_spellings_the_one_in_lower_case_names_the_class():
    for order in itertools.permutations([("Papule",), ("papule",), (" PAPULE",)]):
        refined = refine(photos(*((lesions, None) for lesions in order)), taxonomy())
        assert refined.labels["lesion"].classes == ("papule",)
    assert fate(refined, "Papule")["reason"] == "not in the taxonomy, kept; spelt 'papule'"


@pytest.mark.parametrize(("n", "classes"), [(1000, ("papule",)), (1001, ("flat papule", "papule"))])
def test_a_sub_lesion_stays_apart_only_above_a_thousand(n, classes):
    rules = LesionRules(terms=("papule", "flat papule"), parents={"flat papule": "papule"})
    table = photos(*[(("papule",), None)] * 20, *[(("flat papule",), None)] * n)
    refined = refine(table, taxonomy(lesion=rules, drop_below=10))
    assert refined.labels["lesion"].classes == classes
    assert sum(cells(refined, "lesion/papule")) == (1020 if n == 1000 else 20)
    words = "folds into 'papule' (1000 images, not more" if n == 1000 else "stays apart from 'papule' (1001 images, more"
    assert words in fate(refined, "flat papule")["reason"]


def test_a_photograph_with_a_sub_lesion_twice_counts_once():
    rules = LesionRules(terms=("papule", "flat papule"), parents={"flat papule": "papule"}, aliases={"flat": "flat papule"})
    refined = refine(photos((("flat papule", "flat", "papule"), None)), taxonomy(lesion=rules, keep_above=1))
    assert refined.labels["lesion"].classes == ("papule",)
    assert cells(refined, "lesion/papule") == [1]


def test_families_fold_from_the_bottom_up():
    rules = LesionRules(terms=("a", "ab", "abc"), parents={"ab": "a", "abc": "ab"})
    table = photos((("abc",), None), (("abc",), None), (("ab",), None), (("a",), None))
    # abc (2) folds into ab, which then has 3: more than 2, so it stays apart.
    refined = refine(table, taxonomy(lesion=rules, keep_above=2))
    assert (cells(refined, "lesion/a"), cells(refined, "lesion/ab")) == ([0, 0, 0, 1], [1, 1, 1, 0])
    assert fate(refined, "abc")["reason"] == (
        "folds into 'ab' (2 images, not more than 2); stays apart from 'a' (3 images, more than 2)"
    )
    assert refine(table, taxonomy(lesion=rules, keep_above=3)).labels["lesion"].classes == ("a",)
    assert refine(table, taxonomy(lesion=rules, keep_above=1)).labels["lesion"].classes == ("a", "abc")


def test_merges_come_after_folding_and_before_counting():
    rules = LesionRules(
        terms=("erosion", "deep erosion", "ulcer", "scar"),
        parents={"deep erosion": "erosion"},
        merges={"erosion/ulcer": ("erosion", "ulcer")},
    )
    table = photos((("deep erosion",), None), (("erosion",), None), (("ulcer",), None), (("scar",), None), (("scar",), None))
    refined = refine(table, taxonomy(lesion=rules, drop_below=3))
    assert refined.labels["lesion"].classes == ("erosion/ulcer",)
    assert cells(refined, "lesion/erosion/ulcer") == [1, 1, 1, 0, 0]
    assert fate(refined, "deep erosion")["reason"] == (
        "folds into 'erosion' (1 images, not more than 1000); merged into 'erosion/ulcer'"
    )


def test_a_sub_lesion_kept_apart_may_be_merged_by_its_own_name():
    rules = LesionRules(terms=("a", "ab", "b"), parents={"ab": "a"}, merges={"b": ("ab",)})
    table = photos((("ab",), None), (("b",), None), (("a",), None))
    assert cells(refine(table, taxonomy(lesion=rules, keep_above=0)), "lesion/b") == [1, 1, 0]
    assert cells(refine(table, taxonomy(lesion=rules, keep_above=1)), "lesion/b") == [0, 1, 0]


@pytest.mark.parametrize(("n", "kept"), [(9, False), (10, True)])
def test_classes_below_ten_are_left_out_lesions_and_sites_alike(n, kept):
    rare = [(("cyst",), ("ear",))] * n
    refined = refine(photos(*rare, *[(("scar",), ("hand",))] * 10), taxonomy(drop_below=10))
    assert ("lesion/cyst" in refined.table.columns, "site/ear" in refined.table.columns) == (kept, kept)
    assert cells(refined, "refinement_flag") == [None if kept else "lesions dropped; site dropped"] * n + [None] * 10
    for task, raw in (("lesion", "cyst"), ("site", "ear")):
        row = fate(refined, raw, task)
        assert row["became"] == (raw if kept else None)
        assert row["n_images"] == n
        assert ("dropped: " + repr(raw) + " has 9 images, fewer than 10" in row["reason"]) is not kept
    assert cells(refined, "lesion/scar")[:n] == [0] * n
    assert cells(refined, "site/hand")[:n] == ([0] if kept else [None]) * n


def test_a_photograph_is_counted_once_for_a_class():
    rules = LesionRules(terms=("a", "b", "c"), merges={"ab": ("a", "b")})
    refined = refine(photos((("a", "b"), None), (("a",), None), *[(("c",), None)] * 3), taxonomy(lesion=rules, drop_below=3))
    assert refined.labels["lesion"].classes == ("c",)


def test_deliberate_drops_leave_none_and_a_flag_where_nothing_else_was_seen():
    rules = LesionRules(terms=("scar", "ink"), drops={"ink": "no lesion"})
    refined = refine(photos((("ink",), None), (("ink", "scar"), None), ((), None)), taxonomy(lesion=rules))
    assert cells(refined, "lesion/scar") == [0, 1, 0]
    assert cells(refined, "refinement_flag") == ["lesions dropped", None, None]
    assert fate(refined, "ink") == {
        "task": "lesion",
        "raw_term": "ink",
        "became": None,
        "reason": "dropped: no lesion",
        "origin": "person",
        "n_images": 2,
    }


def test_terms_the_taxonomy_may_drop_are_in_the_log():
    rules = LesionRules(terms=("scar",), unknown_terms="drop")
    refined = refine(photos((("wheal",), None), (("scar",), None)), taxonomy(lesion=rules))
    assert refined.labels["lesion"].classes == ("scar",)
    assert fate(refined, "wheal")["reason"] == "dropped: the taxonomy does not know it"
    assert cells(refined, "refinement_flag") == ["lesions dropped", None]


def test_rules_need_no_list_of_terms_where_unknown_ones_are_kept():
    rules = LesionRules(
        unknown_terms="keep", aliases={"bump": "papule"}, parents={"flat papule": "papule"}, drops={"ink": "no lesion"}
    )
    refined = refine(photos((("flat papule", "scar"), None), ((), None)), taxonomy(lesion=rules))
    assert refined.labels["lesion"].classes == ("papule", "scar")
    assert cells(refined, "lesion/papule") == [1, 0]
    assert refined.log["raw_term"].to_list() == ["flat papule", "scar"]


def test_machine_made_classes_are_marked():
    rules = LesionRules(terms=("erythema", "scar"), aliases={"MONET_erythema": "erythema"}, machine=("erythema",))
    refined = refine(photos((("MONET_erythema", "scar"), None)), taxonomy(lesion=rules))
    assert refined.labels["lesion"].machine == {"erythema"}
    assert (fate(refined, "MONET_erythema")["origin"], fate(refined, "scar")["origin"]) == ("machine", "person")
    rare = refine(photos((("MONET_erythema", "scar"), None), (("scar",), None)), taxonomy(lesion=rules, drop_below=2))
    assert rare.labels["lesion"].machine == frozenset()
    assert fate(rare, "MONET_erythema")["origin"] == "machine"


def test_a_task_of_which_nothing_is_left_is_absent():
    assert refine(photos((("scar",), None)), taxonomy()).labels.names == ("lesion",)
    assert refine(photos((None, ("hand",))), taxonomy()).labels.names == ("site",)
    refined = refine(photos((("scar",), ("hand",)), (("cyst",), ("hand",))), taxonomy(drop_below=2))
    assert refined.table.columns == ["image_id", "site/hand", "refinement_flag"]
    assert refined.log["task"].to_list() == ["lesion", "lesion", "site"]


def test_nothing_left_at_all_is_an_error():
    with pytest.raises(LabelError, match=r"m\.csv: no lesion and no site of the 1 photographs is left .* \(drop_below = 2\)"):
        refine(photos((("scar",), ("hand",))), taxonomy(drop_below=2), origin="m.csv")
    with pytest.raises(LabelError, match="of the 0 photographs"):
        refine(pl.DataFrame(schema=PHOTO_SCHEMA), taxonomy())


def test_an_unknown_term_names_file_row_term_and_the_nearest():
    rules = LesionRules(terms=("papule", "scar"), aliases={"bump": "papule"})
    table = photos((("scar",), None), ((), None, ("wheal",)), (("papul", "scar"), None), (("cyst", "papul"), None))
    with pytest.raises(LabelError) as caught:
        refine(table, taxonomy(lesion=rules), origin="m.csv")
    assert str(caught.value) == (
        "m.csv, row 2: the taxonomy does not know the lesion 'wheal': allowed: 'papule', 'scar', 'bump' (2 more such terms)"
    )
    with pytest.raises(LabelError, match=r"row 1: the taxonomy does not know the lesion 'papul': did you mean 'papule'\?$"):
        refine(table[2:3], taxonomy(lesion=rules))
    with pytest.raises(LabelError, match=r"row 1: the taxonomy does not know the site 'hnd': did you mean 'hand'"):
        refine(photos((None, ("hnd",))), taxonomy(site=SiteRules(terms=("hand",))))


def test_a_source_that_assesses_an_unknown_term_is_an_error():
    with pytest.raises(LabelError, match="does not know the lesion 'scra', which a source is said to assess: did you mean 'scar'"):
        refine(photos((("scar",), None)), taxonomy(lesion=LesionRules(terms=("scar",))), assessed={"s": ["scra"]})


@pytest.mark.parametrize("term", ["", " None ", "*", "a;b", "a\x00b"])
def test_what_could_be_no_class_is_refused_with_its_row(term):
    table = photos((("scar",), None), (("scar",), None)).with_columns(lesions=pl.Series([["scar"], ["scar", term]]))
    with pytest.raises(LabelError, match=r"m\.csv, row 2: .* cannot be a lesion"):
        refine(table, taxonomy(), origin="m.csv")


def test_a_missing_term_within_a_list_is_refused_with_its_row():
    table = photos((("scar",), None), (("scar",), None)).with_columns(lesions=pl.Series([["scar"], ["scar", None]]))
    with pytest.raises(LabelError, match=r"row 2: a lesion is missing within its list"):
        refine(table, taxonomy())


def test_a_table_without_the_columns_is_misuse():
    with pytest.raises(ValueError, match=r"lacks the columns \['site'\]"):
        refine(photos((("scar",), None)).drop("site"), taxonomy())


def test_the_papers_merge_and_families_replay_from_the_preset():
    table = photos(
        *[(("hyperpigmented papule", "Atrophy"), ("nails",))] * 1001,
        *[(("pearly papule", "ulcer"), ("hands",))] * 10,
        *[(("Papule", "erosion"), ("scalp",))] * 9,
    )
    refined = refine(table, Taxonomy.preset("dermquest"))
    assert refined.labels["lesion"].classes == ("erosion/ulcer/atrophy", "hyperpigmented papule", "other papule")
    assert refined.labels["site"].classes == ("hands",)
    assert refined.table.select(pl.col(refined.labels.columns).sum()).row(0) == (1020, 1001, 19, 1011)
    again = refine(table, Taxonomy.from_toml(Taxonomy.preset("dermquest").to_toml(), "copy"))
    assert again.table.equals(refined.table)
    assert again.log.equals(refined.log)
