import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.errors import LabelError
from predilect.labels.rules import LesionRules, SiteRules, term_key
from predilect.labels.taxonomy import Taxonomy

SHARED = Path(__file__).parents[1].parent / "shared"

EXAMPLE = """
schema_version = 1
name = "example"
description = "for tests"
drop_below = 3
keep_above = 5

[lesion]
terms = ["papule", "flat papule", "erosion", "ulcer", "blister", "artefact", "erythema"]
unknown_terms = "drop"
machine = ["erythema"]
aliases = { "papules" = "papule" }
parents = { "flat papule" = "papule" }
merges = { "erosion/ulcer" = ["erosion", "ulcer"] }
drops = { "artefact" = "not a lesion" }

[site]
terms = ["hand", "nails", "face"]
merges = { "hand" = ["nails"] }
several = "priority"
priority = ["face", "hand"]
"""


def read(body: str) -> Taxonomy:
    return Taxonomy.from_toml(f'schema_version = 1\nname = "t"\n{body}', "t.toml")


def test_every_key_of_the_form_is_read():
    taxonomy = Taxonomy.from_toml(EXAMPLE, "example.toml")
    assert (taxonomy.name, taxonomy.drop_below, taxonomy.keep_above) == ("example", 3, 5)
    assert taxonomy.lesion == LesionRules(
        terms=("papule", "flat papule", "erosion", "ulcer", "blister", "artefact", "erythema"),
        unknown_terms="drop",
        machine=("erythema",),
        aliases={"papules": "papule"},
        parents={"flat papule": "papule"},
        merges={"erosion/ulcer": ("erosion", "ulcer")},
        drops={"artefact": "not a lesion"},
    )
    assert taxonomy.site == SiteRules(
        terms=("hand", "nails", "face"), merges={"hand": ("nails",)}, several="priority", priority=("face", "hand")
    )


def test_what_is_left_out_is_as_the_paper_has_it_and_strict():
    taxonomy = read("")
    assert (taxonomy.drop_below, taxonomy.keep_above) == (10, 1000)
    assert taxonomy.lesion.unknown_terms == taxonomy.site.unknown_terms == "error"
    assert taxonomy.site.several == "unknown"


def test_writing_and_reading_gives_an_equal_taxonomy():
    taxonomy = Taxonomy.from_toml(EXAMPLE, "example.toml")
    assert Taxonomy.from_toml(taxonomy.to_toml(), "again") == taxonomy


def test_spellings_that_differ_in_case_blanks_or_composition_have_one_key():
    assert term_key("  Œdème ") == term_key("œde\u0300me") == "œdème"
    assert term_key("papule") != term_key("papules")


