"""`predilect attend`, `index`, `similar` and `cases`: what they print, where, and with which exit code."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conftest import SMALL_TAXONOMY
from made_serving import made_bundle
from predilect.cli import main
from predilect.insight.retrieval import EmbeddingIndex
from predilect.predictions import Truth


def leave(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def one_line(text):
    assert "Traceback" not in text
    assert text.count("\n") == 1
    return text


@pytest.fixture(autouse=True)
def _small_panels(monkeypatch):
    """Drawing is tested elsewhere."""
    monkeypatch.setattr("predilect.report.style.PNG_DPI", 40)


@pytest.fixture(scope="module")
def place(tmp_path_factory, made_run):
    """A folder with the bundle and its index, the atlas in its folds, the run, and photographs."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(made_run.run.path, root / "run")
    shutil.copytree(made_run.atlas.path, root / "atlas")
    replace(made_run.splits, clusters_joined=0).write(root / "atlas" / "splits.parquet")
    shutil.copytree(root / "run" / "bundle", root / "unindexed")
    (root / "photographs" / "deep").mkdir(parents=True)
    images = made_run.atlas.images()
    for row, name in ((4, "1.jpg"), (10, "2.jpg"), (16, "deep/1.jpg")):
        (root / "photographs" / name).write_bytes(images[row])
    assert leave("index", root / "run" / "bundle", root / "atlas") == 0
    return root


@pytest.fixture(scope="module")
def calibrated(made_run, tmp_path_factory):
    """The same network in a bundle with a calibration, of one lesion and of the sites."""
    return made_bundle(made_run, tmp_path_factory.mktemp("bundles") / "calibrated").path


def predicted(capsys, bundle, photograph):
    """What `predict` says: by task and class the probability, the most probable first."""
    assert leave("predict", bundle, photograph, "--format", "json") == 0
    (answer,) = json.loads(capsys.readouterr().out)["results"]
    return {
        task: {item["name"]: item["probability"] for item in answer[key]} for task, key in (("lesion", "lesions"), ("site", "site"))
    }


# --- attend


def test_attend_writes_a_panel_and_raw_maps_for_each_photograph(place, tmp_path, capsys):
    assert leave("attend", place / "run" / "bundle", place / "photographs", "--out", tmp_path / "out", "--lesion", "scale") == 0
    shown = capsys.readouterr()
    names = {f"{name}.{end}" for name in ("1", "2", "1-2") for end in ("attention.png", "lesion.npy", "site.npy")}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    rows = [line for line in shown.out.splitlines() if ".jpg" in line]
    assert len(rows) == 3
    assert all(re.search(r"0\.\d\d scale +0\.\d\d (arm|face) +\S+\.attention\.png", row) for row in rows)
    assert f"maps      {tmp_path / 'out'}" in shown.out
    assert shown.err == ""


def test_attend_shows_the_classes_and_the_probabilities_of_predict(place, calibrated, tmp_path, capsys):
    for name in ("1", "2"):
        photograph = place / "photographs" / f"{name}.jpg"
        (lesion, p), (site, q) = (next(iter(said.items())) for said in predicted(capsys, calibrated, photograph).values())
        assert leave("attend", calibrated, photograph, "--out", tmp_path / "out") == 0
        shown = capsys.readouterr().out
        assert "Attention, and probabilities  " in shown
        assert re.search(rf"{p:.2f} {lesion} +{q:.2f} {site} ", shown)


def test_attend_says_which_numbers_are_scores(place, calibrated, tmp_path, capsys):
    photograph, known = place / "photographs" / "1.jpg", "crust"  # the others have no curve
    for bundle, lesion, told in (
        (calibrated, known, None),
        (calibrated, "scale", "note      scores, not calibrated: lesion scale\n"),
    ):
        assert leave("attend", bundle, photograph, "--out", tmp_path / "out", "--lesion", lesion) == 0
        shown = capsys.readouterr().out
        assert "Attention, and probabilities  " in shown
        assert ("not calibrated" in shown) is (told is not None)
        assert told is None or told in shown
    assert leave("attend", place / "run" / "bundle", photograph, "--out", tmp_path / "out") == 0
    assert "Attention, and scores, not calibrated " in capsys.readouterr().out


