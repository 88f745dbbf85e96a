"""Many at once, too many, and the end: each gets its own answer or is put off, and what was taken in is finished."""

import asyncio
import dataclasses
import itertools
import os
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from made_images import jpeg, jpeg_of_passes, picture, segment
from made_images.pngs import chunk
from made_serving import LOOPBACK, PATIENCE, await_ready, checked_problem, photograph, running, serving, upload, wait_until
from predilect.serving.api import make_app
from predilect.serving.batching import Batcher
from predilect.serving.lanes import Lanes, is_quick
from predilect.serving.predictor import Predictor
from predilect.serving.settings import Settings
from predilect.training.inference import Observation


class Held:
    """A runtime that looks at nothing before it may, and remembers its batches."""

    def __init__(self, runtime) -> None:
        self.runtime, self.batches = runtime, []
        self.asked, self.go = threading.Event(), threading.Event()

    def observe(self, squares) -> Observation:
        self.batches.append(len(squares))
        if len(self.batches) > 1:  # the first one warms up
            self.asked.set()
            assert self.go.wait(PATIENCE)
        return self.runtime.observe(squares)


@pytest.fixture(scope="module")
def predictor(made_run):
    return Predictor.open(made_run.bundle)


@pytest.fixture
def held(predictor):
    return Held(predictor.runtime)


def ask(client, *seeds):
    return client.post("/v1/predict", files=upload(*map(photograph, seeds)))


@pytest.fixture
def asked(monkeypatch):
    """What came before the network so far, whether or not it has been looked at."""
    items, ask = [], Batcher.ask

    async def counted(self, item):
        items.append(item)
        return await ask(self, item)

    monkeypatch.setattr(Batcher, "ask", counted)
    return items


def test_requests_are_answered_together_each_with_its_own_answer(predictor, held, asked):
    with serving(predictor) as client:
        expected = {seed: ask(client, seed).json()["results"][0]["lesions"] for seed in range(12)}
    assert len({str(item) for item in expected.values()}) == 12
    with serving(dataclasses.replace(predictor, runtime=held), max_batch=4) as client, ThreadPoolExecutor(12) as pool:
        await_ready("", client.get)
        asked.clear()
        asking = {seed: pool.submit(ask, client, seed) for seed in expected}
        wait_until(lambda: len(asked) == 12)
        held.go.set()
        for seed, answer in asking.items():
            found = {item["name"]: item["score"] for item in answer.result().json()["results"][0]["lesions"]}
            assert found == pytest.approx({item["name"]: item["score"] for item in expected[seed]}, abs=1e-6)
    assert sum(held.batches[1:]) == 12
    assert max(held.batches) == 4


@pytest.mark.parametrize(("taken", "late"), [((1, 2), (3,)), ((1,), (2, 3))])
def test_whom_there_is_no_room_for_is_put_off_at_once_and_served_later(predictor, held, taken, late):
    held_back = dataclasses.replace(predictor, runtime=held)
    with serving(held_back, capacity=2, max_files=2) as client, ThreadPoolExecutor(1) as pool:
        await_ready("", client.get)
        first = pool.submit(ask, client, *taken)
        try:
            assert held.asked.wait(PATIENCE)
            answer = ask(client, *late)
            well = client.get("/healthz").status_code
        finally:
            held.go.set()
        assert checked_problem(answer, 503)["type"] == "urn:predilect:busy"
        assert int(answer.headers["retry-after"]) >= 1
        assert well == 200
        assert first.result().status_code == 200
        assert ask(client, *late).status_code == 200


@pytest.fixture
def waiting(monkeypatch):
    """Photographs with a name that begins with "slow" are not decoded before they may be; what came to be decoded, and when that is."""

    class Waiting:
        def __init__(self):
            self.names, self.go = [], threading.Event()

    waiting, prepare = Waiting(), Predictor.prepare

    def prepared(self, name, *arguments):
        waiting.names.append(name)
        assert not name.startswith("slow") or waiting.go.wait(PATIENCE)
        return prepare(self, name, *arguments)

    monkeypatch.setattr(Predictor, "prepare", prepared)
    yield waiting
    waiting.go.set()


@pytest.fixture
def lanes(monkeypatch):
    """Those of the servers that are started."""
    made, start = [], Lanes.__init__

    def started(self, *arguments):
        start(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Lanes, "__init__", started)
    return made


def send(client, **files):
    return client.post("/v1/predict", files=[("files", item) for item in files.items()])


