"""What networks of a finished run show of themselves, against what is computed here by other means, and that nothing is done twice."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from predilect.cli import main
from predilect.errors import InsightError, RunError, UnexplainableError
from predilect.evaluation.insight import Insight
from predilect.evaluation.retrieval import MEASURES
from predilect.files import read_json
from predilect.insight import explain, one_fold
from predilect.insight.explain import explain_folds, sampled_rows, summarise
from predilect.randomness import stream_seed
from predilect.recipe import Preprocessing, system
from predilect.report.wording import number
from predilect.run import Run
from predilect.run.insight import fold_path, insight_path
from predilect.training.crossval import cross_validate
from predilect.training.devices import make_fabric
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed
from predilect.training.start import start_run
from predilect.vision.network import build_network
from predilect.vision.transforms import central_square

SAMPLE = 6
SYSTEMS = ("resnet", "mtl")


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_atlas, small_splits, small_recipe, fabric):
    """A run whose maps have 3 x 3 cells."""
    channels = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    preprocessing = Preprocessing(crop=96, jitter=(96, 100), test_side=100, **channels)
    recipe = small_recipe.model_copy(update={"preprocessing": preprocessing, "iterations": 8})
    systems = [system(name, recipe) for name in SYSTEMS]
    path = tmp_path_factory.mktemp("runs") / "run"
    run = start_run(path, small_atlas, small_splits, systems, seeds=[1], folds=range(3), fabric=fabric, command="c", resume=False)
    cross_validate(run, small_atlas, small_splits, systems, fabric=fabric)
    return TrainedFolds.of(run, small_atlas, small_splits)


@pytest.fixture(scope="module")
def found(trained, fabric):
    told = []
    result = explain_folds(
        trained, SYSTEMS, [1], sample=SAMPLE, fabric=fabric, on_progress=lambda done, total: told.append((done, total))
    )
    return SimpleNamespace(folds=result, told=told)


@pytest.fixture(scope="module")
def insight(trained, found):
    return summarise(trained.run, found.folds, sample=SAMPLE, command="predilect explain run atlas")


@pytest.fixture
def copied(trained, found, tmp_path):
    """The same run elsewhere, with what was found in its folds."""
    path = shutil.copytree(trained.run.path, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    return TrainedFolds(Run.open(path), trained.atlas, trained.truth, trained.folds)


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])


def forbidden(*_args, **_kwargs):
    pytest.fail("a network looked again")


# --- what is found


def test_every_tested_photograph_is_a_query_once(found, trained):
    for name in SYSTEMS:
        ids = [image_id for part, fold in found.folds.items() if part[0] == name for image_id in fold.tables["queries"]["image_id"]]
        assert sorted(ids) == sorted(trained.truth.image_ids.tolist())


def test_progress_counts_inputs_and_ends_at_the_whole(found):
    totals = {total for _, total in found.told}
    done = [n for n, _ in found.told]
    assert len(totals) == 1
    assert done == sorted(done)
    assert done[-1] == totals.pop() == sum(fold.images for fold in found.folds.values())
    assert max(np.diff(done)) < done[-1] / 3


@pytest.mark.parametrize("name", SYSTEMS)
def test_precision_at_5_is_that_of_another_library(found, trained, fabric, name):
    """Neighbours of scikit-learn among the photographs of other folds; groups lie in one fold, so none is the query's own."""
    images, truth = trained.atlas.images(), trained.truth
    for fold in range(3):
        network = trained.network(name, 1, fold)
        tested, learnt = trained.tested(fold), trained.learnt(fold)
        queries, others = (embed(fabric, network, images, rows).astype(np.float64) for rows in (tested, learnt))
        nearest = (
            NearestNeighbors(n_neighbors=len(learnt), algorithm="brute").fit(others).kneighbors(queries, return_distance=False)
        )
        table = {row["image_id"]: row for row in found.folds[name, 1, fold].tables["queries"].iter_rows(named=True)}
        for task, measure in (("lesion", "lesion_precision_at_5"), ("site", "site_precision_at_5")):
            labels = truth.values[task]
            for k, row in enumerate(tested):
                shown = labels[row] == 1
                order = [j for j in learnt[nearest[k]] if (labels[j][shown] >= 0).all()]
                hits = [bool((labels[j][shown] == 1).any()) for j in order]
                score = table[str(truth.image_ids[row])][measure]
                if not any(hits):
                    assert score is None
                else:
                    assert score == pytest.approx(np.mean(hits[:5]))


