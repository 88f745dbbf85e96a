"""`predilect serve`: where it listens, whom it asks for a token, and what it says of itself."""

import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from made_serving import PATIENCE, await_ready, made_bundle, photograph, upload
from predilect import cli
from predilect.cli import serve
from predilect.cli.serve import TOKEN_VARIABLE, _listen

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.fixture
def served(monkeypatch):
    """What would be served, instead of serving it."""
    configs = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: configs.append((self.config, sockets[0].getsockname())))
    return configs


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", *map(str, arguments)])
    assert ended.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", *map(str, arguments)])
    assert ended.value.code == 0


def test_beyond_this_machine_it_does_not_go_without_a_token(made_run, capsys, served):
    told = refused(capsys, made_run.bundle.path, "--host", "0.0.0.0", "--port", 0)
    assert TOKEN_VARIABLE in told
    assert "--no-token" in told
    assert not served


def test_unless_it_is_told_to(made_run, capsys, served):
    run(made_run.bundle.path, "--host", "0.0.0.0", "--port", 0, "--no-token")
    assert "none is asked for" in capsys.readouterr().out
    with TestClient(served[0][0].app, base_url="http://192.168.1.20:8000") as client:
        for host in (
            "192.168.1.20:8000",
            "[fd00::20]:8000",
            "localhost:8000",
            socket.gethostname(),
            f"{socket.gethostname().split('.')[0]}.local:8000",
        ):
            assert client.get("/v1/labels", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "192.168.1.20.evil.example", ""):
            assert client.get("/v1/labels", headers={"Host": host}).status_code == 421, host


def test_then_it_answers_under_the_name_that_it_was_given(made_run, served, monkeypatch):
    monkeypatch.setattr(serve, "_listen", lambda _host, _port: (socket.create_server(("127.0.0.1", 0)), False))
    run(made_run.bundle.path, "--host", "Clinic.example", "--no-token")
    with TestClient(served[0][0].app, base_url="http://clinic.example") as client:
        assert client.get("/v1/labels").status_code == 200


def test_with_a_token_it_answers_under_any_name(made_run, served, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    run(made_run.bundle.path, "--host", "0.0.0.0", "--port", 0)
    with TestClient(served[0][0].app, base_url="http://clinic.example") as client:
        assert client.get("/v1/labels", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_token_that_is_there_is_asked_for_everywhere(made_run, capsys, served, monkeypatch, host):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    run(made_run.bundle.path, "--host", host, "--port", 0)
    said = capsys.readouterr().out
    assert TOKEN not in said
    assert TOKEN_VARIABLE in said
    with TestClient(served[0][0].app, base_url="http://127.0.0.1") as client:
        assert client.get("/v1/labels").status_code == 401
        assert client.get("/v1/labels", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("token", ["", "short", "0123456789 abcdef", "0123456789abcdeé"])
def test_a_token_that_cannot_be_one(made_run, capsys, served, monkeypatch, token):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    told = refused(capsys, made_run.bundle.path, "--port", 0)
    fault = f"{len(token)} characters" if len(token) < 16 else "a blank or a letter that is not of ASCII"
    assert f"holds {fault};" in told
    assert not token or token not in told


def test_on_this_machine_it_answers_under_its_names_alone_and_logs_no_request(made_run, capsys, served):
    run(made_run.bundle.path, "--port", 0)
    (config, (host, port)), said = served[0], capsys.readouterr().out
    assert host == "127.0.0.1"
    assert f"http://127.0.0.1:{port}/" in said
    assert "Not a medical device" in said
    assert not config.access_log
    with TestClient(config.app, base_url="http://127.0.0.1") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("tta", [None, "center", "ten-crop"])
def test_what_is_looked_at_may_be_chosen_and_is_told_as_the_page_shows_it(made_run, capsys, served, tmp_path, tta):
    bundle = made_bundle(made_run, tmp_path / "bundle")
    run(bundle.path, "--port", 0, *(() if tta is None else ("--tta", tta)))
    own = bundle.preprocessing.views
    with TestClient(served[0][0].app, base_url="http://127.0.0.1") as client:
        told = client.get("/v1/model").json()
        (found,) = client.post("/v1/predict", files=upload(photograph())).json()["results"]
    assert told["input"]["views"] == (tta or own)
    other = tta not in {None, own}
    note = f"Calibration and thresholds were fitted for the views {own}, not for {tta}."
    assert (note in told["notes"]) is other
    assert any("no warning of photographs unlike" in item for item in told["notes"]) is other
    assert (found["unfamiliar"] is None) is other


def test_a_port_that_is_taken(made_run, capsys, served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused(capsys, made_run.bundle.path, "--port", port)
    assert told == f"error port {port} of 127.0.0.1 is in use; choose another by --port"


def test_an_address_that_is_none(made_run, capsys, served):
    for host in ("no such host", "a..b", f"{'x' * 64}.example"):
        assert f"there is no address '{host}' to listen at" in refused(capsys, made_run.bundle.path, "--host", host)


def test_a_folder_that_is_no_bundle(tmp_path, capsys, served):
    assert "is not a bundle" in refused(capsys, tmp_path, "--port", 0)


def test_it_serves_until_it_is_told_to_stop(made_run):
    command = [sys.executable, "-m", "predilect", "serve", str(made_run.bundle.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        try:
            url = re.search(r"http://\S+[0-9]", process.stdout.readline()).group()
            await_ready(url, partial(httpx.get, timeout=PATIENCE))  # it listens before it says where, and answers a little later
            assert httpx.post(f"{url}/v1/predict", files=upload(photograph())).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 143
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connections_send_what_there_is_without_waiting_for_an_acknowledgement(host):
    listening, _ = _listen(host, 0)
    with listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
