import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.errors import DiskError, RunError
from predilect.training import data as data_module
from predilect.training import loop
from predilect.training.checkpoint import read_checkpoint
from predilect.training.data import BatchOrder, TrainingData, TrainingPhotos, training_loader
from predilect.training.devices import make_fabric
from predilect.training.inference import predict, validation_losses
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


def train(fabric, atlas, recipe, folder, *, tasks=ALL, seed=1, identity="i", dropout=0.0, **options):
    network = build_network(atlas.labels.restricted_to(tasks), recipe, seed)
    network.backbone.drop_rate = dropout
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


def log_lines(folder):
    """The log without what depends on the clock."""
    return [
        {key: value for key, value in json.loads(line).items() if key != "images_per_second"}
        for line in (folder / "log.jsonl").read_text().splitlines()
    ]


def assert_resumed_ends_the_same(once, tmp_path, monkeypatch, **killing):
    """Train to the end; train until killed, and on from there: there must be no difference."""
    whole, fitted = once(tmp_path / "whole")
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KilledError):
        once(tmp_path / "parts", **killing)
    resumed, again = once(tmp_path / "parts")
    assert same(whole, resumed)
    assert (fitted.chosen_iteration, fitted.drops) == (again.chosen_iteration, again.drops)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")
    return whole


def killed_after(iteration):
    def kill(progress):
        if progress.iteration >= iteration:
            raise KilledError

    return kill


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "keep": "last", "schedule": "plateau", "plateau_patience": 1}])
@pytest.mark.parametrize("after", [1, 5, 9])
def test_a_resumed_training_ends_with_the_same_weights(fabric, small_atlas, small_recipe, tmp_path, monkeypatch, changes, after):
    once = partial(train, fabric, small_atlas, small_recipe.model_copy(update=changes))
    assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(after))


def test_a_resumed_training_takes_up_accumulated_parts(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    once = partial(train, fabric, small_atlas, small_recipe.model_copy(update={"accumulate": 2}))
    assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(5))


def test_a_resumed_training_draws_the_same_dropout(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    once = partial(train, fabric, small_atlas, small_recipe, dropout=0.5)
    whole = assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(5))
    without, _ = train(fabric, small_atlas, small_recipe, tmp_path / "without")
    assert not same(whole, without)


def test_a_kill_between_log_and_checkpoint_loses_and_repeats_nothing(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    write, calls = loop.write_checkpoint, []

    def kill_once(path, checkpoint):
        calls.append(checkpoint.progress["iteration"])
        if path.is_relative_to(tmp_path / "parts") and checkpoint.progress["iteration"] == 6 and calls.count(6) == 1:
            assert log_lines(tmp_path / "parts")[-1]["iteration"] == 6
            raise KilledError
        write(path, checkpoint)

    monkeypatch.setattr(loop, "write_checkpoint", kill_once)
    assert_resumed_ends_the_same(partial(train, fabric, small_atlas, small_recipe), tmp_path, monkeypatch)
    assert calls.count(6) == 2  # after the kill, iteration 6 is done again


def test_a_checkpoint_of_another_training_is_refused(fabric, small_atlas, small_recipe, tmp_path):
    train(fabric, small_atlas, small_recipe, tmp_path)
    with pytest.raises(RunError, match="belongs to a training with another recipe"):
        train(fabric, small_atlas, small_recipe, tmp_path, identity="j")
    path = tmp_path / "checkpoint" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="is damaged"):
        train(fabric, small_atlas, small_recipe, tmp_path)


