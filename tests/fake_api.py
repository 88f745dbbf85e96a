"""The API without a model: answers in its own types, made up for the drawn atlas, behind its own guard and with its own page."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from PIL import Image
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predilect.atlas.synthetic import paint, sample_photos
from predilect.serving.answers import (
    Attention,
    AttentionMapAnswer,
    GivenSiteAnswer,
    LesionAnswer,
    Neighbour,
    PhotographAnswer,
    Predictions,
    Region,
    Similar,
    SiteAnswer,
)
from predilect.serving.described import Credit, IndexedAtlas, InputSize, Labels, LesionClass, Model, SiteClass
from predilect.serving.guard import Guard
from predilect.serving.page import page_routes
from predilect.serving.problems import ProblemError, problem_response
from predilect.serving.settings import Settings

PROBABILITIES = {
    "plaque": 0.74, "scale": 0.58, "excoriation": 0.31, "papule": 0.22, "crust": 0.17, "erosion/ulcer": 0.11, "macule": 0.08,
    "vesicle": 0.06, "nodule": 0.04, "pustule": 0.03, "scar": 0.02, "purpura": 0.012, "telangiectasia": 0.008, "alopecia": 0.003,
    "comedone": 0.001,
}  # fmt: skip
AT_THE_SCALP = {"plaque": 0.79, "scale": 0.81, "excoriation": 0.19, "alopecia": 0.12, "crust": 0.24}
THRESHOLDS = {"plaque": 0.42, "scale": 0.37, "excoriation": 0.35, "papule": 0.4, "crust": 0.3, "scar": None}
SITES = {
    "arm": 0.46, "leg": 0.24, "trunk": 0.13, "hand": 0.07, "scalp": 0.04, "neck": 0.03, "skin fold": 0.02, "foot": 0.007, "face": 0.003,
}  # fmt: skip
SEEN = Region(0.0417, 0.0417, 0.9583, 0.9583)
CREDIT = Credit("drawn", "CC0-1.0", "The Predilect developers")
UNKNOWN_FORMAT = "The file cannot be used: it is no image of a known format (JPEG, PNG, WebP); it looks like a PDF document."

LABELS = Labels(
    lesions=[
        LesionClass(name, name == "purpura", THRESHOLDS.get(name, 0.3), "none" if name == "scar" else "platt")
        for name in PROBABILITIES
    ],
    sites=[SiteClass(name) for name in sorted(SITES)],
    site_calibration="temperature",
    site_conditioning=True,
    similar=True,
    attention=True,
    no_attention_because=None,
    aim="f1",
    max_miss_rate=0.1,
)
MODEL = Model(
    system="mtl",
    model="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    backbone="resnet18",
    recipe="demo",
    input=InputSize(224, 256, "center"),
    provenance={"command": "predilect demo", "atlas": "drawn-atlas", "seed": 0, "iterations": 1500, "n_images": 900},
    licences=["CC0-1.0"],
    sources=[CREDIT],
    notes=["All photographs are drawn by a program; the model knows no real skin."],
    index=IndexedAtlas("drawn-atlas", 900, [CREDIT]),
    intended_use="For research and development. Not a medical device, and not for use on patients.",
    version="0.1.0",
)


@cache
def drawn(k: int, size: int = 256) -> bytes:
    """A photograph of the drawn atlas, a JPEG."""
    target = io.BytesIO()
    paint(sample_photos(60, 3)[k], size).save(target, "JPEG", quality=92)
    return target.getvalue()


def lesions(given: str | None, probabilities: dict[str, float] = PROBABILITIES) -> list[LesionAnswer]:
    changed = {name: AT_THE_SCALP.get(name, 0.9 * p) if given == "scalp" else p for name, p in probabilities.items()}
    if given not in {None, "scalp"}:
        changed = {name: min(1.0, 1.15 * p) for name, p in probabilities.items()}
    known = {item.name: item for item in LABELS.lesions}
    return [
        LesionAnswer(name, p, probabilities[name], None if limit is None else p >= limit, limit)
        for name, p in sorted(changed.items(), key=lambda item: -item[1])
        for limit in [known[name].threshold]
    ]


def attention_map(task: str, name: str) -> AttentionMapAnswer:
    """Highest in a place that differs from class to class."""
    known = PROBABILITIES if task == "lesion" else SITES
    place = [*known].index(name) if name in known else 0
    x, y = [(5, 5), (3, 5), (1, 1), (5, 1)][(place + (0 if task == "lesion" else 2)) % 4]
    cells = [[round(5.2 * 2 ** (-((i - x) ** 2 + (j - y) ** 2) / 3) - 1.1, 5) for i in range(7)] for j in range(7)]
    centres = [SEEN.left + (SEEN.right - SEEN.left) * (j + 0.5) / 7 for j in range(7)]
    return AttentionMapAnswer("lesion" if task == "lesion" else "site", name, known.get(name, 0.5), centres, centres, cells)


def neighbours(photographs: bool = True) -> list[Neighbour]:
    told = [
        (["plaque", "scale"], "arm"), (["plaque", "scale", "excoriation"], "leg"), (["plaque"], "arm"), ([], "trunk"), (None, None),
    ]  # fmt: skip
    pictures = [f"data:image/jpeg;base64,{base64.b64encode(drawn(k + 1, 128)).decode()}" if photographs else None for k in range(5)]
    return [
        Neighbour(f"drawn-{100 + 37 * k:05}", 6.1 + 0.37 * k, names, site, "drawn", picture)
        for k, ((names, site), picture) in enumerate(zip(told, pictures, strict=True))
    ]


def answered(given: str | None, asked: dict[str, Any], **told: Any) -> PhotographAnswer:
    beside = asked.get("with", [""])[0].split(",")
    answer = PhotographAnswer(
        name="1.jpg", width=256, height=256, lesions=lesions(given), site=[SiteAnswer(name, p) for name, p in SITES.items()],
        given_site=given, lesions_without_site=None if given is None else lesions(None),
        set=["plaque", "scale", "excoriation"], unsure=False, unfamiliar=False, unfamiliarity=0.31, uniform=False,
        attention=attention([("lesion", "plaque"), ("site", "arm")]) if "attention" in beside else None,
        similar=Similar("euclidean", neighbours()) if "similar" in beside else None, by_site=None,
    )  # fmt: skip
    return replace(answer, **told)


def attention(classes: list[tuple[str, str]]) -> Attention:
    return Attention("cam", 256, 256, SEEN, [attention_map(task, name) for task, name in classes])


@dataclass
class FakeApi:
    """What it says, and what it was asked.

    Attributes:
        labels: Of the bundle.
        model: The same.
        told: Fields of each prediction, in place of those made up.
        problems: Answered once each, the first first, in place of the next answers below ``/v1``.
        asked: Path and fields of each request below ``/v1``.
        gate: Predictions wait until it is set.
    """

    labels: Labels = LABELS
    model: Model = MODEL
    told: dict[str, Any] = field(default_factory=dict)
    problems: list[ProblemError] = field(default_factory=list)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    gate: threading.Event | None = None

    def app(self, token: str | None = None) -> Starlette:
        settings = Settings(token=token, hosts=frozenset({"127.0.0.1"}))
        routes = [
            self._route("/v1/labels", Labels, lambda _: self.labels),
            self._route("/v1/model", Model, lambda _: self.model),
            self._route("/v1/predict", Predictions, self._predicted, "POST"),
            self._route("/v1/attention", Attention, lambda asked: attention([(asked["task"][0], name) for name in asked["name"]]), "POST"),
        ]  # fmt: skip
        return Starlette(routes=[*page_routes(), *routes], middleware=[Middleware(Guard, settings=settings)])

    def _predicted(self, asked: dict[str, list[str]]) -> Predictions:
        answer = answered(asked.get("site", [None])[0], asked, **self.told)
        if "sites" in asked.get("with", [""])[0].split(","):
            given = [GivenSiteAnswer(item.name, lesions(item.name), answer.set, answer.unsure) for item in self.labels.sites]
            answer = replace(answer, by_site=given)
        return Predictions(self.model.model, [answer])

    def _route(self, path: str, kind: Any, answer: Callable[[dict[str, list[str]]], Any], method: str = "GET") -> Route:
        async def respond(request: Request) -> Response:
            try:
                asked = await self._read(request)
                self.asked.append((path, asked))
                if self.gate is not None and path == "/v1/predict":
                    await asyncio.to_thread(self.gate.wait, 10)
                if self.problems:
                    raise self.problems.pop(0)
            except ProblemError as problem:
                return problem_response(request, problem)
            return Response(TypeAdapter(kind).dump_json(answer(asked)), media_type="application/json")

        return Route(path, respond, methods=[method])

    @staticmethod
    async def _read(request: Request) -> dict[str, list[str]]:
        if request.method == "GET":
            return {}
        async with request.form() as form:
            for upload in (form.get("files") or form.get("file"),):
                try:
                    Image.open(io.BytesIO(await upload.read())).load()
                except OSError as error:
                    raise ProblemError(415, UNKNOWN_FORMAT, kind="unknown-format") from error
            return {name: [str(value) for value in form.getlist(name)] for name in form if name not in {"files", "file"}}