def test_coincidence_is_that_of_maps_made_by_hand(found, trained, fabric):
    images, truth = trained.atlas.images(), trained.truth
    checked = 0
    for fold in range(3):
        network = trained.network("mtl", 1, fold)
        table = found.folds["mtl", 1, fold].tables["coincidence"]
        for row in trained.tested(fold):
            pixels = torch.from_numpy(central_square(images[row], network.preprocessing)[:, 2:98, 2:98].copy())[None]
            with torch.no_grad():
                output = network((pixels.float() / 255 - 0.5) / 0.25)
            features = output.feature_map[0].double().numpy()
            shown = np.flatnonzero(truth.values["lesion"][row] == 1)
            site = truth.values["site"][row]
            k = int(site.argmax()) if (site == 1).any() else int(output.logits["site"][0].argmax())
            of_site = np.tensordot(network.heads["site"].weight[k].detach().double().numpy(), features, axes=1)
            rows = table.filter(image_id=str(truth.image_ids[row]))
            assert rows["lesion"].to_list() == [truth.labels["lesion"].classes[j] for j in shown]
            for j, correlation, overlap in zip(shown, rows["correlation"], rows["overlap"], strict=True):
                of_lesion = np.tensordot(network.heads["lesion"].weight[j].detach().double().numpy(), features, axes=1)
                assert of_lesion.shape == (3, 3)
                assert correlation == pytest.approx(np.corrcoef(of_lesion.ravel(), of_site.ravel())[0, 1], abs=1e-3)
                tops = [set(np.argsort(-values.ravel())[:2].tolist()) for values in (of_lesion, of_site)]
                assert overlap == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
                checked += 1
    assert checked == int((truth.values["lesion"] == 1).sum())
    assert all(not fold.tables["coincidence"].height for part, fold in found.folds.items() if part[0] == "resnet")


def test_the_same_photographs_are_checked_for_all_systems(found, trained):
    rows = sampled_rows(trained, SAMPLE)
    assert len(rows) == len(set(rows.tolist())) == SAMPLE
    assert sampled_rows(trained, 10**6).tolist() == list(range(len(trained.truth)))
    expected = set(trained.truth.image_ids[rows].tolist())
    for name, tasks in (("resnet", ["lesion"]), ("mtl", ["lesion", "site"])):
        for table in ("curves", "randomisation"):
            frame = pl.concat([fold.tables[table] for part, fold in found.folds.items() if part[0] == name])
            assert set(frame["image_id"].to_list()) == expected
            assert sorted(frame["task"].unique().to_list()) == tasks
            assert frame.group_by("image_id", "task").len()["len"].unique().to_list() == [3 if table == "curves" else 1]
        steps = pl.concat([fold.tables["curves"] for part, fold in found.folds.items() if part[0] == name])
        assert set(steps["deletion"].list.len().to_list()) == {11}
        # All three orders begin with the whole photograph and end with the blurred one.
        ends = steps.group_by("image_id", "task").agg(
            pl.col("deletion").list.first().n_unique(), pl.col("insertion").list.first().n_unique()
        )
        assert ends.select("deletion", "insertion").unique().rows() == [(1, 1)]