def test_the_lookup_reads_terms_aliases_and_merges():
    lookup = Taxonomy.from_toml(EXAMPLE, "example.toml").lesion.lookup()
    assert lookup["papules"] == lookup["papule"] == "papule"
    assert lookup["erosion/ulcer"] == "erosion/ulcer"
    assert "bulla" not in lookup


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("drop_bellow = 3", "unknown key 'drop_bellow': did you mean 'drop_below'"),
        ("[lesion]\nterm = []", "unknown key 'lesion.term': did you mean 'terms'"),
        ("[site]\nparents = {}", "unknown key 'site.parents'"),
        ("[sites]\nterms = []", "unknown key 'sites': did you mean 'site'"),
        ("drop_below = 2.0", "drop_below must be a valid integer, found 2.0"),
        ("drop_below = 0", "drop_below must be greater than or equal to 1, found 0"),
        ("keep_above = true", "keep_above must be a valid integer, found True"),
        ("[lesion]\nterms = 'papule'", "lesion.terms must be a list, found 'papule'"),
        ("[lesion.merges]\na = 'b'", "lesion.merges.a must be a list, found 'b'"),
        ("[lesion.aliases]\na = 1", "lesion.aliases.a must be a valid string, found 1"),
        ("site = 3", "site must be a table, found 3"),
        ("[site]\nseveral = 'last'", "site.several must be 'unknown', 'first' or 'priority', found 'last'"),
        ("[lesion]\nunknown_terms = 'skip'", "lesion.unknown_terms must be 'error', 'keep' or 'drop', found 'skip'"),
        ("drop_below = ", "t.toml is not a TOML file"),
    ],
)
def test_a_wrong_form_is_refused_with_file_and_key(body, message):
    with pytest.raises(LabelError, match=r"^t\.toml") as caught:
        read(body)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "t"', "key 'schema_version' is missing"),
        ('schema_version = 2\nname = "t"', "schema_version must be 1, found 2"),
        ("schema_version = 1", "key 'name' is missing"),
        ('schema_version = 1\nnam = "t"', "unknown key 'nam': did you mean 'name'"),
    ],
)
def test_version_and_name_are_required(text, message):
    with pytest.raises(LabelError) as caught:
        Taxonomy.from_toml(text, "t.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("terms = ['papule', 'Papule ']", "'papule' and 'Papule ' are the same term"),
        ("terms = ['none']", "'none' cannot be a lesion class"),
        ("terms = ['a;b']", "'a;b' cannot be a lesion class"),
        ("terms = ['*']", "'*' cannot be a term"),
        ("terms = ['papule']\naliases = {x = 'papul'}", "lesion.aliases.x: 'papul' is not in lesion.terms: did you mean 'papule'"),
        ("terms = ['papule']\nparents = {papul = 'papule'}", "lesion.parents.papul: 'papul' is not in lesion.terms"),
        ("terms = ['papule']\nmerges = {x = ['papul']}", "lesion.merges.x: 'papul' is not in lesion.terms"),
        ("terms = ['papule']\ndrops = {papul = 'why'}", "lesion.drops: 'papul' is not in lesion.terms"),
        ("terms = ['papule']\nmachine = ['papul']", "lesion.machine: 'papul' is not in lesion.terms"),
        ("parents = {a = 'Papule', b = 'papule'}", "'papule' and 'Papule' are the same term, spell it in one way"),
        ("aliases = {a = 'b', b = 'c'}", "lesion.aliases.a: 'b' is an alias too"),
        ("terms = ['a', 'b']\naliases = {A = 'b'}", "lesion.aliases.A: 'a' is itself a term"),
        ("aliases = {a = 'b', A = 'c'}", "'a' and 'A' are the same alias"),
        ("aliases = {' ' = 'b'}", "an alias is empty"),
        ("parents = {a = 'b', b = 'c', c = 'a'}", "lesion.parents.a: a -> b -> c -> a is a circle"),
        ("parents = {a = 'a'}", "a -> a is a circle"),
        ("merges = {x = []}", "lesion.merges.x: no term is named"),
        ("merges = {x = ['a'], y = ['a']}", "lesion.merges: 'a' stands in both 'x' and 'y'"),
        ("merges = {x = ['a', 'a']}", "'a' stands twice in 'x'"),
        ("merges = {x = ['a'], y = ['x']}", "lesion.merges.y: 'x' is a merge too"),
        ("merges = {x = ['a']}\nparents = {x = 'b'}", "lesion.parents.x: 'x' is a merge"),
        ("merges = {x = ['a']}\nparents = {b = 'x'}", "lesion.parents.b: 'x' is a merge"),
        ("drops = {a = ' '}", "lesion.drops.a: the reason is empty"),
        ("drops = {a = 'why'}\nmerges = {x = ['a']}", "'a' cannot be dropped, since lesion.merges.x needs it"),
        ("drops = {x = 'why'}\nmerges = {x = ['a']}", "'x' cannot be dropped, since lesion.merges.x needs it"),
        ("drops = {a = 'why'}\nparents = {b = 'a'}", "'a' cannot be dropped, since lesion.parents.b needs it"),
        ("machine = ['a', 'a']", "lesion.machine: 'a' is named twice"),
        ("machine = ['a']\nmerges = {x = ['a']}", "lesion.machine: 'a' becomes 'x'"),
        ("machine = ['a']\nparents = {a = 'b'}", "lesion.parents.a: a machine-made term cannot fold into 'b'"),
    ],
)
def test_contradictions_are_refused_with_file_and_key(rules, message):
    with pytest.raises(LabelError, match=r"^t\.toml: lesion\.") as caught:
        read(f"[lesion]\n{rules}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            "terms = ['hand']\nseveral = 'priority'\npriority = ['hnd']",
            "site.priority: 'hnd' is not in site.terms: did you mean 'hand'",
        ),
        ("several = 'priority'", "site.priority: it is given exactly when site.several is 'priority'"),
        ("several = 'first'\npriority = ['hand']", "site.priority: it is given exactly when"),
        ("several = 'priority'\npriority = ['nails']\nmerges = {hand = ['nails']}", "site.priority: 'nails' becomes 'hand'"),
        ("several = 'priority'\npriority = ['hand', 'hand']", "site.priority: 'hand' is named twice"),
        ("several = 'priority'\npriority = ['x']\ndrops = {x = 'why'}", "'x' cannot be dropped, since site.priority needs it"),
    ],
)
def test_a_priority_must_name_final_sites(rules, message):
    with pytest.raises(LabelError) as caught:
        read(f"[site]\n{rules}")
    assert message in str(caught.value)


