"""Searching embeddings: against brute force in float64 and scikit-learn, filters, the approximate search, the folder, messages."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from predilect.errors import InsightError, LabelError
from predilect.files import checksum, seal
from predilect.insight import nearest
from predilect.insight.nearest import MARGIN
from predilect.insight.retrieval import EmbeddingIndex, Neighbours
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Truth

LABELS = LabelSpace((Task("lesion", ("crust", "papule"), frozenset({"crust"})), Task("site", ("arm", "face"))))


@pytest.fixture(params=[nearest._FEW_VALUES, 0], ids=["float32", "bytes"], autouse=True, scope="module")
def _few_values(request):
    """How many numbers are so few that they are searched in float32 at once: as it is, or none, so that bytes come first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_FEW_VALUES", request.param)
        yield


def made_index(vectors, *, seed=0, per_group=2, groups=True, covariates=None):
    """Ids in no order, labels of which some are unknown, groups of two."""
    n, random = len(vectors), np.random.default_rng(seed)
    names = np.array([f"p{k:04}" for k in random.permutation(n)])
    lesions = random.choice(np.array([-1, 0, 1], dtype=np.int8), (n, 2))
    sites = np.eye(2, dtype=np.int8)[random.integers(0, 2, n)]
    sites[random.random(n) < 0.2] = -1
    group = np.array([f"g{k // per_group}" for k in range(n)]) if groups else None
    photos = Truth(names, LABELS, {"lesion": lesions, "site": sites}, group, pl.DataFrame() if covariates is None else covariates)
    return EmbeddingIndex(np.asarray(vectors, dtype=np.float32), photos, "net")


def by_brute_force(index, queries, k, metric="euclidean", allowed=None, groups=None):
    """All distances in float64 by scipy, then Python's own sort of (distance, id)."""
    distances = cdist(queries.astype(np.float64), index.embeddings.astype(np.float64), metric)
    found = []
    for q, row in enumerate(distances):
        rows = [
            n
            for n in range(len(index))
            if (allowed is None or allowed[n]) and (groups is None or index.photos.groups[n] != groups[q])
        ]
        found.append(sorted(rows, key=lambda n: (row[n], index.photos.image_ids[n]))[:k])
    return np.array(found), np.take_along_axis(distances, np.array(found), axis=1)


def assert_brute_force(index, queries, k, **how):
    wanted, distances = by_brute_force(index, queries, k, how.get("metric", "euclidean"), how.get("allowed"), how.get("groups"))
    names = how.pop("groups", None)
    found = index.search(queries, k, model="net", exclude_groups=names, **how)
    assert np.array_equal(found.positions, wanted)
    assert np.array_equal(found.image_ids, index.photos.image_ids[wanted])
    assert found.distances == pytest.approx(distances, rel=1e-9, abs=1e-12)


def random_vectors(random, kind, n, d):
    if kind == "copies":  # 2^d at most: whole numbers, so that brute force is exact and most distances tie
        return random.integers(0, 2, (n, d))
    if kind == "far away":  # differences below the resolution of float32 once lengths are squared
        return 4096 + random.integers(0, 64, (n, d)) / 64
    return random.normal(size=(n, d))


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["copies", "far away", "normal"]),
    n=st.sampled_from([3, 60, 90, 250]),
    d=st.integers(1, 6),
    filtered=st.booleans(),
    grouped=st.booleans(),
)
@settings(max_examples=60)
def test_exact_search_equals_brute_force_in_float64(seed, kind, n, d, filtered, grouped):
    random = np.random.default_rng(seed)
    index = made_index(random_vectors(random, kind, n, d), seed=seed)
    asked = random.integers(0, n, 3)
    queries = np.concatenate([index.embeddings[asked[:2]], random_vectors(random, kind, 1, d).astype(np.float32)])
    allowed = random.random(n) < 0.7 if filtered else None
    groups = [str(index.photos.groups[k]) for k in asked] if grouped else None
    left = (n if allowed is None else int(allowed.sum())) - (2 if grouped else 0)
    if left >= 1:
        assert_brute_force(index, queries, min(5, left), allowed=allowed, groups=groups)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_queries_that_share_out_the_vectors_among_threads_find_the_same(monkeypatch, threads):
    monkeypatch.setattr(nearest.faiss, "omp_get_max_threads", lambda: threads)
    random = np.random.default_rng(2)
    for kind in ("copies", "normal"):
        index = made_index(random_vectors(random, kind, 301, 4))
        assert_brute_force(index, index.embeddings[:1].copy(), 5)
        assert_brute_force(index, index.embeddings[7:8].copy(), 5, allowed=random.random(301) < 0.8)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("outlier", [False, True])
