"""The report as files: what is written, that it keeps its contracts, and that the page stands by itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jsonschema
import polars as pl
import pytest

from made_calibration import made_reliability
from made_evaluation import LESIONS, MACHINE, made_curves, made_evaluation
from made_insight import made_insight
from made_known_sites import made_known_site
from predilect.evaluation.scores import Evaluation
from predilect.report.figures import FIGURE_NAMES, Drawing
from predilect.report.frames import TABLE_NAMES
from predilect.report.published import published_table
from predilect.report.report import ReportDocument, build_report, report_schema, write_report
from predilect.report.style import THEME, Rendering
from predilect.report.wording import ensembles, gain_findings, interval, number, reading_guide, signed, verdicts

PROVENANCE = {
    "command": ["predilect", "crossval", "my atlas", "--folds", "5"],
    "recipe": {"lr": 0.001, "steps": [1, 2]},
    "device": None,
}
TABLE = published_table()
NOTE = "Diagnoses stand in for lesion types."


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return made_evaluation(12, 9)


@pytest.fixture(scope="module")
def out(evaluation, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "report"
    report = build_report(
        evaluation,
        provenance=PROVENANCE,
        curves=made_curves(steps=20),
        notes=[NOTE],
        title="A & B",
        published=TABLE,
        insight=made_insight(12),
        calibration=made_reliability(),
        known_site=made_known_site(12, 9),
    )
    assert write_report(report, folder) == folder / "report.html"
    return folder


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures take most of the time; tests of the rest do without."""
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])


