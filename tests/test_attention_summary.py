"""Sums over maps, against what is computed here by hand or by scipy; and the file that holds them."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from made_insight import made_insight
from predilect.errors import InsightError
from predilect.evaluation.attention_summary import MAP_KINDS, MapTables, evaluate_attention
from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.insight import Insight, insight_schema
from predilect.evaluation.overlap import overlap_by_chance
from predilect.files import read_json, seal
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth

N = 60
LESIONS = ("alopecia", "crust", "macule", "nodule", "rare", "pigmented")
SPACE = LabelSpace((Task("lesion", LESIONS, frozenset({"pigmented"})), Task("site", ("arm", "face"))))
IDS = np.array([f"p{k:02}" for k in range(N)])


@pytest.fixture(scope="module")
def truth():
    """Sixty photographs of thirty groups; each lesion on a third of them, `rare` on those of five groups only."""
    rng = np.random.default_rng(0)
    lesion = (rng.random((N, len(LESIONS))) < 0.4).astype(np.int8)
    lesion[:, 4] = np.arange(N) < 10
    site = np.eye(2, dtype=np.int8)[rng.integers(0, 2, N)]
    return Truth(IDS, SPACE, {"lesion": lesion, "site": site}, np.array([f"g{k // 2}" for k in range(N)]), pl.DataFrame())


def predicted(seed, lift, truth, tasks=("lesion", "site")):
    rng = np.random.default_rng(seed)
    lesion = rng.random((2 * N, len(LESIONS))) * 0.5 + lift * np.tile(truth.values["lesion"], (2, 1)) * 0.5
    scores = {"lesion": lesion.astype(np.float32), "site": np.full((2 * N, 2), 0.5, dtype=np.float32)}
    return Predictions(
        np.tile(IDS, 2), SPACE.restricted_to(tasks), {task: scores[task] for task in tasks}, seeds=np.repeat([1, 2], N)
    )


def shown(truth):
    rows, lesions = np.nonzero(truth.values["lesion"] == 1)
    return [(str(IDS[row]), LESIONS[k]) for row, k in zip(rows, lesions, strict=True)]


def tables(truth, correlation, *, curves=None, randomisation=None):
    """Coincidence by a function of (seed, photograph, lesion); overlap is 0.6 for alopecia, else 0.1."""
    rows = [
        {
            "seed": seed,
            "image_id": name,
            "lesion": lesion,
            "correlation": correlation(seed, name, lesion),
            "overlap": 0.6 if lesion == "alopecia" else 0.1,
        }
        for seed in (1, 2)
        for name, lesion in shown(truth)
    ]
    schema = {"seed": pl.Int64, "image_id": pl.String, "task": pl.String}
    return MapTables(
        "cam",
        (7, 7),
        pl.DataFrame(rows, infer_schema_length=None),
        pl.DataFrame(schema={**schema, "map": pl.String, "deletion": pl.List(pl.Float64), "insertion": pl.List(pl.Float64)})
        if curves is None
        else curves,
        pl.DataFrame(schema={**schema, "rank_correlation": pl.Float64, "unrelated": pl.Float64})
        if randomisation is None
        else randomisation,
    )


def summed(truth, found, pairs=(), predictions=None, **settings):
    return evaluate_attention(
        truth, {"mtl": found}, predictions=predictions or {}, pairs=pairs, unexplained={}, seeds=(1, 2), sample=N, **settings
    )


def hashed(*parts):
    return float(np.random.default_rng([ord(letter) for part in parts for letter in str(part)]).uniform(-1, 1))


def test_seeds_are_averaged_first_and_maps_without_relief_left_out(truth):
    def correlation(seed, name, lesion):
        return None if name < "p05" or (seed == 1 and name < "p10") else hashed(seed, name, lesion)

    (system,) = summed(truth, tables(truth, correlation)).systems.values()
    assert system.overlap_by_chance == overlap_by_chance(7 * 7)
    coincidence = system.coincidence
    assert [item.lesion for item in coincidence.lesions] == list(LESIONS)
    for item in coincidence.lesions:
        names = [name for name, lesion in shown(truth) if lesion == item.lesion]
        both = {name: [value for seed in (1, 2) if (value := correlation(seed, name, item.lesion)) is not None] for name in names}
        expected = [np.mean(values) for values in both.values() if values]
        assert item.correlation.value == pytest.approx(np.mean(expected))
        assert item.correlation.n_images == len(expected)
        assert item.overlap.n_images == len(names)
    human = {}
    for name, lesion in shown(truth):
        values = [value for seed in (1, 2) if (value := correlation(seed, name, lesion)) is not None]
        if values and lesion != "pigmented":
            human.setdefault(name, []).append(np.mean(values))
    assert coincidence.correlation.value == pytest.approx(np.mean([np.mean(values) for values in human.values()]))


@pytest.mark.parametrize(
    ("alopecia", "expected"), [(0.85, {"alopecia"}), (0.79, set())], ids=["nearly the same", "below the threshold"]
)
def test_a_shortcut_needs_both_thresholds_ten_groups_and_labels_by_people(truth, alopecia, expected):
    def correlation(_seed, _name, lesion):
        return alopecia if lesion == "alopecia" else 0.95 if lesion in ("crust", "rare", "pigmented") else 0.0

    found = tables(truth, correlation)
    other = pl.col("lesion").is_in(["rare", "pigmented"])
    found = MapTables(
        "cam",
        (7, 7),
        found.coincidence.with_columns(overlap=pl.when(other).then(0.9).otherwise("overlap")),
        found.curves,
        found.randomisation,
    )
    lesions = summed(truth, found).systems["mtl"].coincidence.lesions
    assert {item.lesion for item in lesions if item.shortcut} == expected  # crust overlaps too little


def test_gains_are_those_of_the_evaluation_and_the_correlation_is_scipys(truth):
    predictions = {"resnet": predicted(1, 0.4, truth, ("lesion",)), "mtl": predicted(2, 0.7, truth)}
    found = tables(truth, hashed)
    attention = summed(truth, found, [("mtl", "resnet")], predictions, n_resamples=200)
    (gain,) = attention.systems["mtl"].coincidence.gains
    (pair,) = evaluate(truth, predictions, n_resamples=50, n_resamples_p=50).gains
    assert {item.lesion: item.gain for item in gain.lesions} == pytest.approx({item.lesion: item.gain for item in pair.lesions})
    assert [item.lesion for item in gain.lesions] == [
        "alopecia",
        "crust",
        "macule",
        "nodule",
    ]  # rare: five groups; pigmented: a model
    means = {item.lesion: item.correlation.value for item in attention.systems["mtl"].coincidence.lesions}
    assert [item.correlation for item in gain.lesions] == pytest.approx([means[item.lesion] for item in gain.lesions])
    both = [[item.gain for item in gain.lesions], [item.correlation for item in gain.lesions]]
    assert gain.rank_correlation == pytest.approx(spearmanr(*both).statistic)
    assert gain.rank_correlation_low <= gain.rank_correlation <= gain.rank_correlation_high
    assert gain.n_resamples_defined == 200
    assert all(item.gain_low < item.gain < item.gain_high for item in gain.lesions)


def test_a_gain_that_follows_the_coincidence_is_found(truth):
    """Scores of the system are as much better as the lesion's two maps coincide."""
    lifts = {"alopecia": 0.0, "crust": 0.3, "macule": 0.6, "nodule": 0.95}
    base, better = predicted(1, 0.1, truth, ("lesion",)), predicted(1, 0.1, truth)
    scores = better.scores["lesion"].copy()
    for k, name in enumerate(LESIONS[:4]):
        scores[:, k] = np.clip(scores[:, k] + lifts[name] * (np.tile(truth.values["lesion"][:, k], 2) == 1), 0, 1)
    better = Predictions(better.image_ids, SPACE, {**better.scores, "lesion": scores}, seeds=better.seeds)
    found = tables(truth, lambda _seed, name, lesion: 0.9 - lifts.get(lesion, 0.0) + 0.02 * hashed(name))
    attention = summed(truth, found, [("mtl", "resnet")], {"resnet": base, "mtl": better}, n_resamples=200)
    (gain,) = attention.systems["mtl"].coincidence.gains
    assert gain.rank_correlation < -0.7
    assert gain.rank_correlation_high < 0.5