def test_bytes_answer_only_where_none_can_have_been_missed(monkeypatch, metric, outlier):
    random = np.random.default_rng(8)
    vectors = random.normal(size=(900, 16)) + np.append(1000 if outlier else 100, np.zeros(15))
    if outlier:  # one vector elsewhere makes the bytes of all others coarse
        vectors[0] = 1000 * random.normal(size=16)
    index = made_index(vectors)
    ways = []
    shared_out = nearest.Space._shared_out

    def spied(space, codes, *rest):
        ways.append("float32" if codes is None else "bytes")
        return shared_out(space, codes, *rest)

    monkeypatch.setattr(nearest.Space, "_shared_out", spied)
    monkeypatch.setattr(nearest, "_FEW_VALUES", 0)
    assert_brute_force(index, index.embeddings[1:2].copy(), 5, metric=metric)
    assert ways == (["bytes", "float32"] if outlier else ["bytes"])
    ways.clear()
    assert_brute_force(index, index.embeddings[:20].copy(), 5, metric=metric)  # so many are multiplied as a matrix
    assert ways == ["float32"]


@pytest.mark.parametrize("kind", ["copies", "far away", "normal"])
def test_no_vector_lies_farther_from_its_bytes_than_they_say(kind):
    vectors = random_vectors(np.random.default_rng(9), kind, 3000, 24).astype(np.float32)
    codes = nearest.Codes.of(vectors)
    moved = np.linalg.norm(vectors.astype(np.float64) - codes.index.reconstruct_n(0, 3000), axis=1)
    assert moved.max() <= codes.error <= 1.01 * moved.max() + 1e-6 * np.abs(vectors).max() * 24


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_more_equal_vectors_than_the_margin_are_ordered_by_id(metric):
    random = np.random.default_rng(0)
    vectors = np.tile(random.normal(size=8), (6 * MARGIN, 1))
    vectors[::9] = random.normal(size=8)
    index = made_index(vectors)
    assert_brute_force(index, index.embeddings[[1, 9]], 7, metric=metric)
    same = index.search(index.embeddings[1:2], 7, metric=metric, model="net").image_ids[0]
    assert same.tolist() == sorted(index.photos.image_ids[np.arange(6 * MARGIN) % 9 > 0].tolist())[:7]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e17, 1e25])
def test_squares_that_overflow_or_vanish_in_float32_are_still_ranked(scale):
    vectors = np.random.default_rng(1).normal(size=(200, 5)) * scale
    index = made_index(vectors)
    wanted, distances = by_brute_force(index, index.embeddings[:4], 6)
    found = index.search(index.embeddings[:4], 6, model="net")
    assert np.array_equal(found.positions, wanted)
    assert found.distances == pytest.approx(distances, rel=1e-9)


