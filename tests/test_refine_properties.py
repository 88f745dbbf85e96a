"""Refinement of random photographs under random taxonomies, held against a second implementation and against itself."""

from __future__ import annotations

import polars as pl
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from made_refinement import cells, taxonomy
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.atlas.refine import refine
from predilect.errors import LabelError
from predilect.labels.rules import LesionRules, SiteRules


# Photograph by photograph; it shares only the taxonomy's fields with the first.
def naive(table, tax, assessed):
    rows = table.to_dicts()
    rules = tax.lesion
    spelt = {name.lower(): name for name in (*rules.terms, *rules.merges)} | {a.lower(): t for a, t in rules.aliases.items()}
    drop = set(rules.drops)

    def read(terms):
        return {spelt[term.strip().lower()] for term in terms or () if term != "*"} - drop

    def bearers(term):
        own = {row["image_id"] for row in rows if term in read(row["lesions"])}
        return own.union(*(bearers(sub) for sub, parent in rules.parents.items() if parent == term and folds(sub)))

    def folds(term):
        return term in rules.parents and len(bearers(term)) <= tax.keep_above

    def chain(term):
        return [term, *chain(rules.parents[term])] if folds(term) else [term]

    def final(term):
        top = chain(term)[-1]
        return next((name for name, members in rules.merges.items() if top in members), top)

    def cell(row, name):
        if row["lesions"] is None:
            return None
        if name in {final(term) for term in read(row["lesions"])}:
            return 1
        if "*" in (row["lesions_unknown"] or ()) or name in {final(term) for term in read(row["lesions_unknown"])}:
            return None
        if row["source"] in assessed:
            listed = read(assessed[row["source"]])
            parts = [term for term in set(rules.terms) - drop if final(term) == name]
            whole = name in listed and name not in rules.terms
            if not whole and not all(listed & set(chain(term)) for term in parts):
                return None
        return 0

    names = {final(term) for row in rows for term in read(row["lesions"])}
    lesions = {name: [cell(row, name) for row in rows] for name in sorted(names)}
    columns = {f"lesion/{name}": values for name, values in lesions.items() if values.count(1) >= tax.drop_below}

    merge = {member: name for name, members in tax.site.merges.items() for member in members}

    def one_site(row):
        kept = [merge.get(term.lower(), term.lower()) for term in row["site"] or () if term.lower() not in tax.site.drops]
        found = list(dict.fromkeys(kept))
        if len(found) > 1 and tax.site.several == "priority":
            found = [name for name in tax.site.priority if name in found]
        return found[0] if len(found) == 1 or (found and tax.site.several != "unknown") else None

    chosen = [one_site(row) for row in rows]
    sites = [name for name in sorted(set(chosen) - {None}) if chosen.count(name) >= tax.drop_below]
    for name in sites:
        columns[f"site/{name}"] = [int(site == name) if site in sites else None for site in chosen]
    return columns


TERMS = ("a", "ab", "abc", "ac", "d", "e", "f", "g", "junk")


RAW = (*TERMS, "A", " ab", "alias", "d/e")


SITES = ("hand", "nails", "face", "foot", "Face", "navel")


@st.composite
def taxonomies(draw):
    several = draw(st.sampled_from(["unknown", "first", "priority"]))
    return taxonomy(
        drop_below=draw(st.integers(1, 3)),
        keep_above=draw(st.integers(0, 4)),
        lesion=LesionRules(
            terms=TERMS,
            aliases={"alias": draw(st.sampled_from(("abc", "f", "d/e", "junk")))},
            parents=draw(st.sampled_from(({}, {"ab": "a"}, {"ab": "a", "abc": "ab", "ac": "a"}, {"ab": "a", "f": "a"}))),
            merges={"d/e": ("d", "e")} | draw(st.sampled_from(({}, {"g": ("abc",)}, {"g": ("g", "f")}, {"x": ("a", "ab")}))),
            drops={"junk": "not a lesion"},
            machine=("g",),
        ),
        site=SiteRules(
            terms=("hand", "nails", "face", "foot", "navel"),
            merges={"hand": ("nails",)},
            drops={"navel": "too special"},
            several=several,
            priority=("foot", "hand") if several == "priority" else (),
        ),
    )