SLOW = jpeg_of_passes(20, (1600, 1200))
PNG = photograph(kind="PNG")


@pytest.mark.parametrize("requests", [[1] * 16, [16], [4] * 4], ids=["one-each", "all-in-one", "four-each"])
def test_a_photograph_does_not_wait_for_those_that_take_long(predictor, waiting, lanes, requests):
    with serving(predictor) as client, ThreadPoolExecutor(16) as pool:
        await_ready("", client.get)
        slow = [pool.submit(send, client, **{f"slow-{k}": SLOW for k in range(n)}) for n in requests]
        wait_until(lambda: waiting.names)
        wait_until(lambda: lanes[0]._n_slow == 16)
        for k in range(3):
            assert send(client, **{f"{k}": photograph(k), f"{k} again": photograph(k)}).status_code == 200
        assert not any(asked.done() for asked in slow)
        assert [name for name in waiting.names if name.startswith("slow")] == [waiting.names[0]]  # one at a time
        assert checked_problem(send(client, slow=SLOW), 503)["type"] == "urn:predilect:busy"  # there is no room for more of these
        waiting.go.set()
        assert all("error" not in row for asked in slow for row in asked.result().json()["results"])
        assert send(client, slow=SLOW).status_code == 200


def test_of_real_ones_that_take_long_most_are_still_under_way_when_a_photograph_is_answered(predictor):
    with serving(predictor) as client, ThreadPoolExecutor(16) as pool:
        await_ready("", client.get)
        slow = [pool.submit(send, client, **{f"{k}": SLOW}) for k in range(16)]
        wait_until(lambda: any(asked.done() for asked in slow))
        answer = ask(client, 1)
        n_done = sum(asked.done() for asked in slow)
        assert answer.status_code == 200
        assert n_done <= 8
        assert {asked.result().status_code for asked in slow} == {200}


def test_what_has_been_looked_at_is_answered_whatever_is_decoded_meanwhile(predictor, held, waiting):
    with serving(dataclasses.replace(predictor, runtime=held), decoders=1) as client, ThreadPoolExecutor(2) as pool:
        await_ready("", client.get)
        first = pool.submit(ask, client, 1)
        assert held.asked.wait(PATIENCE)
        second = pool.submit(send, client, slow=photograph(2))
        wait_until(lambda: "slow" in waiting.names)
        held.go.set()
        assert first.result().status_code == 200
        assert not second.done()
        waiting.go.set()
        assert second.result().status_code == 200


@pytest.mark.parametrize(
    ("data", "quick"),
    [
        (photograph(), True),
        (photograph(size=(4000, 3000)), True),
        (photograph(size=(1200, 900), kind="PNG"), True),
        (jpeg_of_passes(10, (1200, 900)), True),
        (jpeg(picture(size=(2400, 1800)), exif=photograph() * 9), True),
        (SLOW, False),
        (jpeg_of_passes(10, (3000, 2000)), False),
        (photograph(size=(6000, 6000)), False),
        (photograph(size=(3000, 3000), kind="PNG"), False),
        (photograph(kind="TIFF"), False),
        (photograph(kind="WEBP"), False),
        (b"", False),
        (b"\xff\xd8", False),
        (b"\xff\xd8" + b"\xff" * 1000, False),
        (b"\xff\xd8\xff\xc0\x00\x03\x00\xff\xda\x00\x02", False),
        (b"\xff\xd8" + b"\xff\xfe\x00\x00" * 1000, False),
        (jpeg() + bytes(2**24), False),
        (SLOW[:2] + b"\xff" + segment(0xE0, (bytes(57575) + jpeg()[2:])[:59998].ljust(59998)) + SLOW[2:], False),  # read with the
        # first 0xff as a marker, the length of its segment leads to the small picture in it, where no decoder looks
        (PNG[:8], False),
        (PNG, True),
        (PNG[:8] + chunk(b"prVt", bytes(16)) + PNG[8:], False),
        (PNG[:33] + chunk(b"IHDR", (4000).to_bytes(4) * 2 + PNG[24:29]) + PNG[33:], False),
        (PNG[:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**19))) * 2 + PNG[33:], False),
        (PNG[:33] + chunk(b"prVt", b"") * 1001 + PNG[33:], False),
        (PNG + bytes(2**24), False),
    ],
)
def test_what_takes_long_is_told_before_it_is_decoded(data, quick):
    assert is_quick(data) is quick


