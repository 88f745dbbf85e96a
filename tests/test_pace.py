"""What a log shows of long work: when it begins, how long it took, what is left, in whole lines and no more of them than needed."""

from __future__ import annotations

import doctest
import io

import pytest
from rich.console import Console

from predilect.cli import pace
from predilect.cli.pace import CountLog, TrainingLog
from predilect.cli.show import counting, training
from predilect.training.trainer import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [1000.0]
    monkeypatch.setattr("predilect.cli.pace.monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


@pytest.fixture
def log(monkeypatch):
    """What goes into a file instead of a terminal."""
    out = io.StringIO()
    monkeypatch.setattr("predilect.cli.show.console", Console(file=out, soft_wrap=True, highlight=False, markup=False))
    return out


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(pace)
    assert result.attempted >= 2
    assert result.failed == 0


def test_each_training_says_what_it_took_and_what_is_left(clock, log):
    progress = Progress(0, 100, 0.5, 0.001, 30.0, None)
    with training(24, finished=2) as tell:
        tell("resnet", 1, 2, progress)
        clock(312)
        tell("resnet", 1, 2, progress)
        tell("resnet", 1, 3, progress)  # before its last iteration: it ended early
        clock(288)
        tell("mtl", 1, None, progress)
        clock(7)
    assert log.getvalue().splitlines() == [
        "training 3 of 24: resnet seed 1 fold 2",
        "training 3 of 24 done in 5 min 12 s; about 1 h 49 min to go",
        "training 4 of 24: resnet seed 1 fold 3",
        "training 4 of 24 done in 4 min 48 s; about 1 h 40 min to go",
        "training 5 of 24: mtl seed 1 all groups",
        "training 5 of 24 done in 7 s; about 1 h 4 min to go",
    ]


def test_of_the_last_training_nothing_is_left(clock):
    said: list[str] = []
    one = TrainingLog(1, 0, said.append)
    one.end()  # nothing ran
    one.begin("mtl seed 1 fold 0")
    clock(60)
    one.end()
    assert said == ["training 1 of 1: mtl seed 1 fold 0", "training 1 of 1 done in 1 min"]


def test_a_training_that_goes_on_counts_for_the_share_that_is_done_here(clock, log):
    with training(24, finished=3) as tell:
        tell("mtl", 1, 0, Progress(75, 100, 0.5, 0.001, 0.0, None))  # a quarter is left
        clock(60)
        tell("mtl", 1, 1, Progress(0, 100, 0.5, 0.001, 0.0, None))
        clock(240)
    assert log.getvalue().splitlines() == [
        "training 4 of 24: mtl seed 1 fold 0",
        "training 4 of 24 done in 1 min; about 1 h 20 min to go",
        "training 5 of 24: mtl seed 1 fold 1",
        "training 5 of 24 done in 4 min; about 1 h 16 min to go",
    ]


def test_of_a_training_that_had_yet_to_be_tested_nothing_is_expected(clock, log):
    with training(3) as tell:
        tell("mtl", 1, 0, Progress(100, 100, 0.5, 0.001, 0.0, None))
        clock(30)
        tell("mtl", 1, 1, Progress(0, 100, 0.5, 0.001, 0.0, None))
        clock(240)
    assert log.getvalue().splitlines() == [
        "training 1 of 3: mtl seed 1 fold 0",
        "training 1 of 3 done in 30 s",
        "training 2 of 3: mtl seed 1 fold 1",
        "training 2 of 3 done in 4 min; about 4 min to go",
    ]


def test_a_training_that_is_stopped_is_not_done(clock, log):
    with pytest.raises(KeyboardInterrupt), training(2) as tell:  # noqa: PT012 - it is stopped while it runs
        tell("mtl", 1, 0, Progress(10, 100, 0.5, 0.001, 30.0, None))
        clock(60)
        raise KeyboardInterrupt
    assert log.getvalue() == "training 1 of 2: mtl seed 1 fold 0\n"


def test_long_counted_work_says_what_is_left_once_a_minute_and_its_end(clock, log):
    with counting("packing") as tell:
        for done in range(0, 10_001, 100):
            tell(done, 10_000)
            clock(4)
    assert log.getvalue().splitlines() == [
        "packing",
        "packing: 1,500 of 10,000; about 6 min to go",
        "packing: 3,000 of 10,000; about 5 min to go",
        "packing: 4,500 of 10,000; about 4 min to go",
        "packing: 6,000 of 10,000; about 3 min to go",
        "packing: 7,500 of 10,000; about 2 min to go",
        "packing: 9,000 of 10,000; about 40 s to go",
        "packing: done in 6 min 40 s",
    ]


def test_what_was_done_before_does_not_count_as_fast(clock):
    said: list[str] = []
    log = CountLog("looking", said.append)
    for done in (800, 900):
        log.tell(done, 1000)
        clock(90)
    assert said == ["looking", "looking: 900 of 1,000; about 2 min to go"]


def test_short_work_says_its_name_alone(clock, log):
    with counting("fitting") as tell:
        tell(0, 1)
        clock(59)
        tell(1, 1)
        tell(1, 1)
    with counting("nothing to do") as tell:
        tell(0, 0)
    assert log.getvalue() == "fitting\nnothing to do\n"
