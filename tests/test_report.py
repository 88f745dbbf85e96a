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

from made_evaluation import LESIONS, MACHINE, made_curves, made_evaluation
from predilect.evaluation.scores import Evaluation
from predilect.report.figures import FIGURE_NAMES
from predilect.report.frames import TABLE_NAMES
from predilect.report.report import ReportDocument, build_report, report_schema, write_report
from predilect.report.style import Rendering
from predilect.report.wording import interval, number, reading_guide, verdicts

PROVENANCE = {
    "command": ["predilect", "crossval", "my atlas", "--folds", "5"],
    "recipe": {"lr": 0.001, "steps": [1, 2]},
    "device": None,
}
NOTE = "Diagnoses stand in for lesion types."


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return made_evaluation(12, 9)


@pytest.fixture(scope="module")
def out(evaluation, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "report"
    report = build_report(evaluation, provenance=PROVENANCE, curves=made_curves(steps=20), notes=[NOTE], title="A & B")
    assert write_report(report, folder) == folder / "report.html"
    return folder


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures take most of the time; tests of the rest do without."""
    monkeypatch.setattr("predilect.report.report.draw_all", lambda evaluation, curves: [])


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


def test_the_stored_schema_is_current_and_the_report_keeps_it(out, evaluation):
    stored = json.loads(files("predilect.report").joinpath("schemas/report.schema.json").read_text(encoding="utf-8"))
    assert stored == report_schema(), "write report_schema() to src/predilect/report/schemas/report.schema.json"
    jsonschema.Draft202012Validator.check_schema(stored)
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, stored, cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"schema_version": 2}, stored)
    assert document["systems"]["mtl"]["lesion"]["per_class"][LESIONS[10]]["ap"] is None


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
