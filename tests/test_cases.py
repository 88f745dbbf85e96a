"""The cases of a cross-validation: which are shown, by which network, beside which neighbours, and the page."""

import base64
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from made_run import pixels
from predilect.atlas.importers import Source
from predilect.atlas.splits import Splits
from predilect.errors import InsightError, RunError, SplitError, UnexplainableError
from predilect.insight import cases
from predilect.insight.attention import Explainer
from predilect.insight.cases import CaseChoice, make_cases
from predilect.labels.tasks import LabelSpace, Task
from predilect.report.cases_page import Case, CaseMap, CaseNeighbour, CasesPage, Section, write_cases_page
from predilect.training.devices import make_fabric
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


@pytest.fixture(scope="module")
def folds(made_run):
    return TrainedFolds.of(made_run.run, made_run.atlas, made_run.splits)


@pytest.fixture(scope="module")
def page(folds, fabric):
    choice = CaseChoice(("p004", "p005", "p007", "p004"), n_random=4, n_worst=3)
    return make_cases(folds, "mtl", 1, choice, fabric=fabric, command="predilect cases run small")


def row_of(folds, image_id):
    return folds.truth.image_ids.tolist().index(image_id)


# --- which are shown


def test_sections_hold_what_was_asked_for(page):
    assert [section.title for section in page.sections] == ["Chosen", "Random", "Worst"]
    chosen, random, worst = ([case.image_id for case in section.cases] for section in page.sections)
    assert chosen == ["p004", "p005", "p007"]
    assert len(set(random)) == 4
    assert len(set(worst)) == 3
    assert page.sections[1].sentence.endswith("that were tested, chosen at random (seed 1).")


def test_the_random_ones_are_the_same_for_every_system(folds, fabric, page):
    again = make_cases(folds, "resnet-site", 1, CaseChoice(n_random=4), fabric=fabric)
    assert [case.image_id for case in again.sections[0].cases] == [case.image_id for case in page.sections[1].cases]


def test_the_worst_are_those_that_scikit_learn_scores_lowest(folds, page):
    predictions = folds.run.predictions()["mtl"]
    labels = {name: folds.truth.values["lesion"][row] for row, name in enumerate(folds.truth.image_ids.tolist())}
    scores = {}
    for name, values in zip(predictions.image_ids.tolist(), predictions.scores["lesion"], strict=True):
        known = labels[name] >= 0
        if (labels[name] == 1).any():
            scores[name] = average_precision_score(labels[name][known], values[known])
    worst = page.sections[2].cases
    assert [case.image_id for case in worst] == sorted(scores, key=lambda name: (round(scores[name], 9), name))[:3]
    assert worst[0].score == f"average precision of the lesions {scores[worst[0].image_id]:.2f}"
    assert f"of {len(scores)} that have one" in page.sections[2].sentence


def test_without_lesions_the_worst_are_by_the_probability_of_the_site(folds, fabric):
    page = make_cases(folds, "resnet-site", 1, CaseChoice(n_worst=2), fabric=fabric)
    predictions = folds.run.predictions()["resnet-site"]
    chances = {}
    for name, values in zip(predictions.image_ids.tolist(), predictions.scores["site"], strict=True):
        site = folds.truth.present("site", row_of(folds, name))
        if site:
            chances[name] = values[folds.truth.labels["site"].index(site[0])]
    assert [case.image_id for case in page.sections[0].cases] == sorted(chances, key=chances.__getitem__)[:2]
    assert [item.task for item in page.sections[0].cases[0].maps] == ["site"]


# --- seen by their own fold's network


def test_each_case_is_seen_by_the_network_of_its_fold_and_answered_by_the_others(folds, fabric, page):
    images = folds.atlas.images()
    for case in page.sections[1].cases:
        row = row_of(folds, case.image_id)
        assert folds.folds[row] == case.fold
        network = folds.network("mtl", 1, case.fold)
        others = np.flatnonzero((folds.folds != case.fold) & (folds.truth.groups != folds.truth.groups[row]))
        query, answering = (embed(fabric, network, images, np.array(rows)).astype(float) for rows in ([row], others))
        apart = cdist(query, answering)[0]
        order = np.lexsort((folds.truth.image_ids[others], apart))[:5]
        assert [item.image_id for item in case.neighbours] == folds.truth.image_ids[others][order].tolist()
        assert [item.distance for item in case.neighbours] == pytest.approx(apart[order], rel=1e-4)
        known = folds.truth.present("lesion", row) or ()
        wanted = {"lesion": known[:1] or None, "site": folds.truth.present("site", row) or None}
        maps = Explainer.of(fabric, network).photograph(images[row], wanted)
        for item, (expected,) in zip(case.maps, maps.values(), strict=True):
            assert item.name == expected.name
            assert item.known == (wanted[item.task] is not None)
            assert item.probability == pytest.approx(expected.probability, abs=1e-6)
            assert item.high == pytest.approx(expected.over(360, 300).max(), rel=0.02, abs=0.02)


