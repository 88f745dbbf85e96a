"""The audit in words and as a page: it names what was found, lists no more than a person reads, and shows no photograph."""

from __future__ import annotations

import polars as pl
import pytest

from made_evaluation import made_evaluation
from predilect.atlas.audit import AUDIT_FILE
from predilect.atlas.audit_parts import Owners
from predilect.atlas.examine import examine
from predilect.atlas.tallies import spread
from predilect.errors import RunError
from predilect.report.audit_page import audit_cautions, described, few, share, write_audit_page
from predilect.report.report import build_report, write_report
from predilect.run import Run


def test_a_run_carries_the_audit_into_its_report(clinic, tmp_path, monkeypatch):
    audit = examine(clinic)
    started = Run.start(tmp_path / "run", {"systems": {}, "seeds": [], "folds": [], "plan": {}}, None, resume=False, audit=audit)
    opened = Run.open(started.path)
    assert opened.audit() == audit
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])  # takes long and is not the matter
    out = tmp_path / "report"
    page = write_report(build_report(made_evaluation(4, 3), provenance={}, audit=opened.audit()), out)
    assert 'href="audit.html"' in page.read_text()
    assert '<span class="id">p0</span>, <span class="id">p5</span>' in (out / "audit.html").read_text()
    write_report(build_report(made_evaluation(4, 3), provenance={}), out)
    assert not (out / "audit.html").exists()
    assert "audit.html" not in page.read_text()
    audit.model_copy(update={"n_photographs": 9}).write(started.path / AUDIT_FILE)
    with pytest.raises(RunError, match=r"audit.json is not what was written"):
        opened.audit()


def test_the_page_has_no_photograph_and_no_script_and_escapes_names(clinic, tmp_path):
    audit = examine(clinic)
    hostile = audit.model_copy(update={"atlas": "<script>alert(1)</script>"})
    page = write_audit_page(hostile, tmp_path).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "Content-Security-Policy" in page
    assert "&lt;script&gt;" in page
    for words in (
        "pixels alone",
        "a model",
        'lesion: crust (<span class="id">p0</span>; not <span class="id">p5</span>)',
        "0.5 on a pair counts",
        "no more than the 100 nearest candidates",
    ):
        assert words in page, words


def test_of_what_is_long_the_first_are_shown_and_how_many_more(clinic, tmp_path):
    audit = examine(clinic)
    ids = tuple(f"x{k:04}" for k in range(1200))
    conflict = audit.duplicates.clusters[0].conflicts[0].model_copy(update={"present": ids[:600], "absent": ids[600:]})
    huge = audit.duplicates.clusters[0].model_copy(update={"image_ids": ids, "conflicts": (conflict,)})
    crowded = audit.duplicates.model_copy(update={"clusters": (huge,), "crowded": ids})
    quality = audit.quality.model_copy(update={"dark": ids[:3]})
    page = write_audit_page(audit.model_copy(update={"duplicates": crowded, "quality": quality}), tmp_path).read_text()
    assert '<span class="id">x0019</span> and 1,180 more</th>' in page
    assert 'not <span class="id">x0600</span>' in page
    assert page.count("and 595 more") == 2
    assert "1,200 with more than 100 look-alikes, of which only the nearest were compared" in page
    assert '<span class="id">x0199</span> and 1,000 more</p><p class="faint">audit.json holds them all.</p>' in page
    assert '<span class="id">x0002</span></p></details>' in page
    assert few(ids) == "x0000, x0001, x0002, x0003, x0004 and 1,195 more"
    assert few(ids[:5]) == "x0000, x0001, x0002, x0003, x0004"


def test_a_crowd_is_told_of_first(clinic):
    audit = examine(clinic)
    assert not any("look-alikes" in caution for caution in audit_cautions(audit))
    assert dict(described(audit))["compared"].endswith("in detail, the look-alikes among all pairs")
    for ids, sentence in (
        (
            ("p2",),
            "1 photograph has more than 100 look-alikes, mirrored and turned ones counted, as in a common frame: only the nearest 100 were compared",
        ),
        (("p2", "p4"), "2 photographs have more than 100 look-alikes"),
    ):
        crowded = audit.model_copy(update={"duplicates": audit.duplicates.model_copy(update={"crowded": ids})})
        assert any(caution.startswith(sentence) for caution in audit_cautions(crowded))
        assert dict(described(crowded))["compared"].endswith(f"; not all those of {', '.join(ids)}")


def owners_of(*sizes: int) -> Owners:
    counts = pl.Series(sizes)
    histogram = tuple((size, sizes.count(size)) for size in sorted(set(sizes)))
    return Owners(what="patient", n_without=0, per_owner=spread(counts), histogram=histogram)


def test_one_is_singular_and_a_mean_near_one_is_no_whole_number(clinic, tmp_path):
    audit = examine(clinic)
    for sizes, line, headline, below in (
        ((1,), "1: 1 photograph each", "1 patient", "1 photograph each."),
        ((2, 2), "2: 2 photographs each", "2 patients", "2 photographs each."),
        (
            (1,) * 999 + (2,),
            "1,000: 1 to 2 photographs each, median 1, mean 1.00",
            "1,000 patients",
            "1 to 2 photographs each, median 1, mean 1.00.",
        ),
    ):
        of = audit.model_copy(update={"owners": (owners_of(*sizes),)})
        assert dict(described(of))["patients"] == line
        page = write_audit_page(of, tmp_path).read_text()
        assert f"<h3>{headline}</h3>" in page
        assert f'<p class="faint">{below}</p>' in page
    assert "1 photograph. What" in write_audit_page(audit.model_copy(update={"n_photographs": 1}), tmp_path).read_text()


def test_words_of_the_audit():
    assert [share(*pair) for pair in ((0, 9), (1, 1000), (999, 1000), (9, 9), (1, 3), (0, 0))] == [
        "0 %",
        "<1 %",
        ">99 %",
        "100 %",
        "33 %",
        "—",
    ]


def test_cautions_follow_from_the_audit(clinic):
    audit = examine(clinic)
    found = " ".join(audit_cautions(audit))
    assert "12 % of the photographs name no patient" in found
    assert "A model, not a person, made the labels of scale" in found
    assert "fewer than 10 groups will have no interval: crust, arm, face" in found
    lines = dict(described(audit))
    assert lines["patients"].startswith("4: 1 to 3")
    assert lines["copies"] == "2 clusters with 4 photographs, the largest of 2; 1 pair with equal pixels, 1 nearly equal"
    chain = audit.model_copy(update={"duplicates": audit.duplicates.model_copy(update={"largest": 1000})})
    assert any("1,000 photographs: look at it" in caution for caution in audit_cautions(chain))
