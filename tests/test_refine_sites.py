"""A photograph ends with one site or none."""

from __future__ import annotations

import pytest

from made_refinement import cells, fate, photos, taxonomy
from predilect.atlas.refine import refine
from predilect.labels.rules import SiteRules

SEVERAL = (((), ("foot", "hand")), ((), ("hand", "nails")), ((), ("foot",)), ((), ("hand", "face")), ((), ("navel", "hand")))


@pytest.mark.parametrize(
    ("rule", "priority", "expected", "flags"),
    [
        ("unknown", (), [None, "hand", "foot", None, "hand"], ["several sites", None, None, "several sites", None]),
        ("first", (), ["foot", "hand", "foot", "hand", "hand"], [None] * 5),
        ("priority", ("face", "hand"), ["hand", "hand", "foot", "face", "hand"], [None] * 5),
        ("priority", ("face",), [None, "hand", "foot", "face", "hand"], ["several sites", None, None, None, None]),
    ],
)
def test_a_photograph_ends_with_one_site_or_none(rule, priority, expected, flags):
    rules = SiteRules(
        terms=("foot", "hand", "nails", "face", "navel"),
        merges={"hand": ("nails",)},
        drops={"navel": "too special"},
        several=rule,
        priority=priority,
    )
    refined = refine(photos(*SEVERAL), taxonomy(site=rules))
    sites = refined.labels["site"].classes
    rows = refined.table.select(refined.labels.columns).rows()
    assert [sites[row.index(1)] if 1 in row else None for row in rows] == expected
    assert all(sum(row) == 1 if site else set(row) == {None} for row, site in zip(rows, expected, strict=True))
    assert cells(refined, "refinement_flag") == flags


def test_the_log_tells_where_several_sites_cost_one():
    refined = refine(photos(*SEVERAL), taxonomy())
    assert fate(refined, "foot", "site")["reason"] == "not in the taxonomy, kept; unknown on 1 images that show several sites"
    rules = SiteRules(unknown_terms="keep", several="first")
    refined = refine(photos(*SEVERAL), taxonomy(site=rules))
    assert fate(refined, "hand", "site")["reason"].endswith("another site is taken on 2 images that show several")
    assert fate(refined, "foot", "site")["reason"] == "not in the taxonomy, kept"
    rules = SiteRules(unknown_terms="keep", drops={"navel": "too special"})
    refined = refine(photos(((), ("navel", "hand", "face")), ((), ("hand",))), taxonomy(site=rules))
    assert fate(refined, "navel", "site")["reason"] == "dropped: too special"


def test_a_dropped_site_becomes_unknown():
    rules = SiteRules(terms=("hand", "other"), drops={"other": "no place"})
    refined = refine(photos(((), ("other",)), ((), ("hand",)), ((), None)), taxonomy(site=rules))
    assert cells(refined, "site/hand") == [None, 1, None]
    assert cells(refined, "refinement_flag") == ["site dropped", None, None]


def test_sites_are_counted_after_the_single_site_rule():
    table = photos(((), ("hand",)), ((), ("hand", "face")), ((), ("hand", "face")), ((), ("face",)), ((), ("face",)))
    refined = refine(table, taxonomy(drop_below=2))
    assert refined.labels["site"].classes == ("face",)
    assert "'hand' has 1 images, fewer than 2" in fate(refined, "hand", "site")["reason"]
    assert cells(refined, "refinement_flag") == ["site dropped", "several sites", "several sites", None, None]