@pytest.fixture(scope="module")
def state(fabric, small_atlas, small_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    train(fabric, small_atlas, small_recipe, folder)
    return (folder / "checkpoint" / "state.safetensors").read_bytes()


@given(st.data())
@settings(max_examples=60)
def test_any_flipped_bit_of_a_checkpoint_is_noticed(state, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flipped") / "state.safetensors"
    n_header = int.from_bytes(state[:8], "little")
    part = data.draw(st.sampled_from([(0, 8 + n_header), (8 + n_header, len(state))]))
    content = bytearray(state)
    content[data.draw(st.integers(part[0], part[1] - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(RunError):
        read_checkpoint(path, "i")
    path.write_bytes(state)
    assert read_checkpoint(path, "i").progress["iteration"] == 12


def test_a_lost_or_edited_log_is_written_again_from_the_checkpoint(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    whole, _ = train(fabric, small_atlas, small_recipe, tmp_path / "whole")
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KilledError):
        train(fabric, small_atlas, small_recipe, tmp_path / "parts", on_progress=killed_after(5))
    (tmp_path / "parts" / "log.jsonl").write_text("no log")
    resumed, _ = train(fabric, small_atlas, small_recipe, tmp_path / "parts")
    assert same(whole, resumed)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")


def test_a_folder_that_is_removed_meanwhile_is_not_made_again(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def remove(progress):
        if progress.iteration == 3:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(DiskError, match="fold-0 cannot be written: it was removed"):
        train(fabric, small_atlas, small_recipe, tmp_path / "run" / "fold-0", on_progress=remove)
    assert not (tmp_path / "run").exists()


@contextmanager
def signalled(monkeypatch, numbers, *, in_step):
    """Signals arrive in the middle of a training step, and the second one, if any, while the checkpoint is written."""
    step, write, calls = loop.train_step, loop.write_checkpoint, []

    def stepping(*arguments, **options):
        calls.append(1)
        if len(calls) == in_step:
            signal.raise_signal(numbers[0])
        return step(*arguments, **options)

    def writing(*arguments):
        if len(calls) == in_step and len(numbers) > 1:
            signal.raise_signal(numbers[1])
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stepping)
        patch.setattr(loop, "write_checkpoint", writing)
        yield


@pytest.mark.parametrize("in_step", [3, 4, 12])
def test_ctrl_c_keeps_the_step_that_runs_even_between_log_lines(fabric, small_atlas, small_recipe, tmp_path, monkeypatch, in_step):
    recipe = small_recipe.model_copy(update={"validate_every": 40})  # a log line after every fourth step
    whole, _ = train(fabric, small_atlas, recipe, tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with signalled(monkeypatch, [signal.SIGINT], in_step=in_step), pytest.raises(KeyboardInterrupt):
        train(fabric, small_atlas, recipe, tmp_path / "parts")
    assert signal.getsignal(signal.SIGINT) is before
    path = tmp_path / "parts" / "checkpoint" / "state.safetensors"
    checkpoint = read_checkpoint(path, "i")
    assert checkpoint.progress["iteration"] == in_step
    assert checkpoint.progress["steps"] == in_step % 4
    resumed, _ = train(fabric, small_atlas, recipe, tmp_path / "parts")
    assert same(whole, resumed)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")


def test_the_first_signal_is_answered_at_once_and_once(fabric, small_atlas, small_recipe, tmp_path, monkeypatch, capfd):
    validate, heard = loop.validation_losses, []

    def long_validation(*arguments):
        signal.raise_signal(signal.SIGINT)
        heard.append(capfd.readouterr().err)
        return validate(*arguments)

    monkeypatch.setattr(loop, "validation_losses", long_validation)
    with pytest.raises(KeyboardInterrupt):
        train(fabric, small_atlas, small_recipe, tmp_path)
    assert heard == ["stopping: the state is saved after this step; a second signal stops at once, without saving\n"]
    assert capfd.readouterr().err == ""
    assert read_checkpoint(tmp_path / "checkpoint" / "state.safetensors", "i").progress["iteration"] == 4


def test_a_second_signal_ends_at_once(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    with signalled(monkeypatch, [signal.SIGINT] * 2, in_step=5), pytest.raises(KeyboardInterrupt):
        train(fabric, small_atlas, small_recipe, tmp_path)
    assert not (tmp_path / "checkpoint" / "state.safetensors").exists()


def test_a_signal_that_is_ignored_stays_ignored(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signalled(monkeypatch, [signal.SIGINT], in_step=5):
            _, fitted = train(fabric, small_atlas, small_recipe, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert fitted.iterations == 12


def test_a_signal_that_is_only_noted_still_stops_the_training(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    try:
        with signalled(monkeypatch, [signal.SIGTERM], in_step=5), pytest.raises(KeyboardInterrupt):
            train(fabric, small_atlas, small_recipe, tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert noted == [signal.SIGTERM]
    assert read_checkpoint(tmp_path / "checkpoint" / "state.safetensors", "i").progress["iteration"] == 5


def test_any_thread_may_train(fabric, small_atlas, small_recipe, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        _, fitted = pool.submit(train, fabric, small_atlas, small_recipe, tmp_path).result()
    assert fitted.iterations == 12


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
    add = loop.WeightAverage.add
    monkeypatch.setattr(
        loop.WeightAverage,
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


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_resumed_average_ends_the_same(fabric, small_atlas, small_recipe, tmp_path, monkeypatch, keep):
    once = partial(train, fabric, small_atlas, small_recipe.model_copy(update={"average_decay": 0.7, "keep": keep}))
    assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(5))


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
