"""Ctrl-C and SIGTERM: the first waits for the step that runs and its checkpoint, the second does not."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from made_training import log_lines, same, train
from predilect.training import trainer
from predilect.training.checkpoint import read_checkpoint


@contextmanager
def signalled(monkeypatch, numbers, *, in_step):
    """Signals arrive in the middle of a training step, and the second one, if any, while the checkpoint is written."""
    step, write, calls = trainer.train_step, trainer.write_checkpoint, []

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
        patch.setattr(trainer, "train_step", stepping)
        patch.setattr(trainer, "write_checkpoint", writing)
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
    validate, heard = trainer.validation_losses, []

    def long_validation(*arguments):
        signal.raise_signal(signal.SIGINT)
        heard.append(capfd.readouterr().err)
        return validate(*arguments)

    monkeypatch.setattr(trainer, "validation_losses", long_validation)
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