def map_by_hand(network, data, task, k):
    """(3, 3) the map of one class on the centre crop."""
    pixels = torch.from_numpy(central_square(data, network.preprocessing)[:, 2:98, 2:98].copy())[None]
    with torch.no_grad():
        features = network((pixels.float() / 255 - 0.5) / 0.25).feature_map[0].double().numpy()
    return np.tensordot(network.heads[task].weight[k].detach().double().numpy(), features, axes=1)


def random_by_hand(trained, name, stream):
    """A network that was never trained, with blocks that do something."""
    labels = trained.truth.labels.restricted_to(trained.run.info["systems"][name]["tasks"])
    network = build_network(labels, trained.recipe(name), stream)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return network.eval()


@pytest.mark.parametrize("name", SYSTEMS)
def test_maps_are_compared_with_random_weights_and_with_other_photographs(found, trained, name):
    """Against maps made by hand; those of the weights that the training started from would give other numbers."""
    images, sampled, groups = trained.atlas.images(), sampled_rows(trained, SAMPLE), trained.truth.group_indices()
    networks = [random_by_hand(trained, name, stream) for stream in (stream_seed(1, "random network"), 1)]
    apart, n_compared = [], 0
    for fold in range(3):
        network, table = trained.network(name, 1, fold), found.folds[name, 1, fold].tables["randomisation"]
        rows = sampled[np.isin(sampled, trained.tested(fold))]
        partner = one_fold._strangers(groups[rows])
        for task in network.labels.names:
            of_task = table.filter(task=task)
            assert of_task["image_id"].to_list() == trained.truth.image_ids[rows].tolist()
            classes = [network.labels[task].index(item) for item in of_task["class"]]
            maps = [map_by_hand(network, images[row], task, k) for row, k in zip(rows, classes, strict=True)]
            for at, (row, k) in enumerate(zip(rows, classes, strict=True)):
                expected, started = (
                    spearmanr(maps[at].ravel(), map_by_hand(other, images[row], task, k).ravel()).statistic for other in networks
                )
                assert of_task["rank_correlation"][at] == pytest.approx(
                    expected, abs=0.02
                )  # two cells nearly equal may change places
                apart.append(abs(started - expected))
                other = partner[at]
                if groups[rows[other]] == groups[row]:
                    assert of_task["unrelated"][at] is None
                    continue
                # The other photograph's map is of the class predicted for that.
                unrelated = spearmanr(maps[at].ravel(), maps[other].ravel()).statistic
                assert of_task["unrelated"][at] == pytest.approx(unrelated, abs=0.02)
                n_compared += 1
    assert len(apart) == SAMPLE * len(network.labels.names)
    assert max(apart) > 0.2
    assert n_compared


def test_a_map_is_compared_with_that_of_another_group():
    groups = np.array([0, 0, 0, 0, 1, 2, 2])
    partner = one_fold._strangers(groups)
    assert (groups[partner] != groups).all()
    assert one_fold._strangers(np.zeros(3, dtype=np.int64)).tolist() == [0, 1, 2]  # none is of another group
    # Where each is a group of its own, no photograph serves twice.
    assert sorted(one_fold._strangers(np.arange(20)).tolist()) == list(range(20))


def test_a_photograph_of_the_same_group_is_no_stranger(trained, fabric):
    """The whole fold is sampled, so that most photographs have another of their own patient among them."""
    rows = trained.tested(0)
    with trained.atlas.images() as images:
        fold = one_fold.Fold.of(trained, ("mtl", 1, 0), fabric, images, rows)
        look = one_fold._look(fold, lambda _: None)
        table = one_fold._randomisation(fold, look, lambda _: None).filter(task="site")
    groups, maps = trained.truth.group_indices()[rows], look.maps["site"].astype(np.float64)
    of_group = {(k, j): spearmanr(maps[k].ravel(), maps[j].ravel()).statistic for k in range(len(rows)) for j in range(len(rows))}
    assert len(np.unique(groups)) < len(rows)
    for k, value in enumerate(table["unrelated"]):
        others = [of_group[k, j] for j in range(len(rows)) if groups[j] != groups[k]]
        assert np.abs(np.array(others) - value).min() < 1e-9


