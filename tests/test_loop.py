import json

import numpy as np
import pytest
import torch

from predilect.errors import RunError
from predilect.training import data as data_module
from predilect.training import loop
from predilect.training.data import BatchOrder, TrainingData, TrainingPhotos, training_loader
from predilect.training.devices import make_fabric
from predilect.training.inference import predict
from predilect.training.loop import fit
from predilect.vision.network import build_network

ALL = ("lesion", "site")


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


def training_data(atlas, tasks=ALL, n_train=24, n_validation=12):
    truth = atlas.truth(None)
    return TrainingData(
        images=atlas.images(),
        labels={task: torch.from_numpy(truth.values[task].copy()) for task in tasks},
        train_rows=np.arange(n_train),
        validation_rows=np.arange(n_train, n_train + n_validation),
    )


def train(fabric, atlas, recipe, folder, *, tasks=ALL, seed=1, identity="i", **options):
    network = build_network(atlas.labels.restricted_to(tasks), recipe, seed)
    data = options.pop("data", None) or training_data(atlas, tasks)
    fitted = fit(fabric, network, data, recipe, seed=seed, folder=folder, identity=identity, **options)
    return network, fitted


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_sixteen_photographs_are_learnt_by_heart(fabric, small_atlas, small_recipe, tmp_path):
    recipe = small_recipe.model_copy(update={"iterations": 80, "batch_size": 16, "keep": "last", "learning_rate": 0.01})
    data = training_data(small_atlas, n_train=16, n_validation=0)
    network, _ = train(fabric, small_atlas, recipe, tmp_path, data=data)
    scores = predict(fabric, network, data.images, data.train_rows)
    lesions, sites = (data.labels[task][:16].numpy() for task in ALL)
    known = lesions >= 0
    assert ((scores["lesion"] > 0.5) == (lesions > 0))[known].mean() > 0.98
    located = sites.max(axis=1) > 0
    assert (scores["site"].argmax(axis=1) == sites.argmax(axis=1))[located].mean() > 0.98
    np.testing.assert_allclose(scores["site"].sum(axis=1), 1, atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(fabric, small_atlas, small_recipe, tmp_path):
    first, _ = train(fabric, small_atlas, small_recipe, tmp_path / "a")
    torch.manual_seed(99)  # what went on before must not matter
    again, _ = train(fabric, small_atlas, small_recipe, tmp_path / "b")
    other, _ = train(fabric, small_atlas, small_recipe, tmp_path / "c", seed=2)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_loader_processes_change_nothing(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    alone, _ = train(fabric, small_atlas, small_recipe, tmp_path / "a")
    monkeypatch.setattr(loop, "default_workers", lambda _: 2)
    helped, _ = train(fabric, small_atlas, small_recipe, tmp_path / "b")
    assert same(alone, helped)


def test_the_site_head_changes_no_batch(small_atlas, small_recipe, monkeypatch, fabric, tmp_path):
    seen = {}
    for tasks in (("lesion",), ALL):
        batches = []
        step = loop.train_step
        monkeypatch.setattr(
            loop, "train_step", lambda *a, s=step, b=batches, **k: b.append([p[0].clone() for p in a[4]]) or s(*a, **k)
        )
        train(fabric, small_atlas, small_recipe, tmp_path / "-".join(tasks), tasks=tasks)
        monkeypatch.setattr(loop, "train_step", step)
        seen[tasks] = batches
    alone, both = seen.values()
    assert len(alone) == small_recipe.iterations
    assert all(torch.equal(x, y) for one, two in zip(alone, both, strict=True) for x, y in zip(one, two, strict=True))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "keep": "last", "schedule": "plateau", "plateau_patience": 1}])
