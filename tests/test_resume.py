"""A training that is killed and goes on ends with the same weights and the same log, and takes no other training's checkpoint."""

from __future__ import annotations

import math
import random
import shutil
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_training import log_lines, same, train
from predilect.errors import DiskError, RunError
from predilect.training import loop, trainer
from predilect.training.checkpoint import read_checkpoint


class KilledError(Exception):
    pass


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
def test_a_resumed_training_ends_with_the_same_weights(
    either_fabric, small_atlas, small_recipe, tmp_path, monkeypatch, changes, after
):
    once = partial(train, either_fabric, small_atlas, small_recipe.model_copy(update=changes))
    assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(after))


def test_a_resumed_training_takes_up_accumulated_parts(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    once = partial(train, fabric, small_atlas, small_recipe.model_copy(update={"accumulate": 2}))
    assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(5))


def test_a_resumed_training_draws_the_same_dropout(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    once = partial(train, fabric, small_atlas, small_recipe, dropout=0.5)
    whole = assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(5))
    without, _ = train(fabric, small_atlas, small_recipe, tmp_path / "without")
    assert not same(whole, without)


@contextmanager
def killed_in(monkeypatch, iteration):
    """The training is killed in an iteration; before it a checkpoint was due after every fifth one, and a log line after every third."""
    step = trainer.Trainer.step

    def stepping(training, parts):
        if training.state.iteration + 1 == iteration:
            raise KilledError
        step(training, parts)
        monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0 if training.state.iteration % 5 == 0 else math.inf)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", stepping)
        yield


# Settings, and the dropout of the network.
KINDS = {
    "averaged": ({"average_decay": 0.9, "site_weight": 3.0, "rarity_exponent": 0.5, "warmup": 4, "keep": "last"}, 0.0),
    "validated": (
        {"average_decay": 0.9, "optimizer": "sgd", "schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.9},
        0.0,
    ),
    "dropout": ({"accumulate": 2, "batchnorm": "frozen"}, 0.5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_in_random_iterations_ends_the_same(
    either_fabric, small_atlas, small_recipe, tmp_path, monkeypatch, kind
):
    settings, dropout = KINDS[kind]
    recipe = small_recipe.model_copy(update={"iterations": 24, "validate_every": 30, **settings})
    once = partial(train, either_fabric, small_atlas, recipe, dropout=dropout)
    whole, fitted = once(tmp_path / "whole")
    for iteration in sorted(random.Random(kind).sample(range(2, 25), 4)):
        with killed_in(monkeypatch, iteration), pytest.raises(KilledError):
            once(tmp_path / "parts")
        if iteration > 5:
            checkpoint = read_checkpoint(tmp_path / "parts" / "checkpoint" / "state.safetensors", "i")
            assert checkpoint.progress["iteration"] == (iteration - 1) // 5 * 5
    resumed, again = once(tmp_path / "parts")
    assert same(whole, resumed)
    assert (fitted.chosen_iteration, fitted.drops) == (again.chosen_iteration, again.drops)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")


def test_a_checkpoint_is_due_by_the_clock_whatever_the_log_does(fabric, small_atlas, small_recipe, tmp_path, monkeypatch):
    """Steps of 25 seconds, and a log line after every hundredth: a checkpoint after every third step, and at the end."""
    now, written = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda *a, **k: now.append(now.pop() + 25.0) or step(*a, **k))
    monkeypatch.setattr(trainer, "write_checkpoint", lambda _, checkpoint: written.append(checkpoint.progress["iteration"]))
    train(fabric, small_atlas, small_recipe.model_copy(update={"validate_every": 1000, "iterations": 11}), tmp_path)
    assert written == [3, 6, 9, 11]


@pytest.mark.parametrize("last", [1, 6, 12])
def test_a_kill_between_checkpoint_and_log_loses_and_repeats_nothing(
    fabric, small_atlas, small_recipe, tmp_path, monkeypatch, last
):
    write, saved, killed = trainer.write_text, trainer.write_checkpoint, []
    written = []

    def kill_once(path, text):
        if path.is_relative_to(tmp_path / "parts") and written[-1] == last and not killed:
            killed.append(path)
            state = read_checkpoint(tmp_path / "parts" / "checkpoint" / "state.safetensors", "i")
            assert state.progress["iteration"] == last
            raise KilledError
        write(path, text)

    def save(path, checkpoint):
        written.append(checkpoint.progress["iteration"])
        saved(path, checkpoint)

    monkeypatch.setattr(trainer, "write_text", kill_once)
    monkeypatch.setattr(trainer, "write_checkpoint", save)
    assert_resumed_ends_the_same(partial(train, fabric, small_atlas, small_recipe), tmp_path, monkeypatch)
    assert written[-12:] == list(range(1, 13))  # no iteration was done twice
    assert killed


def test_a_log_without_its_checkpoint_is_not_overwritten(fabric, small_atlas, small_recipe, tmp_path):
    train(fabric, small_atlas, small_recipe, tmp_path)
    (tmp_path / "checkpoint" / "state.safetensors").unlink()
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"checkpoint/state.safetensors: there is no such file, though by its log.jsonl"):
        train(fabric, small_atlas, small_recipe, tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert not any((tmp_path / "checkpoint").iterdir())


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


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_resumed_average_ends_the_same(fabric, small_atlas, small_recipe, tmp_path, monkeypatch, keep):
    once = partial(train, fabric, small_atlas, small_recipe.model_copy(update={"average_decay": 0.7, "keep": keep}))
    assert_resumed_ends_the_same(once, tmp_path, monkeypatch, on_progress=killed_after(5))