# --- summed up


@pytest.mark.usefixtures("undrawn")
def test_the_gain_is_that_of_the_report(insight, trained):
    evaluation = trained.run.report()
    (pair,) = evaluation.gains
    (gain,) = insight.attention.systems["mtl"].coincidence.gains
    assert (gain.system_a, gain.system_b) == (pair.system_a, pair.system_b) == ("mtl", "resnet")
    ours, theirs = ({item.lesion: item.gain for item in found.lesions} for found in (gain, pair))
    assert ours
    assert ours == pytest.approx({name: theirs[name] for name in ours})
    assert insight.attention.systems["resnet"].coincidence is None


def test_the_summary_names_weights_systems_and_cost(insight, trained):
    results = {fold: trained.run.fold_result("mtl", 1, fold) for fold in range(3)}
    assert insight.weights["mtl"] == {
        "1": {str(k): result["files"]["checkpoint/weights.safetensors"] for k, result in results.items()}
    }
    assert list(insight.weights) == list(insight.cost) == list(insight.retrieval.systems) == list(SYSTEMS)
    assert insight.cost["mtl"].images > insight.cost["resnet"].images  # a second head has curves of its own
    assert insight.attention.systems["mtl"].cells == (3, 3)
    assert list(insight.attention.systems["mtl"].heads) == ["lesion", "site"]
    assert [(item.system_a, item.system_b, item.measure) for item in insight.retrieval.comparisons] == [
        ("mtl", "resnet", measure) for measure in MEASURES
    ]
    assert insight.retrieval.n_queries == len(trained.truth)


def test_gains_are_of_the_seeds_whose_maps_are_compared(trained, found, insight, monkeypatch):
    """A second seed that was not asked for, whose scores are those of other photographs, changes nothing."""
    of_seed = Run.seed_predictions

    def two_seeds(run, name, seed):
        known = of_seed(run, name, 1)
        turned = {task: np.roll(values, 5, axis=0) for task, values in known.scores.items()}
        return known if seed == 1 else replace(known, scores=turned, seeds=np.full(len(known), seed))

    monkeypatch.setattr(Run, "seed_predictions", two_seeds)
    run = replace(trained.run, info={**trained.run.info, "seeds": [1, 2]})
    both = run.system_predictions("mtl")
    assert sorted(both.by_seed()) == [1, 2]
    assert list(run.system_predictions("mtl", [2]).by_seed()) == [2]
    assert summarise(run, found.folds, sample=SAMPLE, command="c").attention == insight.attention


def test_a_network_without_maps_is_told_and_still_retrieves(copied, fabric, monkeypatch):
    def refuse(*_):
        raise UnexplainableError("the backbone X cannot be explained")

    monkeypatch.setattr(one_fold.Explainer, "of", refuse)
    shutil.rmtree(copied.run.path / "insight")
    told = []
    result = explain_folds(copied, ["resnet"], [1], sample=3, fabric=fabric, on_progress=lambda *counts: told.append(counts))
    done, total = told[-1]
    assert done == total == sum(fold.images for fold in result.values())  # no checks went through it
    found = summarise(copied.run, result, sample=3, command="c")
    assert found.attention.systems == {}
    assert found.attention.unexplained == {"resnet": "the backbone X cannot be explained"}
    assert found.retrieval.systems["resnet"].site_precision_at_5.value is not None


def test_without_a_sample_there_are_no_checks(copied, fabric):
    result = explain_folds(copied, ["mtl"], [1], sample=0, fabric=fabric)
    found = summarise(copied.run, result, sample=0, command="c").attention
    assert found.sample == 0
    assert found.systems["mtl"].heads == {}
    assert found.systems["mtl"].coincidence.lesions


# --- nothing finished is repeated


