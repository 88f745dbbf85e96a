"""The OpenAPI description holds: requests made of it, right and wrong ones, are answered as it says, and none brings the server down."""

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from made_serving import LOOPBACK, await_ready, made_bundle, photograph, running, serving, upload
from predilect.serving.api import make_app
from predilect.serving.predictor import Predictor
from predilect.serving.settings import Settings

CHECKS = [
    not_a_server_error, content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance,
    unsupported_method,
]  # fmt: skip
TOKEN = "a-token-of-enough-length"
PHOTOGRAPHS = tuple(photograph(seed) for seed in range(3))


@pytest.fixture(scope="module")
def predictor(made_run, tmp_path_factory):
    return Predictor.open(made_bundle(made_run, tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture(scope="module")
def client(predictor):
    with serving(predictor) as client:
        yield client


def test_examples_are_of_their_own_schemas(client):
    described = client.get("/openapi.json").json()
    n_checked = 0
    for path, methods in described["paths"].items():
        for operation in methods.values():
            content = operation["responses"]["200"]["content"]["application/json"]
            if "example" in content:
                schema = {**content["schema"], "components": described["components"]}
                jsonschema.validate(content["example"], schema)
                n_checked += 1
                assert path.startswith("/v1/")
    assert n_checked == 3


def test_answers_are_of_their_schemas(client):
    described = client.get("/openapi.json").json()
    site = client.get("/v1/labels").json()["sites"][0]["name"]
    asked = {
        "/v1/labels": client.get("/v1/labels"),
        "/v1/model": client.get("/v1/model"),
        "/v1/predict": client.post(
            "/v1/predict", files=upload(*PHOTOGRAPHS, b"none"), data={"with": "attention,similar,sites", "site": site}
        ),
        "/v1/attention": client.post("/v1/attention", files=upload(PHOTOGRAPHS[0], field="file")),
        "/v1/similar": client.post("/v1/similar", files=upload(PHOTOGRAPHS[0], field="file")),
    }
    for path, answer in asked.items():
        assert answer.status_code == 200
        (operation,) = described["paths"][path].values()
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": described["components"]})


@pytest.mark.parametrize(
    ("n_examples", "token", "sent"),
    [
        (4, None, None),
        pytest.param(40, None, None, marks=pytest.mark.slow),
        (2, TOKEN, TOKEN),
        (2, TOKEN, "another"),
        (2, TOKEN, None),
    ],
)
def test_what_is_made_of_the_description_is_answered_as_it_says(predictor, n_examples, token, sent):
    headers = {} if sent is None else {"Authorization": f"Bearer {sent}"}
    schemathesis.openapi.format("binary", st.one_of(st.sampled_from(PHOTOGRAPHS), st.binary()))
    with running(make_app(predictor, Settings(hosts=LOOPBACK, token=token))) as (_, url):
        await_ready(url)
        n_asked, statuses = 0, set()
        for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
            operation = result.ok()
            for mode in GenerationMode if operation.body else (GenerationMode.POSITIVE,):

                @settings(max_examples=n_examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
                @given(case=operation.as_strategy(generation_mode=mode))
                def check(case):
                    answer = case.call_and_validate(checks=CHECKS, headers=headers)
                    if token is not None and case.path.startswith("/v1/"):  # in some cases schemathesis leaves the token away
                        let_in = answer.request.headers.get("Authorization") == f"Bearer {token}"
                        assert (answer.status_code != 401) is let_in
                        statuses.add(answer.status_code)

                check()
                n_asked += 1
    assert n_asked == 10
    assert token is None or (statuses == {401}) is (sent != token)