def test_labels_that_are_not_known_are_not_made_up(folds, page):
    unassessed, nowhere = page.sections[0].cases[1:]
    assert unassessed.lesions is None
    assert unassessed.score == ""
    assert {item.match for item in unassessed.neighbours} == {"unknown"}
    assert not unassessed.maps[0].known
    assert unassessed.maps[0].name == unassessed.predicted["lesion"][0][0]
    assert nowhere.site is None
    assert not nowhere.maps[1].known
    assert not any(item.same_site for item in nowhere.neighbours)


def test_frames_follow_the_labels(folds, page):
    seen = set()
    for section in page.sections:
        for case in section.cases:
            own = folds.truth.values["lesion"][row_of(folds, case.image_id)]
            for item in case.neighbours:
                theirs = folds.truth.values["lesion"][row_of(folds, item.image_id)]
                both = ((own == 1) & (theirs == 1)).any()
                neither = (own == 1).any() and ((theirs == 0) | (own != 1)).all()
                assert item.match == ("shared" if both else "none" if neither else "unknown")
                assert bool(item.shared) == both
                assert item.lesions == folds.truth.present("lesion", row_of(folds, item.image_id))
                seen.add(item.match)
    assert seen == {"shared", "none", "unknown"}


def test_lesions_that_a_model_labelled_decide_no_frame(folds, fabric):
    task = folds.truth.labels["lesion"]
    labels = LabelSpace((Task("lesion", task.classes, frozenset(task.classes)), folds.truth.labels["site"]))
    made = replace(folds, truth=replace(folds.truth, labels=labels))
    page = make_cases(made, "mtl", 1, CaseChoice(("p004",), n_worst=2), fabric=fabric)
    case = page.sections[0].cases[0]
    assert {item.match for item in case.neighbours} == {"unknown"}
    assert not case.maps[0].known
    assert page.machine == set(task.classes)
    assert [section.title for section in page.sections] == ["Chosen"]  # nothing is left to be the worst in


def test_pictures_are_those_of_the_photographs(folds, page):
    images = folds.atlas.images()
    case = page.sections[0].cases[0]
    pictures = [(case.image_id, case.picture), *((item.image_id, item.picture) for item in case.neighbours)]
    for image_id, picture in pictures:
        expected = pixels(images[row_of(folds, image_id)])
        assert pixels(picture).shape == expected.shape  # 48 x 40 pixels are not made larger
        assert np.abs(pixels(picture).astype(int) - expected).mean(axis=(0, 1)).max() < 15
    assert {pixels(item.picture).shape for item in case.maps} == {(300, 360, 3)}


def test_progress_ends_where_it_should(folds, fabric):
    told = []
    make_cases(folds, "mtl", 1, CaseChoice(("p004", "p020")), fabric=fabric, on_progress=lambda *at: told.append(at))
    assert told == sorted(told)
    assert (
        told[-1][0]
        == told[-1][1]
        == sum(len(folds.learnt(fold)) for fold in {folds.folds[row_of(folds, n)] for n in ("p004", "p020")})
    )


# --- what cannot be shown


@pytest.mark.parametrize(
    ("system", "seed", "choice", "error", "message"),
    [
        ("mlt", 1, CaseChoice(n_random=1), RunError, "trained no system 'mlt': did you mean 'mtl'"),
        ("mtl", 7, CaseChoice(n_random=1), RunError, "has no seed 7: allowed are 1"),
        ("mtl", 1, CaseChoice(("p04",)), InsightError, "tested no photograph 'p04': did you mean"),
        ("mtl", 1, CaseChoice(), InsightError, "no case of .* is chosen"),
    ],
)
def test_what_was_not_run_cannot_be_shown(folds, fabric, system, seed, choice, error, message):
    with pytest.raises(error, match=message):
        make_cases(folds, system, seed, choice, fabric=fabric)