def test_a_second_time_nothing_is_looked_at(copied, found, fabric, monkeypatch):
    monkeypatch.setattr(explain, "explain_fold", forbidden)
    for part, known in explain_folds(copied, SYSTEMS, [1], sample=SAMPLE, fabric=fabric).items():
        for name, table in known.tables.items():
            assert table.equals(found.folds[part].tables[name])


def test_weights_are_not_needed_for_what_is_finished(copied, fabric):
    for weights in copied.run.path.rglob("weights.safetensors"):
        weights.unlink()
    assert len(explain_folds(copied, SYSTEMS, [1], sample=SAMPLE, fabric=fabric)) == 6
    with pytest.raises(
        RunError, match=r"fold-0/checkpoint/weights\.safetensors: there is no such file; remove .*fold-0 and --resume"
    ):
        explain_folds(copied, SYSTEMS, [1], sample=3, fabric=fabric)


def test_a_stopped_one_goes_on_with_the_fold_it_was_at(copied, found, fabric, monkeypatch):
    shutil.rmtree(copied.run.path / "insight")
    whole = explain.explain_fold

    def stopping(fold, tell):
        if len(list(copied.run.path.glob("insight/*/*/fold-*"))) == 1:
            tell(1)
            raise KeyboardInterrupt
        return whole(fold, tell)

    monkeypatch.setattr(explain, "explain_fold", stopping)
    with pytest.raises(KeyboardInterrupt):
        explain_folds(copied, ["resnet"], [1], sample=SAMPLE, fabric=fabric)
    done = []
    monkeypatch.setattr(explain, "explain_fold", lambda fold, tell: done.append(0) or whole(fold, tell))
    again = explain_folds(copied, ["resnet"], [1], sample=SAMPLE, fabric=fabric)
    assert len(done) == 2
    for part, known in again.items():
        for name, table in known.tables.items():
            assert table.equals(found.folds[part].tables[name]), (part, name)


def test_other_settings_and_other_weights_are_looked_at_anew(copied, fabric, monkeypatch):
    done = []
    whole = explain.explain_fold
    monkeypatch.setattr(explain, "explain_fold", lambda fold, tell: done.append(0) or whole(fold, tell))
    explain_folds(copied, ["resnet"], [1], sample=2, fabric=fabric)
    assert len(done) == 3
    monkeypatch.setattr(explain, "RANDOM_WEIGHTS", "another stream")
    explain_folds(copied, ["resnet"], [1], sample=2, fabric=fabric)
    assert len(done) == 6
    monkeypatch.setattr(Run, "weights_checksum", lambda *_: "0" * 64)
    monkeypatch.setattr(Run, "fold_weights", lambda self, *part: self.fold_folder(*part) / "checkpoint" / "weights.safetensors")
    explain_folds(copied, ["resnet"], [1], sample=2, fabric=fabric)
    assert len(done) == 9


def edited(path):
    value = read_json(path, InsightError)
    path.write_text(json.dumps({**value, "images": 1}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "queries.parquet").unlink(), r"queries\.parquet: there is no such file; remove its folder"),
        (lambda folder: (folder / "curves.parquet").write_bytes(b"PAR1"), r"curves\.parquet is not what was written"),
        (lambda folder: edited(folder / "fold.json"), r"fold\.json is not what was written"),
        (lambda folder: (folder / "fold.json").write_text('{"schema_version": 2}'), "schema version 2, allowed is 1"),
        (lambda folder: (folder / "fold.json").write_text("{"), r"fold\.json cannot be read"),
    ],
)
def test_a_damaged_fold_is_named(copied, fabric, damage, message):
    damage(fold_path(copied.run.path, "mtl", 1, 2))
    with pytest.raises(InsightError, match=message):
        explain_folds(copied, SYSTEMS, [1], sample=SAMPLE, fabric=fabric)


# --- the command and the report


