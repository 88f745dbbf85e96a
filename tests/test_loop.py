"""What a training learns, that its seed alone decides it, and which weights it ends with."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from made_training import ALL, log_lines, same, train, training_data
from predilect.errors import RunError
from predilect.training import loop, trainer
from predilect.training.devices import make_fabric
from predilect.training.inference import predict, validation_losses
from predilect.training.loop import fit
from predilect.vision.network import build_network


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


def test_the_same_seed_gives_the_same_weights_and_scores_and_another_seed_others(
    either_fabric, small_atlas, small_recipe, tmp_path
):
    first, _ = train(either_fabric, small_atlas, small_recipe, tmp_path / "a")
    torch.manual_seed(99)  # what went on before must not matter
    again, _ = train(either_fabric, small_atlas, small_recipe, tmp_path / "b")
    other, _ = train(either_fabric, small_atlas, small_recipe, tmp_path / "c", seed=2)
    assert same(first, again)
    assert not same(first, other)
    images, rows = small_atlas.images(), np.arange(len(small_atlas))
    scores, scores_again, scores_of_other = (predict(either_fabric, network, images, rows) for network in (first, again, other))
    for task, values in scores.items():
        assert values.tobytes() == scores_again[task].tobytes() != scores_of_other[task].tobytes(), task


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_loader_processes_change_nothing(either_fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    alone, _ = train(either_fabric, small_atlas, small_recipe, tmp_path / "a")
    monkeypatch.setattr(trainer, "default_workers", lambda _: 2)
    helped, _ = train(either_fabric, small_atlas, small_recipe, tmp_path / "b")
    assert same(alone, helped)


def test_the_site_head_changes_no_batch(small_atlas, small_recipe, monkeypatch, fabric, tmp_path):
    seen = {}
    for tasks in (("lesion",), ALL):
        batches = []
        step = trainer.train_step
        monkeypatch.setattr(
            trainer, "train_step", lambda *a, s=step, b=batches, **k: b.append([p[0].clone() for p in a[4]]) or s(*a, **k)
        )
        train(fabric, small_atlas, small_recipe, tmp_path / "-".join(tasks), tasks=tasks)
        monkeypatch.setattr(trainer, "train_step", step)
        seen[tasks] = batches
    alone, both = seen.values()
    assert len(alone) == small_recipe.iterations
    assert all(torch.equal(x, y) for one, two in zip(alone, both, strict=True) for x, y in zip(one, two, strict=True))


def test_accumulated_parts_are_the_whole_batch_where_statistics_are_frozen(fabric, small_atlas, small_recipe, tmp_path):
    recipe = small_recipe.model_copy(update={"batchnorm": "frozen", "optimizer": "sgd", "iterations": 3, "learning_rate": 1e-3})
    whole, _ = train(fabric, small_atlas, recipe, tmp_path / "a")
    parts, _ = train(fabric, small_atlas, recipe.model_copy(update={"accumulate": 4}), tmp_path / "b")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_keeping_the_best_returns_the_weights_of_the_lowest_validation_loss(fabric, small_atlas, small_recipe, tmp_path):
    # A rate that rises far too high makes the first validation the best.
    changes = {"learning_rate": 0.1, "warmup": 11, "schedule": "constant", "iterations": 12, "validate_every": 3}
    recipe = small_recipe.model_copy(update=changes)
    data = training_data(small_atlas)
    network, fitted = train(fabric, small_atlas, recipe, tmp_path, data=data)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validations = {line["iteration"]: line["validation_loss"] for line in lines if line["validation_loss"] is not None}
    assert fitted.chosen_iteration == min(validations, key=validations.get)
    assert fitted.validation_loss == min(validations.values())
    assert fitted.chosen_iteration < recipe.iterations
    losses = validation_losses(fabric, network, data.images, data.validation_rows, data.labels)
    assert sum(losses.values()) == pytest.approx(fitted.validation_loss)


def test_bf16_computes_the_backbone_and_nothing_else(small_atlas, small_recipe, tmp_path):
    fabric = make_fabric("bf16")
    recipe = small_recipe.model_copy(update={"iterations": 3, "validate_every": 1})
    network = build_network(small_atlas.labels, recipe, 1)
    computed = set()
    network.backbone.layer4.register_forward_hook(
        lambda _module, _inputs, output: computed.add((output.dtype, torch.is_grad_enabled()))
    )
    data = training_data(small_atlas)
    fitted = fit(fabric, network, data, recipe, seed=1, folder=tmp_path, identity="i")
    scores = predict(fabric, network, data.images, np.arange(len(small_atlas)))
    assert computed == {(torch.bfloat16, True), (torch.bfloat16, False)}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert np.isfinite(fitted.validation_loss)
    for task, values in scores.items():
        assert values.dtype == np.float32, task
        exact = torch.from_numpy(values)
        # Averaging and softmax in fp32 of scores that were rounded before would leave far fewer different ones.
        assert (exact.bfloat16().float() != exact).float().mean() > 0.9, task
        assert len(np.unique(values)) > len(np.unique(exact.bfloat16().float())), task


def test_progress_follows_the_clock_and_the_log_does_not(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    """Steps of 0.4 seconds, and a log line only at the end: told before them, after every third one, and at the end."""
    recipe = small_recipe.model_copy(update={"iterations": 11, "validate_every": 1000})
    often = recipe.model_copy(update={"validate_every": 30})
    train(fabric, small_atlas, recipe, tmp_path / "untold")
    train(fabric, small_atlas, often, tmp_path / "often")  # a log line after every third step
    now, told = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda *a, **k: now.append(now.pop() + 0.4) or step(*a, **k))
    train(fabric, small_atlas, recipe, tmp_path / "told", on_progress=told.append)
    begun = told.pop(0)
    assert (begun.iteration, begun.loss, begun.images_per_second) == (0, None, 0)
    assert [progress.iteration for progress in told] == [3, 6, 9, 11]
    assert log_lines(tmp_path / "told") == log_lines(tmp_path / "untold")
    logged = log_lines(tmp_path / "often")
    assert [line["iteration"] for line in logged] == [3, 6, 9, 11]
    assert [progress.learning_rate for progress in told] == [line["learning_rate"] for line in logged]
    assert told[0].loss == logged[0]["loss"]
    assert told[1].loss == pytest.approx((logged[0]["loss"] + logged[1]["loss"]) / 2)
    assert [progress.images_per_second for progress in told] == pytest.approx([8 / 0.4] * 4)
    assert [progress.validation_loss for progress in told[:-1]] == [None] * 3


def test_a_diverging_training_says_so(fabric, small_atlas, small_recipe, tmp_path):
    recipe = small_recipe.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd", "schedule": "constant"})
    with pytest.raises(RunError, match=r"no longer finite.*lower learning_rate"):
        train(fabric, small_atlas, recipe, tmp_path)


def test_rarity_weights_move_a_training_that_has_lesions_and_no_other(fabric, small_atlas, small_recipe, tmp_path):
    weighted = small_recipe.model_copy(update={"rarity_exponent": 0.5})
    for tasks, unmoved in ((ALL, False), (("site",), True)):
        first, _ = train(fabric, small_atlas, small_recipe, tmp_path / f"{len(tasks)}-plain", tasks=tasks)
        second, _ = train(fabric, small_atlas, weighted, tmp_path / f"{len(tasks)}-weighted", tasks=tasks)
        assert same(first, second) == unmoved


def test_the_average_of_the_weights_is_what_is_used(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    """The average by hand: the first weights, then 0.8 of it and 0.2 of each later one."""
    recipe = small_recipe.model_copy(update={"average_decay": 0.8, "keep": "last", "iterations": 5})
    seen = []
    add = trainer.WeightAverage.add
    monkeypatch.setattr(
        trainer.WeightAverage,
        "add",
        lambda self, network: (seen.append({k: v.clone() for k, v in network.state_dict().items()}), add(self, network)),
    )
    network, _ = train(fabric, small_atlas, recipe, tmp_path)
    assert len(seen) == 5
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            expected = seen[0][name]
            for weights in seen[1:]:
                expected = 0.8 * expected + 0.2 * weights[name]
            torch.testing.assert_close(value, expected, msg=name)
    assert not same(network, train(fabric, small_atlas, recipe.model_copy(update={"average_decay": 0.0}), tmp_path / "plain")[0])


def test_the_averaged_weights_are_validated(fabric, small_atlas, small_recipe, tmp_path):
    data = training_data(small_atlas)
    recipe = small_recipe.model_copy(update={"average_decay": 0.7, "keep": "last"})
    network, fitted = train(fabric, small_atlas, recipe, tmp_path, data=data)
    losses = validation_losses(fabric, network, data.images, data.validation_rows, data.labels)
    assert sum(losses.values()) == pytest.approx(fitted.validation_loss)


def test_the_sites_loss_counts_its_weight(fabric, small_atlas, small_recipe, tmp_path):
    plain, _ = train(fabric, small_atlas, small_recipe, tmp_path / "plain")
    heavy = small_recipe.model_copy(update={"site_weight": 3.0})
    weighed, _ = train(fabric, small_atlas, heavy, tmp_path / "weighed")
    assert not same(plain, weighed)
    # The log tells the losses themselves, so that they compare: the first step starts from the same weights.
    first, second = (log_lines(tmp_path / name)[0] for name in ("plain", "weighed"))
    assert first["losses"] == second["losses"]
    # SGD moves a head in proportion to its loss.
    once = small_recipe.model_copy(
        update={"optimizer": "sgd", "iterations": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    )
    start = build_network(small_atlas.labels, once, 1).heads["site"].weight
    moved = [
        train(fabric, small_atlas, once.model_copy(update={"site_weight": weight, "keep": "last"}), tmp_path / f"{weight}")[0]
        for weight in (1.0, 3.0)
    ]
    steps = [network.heads["site"].weight - start for network in moved]
    torch.testing.assert_close(steps[1], 3 * steps[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moved[0].heads["lesion"].weight, moved[1].heads["lesion"].weight)