def test_without_a_lesion_in_ten_groups_nothing_is_compared(truth):
    few = truth.take(np.arange(8))
    found = tables(few, hashed)
    predictions = {name: table.take(np.flatnonzero(np.isin(table.image_ids, few.image_ids))) for name, table in
                   (("resnet", predicted(1, 0.4, truth, ("lesion",))), ("mtl", predicted(2, 0.7, truth)))}  # fmt: skip
    (gain,) = summed(few, found, [("mtl", "resnet")], predictions).systems["mtl"].coincidence.gains
    assert (gain.lesions, gain.rank_correlation, gain.rank_correlation_low, gain.n_resamples_defined) == ((), None, None, 0)


def made_checks(truth):
    rng = np.random.default_rng(7)
    curves, randomisation = [], []
    for seed in (1, 2):
        for name in IDS:
            curves += [
                {
                    "seed": seed,
                    "image_id": name,
                    "task": "lesion",
                    "map": kind,
                    "deletion": rng.random(5).tolist(),
                    "insertion": rng.random(5).tolist(),
                }
                for kind in MAP_KINDS
            ]
            randomisation.append(
                {
                    "seed": seed,
                    "image_id": name,
                    "task": "lesion",
                    "rank_correlation": rng.uniform(-1, 1),
                    "unrelated": rng.uniform(-1, 1),
                }
            )
    return tables(truth, hashed, curves=pl.DataFrame(curves), randomisation=pl.DataFrame(randomisation))