@given(seed=st.integers(0, 10_000), copies=st.integers(1, 40))
@settings(max_examples=20)
def test_exact_search_by_cosine_equals_brute_force(seed, copies):
    random = np.random.default_rng(seed)
    distinct = random.normal(size=(240 // copies + 2, 5)) * random.uniform(0.1, 50, (240 // copies + 2, 1))
    index = made_index(np.repeat(distinct, copies, axis=0), seed=seed)
    queries = random.normal(size=(3, 5)).astype(np.float32)
    groups = [str(name) for name in index.photos.groups[:3]]
    assert_brute_force(index, queries, 4, metric="cosine", groups=groups)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_scikit_learn_finds_the_same(metric):
    random = np.random.default_rng(3)
    index = made_index(random.random((400, 64)))
    queries = random.random((30, 64)).astype(np.float32)
    reference = NearestNeighbors(n_neighbors=5, algorithm="brute", metric=metric).fit(index.embeddings.astype(np.float64))
    distances, positions = reference.kneighbors(queries.astype(np.float64))
    found = index.search(queries, 5, metric=metric, model="net")
    assert np.array_equal(found.positions, positions)
    assert found.distances == pytest.approx(distances, abs=1e-7)


def test_k_may_be_all_there_are():
    index = made_index(np.random.default_rng(4).normal(size=(150, 3)))
    assert_brute_force(index, index.embeddings[:2].copy(), 150)
    assert_brute_force(index, index.embeddings[:2].copy(), 148, groups=["g0", "g0"])


def test_a_group_larger_than_the_margin_does_not_answer():
    random = np.random.default_rng(5)
    vectors = random.normal(size=(400, 4))
    vectors[:200] *= 0.01  # the query's own group lies nearest by far
    index = made_index(vectors, per_group=200)
    found = index.search(np.zeros((2, 4), dtype=np.float32), 5, model="net", exclude_groups=["g0", None])
    assert (found.positions[0] >= 200).all()
    assert (found.positions[1] < 200).all()
    assert_brute_force(index, np.zeros((1, 4), dtype=np.float32), 5, groups=["g0"])


def test_without_groups_only_the_photograph_itself_is_left_out():
    index = made_index(np.random.default_rng(6).normal(size=(30, 3)), groups=False)
    itself = str(index.photos.image_ids[4])
    assert index.search(index.embeddings[4:5], 1, model="net").image_ids.tolist() == [[itself]]
    found = index.search(index.embeddings[4:5], 29, model="net", exclude_groups=[itself])
    assert itself not in found.image_ids
    assert index.search(index.embeddings[4:5], 30, model="net", exclude_groups=["a stranger"]).image_ids[0, 0] == itself


def test_photographs_that_show_a_lesion_or_a_site():
    index = made_index(np.random.default_rng(7).normal(size=(200, 3)))
    lesions, sites = index.photos.values["lesion"], index.photos.values["site"]
    assert np.array_equal(index.showing(lesion="papule"), lesions[:, 1] == 1)
    both = index.showing(lesion="crust", site="face")
    assert np.array_equal(both, (lesions[:, 0] == 1) & (sites[:, 1] == 1))
    assert both.any()
    assert index.showing().all()
    assert_brute_force(index, index.embeddings[:3].copy(), 4, allowed=both)
    with pytest.raises(LabelError, match="did you mean 'papule'"):
        index.showing(lesion="papul")


def test_an_empty_filter_is_named():
    index = made_index(np.ones((4, 2)))
    index.photos.values["site"][:] = [[1, 0], [1, 0], [0, 1], [-1, -1]]
    index.photos.values["lesion"][:] = [[1, 0], [0, 0], [-1, 0], [1, 0]]
    said = "show lesion 'crust' and site 'face'; of 4 there are 2 with lesion 'crust', 1 with site 'face'"
    with pytest.raises(InsightError, match=said):
        index.showing(lesion="crust", site="face")
    with pytest.raises(InsightError, match="show lesion 'papule'; of 4 there are 0 with"):
        index.showing(lesion="papule")


BROKEN = {
    "another model": ({"model": "other"}, "made by the model 'net' and the query's embedding by 'other'"),
    "a narrow query": ({"queries": np.zeros((1, 2))}, "the query's embedding has 2 numbers, those of the index have 3"),
    "not finite": ({"queries": [[0, 0, 0], [0, np.nan, 0]]}, "embedding of query 2 is not finite"),
    "too many": ({"k": 7}, "k is 7, but only 6 can answer: the index holds 6 photographs$"),
    "none": ({"k": 0}, "k is 0, it must be at least 1"),
    "no angle": ({"queries": np.zeros((1, 3)), "metric": "cosine"}, "embedding of query 1 has length 0"),
    "nothing allowed": ({"allowed": np.zeros(6, dtype=bool)}, "the filter leaves none of the 6 photographs"),
    "few allowed": (
        {"allowed": np.arange(6) < 3, "k": 4},
        "only 3 can answer: the index holds 6 photographs, 3 of them pass the filter$",
    ),
    "few of others": (
        {"allowed": np.arange(6) < 3, "exclude_groups": ["g0"], "k": 2},
        "only 1 can answer: .*, 3 of them pass the filter, 2 of these are of the query's own group",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_input_is_told_in_one_sentence(case):
    given, said = BROKEN[case]
    how = {"queries": np.ones((1, 3)), "k": 2, "model": "net"} | given
    with pytest.raises(InsightError, match=said):
        made_index(np.eye(6, 3) + 1).search(np.asarray(how.pop("queries"), dtype=np.float32), how.pop("k"), **how)


def test_misuse_is_a_value_error():
    index, one = made_index(np.eye(6, 3)), np.ones((1, 3), dtype=np.float32)
    with pytest.raises(InsightError, match=f"image_id '{index.photos.image_ids[3]}' has length 0"):
        index.search(one, 2, model="net", metric="cosine")
    wrong = [{"metric": "manhattan"}, {"allowed": np.ones(5, dtype=bool)}, {"allowed": np.ones(6)}, {"exclude_groups": []}]
    for how in wrong:
        with pytest.raises(ValueError):
            index.search(one, 2, model="net", **how)
    for queries in (one[0], one[:0], one.astype(np.float64)):
        with pytest.raises(ValueError, match="queries are float32"):
            index.search(queries, 2, model="net")


def test_an_index_checks_its_embeddings():
    index = made_index(np.ones((4, 3)))
    broken = index.embeddings.copy()
    broken[2, 1] = np.inf
    with pytest.raises(InsightError, match=f"image_id '{index.photos.image_ids[2]}' is not finite"):
        EmbeddingIndex(broken, index.photos, "net")
    with pytest.raises(InsightError, match="no width"):
        EmbeddingIndex(broken[:, :0], index.photos, "net")
    for wrong in (broken[:3], broken.astype(np.float64), broken[0]):
        with pytest.raises(ValueError, match="need as many float32 embeddings"):
            EmbeddingIndex(wrong, index.photos, "net")
    with pytest.raises(ValueError, match="read-only"):
        index.embeddings[0] = 0


def test_neighbours_check_themselves():
    ids, distances, positions = np.array([["a", "b"]]), np.array([[0.0, 1.0]]), np.array([[3, 1]])
    assert len(Neighbours(ids, distances, positions)) == 1
    wrong = [(ids[:, :1], distances, positions), (ids, distances[:, ::-1], positions), (ids, -distances, positions)]
    wrong += [(ids, distances * np.nan, positions), (ids, distances, positions * 0), (ids, distances, positions - 2)]
    for parts in wrong:
        with pytest.raises(ValueError):
            Neighbours(*parts)


def clustered(random, n=2500, d=16):
    return random.normal(size=(50, d))[random.integers(0, 50, n)] * 3 + random.normal(size=(n, d))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_approximate_search_finds_what_it_says(metric):
    random = np.random.default_rng(8)
    index = made_index(clustered(random))
    fast = index.approximated(metric=metric, recall=0.9)
    assert fast.cells.recall >= 0.9
    assert fast.cells.n_probed < 50  # not all of them
    rows = random.permutation(2500)[:300]
    own = [str(name) for name in index.photos.groups[rows]]
    exact, found = (one.search(index.embeddings[rows], 5, metric=metric, model="net", exclude_groups=own) for one in (index, fast))
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact.positions, found.positions, strict=True)])
    assert recall == pytest.approx(fast.cells.recall, abs=0.06)
    assert not any(set(index.photos.groups[row]) & {name} for row, name in zip(found.positions, own, strict=True))
    vectors = index.embeddings.astype(np.float64)
    wanted = [cdist(vectors[[row]], vectors[places], metric)[0] for row, places in zip(rows, found.positions, strict=True)]
    assert found.distances == pytest.approx(np.array(wanted), abs=1e-12)


def test_the_approximate_search_keeps_to_filters_and_falls_back_to_exact():
    random = np.random.default_rng(9)
    index = made_index(clustered(random))
    fast = index.approximated(recall=0.5)
    few = np.zeros(2500, dtype=bool)
    few[random.permutation(2500)[:6]] = True  # too few for the cells that are visited
    assert_brute_force(fast, index.embeddings[:8].copy(), 5, allowed=few)
    some = random.random(2500) < 0.3
    assert some[fast.search(index.embeddings[:8], 5, model="net", allowed=some).positions].all()
    assert_brute_force(fast, index.embeddings[:2].copy(), 5, metric="cosine")  # made for Euclidean distances only
    again = index.approximated(recall=0.5)
    assert (again.cells.recall, again.cells.n_probed) == (fast.cells.recall, fast.cells.n_probed)


def test_cells_need_vectors():
    with pytest.raises(ValueError, match="at least 2,000"):
        made_index(np.eye(30)).approximated()
    with pytest.raises(ValueError, match="no group leaves 5"):
        made_index(np.random.default_rng(0).normal(size=(2000, 2)), per_group=2000).approximated()


def test_an_index_comes_back_as_it_was_saved(tmp_path):
    covariates = pl.DataFrame({"age": np.arange(40.0), "source": ["clinic"] * 40})
    index = made_index(np.random.default_rng(10).normal(size=(40, 3)), covariates=covariates)
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")  # an index is replaced
    assert {file.name for file in tmp_path.rglob("*")} == {"index", "index.json", "embeddings.safetensors", "photos.parquet"}
    back = EmbeddingIndex.load(tmp_path / "index")
    assert back.model == "net"
    assert back.photos.labels == LABELS
    assert np.array_equal(back.embeddings, index.embeddings)
    assert all(np.array_equal(getattr(back.photos, name), getattr(index.photos, name)) for name in ("image_ids", "groups"))
    assert all(np.array_equal(back.photos.values[name], index.photos.values[name]) for name in LABELS.names)
    assert back.photos.covariates.columns == ["source"]  # nobody's age stands in what is passed on
    assert_brute_force(back, index.embeddings[:2].copy(), 3)


@pytest.mark.parametrize("name", ["index.json", "embeddings.safetensors", "photos.parquet"])
def test_a_missing_or_changed_file_is_refused(tmp_path, name):
    made_index(np.eye(6, 3)).save(tmp_path / "index")
    file = tmp_path / "index" / name
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    with pytest.raises(InsightError, match=f"{name}.*make the index again"):
        EmbeddingIndex.load(tmp_path / "index")
    file.unlink()
    with pytest.raises(InsightError, match=f"{name}: there is no such file; make the index again"):
        EmbeddingIndex.load(tmp_path / "index")


def test_an_empty_index_and_one_of_another_version_are_refused(tmp_path):
    made_index(np.eye(6, 3)).save(tmp_path)
    info = json.loads((tmp_path / "index.json").read_text())
    del info["sha256"]
    (tmp_path / "index.json").write_text(json.dumps(seal(info | {"schema_version": 99})))
    with pytest.raises(InsightError, match="schema version 99, allowed is 1"):
        EmbeddingIndex.load(tmp_path)
    save_file({"embeddings": np.zeros((0, 3), dtype=np.float32)}, tmp_path / "embeddings.safetensors")
    info["files"]["embeddings.safetensors"] = checksum(tmp_path / "embeddings.safetensors")
    (tmp_path / "index.json").write_text(json.dumps(seal(info)))
    with pytest.raises(InsightError, match="the index is empty"):
        EmbeddingIndex.load(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"files": None}, {"files": ["photos.parquet"]}, {"model": None}, {"atlas": 3}, {"atlas_hash": None}, {"sources": None},
        {"sources": [{"name": "drawn"}]}, {"sources": ["drawn"]}, {"sources": [{"name": "drawn", "notes": [], "more": 1}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_was_sealed_and_does_not_say_enough_is_refused_in_one_sentence(tmp_path, changed):
    made_index(np.eye(6, 3)).save(tmp_path)
    info = json.loads((tmp_path / "index.json").read_text()) | changed
    kept = {key: value for key, value in info.items() if key != "sha256" and value is not None}
    (tmp_path / "index.json").write_text(json.dumps(seal(kept)))
    with pytest.raises(InsightError, match=r"index\.json is not what was written; make the index again"):
        EmbeddingIndex.load(tmp_path)


def test_embeddings_of_another_shape_are_refused(tmp_path):
    made_index(np.eye(6, 3)).save(tmp_path)
    info = json.loads((tmp_path / "index.json").read_text())
    del info["sha256"]
    for embeddings in (np.zeros((5, 3), np.float32), np.zeros((6, 3)), np.zeros(6, np.float32)):
        save_file({"embeddings": embeddings}, tmp_path / "embeddings.safetensors")
        info["files"]["embeddings.safetensors"] = checksum(tmp_path / "embeddings.safetensors")
        (tmp_path / "index.json").write_text(json.dumps(seal(info)))
        with pytest.raises(InsightError, match=r"must hold float32 \(N, D\), found .* for 6 photographs"):
            EmbeddingIndex.load(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(InsightError, match="is there already and is not an index"):
        made_index(np.eye(6, 3)).save(tmp_path)
    with pytest.raises(InsightError, match="is there already"):
        made_index(np.eye(6, 3)).save(tmp_path / "photo.jpg")
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]
