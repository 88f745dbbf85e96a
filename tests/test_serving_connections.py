"""Those who ask and do not read: given up after a while, whatever the size of the answer, so that a server that is told to stop ends."""

import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.server import ServerState

from predilect.serving.connections import make_server
from predilect.serving.settings import Settings

PATIENCE = 60


async def large(request):
    return Response(bytes(int(request.path_params["n"])))


APP = Starlette(routes=[Route("/{n}", large)])


@contextmanager
def running(settings):
    """A server whose own buffers are small, so that what is not read stays in its memory; and its port."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    server = make_server(APP, settings)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield server, listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def asking(port, n):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET /{n} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def until(holds):
    done = threading.Event()
    for _ in range(PATIENCE * 20):
        if holds():
            return
        done.wait(0.05)
    raise AssertionError("it took too long")


@pytest.mark.parametrize("n", [50_000, 2**24], ids=["small", "large"])
def test_who_does_not_read_an_answer_is_given_up(n):
    with running(Settings(send_seconds=0.3)) as (server, port), asking(port, n) as client:
        until(lambda: server.server_state.total_requests == 1)
        until(lambda: not server.server_state.connections)
        assert sum(map(len, iter(lambda: client.recv(2**20), b""))) < n


def test_a_server_that_is_told_to_stop_does_not_wait_for_them_longer_than_it_may():
    with running(Settings(send_seconds=PATIENCE, finish_seconds=1)) as (server, port), asking(port, 2**24):
        until(lambda: server.server_state.total_requests == 1)


def test_who_reads_all_of_it_may_ask_again():
    with running(Settings(send_seconds=PATIENCE)) as (_, port), asking(port, 2**20) as client:
        for _ in range(2):
            taken = b""
            while not taken.endswith(bytes(2**20)):
                taken += client.recv(2**16)
            assert taken.startswith(b"HTTP/1.1 200")
            client.sendall(f"GET /{2**20} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


class Clock:
    """A loop whose time passes when it is told to."""

    def __init__(self):
        self.waiting = []

    def call_later(self, _seconds, work, *arguments):
        self.waiting.append((work, arguments))
        return self

    def cancel(self):
        self.waiting.clear()

    def passes(self):
        waiting, self.waiting = self.waiting, []
        for work, arguments in waiting:
            work(*arguments)


class Wire:
    """A transport that holds what is written until it is said to be taken."""

    def __init__(self):
        self.left, self.aborted = 0, False

    def get_extra_info(self, _name):
        return None

    def get_write_buffer_size(self):
        return self.left

    def abort(self):
        self.aborted = True


@pytest.mark.parametrize(
    ("left", "given_up"),
    [
        ([1_000_000, 900_000, 800_000, 30_000, 0], False),
        ([1_000_000, 1_000_000], True),
        ([1_000_000, 900_000, 880_000], True),
        ([30_000, 29_000], True),
        ([30_000, 0], False),
    ],
)
def test_who_reads_slowly_is_waited_for_as_long_as_it_goes_on(left, given_up):
    clock, wire = Clock(), Wire()
    server = make_server(APP, Settings())
    connection = server.config.http(uvicorn.Config(APP), ServerState(), {}, _loop=clock)
    connection.connection_made(wire)
    wire.left = left[0]
    connection.pause_writing()
    for wire.left in left[1:]:
        clock.passes()
    assert wire.aborted is given_up
    assert not clock.waiting