def left(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return exit_.value.code


@pytest.mark.usefixtures("undrawn")
def test_the_command_writes_the_summary_and_the_report(copied, insight, monkeypatch, capsys):
    monkeypatch.setattr(explain, "explain_fold", forbidden)
    assert left("explain", copied.run.path, copied.atlas.path, "--sample", SAMPLE) == 0
    shown = capsys.readouterr().out
    tables = {
        line.rpartition(": ")[2].strip(): names
        for line, names in pairwise(line for line in shown.splitlines() if line.strip())
        if "embeddings" in line
    }
    assert {task: names.split() for task, names in tables.items()} == {
        "lesion": ["system", "precision@5", "mAP@R", "nDCG@5", "nDCG"],
        "site": ["system", "precision@5", "mAP@R"],
    }
    correlation = insight.attention.systems["mtl"].coincidence.correlation
    assert "Attention: maps of lesions and site " in shown
    assert re.search(rf"^ mtl +{re.escape(number(correlation.value))} ", shown, re.MULTILINE)
    assert shown.count("\n mtl, site ") == shown.count("\n resnet, lesion ") == 3  # deletion, insertion and random weights
    assert f"numbers   {insight_path(copied.run.path)}" in shown
    written = Insight.read(insight_path(copied.run.path))
    assert written.command == "predilect explain run small --sample 6"
    assert written.model_dump() == {**insight.model_dump(), "command": written.command}
    document = read_json(copied.run.path / "report" / "report.json", InsightError)
    assert document["attention"] == insight.attention.model_dump(mode="json")
    assert document["retrieval"] == insight.retrieval.model_dump(mode="json")
    assert 'id="attention"' in (copied.run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert (copied.run.path / "report" / "tables" / "retrieval.csv").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_system_that_the_report_no_longer_shows_is_named(copied, monkeypatch, capsys):
    monkeypatch.setattr(explain, "explain_fold", forbidden)

    def note(systems):
        assert left("explain", copied.run.path, copied.atlas.path, "--sample", SAMPLE, "--systems", systems) == 0
        document = read_json(copied.run.path / "report" / "report.json", InsightError)
        assert sorted(document["retrieval"]["systems"]) == sorted(systems.split(","))
        return [line for line in capsys.readouterr().out.splitlines() if "the report showed" in line]

    assert note("resnet") == []  # the first
    (told,) = note("mtl")
    assert told.startswith("note      the report showed resnet before and no longer does")
    assert note("resnet,mtl") == []  # none is missing
    insight_path(copied.run.path).write_text("{}", encoding="utf-8")  # what nothing can read is only replaced
    assert note("mtl") == []


@pytest.mark.usefixtures("undrawn")
def test_a_report_leaves_out_what_was_found_with_other_weights(copied, insight):
    copied.run.report()
    document = read_json(copied.run.path / "report" / "report.json", InsightError)
    assert "attention" not in document
    assert "retrieval" not in document
    stale = {**insight.weights, "mtl": {"1": {**insight.weights["mtl"]["1"], "2": "0" * 64}}}
    insight.model_copy(update={"weights": stale}).write(insight_path(copied.run.path))
    copied.run.report()
    document = read_json(copied.run.path / "report" / "report.json", InsightError)
    assert "attention" not in document
    assert any("folds were trained anew" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--systems", "mtl,resnt"], "trained no system 'resnt': did you mean 'resnet'"),
        (["--systems", "ensemble"], "trained no system 'ensemble'"),
        (["--seeds", "2"], "has no seed 2: allowed are 1"),
    ],
)
def test_what_the_run_has_not_is_named(copied, options, message, capsys):
    assert left("explain", copied.run.path, copied.atlas.path, *options) == 1
    assert message in capsys.readouterr().err


def test_an_unfinished_run_is_refused_before_any_work(copied, monkeypatch, capsys):
    shutil.rmtree(copied.run.fold_folder("resnet", 1, 2))
    monkeypatch.setattr(explain, "explain_fold", forbidden)
    assert left("explain", copied.run.path, copied.atlas.path, "--systems", "mtl") == 1
    assert "fold-2 is not finished; go on with the run by --resume" in capsys.readouterr().err
