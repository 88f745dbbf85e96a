"""Who is let in, what browsers are told, and what no upload can do: token, hosts, headers, limits, memory, disks and logs."""

import asyncio
import logging
import os
import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser

from made_serving import LOOPBACK, PATIENCE, checked_problem, photograph, serving, upload
from predilect.serving import api, uploads
from predilect.serving.api import make_app
from predilect.serving.batching import FullError
from predilect.serving.predictor import Predictor
from predilect.serving.settings import Settings
from predilect.serving.uploads import HeldBytes, Pace

TOKEN = "a-token-of-enough-length"


@pytest.fixture(scope="module")
def predictor(made_run):
    return Predictor.open(made_run.bundle)


@pytest.fixture(scope="module")
def client(predictor):
    with serving(predictor) as client:
        yield client


@pytest.fixture(scope="module")
def locked(predictor):
    with serving(predictor, token=TOKEN) as client:
        yield client


class TestToken:
    @pytest.mark.parametrize(
        "given", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é"]
    )
    @pytest.mark.parametrize("path", ["labels", "model", "predict", "nothing"])
    def test_without_the_token_nothing_below_v1_answers(self, locked, given, path):
        headers = {} if given is None else {"Authorization": given.encode()}
        answer = locked.request("POST" if path == "predict" else "GET", f"/v1/{path}", headers=headers)
        checked_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text

    def test_with_the_token(self, locked):
        answer = locked.post("/v1/predict", files=upload(photograph()), headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200

    @pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json"])
    def test_the_page_can_ask_for_it(self, locked, path):
        assert locked.get(path).status_code == 200

    def test_the_body_is_not_read_before(self, predictor):
        async def receive():
            raise AssertionError("the body was asked for")

        sent = asyncio.run(asked(make_app(predictor, Settings(token=TOKEN)), receive))
        assert sent[0]["status"] == 401

    def test_it_is_told_of_in_the_description(self, locked):
        described = locked.get("/openapi.json").json()
        assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
        assert described["paths"]["/v1/predict"]["post"]["security"] == [{"token": []}]
        assert "security" not in described["paths"]["/healthz"]["get"]

    def test_it_is_not_shown_with_the_settings(self):
        assert TOKEN not in repr(Settings(token=TOKEN))


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/", 200),
            ("GET", "/v1/labels", 200),
            ("GET", "/none", 404),
            ("POST", "/v1/predict", 415),
            ("DELETE", "/healthz", 405),
        ],
    )
    def test_every_answer_has_them(self, client, method, path, status):
        answer = client.request(method, path)
        assert answer.status_code == status
        rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
        assert not [name for name in answer.headers if name.startswith("access-control")]

    def test_other_origins_may_not_ask_first(self, client):
        answer = client.options("/v1/predict", headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST"})
        checked_problem(answer, 403)
        assert "access-control-allow-origin" not in answer.headers

    def test_a_fault_tells_nothing_and_has_them_too(self, predictor, monkeypatch):
        monkeypatch.setattr(api, "prediction_question", lambda _form: 1 / 0)
        with serving(predictor) as client:
            answer = client.post("/v1/predict", files=upload(photograph()))
        problem = checked_problem(answer, 500)
        assert "division" not in answer.text
        assert problem["title"] == "Internal Server Error"
        assert answer.headers["x-content-type-options"] == "nosniff"

    def test_a_page_that_is_still_the_same_is_not_sent_again(self, client):
        tag = client.get("/").headers["etag"]
        again = client.get("/", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


class TestOtherPages:
    """A form on any page could have a browser send photographs here; it cannot read the answer, but the network would work for it."""

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_none_may_have_a_browser_ask(self, client, locked, site):
        for server in (client, locked):
            answer = server.post("/v1/predict", files=upload(photograph()), headers={"Sec-Fetch-Site": site})
            assert "own" in checked_problem(answer, 403)["detail"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        checked_problem(client.get("/v1/labels", headers={"Sec-Fetch-Site": site}), 403)

    @pytest.mark.parametrize("site", ["same-origin", "none"])
    def test_the_page_itself_may_and_so_may_who_types_the_address(self, client, site):
        assert client.post("/v1/predict", files=upload(photograph()), headers={"Sec-Fetch-Site": site}).status_code == 200

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://192.168.1.20:8001", "http://192.168.1.20", "null", ""])
    def test_where_a_browser_does_not_say_so_its_origin_tells(self, predictor, origin):
        """As it is at an address without TLS, which browsers do not trust."""
        with serving(predictor, any_address=True) as client:
            here = {"Host": "192.168.1.20:8000"}
            checked_problem(client.post("/v1/predict", files=upload(photograph()), headers={**here, "Origin": origin}), 403)
            own = {**here, "Origin": "http://192.168.1.20:8000"}
            assert client.post("/v1/predict", files=upload(photograph()), headers=own).status_code == 200

    def test_who_knows_the_token_may_whatever_a_proxy_made_of_the_host(self, predictor):
        """A page elsewhere does not know it, and a browser that says that it asks for one is believed."""
        with serving(predictor, token=TOKEN, hosts=None) as client:
            here = {"Host": "upstream:8000", "Origin": "http://clinic.example"}
            for token, more, status in ((TOKEN, {}, 200), ("wrong", {}, 403), (TOKEN, {"Sec-Fetch-Site": "cross-site"}, 403)):
                headers = {**here, **more, "Authorization": f"Bearer {token}"}
                assert client.post("/v1/predict", files=upload(photograph()), headers=headers).status_code == status, (token, more)

    def test_behind_a_proxy_with_tls_the_page_itself_may(self, client):
        """It is asked under another name than the proxy's, as many are set up."""
        own = {"Origin": "https://clinic.example", "Sec-Fetch-Site": "same-origin"}
        assert client.post("/v1/predict", files=upload(photograph()), headers=own).status_code == 200

    def test_a_link_to_the_page_works_from_anywhere(self, client):
        for path in ("/", "/app.js", "/healthz"):
            assert client.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


class TestHosts:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "LOCALHOST:1"])
    def test_names_of_loopback(self, client, host):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[::1", ":8000"])
    def test_other_names(self, client, host):
        checked_problem(client.get("/healthz", headers={"Host": host}), 421)

    def test_an_address_of_version_6(self, predictor):
        with serving(predictor, hosts=frozenset({"[::1]"})) as client:
            assert client.get("/healthz", headers={"Host": "[::1]:8000"}).status_code == 200

    @pytest.mark.parametrize("host", ["192.168.1.20", "10.0.0.1:8000", "[fd00::20]:8000"])
    def test_any_address_where_no_name_is_asked_for(self, predictor, client, host):
        checked_problem(client.get("/healthz", headers={"Host": host}), 421)
        with serving(predictor, any_address=True) as open_client:
            assert open_client.get("/healthz", headers={"Host": host}).status_code == 200
            told = checked_problem(open_client.get("/healthz", headers={"Host": "evil.example"}), 421)["detail"]
        assert "127.0.0.1, localhost, any address in numbers" in told

    def test_any_name_where_none_is_set(self, predictor):
        with serving(predictor, hosts=None) as client:
            assert client.get("/healthz", headers={"Host": "clinic.example"}).status_code == 200


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "files", "told"),
        [
            ({"max_request_bytes": 1000}, upload(bytes(2000)), "request is larger"),
            ({"max_file_bytes": 1000}, upload(bytes(2000)), "photograph is larger"),
            ({"max_files": 2}, upload(b"1", b"2", b"3"), "At most 2 photographs"),
        ],
    )
    def test_too_much(self, predictor, limits, files, told):
        with serving(predictor, **limits) as client:
            assert told in checked_problem(client.post("/v1/predict", files=files), 413)["detail"]
            assert client.post("/v1/predict", files=upload(bytes(500))).status_code == 415

    def test_too_much_without_saying_so_before(self, predictor):
        with serving(predictor, max_request_bytes=1000) as client:
            boundary = {"Content-Type": "multipart/form-data; boundary=b"}
            head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
            answer = client.post("/v1/predict", content=iter([head, *[bytes(300)] * 4]), headers=boundary)
            checked_problem(answer, 413)

    def test_too_many_pixels(self, predictor):
        with serving(predictor, max_pixels=60 * 47) as client:
            assert "megapixels" in checked_problem(client.post("/v1/predict", files=upload(photograph())), 422)["detail"]

    def test_values_too_long_or_too_many(self, client):
        checked_problem(client.post("/v1/predict", files=upload(photograph()), data={"site": "x" * 2000}), 413)
        checked_problem(client.post("/v1/predict", files=upload(photograph()), data={"site": ["x"] * 300}), 413)

    @pytest.mark.parametrize(
        "kind", ["image/jpeg", "application/x-www-form-urlencoded", "multipart/form-data", "", "multipart/mixed; boundary=b"]
    )
    def test_no_form(self, client, kind):
        checked_problem(client.post("/v1/predict", content=photograph(), headers={"Content-Type": kind}), 415)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"no boundary at all",
            b"--b\r\nno header\r\n\r\n",
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\ncut short',
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\n" + b"X-Long: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n",
        ],
    )
    def test_malformed_forms(self, client, body):
        answer = client.post("/v1/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
        checked_problem(answer, 400)

    @pytest.mark.parametrize("header", [b"X-Long: " + b"y" * 100_000, b"X" * 100_000 + b": y"])
    def test_headers_are_bounded_also_with_a_parser_that_does_not_bound_them(self, client, monkeypatch, header):
        monkeypatch.setattr(uploads, "MultipartParser", partial(MultipartParser, max_header_size=10**9))
        body = b"--b\r\n" + header + b"\r\n\r\nx\r\n--b--\r\n"
        answer = client.post("/v1/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
        assert "longer than 4096 bytes" in checked_problem(answer, 400)["detail"]

    def test_a_form_without_files(self, client):
        head = {"Content-Type": "multipart/form-data; boundary=b"}
        checked_problem(client.post("/v1/predict", content=b"--b--\r\n", headers=head), 422)

    def test_a_request_that_is_larger_than_a_server_can_hold(self):
        with pytest.raises(ValueError, match="must fit"):
            Settings(max_files=65)


def scope(**changes):
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=b")]
    made = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/predict",
    }
    return {**made, "raw_path": b"/v1/predict", "query_string": b"", "root_path": "", "headers": headers, **changes}


async def asked(app, receive):
    sent = []

    async def send(message):
        sent.append(message)

    await app(scope(), receive, send)
    return sent


class TestSlowUploads:
    def test_one_that_never_ends_is_given_up_and_holds_up_nobody(self, predictor):
        app = make_app(predictor, Settings(hosts=LOOPBACK, receive_seconds=0.5))
        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + photograph() + b"\r\n--b--\r\n"

        async def never():
            await asyncio.sleep(60)

        async def whole():
            return {"type": "http.request", "body": body, "more_body": False}

        async def both():
            async with app.router.lifespan_context(app):
                slow = asyncio.create_task(asked(app, never))
                await asyncio.sleep(0)
                quick = await asked(app, whole)
                slow_was_done = slow.done()
                return quick[0]["status"], slow_was_done, (await slow)[0]["status"]

        assert asyncio.run(both()) == (200, False, 408)

    def test_several_that_stop_before_their_end_do_not_hold_the_memory_for_long(self, predictor):
        """All of it, until they are given up; one of them keeps talking, and says nothing."""
        form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + photograph() + b"\r\n--b--\r\n"
        limits = {
            "max_request_bytes": len(form),
            "max_held_bytes": 4 * len(form),
            "receive_seconds": PATIENCE,
            "stall_seconds": 1.0,
        }
        app = make_app(predictor, Settings(hosts=LOOPBACK, **limits))

        def sender(*parts, every, silent):
            left = iter(parts)

            async def receive():
                for part in left:
                    return {"type": "http.request", "body": part, "more_body": True}
                silent.set()
                await asyncio.sleep(every)
                return {"type": "http.request", "body": b"", "more_body": True}

            return receive

        async def whole():
            return {"type": "http.request", "body": form, "more_body": False}

        async def all_of_them():
            async with app.router.lifespan_context(app):
                ways = {asyncio.Event(): every for every in (PATIENCE, PATIENCE, PATIENCE, 0.01)}
                senders = [sender(form[:-2], b"-", every=every, silent=silent) for silent, every in ways.items()]
                slow = [asyncio.create_task(asked(app, receive)) for receive in senders]
                await asyncio.gather(*(silent.wait() for silent in ways))
                during = await asked(app, whole)
                answers = await asyncio.wait_for(asyncio.gather(*slow), PATIENCE / 2)
                after = await asked(app, whole)
            return during[0]["status"], [(sent[0]["status"], sent[1]["body"]) for sent in answers], after[0]["status"]

        during, slow, after = asyncio.run(all_of_them())
        assert during == 503
        assert [status for status, _ in slow] == [408] * 4
        assert all(b"all but stopped" in body for _, body in slow)
        assert after == 200

    @given(seconds=st.floats(0.1, 29.9), n=st.integers(1, 300), size=st.integers(1, 10_000))
    def test_who_sends_evenly_is_waited_for_to_the_end(self, seconds, n, size):
        pace = Pace(100.0, whole=30.0, stall=5.0)
        for k in range(1, n + 1):
            now = 100 + seconds * k / n
            assert now <= pace.until + 1e-6 or seconds / n > 5
            pace.came(size, now)
        assert pace.until <= pace.end == 130

    @pytest.mark.parametrize(("burst", "each", "lasts"), [(1000, 0, False), (1000, 1, False), (1000, 7, True), (10, 1, True)])
    def test_who_holds_much_must_go_on(self, burst, each, lasts):
        """In half a minute a thousand bytes are 33 a second; here 10 times `each` come in, after a burst."""
        pace = Pace(0.0, whole=30.0, stall=5.0)
        pace.came(burst, 0.0)
        for k in range(1, 300 if each else 1):
            if k / 10 > pace.until:
                break
            pace.came(each, k / 10)
        assert (pace.until == pace.end) if lasts else 5 <= pace.until < 10

    def test_one_whose_sender_goes_away(self, predictor):
        async def gone():
            return {"type": "http.disconnect"}

        assert asyncio.run(asked(make_app(predictor, Settings(hosts=LOOPBACK)), gone))[0]["status"] == 400

    def test_memory_for_uploads_is_bounded_for_all_together(self, predictor):
        app = make_app(predictor, Settings(hosts=LOOPBACK, max_held_bytes=1000, max_request_bytes=1000))

        async def both():
            stay = asyncio.Event()
            parts = iter([b"--b\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n" + bytes(600)])

            async def slowly():
                for part in parts:
                    return {"type": "http.request", "body": part, "more_body": True}
                await stay.wait()
                return {"type": "http.disconnect"}

            async def quickly():
                return {"type": "http.request", "body": bytes(500), "more_body": True}

            async with app.router.lifespan_context(app):
                first = asyncio.create_task(asked(app, slowly))
                await asyncio.sleep(0.05)
                second = await asked(app, quickly)
                stay.set()
                await first
                third = await asked(app, quickly)
            return second[0], third[0]

        second, third = asyncio.run(both())
        assert second["status"] == 503
        assert dict(second["headers"])[b"retry-after"] == b"1"
        assert third["status"] != 503  # the first one's share was given back

    def test_a_share_is_given_back_whatever_happens(self):
        held = HeldBytes(10)
        with held.share() as share:
            share.add(7)
            with pytest.raises(FullError):
                share.add(7)
            assert held.held == 7
        assert held.held == 0


class TestTraces:
    def test_uploads_are_never_written_nor_logged(self, client, caplog):
        """A file above the size from which Starlette's own form reader makes temporary files; it is refused late, for its pixels."""
        written, watching = [], True

        def watch(event, arguments):
            if watching and event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                written.append(arguments[0])

        sys.addaudithook(watch)  # there is no way to take one out again
        caplog.set_level(logging.DEBUG)
        secret, large = "Jane Doe", photograph(size=(1200, 900), kind="BMP")
        assert len(large) > 2**21
        for data in (large, photograph(), large[:-1000]):
            client.post("/v1/predict", files=[("files", (f"{secret}.jpg", data))], data={"with": "attention"})
        watching = False
        assert written == []
        assert secret not in caplog.text

    def test_no_other_form_reader_is_used(self, client, monkeypatch):
        def refuse(*_arguments, **_named):
            raise AssertionError("a temporary file")

        monkeypatch.setattr("tempfile.SpooledTemporaryFile", refuse)
        monkeypatch.setattr("starlette.formparsers.MultiPartParser.parse", refuse)
        assert client.post("/v1/predict", files=upload(photograph(size=(1200, 900), kind="BMP"))).status_code == 200
