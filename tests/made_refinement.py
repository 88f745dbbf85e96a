"""Taxonomies and photographs for the tests of refinement, and what it made of them."""

from __future__ import annotations

import polars as pl

from predilect.atlas.photo import Photo, photo_table
from predilect.labels.rules import LesionRules, SiteRules
from predilect.labels.taxonomy import Taxonomy


def taxonomy(*, lesion=None, site=None, drop_below=1, keep_above=1000):
    return Taxonomy(
        schema_version=1,
        name="t",
        drop_below=drop_below,
        keep_above=keep_above,
        lesion=lesion or LesionRules(unknown_terms="keep"),
        site=site or SiteRules(unknown_terms="keep"),
    )


def photos(*rows):
    """Rows of (lesions, site), or of (lesions, site, lesions_unknown, source)."""
    whole = (row + (None, "s")[len(row) - 2 :] for row in rows)
    return photo_table(
        Photo(image_id=f"i{k}", file_name=f"{k}.jpg", lesions=lesions, site=site, lesions_unknown=unknown, source=source)
        for k, (lesions, site, unknown, source) in enumerate(whole)
    )


def cells(refined, column):
    return refined.table[column].to_list()


def fate(refined, raw, task="lesion"):
    return refined.log.row(by_predicate=(pl.col("task") == task) & (pl.col("raw_term") == raw), named=True)