def test_contradictions_are_found_in_python_too():
    with pytest.raises(LabelError, match="is a circle"):
        LesionRules(parents={"a": "b", "b": "a"})


@pytest.mark.parametrize("name", ["as-is", "dermquest", "ham10000", "milk10k", "pad-ufes-20"])
def test_presets_load_and_are_named_after_their_file(name):
    taxonomy = Taxonomy.preset(name)
    assert taxonomy.name == name
    assert taxonomy.description
    assert Taxonomy.open(name) == taxonomy
    assert Taxonomy.from_toml(taxonomy.to_toml(), name) == taxonomy
    assert name in Taxonomy.presets()


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(LabelError, match="no taxonomy preset 'milk10': did you mean 'milk10k'"):
        Taxonomy.open("milk10")


def test_a_path_is_read_and_named_in_errors(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert Taxonomy.open(str(path)) == Taxonomy.read(path) == Taxonomy.from_toml(EXAMPLE, "x")
    path.write_text("nme = 1", encoding="utf-8")
    with pytest.raises(LabelError, match=r"mine\.toml: unknown key 'nme'"):
        Taxonomy.open(str(path))
    with pytest.raises(LabelError, match=r"absent\.toml: there is no such taxonomy file"):
        Taxonomy.open(str(tmp_path / "absent.toml"))
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(LabelError, match=r"mine\.toml cannot be read"):
        Taxonomy.read(path)


def test_the_papers_25_lesion_types_come_out_of_its_preset():
    rules = Taxonomy.preset("dermquest").lesion
    merged = {term for members in rules.merges.values() for term in members}
    finals = (set(rules.terms) - merged) | set(rules.merges)
    assert len(finals) == 25
    assert "erosion/ulcer/atrophy" in finals
    assert rules.parents["hyperpigmented papule"] == "other papule"
    assert Taxonomy.preset("dermquest").site.lookup()["nails"] == "nails"
    assert "nails" in Taxonomy.preset("dermquest").site.merges["hands"]


def test_only_milk10ks_monet_attributes_are_machine_made():
    lookup = Taxonomy.preset("milk10k").lesion.lookup()
    monet = ("MONET_ulceration_crust", "MONET_erythema", "MONET_pigmented")
    assert {lookup[term_key(term)] for term in monet} == set(Taxonomy.preset("milk10k").lesion.machine)


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
def test_presets_know_every_term_of_the_real_tables():
    def column(path: str, name: str) -> set[str]:
        with (SHARED / "data" / path).open(newline="") as file:
            return {row[name] for row in csv.DictReader(file)} - {""}

    with (SHARED / "data/milk10k/MILK10k_Training_GroundTruth.csv").open() as file:
        codes = next(csv.reader(file))[1:]
    milk, pad = Taxonomy.preset("milk10k"), Taxonomy.preset("pad-ufes-20")
    assert {term_key(code) for code in codes} <= milk.lesion.lookup().keys()
    assert {term_key(site) for site in column("milk10k/MILK10k_Training_Metadata.csv", "site")} <= milk.site.lookup().keys()
    assert {term_key(code) for code in column("pad-ufes-20/metadata.csv", "diagnostic")} <= pad.lesion.lookup().keys()
    assert {term_key(site) for site in column("pad-ufes-20/metadata.csv", "region")} <= pad.site.lookup().keys()


TERMS = st.text(st.characters(categories=["Ll", "Lu", "Nd"], include_characters=" /-"), min_size=1, max_size=8).map(str.strip)


@given(st.lists(TERMS.filter(lambda term: term_key(term) not in {"", "none"}), unique_by=term_key, min_size=4), st.data())
@settings(max_examples=50, deadline=None)
def test_any_consistent_taxonomy_survives_its_toml(terms, data):
    sub, parent, *rest = terms
    merges = {f"merge {rest[0]}": tuple(rest)} if data.draw(st.booleans()) else {}
    taxonomy = Taxonomy(
        schema_version=1,
        name=data.draw(st.text(min_size=1, max_size=10)),
        description=data.draw(st.text(max_size=10)),
        lesion=LesionRules(terms=tuple(terms), parents={sub: parent}),
        site=SiteRules(merges={key: value for key, value in merges.items() if key not in terms}),
    )
    assert Taxonomy.from_toml(taxonomy.to_toml(), "again") == taxonomy