def test_attend_reports_a_broken_photograph_in_its_row_and_goes_on(place, tmp_path, capsys):
    broken = tmp_path / "in" / "broken.jpg"
    broken.parent.mkdir()
    broken.write_bytes(b"\xff\xd8\xff")
    (tmp_path / "in" / "notes.txt").write_text("x")
    arguments = ("attend", place / "run" / "bundle", tmp_path / "in", place / "photographs" / "2.jpg", "--out", tmp_path / "out")
    assert leave(*arguments) == 1
    shown = capsys.readouterr()
    assert one_line(shown.err).startswith(f"error {broken}: ")
    assert re.search(r"broken\.jpg +— +— +not read", shown.out)
    assert "2.attention.png" in shown.out
    assert "as no images by their names: 1 other file" in shown.out
    assert (tmp_path / "out" / "2.lesion.npy").is_file()


def test_the_maps_of_two_sites_differ(place, tmp_path):
    photograph = place / "photographs" / "1.jpg"
    for site in ("arm", "face"):
        assert leave("attend", place / "run" / "bundle", photograph, "--out", tmp_path / site, "--site", site) == 0
    arm, face = (np.load(tmp_path / site / "1.site.npy") for site in ("arm", "face"))
    assert arm.shape == face.shape
    assert not np.allclose(arm, face)


# --- index and similar


def test_index_says_what_of_whom_it_holds(place, capsys):
    shutil.copytree(place / "unindexed", place / "again")
    assert leave("index", place / "again", place / "atlas", "--photographs") == 0
    shown = capsys.readouterr().out
    assert "cases     36 photographs of atlas, 96 numbers each" in shown
    assert "keep it as safe as the atlas" in shown
    assert "credit    " in shown
    assert f"index     {place / 'again' / 'index'}" in shown
    assert len(EmbeddingIndex.load(place / "again" / "index").images) == 36
    assert leave("index", place / "again", place / "atlas") == 0
    assert "keep it as safe" not in capsys.readouterr().out
    assert EmbeddingIndex.load(place / "again" / "index").images is None


