"""Batches of many askers: each gets its own answer, what waits is bounded, and a fault reaches all whom it concerns."""

import asyncio
import threading

import pytest

from predilect.serving.batching import Batcher, FullError


class Doubling:
    """Doubles numbers, when it may, and remembers its batches."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.begun, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def __call__(self, items):
        self.begun.set()
        self.go.wait(20)
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        if 13 in items:
            raise RuntimeError("thirteen")
        return [2 * item for item in items]


def batcher_of(answer, capacity=100, max_batch=4, gather_seconds=0.0):
    return Batcher(answer, capacity=capacity, max_batch=max_batch, gather_seconds=gather_seconds)


async def began(answer):
    assert await asyncio.to_thread(answer.begun.wait, 20)


def test_each_gets_its_own_answer_and_batches_gather_while_one_runs():
    doubling = Doubling(held=True)

    async def ask():
        batcher = batcher_of(doubling)
        first = asyncio.create_task(batcher.ask(0))
        await began(doubling)
        others = [asyncio.create_task(batcher.ask(k)) for k in range(1, 10)]
        await asyncio.sleep(0)
        doubling.go.set()
        answers = [await task for task in (first, *others)]
        batcher.close()
        return answers

    assert asyncio.run(ask()) == [2 * k for k in range(10)]
    assert doubling.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert len(doubling.threads) == 1
    assert doubling.threads != {threading.get_ident()}


def test_a_first_item_waits_for_others():
    doubling = Doubling()

    async def ask():
        batcher = batcher_of(doubling, gather_seconds=0.2)
        answers = await asyncio.gather(batcher.ask(1), batcher.ask(2))
        batcher.close()
        return answers

    assert asyncio.run(ask()) == [2, 4]
    assert doubling.batches == [[1, 2]]


def test_a_fault_is_raised_for_its_batch_and_the_next_one_is_answered():
    async def ask():
        batcher = batcher_of(Doubling())
        with pytest.raises(RuntimeError, match="thirteen"):
            await batcher.ask(13)
        answer = await batcher.ask(4)
        batcher.close()
        return answer

    assert asyncio.run(ask()) == 8


def test_who_went_away_is_not_answered():
    doubling = Doubling(held=True)

    async def ask():
        batcher = batcher_of(doubling)
        first = asyncio.create_task(batcher.ask(0))
        await began(doubling)
        gone, stayed = asyncio.create_task(batcher.ask(1)), asyncio.create_task(batcher.ask(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        doubling.go.set()
        assert await first == 0
        assert await stayed == 4
        batcher.close()

    asyncio.run(ask())
    assert doubling.batches == [[0], [2]]


def test_places_are_bounded_and_given_back():
    batcher = batcher_of(Doubling(), capacity=3)
    with batcher.places(2):
        batcher.check_room()
        with pytest.raises(FullError), batcher.places(2):
            pass
        with batcher.places(1):
            with pytest.raises(FullError) as raised:
                batcher.check_room()
            assert raised.value.retry_after >= 1
    with batcher.places(3):
        pass
    batcher.close()


def test_who_comes_too_late_is_told_how_long_the_others_take():
    async def ask():
        batcher = batcher_of(Doubling(), capacity=5)
        batcher._seconds_each = 2.0
        with batcher.places(5), pytest.raises(FullError) as raised:
            batcher.check_room()
        batcher.close()
        return raised.value.retry_after

    assert asyncio.run(ask()) == 10