def some(terms, largest):
    return st.lists(st.sampled_from(terms), max_size=largest).map(tuple)


ROWS = st.lists(
    st.tuples(
        st.none() | some(RAW, 3), st.none() | some(SITES, 2), st.none() | some((*RAW, "*"), 2), st.sampled_from(("s", "t", "u"))
    ),
    min_size=1,
    max_size=12,
)


ASSESSED = st.dictionaries(st.sampled_from(("s", "t")), some(RAW, 9))


def table_of(rows):
    # Not by way of Photo, which keeps '*' out of nothing but its own lists and is slow.
    names = ("lesions", "site", "lesions_unknown", "source")
    data = [{"image_id": f"i{k}", "file_name": "x"} | dict(zip(names, row, strict=True)) for k, row in enumerate(rows)]
    return pl.DataFrame(data, schema=PHOTO_SCHEMA)


def refine_or_reject(table, tax, assessed=None):
    """Refinement of those random tables in which anything is left."""
    try:
        return refine(table, tax, assessed=assessed)
    except LabelError as error:
        assume("no lesion and no site" not in str(error))
        raise


@given(ROWS, taxonomies(), ASSESSED)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_labels_agree_with_a_second_implementation(rows, tax, assessed):
    table = table_of(rows)
    refined = refine_or_reject(table, tax, assessed)
    expected = naive(table, tax, assessed)
    assert refined.labels.columns == tuple(expected)
    for column, values in expected.items():
        assert cells(refined, column) == values, column


@given(ROWS, taxonomies(), ASSESSED, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_the_order_of_rows_changes_nothing_but_the_order_of_rows(rows, tax, assessed, random):
    table = table_of(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    refined = refine_or_reject(table, tax, assessed)
    shuffled = refine(table[order], tax, assessed=assessed)
    assert shuffled.labels == refined.labels
    assert shuffled.table.equals(refined.table[order])
    assert shuffled.log.equals(refined.log)


@given(ROWS, taxonomies(), ASSESSED)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_writing_terms_by_another_alias_changes_no_label(rows, tax, assessed):
    renamed = {raw: f"other {raw.strip().lower()}" for raw in RAW}
    aliases = {renamed[term]: term for term in (*TERMS, "d/e")} | {"other alias": tax.lesion.aliases["alias"]}
    other = tax.model_copy(update={"lesion": LesionRules(**tax.lesion.model_dump() | {"aliases": aliases})})

    def rename(terms):
        return None if terms is None else tuple(renamed.get(term, term) for term in terms)

    refined = refine_or_reject(table_of(rows), tax, assessed)
    rewritten = [(rename(lesions), site, rename(unknown), source) for lesions, site, unknown, source in rows]
    again = refine(table_of(rewritten), other, assessed={source: rename(listed) for source, listed in assessed.items()})
    assert again.labels == refined.labels
    assert again.table.equals(refined.table)


@given(ROWS, taxonomies())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_the_logs_counts_are_those_of_the_classes(rows, tax):
    single = [(lesions and lesions[:1], site and site[:1], unknown, source) for lesions, site, unknown, source in rows]
    refined = refine_or_reject(table_of(single), tax)
    logged = refined.log.drop_nulls("became").group_by("task", "became").agg(pl.col("n_images").sum()).rows()
    counted = {column: refined.table[column].sum() for column in refined.labels.columns}
    assert {f"{task}/{name}": n for task, name, n in logged if n} == counted
    listed = sum(len(lesions or ()) + len(site or ()) for lesions, site, _, _ in single)
    assert refined.log["n_images"].sum() == listed