def test_negative_numbers_are_misuse():
    with pytest.raises(ValueError, match="-1 random and 0 worst cases"):
        CaseChoice(n_random=-1)


@pytest.fixture
def loose(tmp_path, made_run):
    """The run in a copy, to be spoilt."""
    shutil.copytree(made_run.run.path, tmp_path / "run")
    return type(made_run.run).open(tmp_path / "run")


def test_removed_and_changed_weights_are_named(loose, made_run, fabric):
    folds = TrainedFolds.of(loose, made_run.atlas, made_run.splits)
    weights = loose.fold_weights("mtl", 1, 0)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RunError, match=r"weights\.safetensors is not what was written"):
        folds.network("mtl", 1, 0)
    weights.unlink()
    with pytest.raises(RunError, match=r"weights\.safetensors: there is no such file; remove .* to train it again"):
        folds.network("mtl", 1, 0)
    with pytest.raises(RunError, match="tested no fold 9: allowed are 0, 1, 2"):
        folds.network("mtl", 1, 9)


def test_missing_weights_of_a_later_fold_are_told_before_any_work(loose, made_run, fabric, monkeypatch):
    folds = TrainedFolds.of(loose, made_run.atlas, made_run.splits)
    last = max(loose.info["folds"])
    one, other = (str(folds.truth.image_ids[folds.tested(fold)[0]]) for fold in (0, last))
    loose.fold_weights("mtl", 1, last).unlink()
    monkeypatch.setattr(cases, "embed", lambda *_args, **_options: pytest.fail("a network looked"))
    with pytest.raises(RunError, match=rf"fold-{last}/checkpoint/weights\.safetensors: there is no such file"):
        make_cases(folds, "mtl", 1, CaseChoice((one, other)), fabric=fabric)


def test_another_atlas_and_other_folds_are_refused(made_run, loose):
    other = replace(made_run.atlas, content_hash="0" * 64)
    with pytest.raises(RunError, match="was made with the atlas 'small' in another state"):
        TrainedFolds.of(loose, other, made_run.splits)
    with pytest.raises(SplitError, match="was made for another atlas"):
        TrainedFolds.of(loose, made_run.atlas, replace(made_run.splits, content_hash="0" * 64))
    splits = made_run.splits
    moved = Splits(splits.image_ids, splits.groups, (splits.folds + 1) % 3, splits.content_hash, splits.seed)
    with pytest.raises(RunError, match="was made with other folds than splits: the atlas was split again since"):
        TrainedFolds.of(loose, made_run.atlas, moved)
    with pytest.raises(RunError, match="held out no fold"):
        TrainedFolds.of(replace(loose, info={**loose.info, "folds": []}), made_run.atlas, splits)


def test_a_network_without_maps_still_has_neighbours(tmp_path, folds, fabric, monkeypatch):
    def refuse(*_):
        raise UnexplainableError("the backbone Seer cannot be explained")

    monkeypatch.setattr(Explainer, "of", refuse)
    page = make_cases(folds, "mtl", 1, CaseChoice(("p004",)), fabric=fabric)
    assert page.method is None
    assert page.sections[0].cases[0].maps == ()
    assert len(page.sections[0].cases[0].neighbours) == 5
    html = write_cases_page(page, tmp_path / "out").read_text()
    assert "No attention is shown: the backbone Seer cannot be explained." in html


def test_of_several_known_lesions_the_most_probable_is_shown(folds):
    tested = cases._Tested.of(folds, "mtl", 1)
    at = tested.truth.image_ids.tolist().index("p004")
    tested.truth.values["lesion"][at] = 1
    best = tested.predictions.scores["lesion"][at].argmax()
    assert cases._known(tested, at)["lesion"] == tested.predictions.labels["lesion"].classes[best]
    tested.truth.values["lesion"][at][best] = 0
    second = np.argsort(tested.predictions.scores["lesion"][at])[-2]
    assert cases._known(tested, at)["lesion"] == tested.predictions.labels["lesion"].classes[second]
    tested.truth.values["lesion"][at] = 0
    assert cases._known(tested, at)["lesion"] is None


