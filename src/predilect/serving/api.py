"""The application that answers over HTTP, made by `make_app`; what it may be asked stands in its `/openapi.json`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from predilect.atlas.decoding import UnusableImageError
from predilect.errors import PredilectError
from predilect.serving import openapi
from predilect.serving.answers import Attention, Failure, PhotographAnswer, Predictions, Similar
from predilect.serving.batching import FullError
from predilect.serving.describe import labels_of, model_of
from predilect.serving.described import Health, Labels, Model
from predilect.serving.guard import SECURITY_HEADERS, Guard
from predilect.serving.page import page_routes
from predilect.serving.predictor import Predictor
from predilect.serving.problems import ProblemError, busy, problem_response, unusable
from predilect.serving.questions import attention_question, one_file, prediction_question, similar_question, some_files
from predilect.serving.service import Service
from predilect.serving.settings import Settings
from predilect.serving.steps import Question
from predilect.serving.uploads import Form, Upload, read_form

__all__ = ["make_app"]

Answered = PhotographAnswer | UnusableImageError


def make_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """The application for one bundle.

    Args:
        predictor: What answers.
        settings: Whom it answers, and within what limits.
    """
    service = Service(predictor, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(
        title="Predilect",
        version=version("predilect"),
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages would load from other hosts
        redoc_url=None,
        routes=list(page_routes()),
    )
    app.add_middleware(Guard, settings=settings)
    _answer_by_problems(app)
    # The token is asked for by the guard, before a body is read; here it is only told of.
    told = [] if settings.token is None else [Security(HTTPBearer(scheme_name="token", auto_error=False))]
    app.include_router(_state(service))
    app.include_router(_descriptions(predictor), prefix="/v1", dependencies=told)
    app.include_router(_questions(service, settings), prefix="/v1", dependencies=told)
    return app


def _state(service: Service) -> APIRouter:
    router = APIRouter(tags=["state"])

    @router.get("/healthz", response_model=Health, responses=openapi.STATE)
    async def healthz() -> Response:
        """Whether the process runs."""
        return _json(Health, Health("ok"))

    @router.get("/readyz", response_model=Health, responses=openapi.READY)
    async def readyz() -> Response:
        """Whether a first prediction has been made; before that the first request would take longer than others."""
        if not service.ready:
            raise ProblemError(503, "No prediction has been made yet.", kind="not-ready", headers={"Retry-After": "1"})
        return _json(Health, Health("ok"))

    return router


def _descriptions(predictor: Predictor) -> APIRouter:
    router = APIRouter(tags=["bundle"])
    known, about = labels_of(predictor), model_of(predictor)

    @router.get("/labels", response_model=Labels, responses=openapi.TOLD)
    async def labels() -> Response:
        """Which lesions and sites the bundle knows, and what it can be asked."""
        return _json(Labels, known)

    @router.get("/model", response_model=Model, responses=openapi.TOLD)
    async def model() -> Response:
        """What the bundle is, where it comes from and what it may be used for."""
        return _json(Model, about)

    return router


def _questions(service: Service, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["photographs"])

    async def asked(
        request: Request, files_of: Callable[[Form], tuple[Upload, ...]], question_of: Callable[[Form], Question]
    ) -> tuple[tuple[Upload, ...], list[Answered]]:
        service.check_room()
        with service.uploads.share() as share:
            form = await read_form(request, settings, share)
            uploads = files_of(form)
            return uploads, await service.answer(uploads, question_of(form))

    @router.post(
        "/predict",
        response_model=Predictions,
        responses={**openapi.ASKING, 200: _example(openapi.PREDICTION_EXAMPLE)},
        openapi_extra=openapi.PREDICTION_FORM,
    )
    async def predict(request: Request) -> Response:
        """Lesions and site of one photograph or of several, and beside them what `with` names, of the same look at each.

        Of several photographs those that cannot be used have a problem in their place, and the others are answered (as in a
        multi-status answer, but the status is 200). A single one that cannot be used is answered by its problem.
        """
        uploads, found = await asked(request, some_files, prediction_question)
        if len(found) == 1:
            found = [_usable(found)]
        rows = [
            Failure(upload.name, unusable(item).problem(f"{request.url.path}#{number}"))
            if isinstance(item, UnusableImageError)
            else item
            for number, (upload, item) in enumerate(zip(uploads, found, strict=True), start=1)
        ]
        return _json(Predictions, Predictions(service.predictor.bundle.model, rows))

    @router.post(
        "/attention",
        response_model=Attention,
        responses={**openapi.ASKING, 200: _example(openapi.ATTENTION_EXAMPLE)},
        openapi_extra=openapi.ATTENTION_FORM,
    )
    async def attention(request: Request) -> Response:
        """Where the network looks on a photograph, for the classes named or else for the most probable ones."""
        return _json(Attention, _usable((await asked(request, one_file, attention_question))[1]).attention)

    @router.post(
        "/similar",
        response_model=Similar,
        responses={**openapi.ASKING, 200: _example(openapi.SIMILAR_EXAMPLE)},
        openapi_extra=openapi.SIMILAR_FORM,
    )
    async def similar(request: Request) -> Response:
        """The photographs of the bundle's index that the network finds most alike."""
        return _json(Similar, _usable((await asked(request, one_file, similar_question))[1]).similar)

    return router


def _usable(found: list[Answered]) -> PhotographAnswer:
    """The answer to the only photograph, which is a problem if it could not be used."""
    (answer,) = found
    if isinstance(answer, UnusableImageError):
        raise unusable(answer) from answer
    return answer


def _json(kind: Any, answer: object) -> Response:
    return Response(TypeAdapter(kind).dump_json(answer), media_type="application/json")


def _example(example: Any) -> dict[str, Any]:
    return {"description": "The answer.", "content": {"application/json": {"example": example}}}


def _answer_by_problems(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> Response:
        return problem_response(request, error)

    @app.exception_handler(FullError)
    async def full(request: Request, error: FullError) -> Response:
        return problem_response(request, busy(error))

    @app.exception_handler(PredilectError)
    async def unanswerable(request: Request, error: PredilectError) -> Response:
        return problem_response(request, ProblemError(422, str(error), kind="unanswerable"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        told = {404: "There is nothing at this path.", 405: f"{request.method} cannot be asked of this path."}
        detail = told.get(error.status_code, str(error.detail))
        return problem_response(request, ProblemError(error.status_code, detail, headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        return problem_response(request, ProblemError(422, f"{place}: {fault['msg']}.", kind="wrong-field"))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _error: ClientDisconnect) -> Response:
        return problem_response(request, ProblemError(400, "The connection was closed before the request had come in."))

    @app.exception_handler(Exception)  # outside of the guard, hence its headers here
    async def fault(request: Request, _error: Exception) -> Response:
        return problem_response(request, ProblemError(500, "The server has a fault; its log says more.", headers=SECURITY_HEADERS))