@pytest.mark.parametrize("after", [1, 5, 9])
def test_a_resumed_training_ends_with_the_same_weights(fabric, small_atlas, small_recipe, tmp_path, monkeypatch, changes, after):
    recipe = small_recipe.model_copy(update=changes)
    whole, fitted = train(fabric, small_atlas, recipe, tmp_path / "whole")
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def kill(progress):
        if progress.iteration >= after:
            raise KilledError

    with pytest.raises(KilledError):
        train(fabric, small_atlas, recipe, tmp_path / "parts", on_progress=kill)
    resumed, again = train(fabric, small_atlas, recipe, tmp_path / "parts")
    assert same(whole, resumed)
    assert (fitted.chosen_iteration, fitted.drops) == (again.chosen_iteration, again.drops)

    def losses(folder):
        return [
            {key: value for key, value in json.loads(line).items() if key != "images_per_second"}
            for line in (folder / "log.jsonl").read_text().splitlines()
        ]

    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_a_checkpoint_of_another_training_is_refused(fabric, small_atlas, small_recipe, tmp_path):
    train(fabric, small_atlas, small_recipe, tmp_path)
    with pytest.raises(RunError, match="belongs to a training with another recipe"):
        train(fabric, small_atlas, small_recipe, tmp_path, identity="j")
    path = tmp_path / "checkpoint" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="is damaged"):
        train(fabric, small_atlas, small_recipe, tmp_path)


def test_accumulated_parts_are_the_whole_batch_where_statistics_are_frozen(fabric, small_atlas, small_recipe, tmp_path):
    recipe = small_recipe.model_copy(update={"batchnorm": "frozen", "optimizer": "sgd", "iterations": 3, "learning_rate": 1e-3})
    whole, _ = train(fabric, small_atlas, recipe, tmp_path / "a")
    parts, _ = train(fabric, small_atlas, recipe.model_copy(update={"accumulate": 4}), tmp_path / "b")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_keeping_the_best_returns_the_weights_of_the_lowest_validation_loss(fabric, small_atlas, small_recipe, tmp_path):
    # A rate far too high from the start makes the first validation the best.
    recipe = small_recipe.model_copy(update={"learning_rate": 0.5, "schedule": "constant", "iterations": 12, "validate_every": 3})
    _, fitted = train(fabric, small_atlas, recipe, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validations = {line["iteration"]: line["validation_loss"] for line in lines if line["validation_loss"] is not None}
    assert fitted.chosen_iteration == min(validations, key=validations.get)
    assert fitted.validation_loss == min(validations.values())


def test_a_diverging_training_says_so(fabric, small_atlas, small_recipe, tmp_path):
    recipe = small_recipe.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd", "schedule": "constant"})
    with pytest.raises(RunError, match=r"no longer finite.*lower learning_rate"):
        train(fabric, small_atlas, recipe, tmp_path)


def test_batches_are_permutations_one_after_another():
    rows = np.array([3, 5, 8, 9, 11])
    order = [key for batch in BatchOrder(rows, 4, 1, range(5)) for key in batch]
    assert len(order) == 20
    for epoch in range(4):
        assert sorted(row for e, row in order if e == epoch) == rows.tolist()
    resumed = [key for batch in BatchOrder(rows, 4, 1, range(3, 5)) for key in batch]
    assert resumed == order[12:]
    shared = [list(BatchOrder(rows, 4, 1, range(5), parts=2, rank=rank, world=2)) for rank in (0, 1)]
    assert sorted(key for rank in shared for batch in rank for key in batch) == sorted(order)
    assert all(len(batch) == 1 for rank in shared for batch in rank)


def test_the_loader_gives_each_row_its_own_crop(small_atlas, small_recipe):
    photos = TrainingPhotos(small_atlas.images(), small_recipe.preprocessing, 1)
    order = BatchOrder(np.arange(6), 6, 1, range(2))
    batches = list(training_loader(photos, order, 0, pin=False))
    assert [images.shape for images, _ in batches] == [(6, 3, 32, 32)] * 2
    (first, rows), (second, later) = batches
    where = {int(row): k for k, row in enumerate(later)}
    assert sorted(rows.tolist()) == list(range(6))
    assert any(not torch.equal(first[k], second[where[int(row)]]) for k, row in enumerate(rows))


def test_two_shared_cores_get_no_loader_process(monkeypatch):
    monkeypatch.setattr(data_module.os, "sched_getaffinity", lambda _: {0, 1})
    assert data_module.default_workers(torch.device("cpu")) == 0
    assert data_module.default_workers(torch.device("cuda")) == 1
    monkeypatch.setattr(data_module.os, "sched_getaffinity", lambda _: set(range(16)))
    assert data_module.default_workers(torch.device("cpu")) == 8