def test_curves_are_means_and_areas_are_trapezoids(truth):
    found = made_checks(truth)
    head = summed(truth, found, n_resamples=100, n_resamples_p=100).systems["mtl"].heads["lesion"]
    assert head.perturbation.shares == (0, 0.25, 0.5, 0.75, 1)
    areas = {}
    for kind in MAP_KINDS:
        for curve in ("deletion", "insertion"):
            by_seed = [np.array(found.curves.filter(map=kind, seed=seed).sort("image_id")[curve].to_list()) for seed in (1, 2)]
            values = np.mean(by_seed, axis=0)  # (N, 5)
            areas[kind, curve] = np.array([np.trapezoid(row, [0, 0.25, 0.5, 0.75, 1]) for row in values])
            maps = head.perturbation.maps[kind]
            assert getattr(maps, curve).value == pytest.approx(values.mean(axis=0))
            assert (np.array(getattr(maps, curve).low) < values.mean(axis=0)).all()
            area = getattr(maps, f"{curve}_area")
            assert (area.value, area.n_images, area.n_groups) == (pytest.approx(areas[kind, curve].mean()), N, 30)
            assert area.low < area.value < area.high
    for item in head.perturbation.comparisons:
        expected = (areas["map", item.curve] - areas[item.baseline, item.curve]).mean()
        assert item.difference.difference == pytest.approx(expected)
    assert len({(item.curve, item.baseline) for item in head.perturbation.comparisons}) == 4


def test_randomisation_is_told_with_and_without_its_sign(truth):
    found = made_checks(truth)
    head = summed(truth, found, n_resamples=100, n_resamples_p=100).systems["mtl"].heads["lesion"].randomisation
    frame = found.randomisation
    assert head.rank_correlation.value == pytest.approx(frame["rank_correlation"].mean())
    assert head.absolute.value == pytest.approx(frame["rank_correlation"].abs().mean())
    assert head.unrelated.value == pytest.approx(frame["unrelated"].abs().mean())


def test_a_system_without_lesions_or_without_maps_of_both_has_no_coincidence(truth):
    empty = tables(truth, hashed)
    empty = MapTables("cam", (7, 7), empty.coincidence.clear(), empty.curves, empty.randomisation)
    found = summed(truth, empty).systems["mtl"]
    assert found.coincidence is None
    assert found.heads == {}


# --- the file


def test_the_file_comes_back_and_keeps_its_schema(tmp_path):
    insight = made_insight()
    insight.write(tmp_path / "insight.json")
    assert Insight.read(tmp_path / "insight.json") == insight
    stored = json.loads(files("predilect.report").joinpath("schemas/insight.schema.json").read_text(encoding="utf-8"))
    assert stored == insight_schema(), "write insight_schema() to src/predilect/report/schemas/insight.schema.json"
    document = read_json(tmp_path / "insight.json", InsightError)
    jsonschema.Draft202012Validator.check_schema(stored)
    jsonschema.validate(document, stored, cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: value for key, value in document.items() if key != "sha256"}, stored)


def test_it_knows_the_weights_that_it_is_of():
    insight = made_insight(systems=("mtl",))
    assert insight.is_of(lambda system, seed, fold: str(fold) * 64 if (system, seed) == ("mtl", 1) else None)
    assert not insight.is_of(lambda _system, _seed, fold: "0" * 64)
    assert not insight.is_of(lambda *_: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: {**value, "command": "other"}, "is not what was written"),
        (
            lambda value: seal({key: item for key, item in {**value, "schema_version": 2}.items() if key != "sha256"}),
            "schema version 2, allowed is 1",
        ),
        (
            lambda value: seal({key: item for key, item in value.items() if key not in ("sha256", "weights")}),
            "weights: Field required",
        ),
    ],
)
def test_another_file_is_refused(tmp_path, change, message):
    path = tmp_path / "insight.json"
    made_insight().write(path)
    path.write_text(json.dumps(change(read_json(path, InsightError))), encoding="utf-8")
    with pytest.raises(InsightError, match=message):
        Insight.read(path)