def test_similar_shows_the_same_as_table_and_json(place, capsys):
    arguments = ("similar", place / "run" / "bundle", place / "photographs" / "1.jpg", "-k", 4)
    assert leave(*arguments, "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [case["rank"] for case in answer["cases"]] == [1, 2, 3, 4]
    assert answer["cases"][0]["image_id"] == "p004"
    assert answer["cases"][0]["lesions"] == ["crust"]
    assert answer["search"]["recall"] is None
    assert answer["search"]["n_photographs"] == 36
    assert answer["sources"][0]["name"] == "unnamed"
    (site,) = answer["prediction"]["site"]
    photos = pl.read_parquet(place / "atlas" / "photos.parquet")
    for case in answer["cases"]:
        row = photos.filter(pl.col("image_id") == case["image_id"])
        assert case["lesions"] == (None if row["lesion/crust"][0] is None else [
            name for name in ("crust", "macule", "scale") if row[f"lesion/{name}"][0] == 1
        ])  # fmt: skip
        assert case["shared"]["lesions"] == [name for name in answer["prediction"]["lesion"] if name in (case["lesions"] or [])]
        assert case["shared"]["sites"] == ([site] if case["site"] == site else [])

    assert leave(*arguments) == 0
    shown = capsys.readouterr().out
    assert "search    exact, by Euclidean distance, among 36 photographs of atlas" in shown
    for case in answer["cases"]:
        assert re.search(rf" {case['rank']} +{case['image_id']} +{case['distance']:.4f} ", shown)
    assert shown.startswith("lesion    0.")


def test_similar_shows_the_probabilities_of_predict_and_says_which_numbers_are_scores(place, calibrated, capsys):
    photograph = place / "photographs" / "1.jpg"
    expected = predicted(capsys, calibrated, photograph)
    assert leave("similar", calibrated, photograph, "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    for task, names in answer["prediction"].items():
        assert names == pytest.approx({name: expected[task][name] for name in names}, abs=1e-6)
        assert list(names) == list(expected[task])[: len(names)]
    assert answer["not_calibrated"] == {"lesion": [name for name in answer["prediction"]["lesion"] if name != "crust"], "site": []}
    assert leave("similar", calibrated, photograph) == 0
    assert re.search(r"^site      0\.\d\d (arm|face) \(predicted\)$", capsys.readouterr().out, re.MULTILINE)
    assert leave("similar", place / "run" / "bundle", photograph) == 0
    assert re.search(r"^site      .* \(predicted; score, not calibrated\)$", capsys.readouterr().out, re.MULTILINE)


def test_similar_keeps_to_the_filters_and_the_metric(place, capsys):
    arguments = ("similar", place / "run" / "bundle", place / "photographs" / "1.jpg", "-k", 3, "--format", "json")
    assert leave(*arguments, "--site", "face", "--lesion", "macule", "--metric", "cosine") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["search"]["metric"] == "cosine"
    assert all(case["site"] == "face" and case["lesions"] == ["macule"] for case in answer["cases"])
    assert all(0 <= case["distance"] <= 2 for case in answer["cases"])


def test_where_fewer_pass_the_filter_than_asked_for_all_of_them_answer(place, capsys):
    photos = pl.read_parquet(place / "atlas" / "photos.parquet")
    passing = photos.filter((pl.col("site/face") == 1) & (pl.col("lesion/crust") == 1))["image_id"].to_list()
    arguments = ("similar", place / "run" / "bundle", place / "photographs" / "1.jpg", "--site", "face", "--lesion", "crust", "-k")
    assert leave(*arguments, 36) == 0
    shown = capsys.readouterr().out
    assert f"note      the filter leaves {len(passing)} photographs of the index, fewer than the 36 asked for" in shown
    assert leave(*arguments, 99, "--format", "json") == 0  # also more than the index holds
    assert sorted(case["image_id"] for case in json.loads(capsys.readouterr().out)["cases"]) == sorted(passing)
    assert leave(*arguments, len(passing)) == 0
    assert "note      " not in capsys.readouterr().out


def test_the_recall_of_an_approximate_search_is_printed(place, capsys, monkeypatch):
    def stand_in(index, metric):
        assert metric == "cosine"
        from predilect.insight.nearest import Cells

        return replace(index, cells=Cells(None, "euclidean", 1, 0.9725))  # of the other metric: the search stays exact

    monkeypatch.setattr("predilect.insight.bundle_index.approximated", stand_in)
    arguments = ("similar", place / "run" / "bundle", place / "photographs" / "1.jpg", "--metric", "cosine", "--approximate")
    assert leave(*arguments) == 0
    assert "search    approximate, finds 97.2 % of the exact 5 nearest" in capsys.readouterr().out
    assert leave(*arguments, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["search"]["recall"] == 0.9725


def test_an_approximate_search_among_many_finds_what_the_exact_one_does(place, tmp_path, capsys):
    """Two thousand made vectors; five of them lie about the photograph's own, and so in the cell that is searched first."""
    bundle = shutil.copytree(place / "run" / "bundle", tmp_path / "bundle")
    photograph = place / "photographs" / "1.jpg"
    known = EmbeddingIndex.load(bundle / "index")
    own = known.embeddings[known.photos.image_ids.tolist().index("p004")]  # the same photograph
    rng = np.random.default_rng(0)
    spread = known.embeddings.std()
    vectors = rng.normal(known.embeddings.mean(), 4 * spread, (2000, len(own))).astype(np.float32)
    near = rng.permutation(2000)[:5]
    vectors[near] = own + spread * 0.01 * np.arange(1, 6)[:, None].astype(np.float32)
    labels = {task: np.repeat(rows[:1], 2000, axis=0) for task, rows in known.photos.values.items()}
    photos = Truth(np.array([f"v{k:04}" for k in range(2000)]), known.photos.labels, labels, None, pl.DataFrame())
    EmbeddingIndex(vectors, photos, known.model, atlas="made").save(bundle / "index")
    arguments = ("similar", bundle, photograph, "-k", 5)
    answers = []
    for options in ((), ("--approximate",)):
        assert leave(*arguments, *options, "--format", "json") == 0
        answers.append(json.loads(capsys.readouterr().out))
    exact, approximate = answers
    assert [case["image_id"] for case in exact["cases"]] == [f"v{k:04}" for k in near]
    assert approximate["cases"] == exact["cases"]
    assert exact["search"]["recall"] is None
    recall = approximate["search"]["recall"]
    assert 0.9 <= recall <= 1
    assert leave(*arguments, "--approximate") == 0
    shown = capsys.readouterr().out
    assert (
        f"search    approximate, finds {100 * recall:.1f} % of the exact 5 nearest, by Euclidean distance, among 2,000 photographs of made"
        in shown
    )


# --- cases


def test_cases_writes_a_page(place, tmp_path, capsys):
    arguments = (
        "cases",
        place / "run",
        place / "atlas",
        "--out",
        tmp_path / "out",
        "--ids",
        "p004",
        "p020",
        "--random",
        1,
        "--worst",
        2,
    )
    assert leave(*arguments) == 0
    shown = capsys.readouterr().out
    for line in ("chosen    2 cases", "random    1 case\n", "worst     2 cases", f"page      {tmp_path / 'out' / 'cases.html'}"):
        assert line in shown
    html = (tmp_path / "out" / "cases.html").read_text(encoding="utf-8")
    assert html.count("<article") == 5
    assert str(place) not in html
    assert "predilect cases run atlas --out out --ids p004 p020" in html


def test_cases_of_a_system_without_lesions(place, tmp_path, capsys):
    arguments = (
        "cases",
        place / "run",
        place / "atlas",
        "--out",
        tmp_path / "out",
        "--system",
        "resnet-site",
        "--random",
        0,
        "--worst",
        1,
    )
    assert leave(*arguments) == 0
    html = (tmp_path / "out" / "cases.html").read_text(encoding="utf-8")
    assert "with the lowest probability of the known site" in html
    assert "random" not in capsys.readouterr().out


# --- what cannot be done


BAD_INPUT = [
    ("attend missing photographs --out new", "missing"),
    ("attend atlas photographs --out new", "is not a bundle"),
    ("attend run/bundle photographs --out new --lesion crusts", "unknown lesion 'crusts': did you mean 'crust'?"),
    ("attend run/bundle photographs --out new --site fase", "unknown site 'fase': did you mean 'face'?"),
    ("attend run/bundle photographs --out photographs/new", "would be taken for photographs next time"),
    ("attend run/bundle atlas --out new", "atlas holds no image file"),
    ("attend run/bundle photographs/1.jpg --out photographs/1.jpg", "cannot be written"),
    ("index missing atlas", "missing"),
    ("index run/bundle missing", "there is no such atlas folder"),
    ("similar unindexed photographs/1.jpg", "unindexed holds no index to look in; make one with: predilect index unindexed ATLAS"),
    ("similar run/bundle missing.jpg", "missing.jpg"),
    ("similar run/bundle photographs", "photographs"),
    ("similar run/bundle photographs/1.jpg -k 37", "k is 37, but only 36 can answer"),
    ("similar run/bundle photographs/1.jpg --lesion crusts", "unknown lesion 'crusts': did you mean 'crust'?"),
    ("similar run/bundle photographs/1.jpg --site fase", "unknown site 'fase': did you mean 'face'?"),
    ("similar run/bundle photographs/1.jpg --approximate", "needs at least 2,000 photographs"),
    ("cases missing atlas --out new", "missing"),
    ("cases run missing --out new", "there is no such atlas folder"),
    ("cases run atlas --out new --system mlt", "trained no system 'mlt': did you mean 'mtl'"),
    ("cases run atlas --out new --seed 9", "has no seed 9: allowed are 1"),
    ("cases run atlas --out new --ids p04", "tested no photograph 'p04': did you mean"),
    ("cases run atlas --out new --random 0 --worst 0", "no case of run is chosen"),
]
BAD_USAGE = [
    "attend run/bundle photographs",
    "attend run/bundle --out new",
    "similar run/bundle photographs/1.jpg -k 0",
    "similar run/bundle photographs/1.jpg --metric manhattan",
    "similar run/bundle photographs/1.jpg --format xml",
    "cases run atlas --out new --random -1",
    "cases run atlas",
]


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [(*item, 1) for item in BAD_INPUT] + [(command, "", 2) for command in BAD_USAGE],
    ids=lambda x: str(x)[:70],
)
def test_bad_input_and_usage_end_in_one_line_on_stderr(place, monkeypatch, capsys, command, message, code):
    monkeypatch.chdir(place)
    assert leave(*command.split(" ")) == code
    shown = capsys.readouterr()
    assert message in one_line(shown.err)
    assert shown.out.strip() in ("", "looking")
    assert not (place / "new").exists()


def test_a_filter_that_leaves_nothing_names_what_there_is(place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place / "run" / "bundle", tmp_path / "bundle")
    index = EmbeddingIndex.load(tmp_path / "bundle" / "index")
    index.photos.values["site"][:] = -1
    index.save(tmp_path / "bundle" / "index")
    monkeypatch.chdir(tmp_path)
    assert leave("similar", "bundle", place / "photographs" / "1.jpg", "--site", "face") == 1
    assert "no photograph of the index is known to show site 'face'; of 36 there are 0" in one_line(capsys.readouterr().err)


def test_an_index_of_another_network_is_refused(place, tmp_path, capsys):
    shutil.copytree(place / "unindexed", tmp_path / "bundle")
    index = EmbeddingIndex.load(place / "run" / "bundle" / "index")
    EmbeddingIndex(index.embeddings, index.photos, "0" * 64).save(tmp_path / "bundle" / "index")
    assert leave("similar", tmp_path / "bundle", place / "photographs" / "1.jpg") == 1
    assert "was made by another network" in one_line(capsys.readouterr().err)


def test_an_index_of_another_atlas_that_is_replaced_is_told_of(place, tmp_path, capsys):
    bundle = shutil.copytree(place / "run" / "bundle", tmp_path / "bundle")
    other = shutil.copytree(place / "atlas", tmp_path / "other")
    assert leave("index", bundle, other) == 0
    assert "replaced" not in capsys.readouterr().out
    (tmp_path / "one.toml").write_text(SMALL_TAXONOMY.replace("drop_below = 1", "drop_below = 13"))
    assert leave("refine", other, "--taxonomy", tmp_path / "one.toml") == 0
    capsys.readouterr()
    assert leave("index", bundle, other) == 0
    shown = capsys.readouterr().out
    assert "replaced  an index of 36 photographs of another atlas or another state of it, other\n" in shown


def test_an_index_without_the_photographs_that_were_in_it_says_so(place, tmp_path, capsys):
    bundle = shutil.copytree(place / "run" / "bundle", tmp_path / "bundle")
    for options, told in ((("--photographs",), False), ((), True), ((), False)):
        assert leave("index", bundle, place / "atlas", *options) == 0
        assert ("--photographs puts them in" in capsys.readouterr().out) is told