# --- the page


def a_jpeg(colour=(10, 20, 30)):
    target = io.BytesIO()
    Image.new("RGB", (20, 16), colour).save(target, "JPEG")
    return target.getvalue()


def small_page():
    neighbours = tuple(
        CaseNeighbour(f"n{k}", 1.5 + k, lesions, site, match, shared, k == 0, a_jpeg())
        for k, (lesions, site, match, shared) in enumerate(
            [
                (("papule",), "face", "shared", ("papule",)),
                (("crust",), None, "none", ()),
                (None, "arm", "unknown", ()),
            ]
        )
    )
    maps = (CaseMap("lesion", "papule", True, 0.75, -1.25, 2.0, a_jpeg()), CaseMap("site", "face", False, 0.5, 0.1, 3.0, a_jpeg()))
    predicted = {"lesion": [("papule", 0.75), ("a/b", 0.2)], "site": [("face", 0.5)]}
    case = Case("<i>1</i>", 2, ("papule",), "face", predicted, "average precision of the lesions 0.50", maps, neighbours, a_jpeg())
    source = Source(name="s", title="S & Co", licence="CC-BY-4.0", credit="by T")
    return CasesPage(
        "atlas",
        "mtl",
        1,
        "cam",
        None,
        (Section("Worst", "The worst.", (case,)),),
        frozenset({"crust"}),
        ("A note.",),
        (source,),
        {"command": "predilect"},
    )


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def written(tmp_path):
    html = write_cases_page(small_page(), tmp_path / "out").read_text(encoding="utf-8")
    return html, Page(html)


def test_the_page_is_one_file_that_asks_for_nothing(written, tmp_path):
    html, page = written
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["cases.html"]
    for tag, attrs in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        for name in ("src", "href", "srcset", "style"):
            value = attrs.get(name, "")
            assert value.startswith(("data:image/jpeg;base64,", "#")) or not value
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src 'none'" in html


def test_every_picture_is_told_in_words(written):
    pictures = [attrs for tag, attrs in written[1].elements if tag == "img"]
    assert len(pictures) == 6
    assert all(base64.b64decode(attrs["src"].partition(",")[2]) == a_jpeg() for attrs in pictures)
    words = [attrs["alt"] for attrs in pictures]
    assert words[0] == "Test photograph <i>1</i>: papule; face"
    assert "Where the network looks on <i>1</i> for the lesion papule" in words[1]
    assert words[5] == "Neighbour 3, photograph n2: lesions not assessed; arm"


def test_a_frame_is_told_by_a_sign_and_a_word_too(written):
    text = re.sub(r"\s+", " ", written[1].text)
    assert "✓ shares papule papule face (same site) distance 1.50 n0" in text
    assert "✗ no shared lesion crust* site not known distance 2.50 n1" in text
    assert "? not known lesions not assessed arm distance 3.50 n2" in text
    matches = [
        attrs["class"] for tag, attrs in written[1].elements if tag == "li" and attrs.get("class") in {"shared", "none", "unknown"}
    ]
    assert matches == ["shared", "none", "unknown"]
    assert "* labelled by a model: does not count" in text
    assert "4px dotted" in written[0]


def test_the_head_says_how_the_page_must_be_treated(written):
    before = written[1].text.partition("The worst.")[0]
    assert "This page shows photographs of the atlas atlas." in before
    assert "S & Co: CC-BY-4.0; by T" in before
    assert "A note." in before


def test_names_are_escaped(written):
    assert "<i>1</i>" not in written[0].replace('alt="', "")
    assert "&lt;i&gt;1&lt;/i&gt;" in written[0]


def test_a_query_that_shows_nothing_has_nothing_to_share(tmp_path):
    page = small_page()
    case = replace(page.sections[0].cases[0], lesions=(), neighbours=page.sections[0].cases[0].neighbours[2:])
    page = replace(page, sections=(Section("Random", "Some.", (case,)),))
    text = write_cases_page(page, tmp_path).read_text()
    assert "– no lesion to share" in text
    assert "Known: no lesion; face." in text
    only = replace(case, lesions=("crust",))
    page = replace(page, sections=(Section("Random", "Some.", (only,)),))
    assert "– no lesion to share" in write_cases_page(page, tmp_path).read_text()
