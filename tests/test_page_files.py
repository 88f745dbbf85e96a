"""The files of the page, without a browser: that they are in the package, fit each other, and keep to the policy they are served under."""

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from predilect.serving.guard import Guard
from predilect.serving.page import page_routes
from predilect.serving.settings import Settings

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "src/predilect/serving/static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PAGE = (STATIC / "index.html").read_text()
SCRIPTS = {path.name: path.read_text() for path in STATIC.glob("*.js")}


@pytest.fixture(scope="module")
def client():
    settings = Settings(hosts=frozenset({"127.0.0.1"}))
    with TestClient(
        Starlette(routes=page_routes(), middleware=[Middleware(Guard, settings=settings)]), base_url="http://127.0.0.1"
    ) as client:
        yield client


def test_all_files_of_the_package_that_are_no_modules_are_named_as_its_data():
    package = ROOT / "src/predilect"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["predilect"]
    named = {path for pattern in patterns for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert there == named
    assert STATIC / "index.html" in named


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_each_file_is_served_as_what_it_is(client, path):
    answer = client.get(f"/{path.name}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[path.suffix]
    assert client.get(f"/{path.name}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_the_page_lies_at_the_root(client):
    assert client.get("/").text == PAGE


def test_what_they_name_is_there():
    names = re.findall(r'(?:src|href)="(?!#|/openapi.json|data:)([^"]+)"', PAGE)
    names += [name.removeprefix("./") for text in SCRIPTS.values() for name in re.findall(r'from "([^"]+)"', text)]
    assert set(names) >= {"app.js", "style.css", "icon.svg", "body.js"}
    assert {name for name in names if not (STATIC / name).is_file()} == set()


def test_no_script_and_no_style_stands_in_the_page_and_no_other_host_is_named():
    assert re.findall(r"<style|<script(?![^>]*\bsrc=)|\bstyle=|\bon[a-z]+=", PAGE) == []
    namespaces = {"http://www.w3.org/2000/svg"}  # names, never fetched
    for path in STATIC.iterdir():
        assert set(re.findall(r"https?://[^\s\"')]+", path.read_text())) <= namespaces, path.name


def test_elements_that_scripts_ask_for_are_in_the_page():
    asked = {name for text in SCRIPTS.values() for name in re.findall(r'byId\("([\w-]+)"\)', text)}
    there = re.findall(r'\bid="([\w-]+)"', PAGE)
    assert len(there) == len(set(there))
    assert len(asked) > 30
    assert asked <= set(there)


def test_parts_that_are_named_are_drawn():
    drawing = ET.parse(STATIC / "body.svg").getroot()
    drawn = {path.get("data-part") for path in drawing.iter("{http://www.w3.org/2000/svg}path")} - {None}
    words = set(re.findall(r'"([a-z-]+)"', SCRIPTS["parts.js"].split("const CALLED")[0]))
    seams = {part for path in drawing.iter() for part in (path.get("data-between") or "").split()}
    assert words == drawn
    assert seams <= drawn