def test_before_the_first_prediction_it_is_not_ready(predictor):
    class Slow(Held):
        def observe(self, squares):
            assert self.go.wait(PATIENCE)
            return self.runtime.observe(squares)

    slow = Slow(predictor.runtime)
    with serving(dataclasses.replace(predictor, runtime=slow)) as client:
        answer = client.get("/readyz")
        assert checked_problem(answer, 503)["type"] == "urn:predilect:not-ready"
        assert answer.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        slow.go.set()
        await_ready("", client.get)


def test_why_it_does_not_get_ready_stands_in_the_log(predictor, caplog):
    class Faulty(Held):
        def observe(self, squares):
            raise RuntimeError("out of memory")

    with serving(dataclasses.replace(predictor, runtime=Faulty(predictor.runtime))) as client:
        wait_until(lambda: "does not get ready" in caplog.text)
        assert "out of memory" in caplog.text
        checked_problem(client.get("/readyz"), 503)


def test_a_fault_of_the_network_reaches_who_asked_and_nobody_else(predictor):
    class Faulty(Held):
        def observe(self, squares):
            self.batches.append(len(squares))
            if len(self.batches) == 2:
                raise RuntimeError("out of memory")
            return self.runtime.observe(squares)

    with serving(dataclasses.replace(predictor, runtime=Faulty(predictor.runtime))) as client:
        await_ready("", client.get)
        assert "memory" not in checked_problem(ask(client, 1), 500)["detail"]
        assert ask(client, 1).status_code == 200


def lets_in(url):
    try:
        httpx.get(f"{url}/healthz")
    except httpx.TransportError:
        return False
    return True


def test_a_server_that_is_told_to_stop_finishes_what_it_took_in(predictor, held):
    app = make_app(dataclasses.replace(predictor, runtime=held), Settings(hosts=LOOPBACK))
    with running(app) as (server, url), httpx.Client(base_url=url, timeout=PATIENCE) as client, ThreadPoolExecutor(1) as pool:
        await_ready(url)
        asking = pool.submit(ask, client, 1)
        try:
            assert held.asked.wait(PATIENCE)
            server.should_exit = True
            wait_until(lambda: not lets_in(url))
            stopped_too_soon = asking.done()
        finally:
            held.go.set()
        assert not stopped_too_soon
        assert asking.result().status_code == 200
    assert not [item for item in threading.enumerate() if item.name.startswith(("network", "photographs", "answers"))]


class Unhurried:
    """A runtime that takes its time, so that the sustainable rate is known: `RATE` photographs a second at most."""

    RATE = 50

    def __init__(self, runtime) -> None:
        self.runtime = runtime

    def observe(self, squares) -> Observation:
        time.sleep(len(squares) / self.RATE)
        return self.runtime.observe(squares)


def resident():
    """MB of this process, which is server and client."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def overloaded(url, data, rate, n):
    """The status of each of n requests, sent at this rate whatever becomes of them."""

    request = httpx.Request("POST", f"{url}/v1/predict", files=upload(data))  # put together once
    body, kind = request.read(), {"content-type": request.headers["content-type"]}

    async def statuses():
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None)) as client:

            async def ask(k):
                await asyncio.sleep(k / rate)
                return (await client.post("/v1/predict", content=body, headers=kind)).status_code

            return await asyncio.gather(*map(ask, range(n)))

    return Counter(asyncio.run(statuses()))


def test_at_four_times_the_sustainable_rate_all_are_answered_or_put_off_and_memory_stays_flat(predictor):
    """What the uploads of one such load weigh would show, were they kept; `benchmarks/bench_serving.py` does it at full size."""
    data, n = photograph(size=(400, 300), kind="BMP"), 80
    app = make_app(dataclasses.replace(predictor, runtime=Unhurried(predictor.runtime)), Settings(hosts=LOOPBACK, capacity=16))
    with running(app) as (_, url):
        await_ready(url)
        held = []
        for _ in range(5):  # in the first one libraries are loaded and allocators take what they keep
            found = overloaded(url, data, 4 * Unhurried.RATE, n)
            assert found.keys() == {200, 503}, found
            assert found.total() == n
            held.append(resident())
        assert httpx.post(f"{url}/v1/predict", files=upload(data)).status_code == 200
    grown = [after - before for before, after in itertools.pairwise(held[1:])]
    assert min(grown) < n * len(data) / 1e6 / 3, held  # kept uploads would show in every load, an allocator's new page in one