class Page(HTMLParser):
    """Reads a page strictly: every element closed in its turn; ids, attributes and texts kept."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "wbr", "path", "use", "rect", "image", "line"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")


@pytest.fixture(scope="module")
def page(out) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_a_report_is_a_page_a_json_file_figures_and_tables(out):
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{ending}" for name in FIGURE_NAMES for ending in ("svg", "png")}
    assert written == {"report.html", "report.json", *figures, *(f"tables/{name}.csv" for name in TABLE_NAMES)}
    assert pl.read_csv(out / "tables" / "lesions.csv").height == 2 * 14
    assert pl.read_csv(out / "tables" / "published.csv").height == 4 * 27
    gains = pl.read_csv(out / "tables" / "gains.csv")
    assert gains["lesion"].to_list() == list(LESIONS[:10])
    assert gains.filter(strong_without_gain=True)["lesion"].to_list()[0] == "alopecia"


def test_the_stored_schema_is_current_and_the_report_keeps_it(out, evaluation):
    stored = json.loads(files("predilect.report").joinpath("schemas/report.schema.json").read_text(encoding="utf-8"))
    assert stored == report_schema(), "write report_schema() to src/predilect/report/schemas/report.schema.json"
    jsonschema.Draft202012Validator.check_schema(stored)
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, stored, cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"schema_version": 2}, stored)
    assert document["systems"]["mtl"]["lesion"]["per_class"][LESIONS[10]]["ap"] is None
    assert document["published"]["systems"]["mtl"]["per_class"]["oozing"] == 0.674
    assert document["gains"][0]["lesions"][0]["lesion"] == "alopecia"


def test_the_json_file_gives_back_the_evaluation_exactly(out, evaluation):
    document = ReportDocument.model_validate_json((out / "report.json").read_text(encoding="utf-8"))
    assert document.schema_version == 1
    assert document.provenance == PROVENANCE
    assert document.notes[0] == NOTE
    again = Evaluation.model_validate({name: getattr(document, name) for name in Evaluation.model_fields})
    assert again.model_dump(mode="json") == evaluation.model_dump(mode="json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("runs")])
def test_a_provenance_that_is_not_json_is_refused(evaluation, value):
    with pytest.raises(ValueError, match="provenance"):
        build_report(evaluation, provenance={"recipe": {"lr": value}})


def test_the_page_needs_nothing_but_itself(page, out):
    assert not page.of("script")
    assert not page.of("link")
    assert not page.of("img")
    policy = next(meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name == "xmlns" or "//" not in (value or ""), (tag, name, value)
            assert not name.startswith("on")
    for link in page.of("a"):
        target = link["href"]
        assert target.startswith("#") or (out / target).is_file(), target
    style = (out / "report.html").read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_can_be_read_without_seeing_it(page):
    assert page.of("html")[0]["lang"] == "en"
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.of("caption")) == len(page.of("table")) >= 6
    assert all(header.get("scope") in {"row", "col", "colgroup"} for header in page.of("th"))
    pictures = page.of("svg")
    assert len(pictures) == len(FIGURE_NAMES)
    assert all(picture["role"] == "img" and len(picture["aria-label"]) > 30 for picture in pictures)
    regions = [attributes for attributes in page.of("div") if attributes.get("class") == "scroll"]
    assert all(region["tabindex"] == "0" and region["role"] == "region" and region["aria-label"] for region in regions)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {link["href"][1:] for link in page.of("a") if link["href"].startswith("#")}
    assert anchors <= set(ids)


def test_the_page_opens_with_what_ran_the_headline_and_the_verdicts(page, evaluation):
    text = page.text()
    places = [
        text.index(part) for part in ("resnet, resnet-site, mtl", "mAP-class, fold mean", "What may be said", "Each training seed")
    ]
    assert places == sorted(places)
    mtl = evaluation.systems["mtl"]
    for value, low, high in (
        (mtl.lesion.map_class, mtl.lesion.map_class_low, mtl.lesion.map_class_high),
        (mtl.site.balanced_accuracy, mtl.site.balanced_accuracy_low, mtl.site.balanced_accuracy_high),
    ):
        assert f"{number(value)} {interval(low, high)}" in text
    for verdict in verdicts(evaluation):
        assert verdict.sentence in text
    for sentence in reading_guide(evaluation):
        assert sentence in text
    assert "not a medical device" in text
    assert NOTE in text
    assert text.index(NOTE) < places[0]


def test_bold_marks_the_highest_of_a_row_and_machine_made_labels_stand_apart(page, evaluation):
    bold = [text for tag, text in page.texts if tag == "strong"]
    scored = [evaluation.systems[name].lesion.per_class for name in ("resnet", "mtl")]
    assert bold[: len(LESIONS[:10])] == [max(number(per_class[name].ap) for per_class in scored) for name in LESIONS[:10]]
    text = page.text()
    machine = text.index("Machine-made labels A model, not a person")
    assert text.rindex("Average precision against labels that a model made") > machine
    lesions = text[text.index("Lesions Average precision (AP)") : text.index("Body sites Share")]
    assert not [name for name in MACHINE if name in lesions]


def test_the_page_shows_the_exact_command_and_the_provenance(page):
    assert ("code", "predilect crossval 'my atlas' --folds 5") in page.texts
    assert "recipe lr 0.001 steps 1, 2 device —" in page.text()


def test_names_cannot_break_out_of_the_page(evaluation, tmp_path, undrawn):
    evil = "<script>alert(1)</script>"
    lesion = evaluation.systems["mtl"].lesion
    renamed = lesion.model_copy(update={"per_class": {evil + name: item for name, item in lesion.per_class.items()}})
    system = evaluation.systems["mtl"].model_copy(update={"lesion": renamed})
    hostile = evaluation.model_copy(update={"systems": {evil: system}, "comparisons": []})
    report = build_report(hostile, provenance={"command": evil, evil: [evil]}, notes=[evil], title=evil)
    text = write_report(report, tmp_path).read_text(encoding="utf-8")
    parsed = Page(text)
    assert not parsed.of("script")
    assert evil in parsed.text()


def written(evaluation, folder, published=None) -> str:
    return write_report(build_report(evaluation, provenance={}, published=published), folder).read_text(encoding="utf-8")


def test_the_papers_numbers_stand_in_columns_of_their_own(out):
    text = (out / "report.html").read_text(encoding="utf-8")
    assert re.findall('<th scope="col" class="paper">([^<]*)</th>', text) == ["paper"] * 2
    names, shown = [*LESIONS[:12], "map_class", "map_class_fold_mean", "map_image"], ("resnet", "mtl")
    expected = [
        number(getattr(TABLE.systems[system], name, None) if name.startswith("map_") else TABLE.systems[system].per_class.get(name))
        for name in names
        for system in shown
    ]
    assert re.findall('<td class="paper">([^<]*)</td>', text) == expected
    assert expected.count("—") == 4  # erythema/erythroderm is not what the preset calls it; the paper has no mean over folds
    read = Page(text).text()
    assert "another data set (DermQuest, 21,657 photographs, 25 lesions)" in read
    assert TABLE.reference in read
    assert "The paper’s numbers" not in read


def test_spelling_of_a_lesion_in_another_case_still_finds_the_papers_number():
    assert TABLE.lesion("mtl", " Oozing ") == 0.674
    assert TABLE.lesion("mtl", "melanoma") is None
    assert TABLE.lesion("modern-mtl", "oozing") is None
    assert TABLE.mean("modern-mtl", "map_class") is None


def test_without_a_lesion_of_the_paper_its_means_have_a_table_of_their_own(evaluation, tmp_path, undrawn):
    renamed = {}
    for name, system in evaluation.systems.items():
        lesion = system.lesion
        if lesion is not None:
            per_class = {f"diagnosis of {lesion}": item for lesion, item in lesion.per_class.items()}
            lesion = lesion.model_copy(update={"per_class": per_class})
        renamed[name] = system.model_copy(update={"lesion": lesion})
    other = evaluation.model_copy(update={"systems": renamed})
    text = written(other, tmp_path, TABLE)
    table = re.search(r'aria-label="Table: the paper’s numbers".*?</table>', text, re.DOTALL)[0]
    cells = re.findall(r'<(?:th scope="row"|td|td class="paper")>([^<]*)<', table)
    ours, theirs = (
        ([evaluation.systems[name].lesion for name in ("mtl", "resnet")]),
        ([TABLE.systems[n] for n in ("mtl", "resnet")]),
    )
    row = cells[cells.index("mtl") :][:5]
    assert row == ["mtl", number(ours[0].map_class), "0.757", number(ours[0].map_image), "0.792"]
    assert cells[:5] == ["alexnet", "—", "0.598", "—", "0.704"]
    difference = cells[cells.index("mtl − resnet") :]
    assert difference[1:3] == [signed(ours[0].map_class - ours[1].map_class), signed(theirs[0].map_class - theirs[1].map_class)]
    assert len(cells) == 5 * 5
    lesions = re.search(r'aria-label="Table: lesions".*?</table>', text, re.DOTALL)[0]
    assert "paper" not in lesions
    assert Page(text).text().count("another data set") == 1


def test_without_the_papers_numbers_the_report_has_none(evaluation, tmp_path, undrawn):
    text = written(evaluation, tmp_path)
    assert 'class="paper"' not in text
    assert "DermQuest" not in text
    assert not (tmp_path / "tables" / "published.csv").exists()
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["published"] is None


def test_the_ensembles_of_a_run_are_told():
    assert ensembles([]) == []
    (both,) = ensembles(["ensemble", "ensemble-mean"])
    assert "ensemble takes the higher and ensemble-mean takes the mean" in both
    assert "7 of 25" in both
    (one,) = ensembles(["ensemble"])
    assert "ensemble-mean" not in one


def test_the_section_of_predilection_says_what_came_of_the_papers_observation(page, evaluation):
    (pair,) = evaluation.gains
    first, second = gain_findings(pair)
    assert "not shown" in first
    assert "(rank correlation 0.310, 95 % interval −0.120 to 0.640)" in first
    odd = [item.lesion for item in pair.lesions if item.strong_without_gain]
    assert "alopecia" in odd
    assert all(name in second for name in odd)
    text = page.text()
    assert first in text
    assert second in text
    for item in pair.lesions:
        assert f"{signed(item.gain)} {interval(item.gain_low, item.gain_high)} {number(item.strength)}" in text


@pytest.mark.parametrize(
    ("correlation", "low", "high", "told"),
    [
        (0.55, -0.1, 0.5, True),  # outside its interval
        (0.40, -0.1, 0.5, True),
        (0.34, -0.1, 0.5, False),  # within the middle half
        (0.01, -0.1, 0.5, False),  # nearer to 0 than the interval, which noise does not explain
        (-0.40, -0.5, 0.1, True),
        (-0.01, -0.5, 0.1, False),
        (-0.40, 0.1, 0.5, False),
        (0.9, None, None, False),
    ],
)
def test_why_an_interval_does_not_lie_around_its_correlation_is_told(evaluation, correlation, low, high, told):
    (pair,) = evaluation.gains
    numbers = {"rank_correlation": correlation, "rank_correlation_low": low, "rank_correlation_high": high}
    sentences = gain_findings(pair.model_copy(update=numbers))
    assert len(sentences) == 2 + told
    assert ("lies more towards 0" in sentences[1]) == told


def test_a_correlation_is_judged_by_its_interval(evaluation):
    (pair,) = evaluation.gains
    for low, high, word in ((0.1, 0.9, "gain more"), (-0.9, -0.1, "gain less"), (None, None, "nothing follows")):
        judged = pair.model_copy(update={"rank_correlation_low": low, "rank_correlation_high": high})
        assert word in gain_findings(judged)[0]
    none = pair.model_copy(update={"rank_correlation": None, "lesions": pair.lesions[1:3]})
    first, second = gain_findings(none)
    assert "not defined" in first
    assert second.startswith("No lesion")


def test_the_time_of_the_trainings_is_told_where_it_is_known(evaluation, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [blank_curves()])
    spent = {"trainings": 6, "device_hours": 3.14159, "images_per_second": 27.18}
    timed = {**spent, "by_system": {"mtl": {**spent, "images_per_second": 19.04}}}
    for provenance, told in ((timed, True), ({"device_hours": None}, False), ({}, False)):
        report = build_report(evaluation, provenance={"command": "predilect", **provenance})
        text = Page(write_report(report, tmp_path).read_text(encoding="utf-8")).text()
        for row in ("mtl 6 3.14 19.0", "all 6 3.14 27.2"):
            assert (row in " ".join(text.split())) == told


def blank_curves() -> Drawing:
    return Drawing("curves", "Losses.", "Curves of nothing at all, for a test.", Rendering('<svg viewBox="0 0 1 1">\n</svg>', b""))


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_grey_text_can_be_read_in_light_dark_and_print_and_every_colour_of_a_figure_is_known_there():
    style = files("predilect.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    assert "td.paper, thead th.paper { color: var(--faint);" in style
    modes = [dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(modes) == 3
    for colors in modes:
        assert set(THEME.values()) <= colors.keys()
        for ground in ("--paper", "--band"):
            light, dark = sorted((luminance(colors["--faint"]), luminance(colors[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_an_earlier_report_gives_way_and_foreign_files_stay(evaluation, tmp_path, monkeypatch):
    blank = Rendering('<svg viewBox="0 0 1 1">\n</svg>', b"")
    monkeypatch.setattr("predilect.report.figures.render", lambda figure: blank)
    write = {"provenance": {}}
    first = made_evaluation(3, 2, folds=2)
    write_report(build_report(first, curves=made_curves(steps=10), **write), tmp_path)
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    second = made_evaluation(3, 2, systems=("resnet-site",)).model_copy(update={"folds": None, "predilection": None})
    write_report(build_report(second, **write), tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "mine.svg",
        *(f"{name}.{ending}" for name in ("sites", "counts") for ending in ("svg", "png")),
    }
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"mine.csv", "headline.csv", "sites.csv"}
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text()
    assert "Lesions" not in text
    assert "none given" in text


def test_cautions_reach_the_page_and_the_json_file(evaluation, tmp_path, undrawn):
    truth = evaluation.truth.model_copy(update={"grouped": False})
    ungrouped = evaluation.model_copy(update={"truth": truth})
    odd = {name + "\U000f1234": system for name, system in evaluation.systems.items()}
    report = build_report(ungrouped.model_copy(update={"systems": odd, "comparisons": []}), provenance={})
    notes = report.document.notes
    assert any("names no groups" in note for note in notes)
    assert any("\U000f1234" in note for note in notes)
    text = Page(write_report(report, tmp_path).read_text(encoding="utf-8")).text()
    assert all(note in text for note in notes)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["notes"] == list(notes)


def test_a_report_needs_a_system_and_whole_curves(evaluation):
    with pytest.raises(ValueError, match="at least one system"):
        build_report(evaluation.model_copy(update={"systems": {}}), provenance={})
    with pytest.raises(ValueError, match="no column 'system'"):
        build_report(evaluation, provenance={}, curves=pl.DataFrame({"iteration": [1]}))
