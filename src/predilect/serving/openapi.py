"""What `openapi.json` says beside the types of the answers: forms, problems and examples."""

from __future__ import annotations

from typing import Any

from predilect.serving.problems import MEDIA_TYPE
from predilect.serving.questions import MAX_NEIGHBOURS, NEIGHBOURS

__all__ = [
    "ASKING", "ATTENTION_EXAMPLE", "ATTENTION_FORM", "DESCRIPTION", "PREDICTION_EXAMPLE", "PREDICTION_FORM", "READY", "SIMILAR_EXAMPLE",
    "SIMILAR_FORM", "STATE", "TOLD",
]  # fmt: skip

DESCRIPTION = (
    "Says of photographs of skin which lesions they show and on which body site they were taken. Not a medical device: for research and "
    "development only. Photographs are held in memory while they are looked at, and then forgotten."
)

_REASONS = {
    400: "The form is malformed.",
    401: "A token is needed, or it is not the right one.",
    403: "A browser asked for a page of another origin.",
    408: "The request took too long to come in.",
    413: "The request, a photograph or the number of them is too large.",
    415: "The body is no form with files, or the file is no image of a known format.",
    421: "The Host header names another server.",
    422: "The photograph cannot be used, or a field has a value that is not allowed.",
    503: "There is no room now; Retry-After says when to try again.",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answers: dict[int | str, dict[str, Any]] = {status: {"description": _REASONS[status], "content": schema} for status in statuses}
    if 503 in answers:
        answers[503]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    if 401 in answers:
        answers[401]["headers"] = {"WWW-Authenticate": {"description": "The scheme.", "schema": {"type": "string"}}}
    return answers


STATE = _problems(421)
"""Problems of what says whether the process runs."""

READY = _problems(421, 503)
"""Of what says whether it is ready."""

TOLD = _problems(401, 403, 421)
"""Of what the bundle says of itself."""

ASKING = _problems(400, 401, 403, 408, 413, 415, 421, 422, 503)
"""Of what takes photographs."""

_PHOTOGRAPH = {"type": "string", "format": "binary", "description": "An image file; what it is, is told by its content."}
_K = {
    "type": "integer", "minimum": 1, "maximum": MAX_NEIGHBOURS, "default": NEIGHBOURS,
    "description": "How many similar photographs.",
}  # fmt: skip


def _form(required: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [required], "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


PREDICTION_FORM = _form(
    "files",
    {
        "files": {"type": "array", "items": _PHOTOGRAPH, "minItems": 1, "description": "One photograph or several."},
        "site": {"type": "string", "description": "Where on the body they were taken, if that is known; see `/v1/labels`."},
        "with": {
            "type": "string",
            "enum": [
                "attention",
                "similar",
                "sites",
                "attention,similar",
                "attention,sites",
                "similar,sites",
                "attention,similar,sites",
            ],
            "description": "What is wanted beside: attention maps of the most probable lesion and site, similar photographs, and what each "
            "site would change if it were given.",
        },
        "k": _K,
    },
)

ATTENTION_FORM = _form(
    "file",
    {
        "file": _PHOTOGRAPH,
        "task": {"type": "string", "enum": ["lesion", "site"], "description": "By default both."},
        "name": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Classes of the task, each in a field of its own; by default the most probable one.",
        },
    },
)

SIMILAR_FORM = _form(
    "file",
    {
        "file": _PHOTOGRAPH,
        "k": _K,
        "lesion": {"type": "string", "description": "Only photographs that are known to show it."},
        "site": {"type": "string", "description": "Only photographs that are known to show it."},
    },
)

# What is null falls out of an OpenAPI description, so there is nothing of it in the examples.
ATTENTION_EXAMPLE = {
    "method": "cam",
    "width": 682,
    "height": 512,
    "seen": {"left": 0.1716, "top": 0.0625, "right": 0.8284, "bottom": 0.9375},
    "maps": [
        {
            "task": "lesion",
            "name": "papule",
            "probability": 0.81,
            "rows": [0.28, 0.72],
            "columns": [0.34, 0.66],
            "cells": [[4.2, 1.1], [0.3, -0.6]],
        }
    ],
}

SIMILAR_EXAMPLE = {
    "metric": "euclidean",
    "neighbours": [
        {
            "image_id": "000655",
            "distance": 9.41,
            "lesions": ["papule"],
            "site": "arm",
            "source": "clinic",
            "photograph": "data:image/jpeg;base64,/9j/4AAQ",
        }
    ],
}

_PAPULE = {"name": "papule", "probability": 0.81, "score": 0.74, "decision": True, "threshold": 0.42}
_SCALE = {"name": "scale", "probability": 0.06, "score": 0.11, "decision": False, "threshold": 0.37}

PREDICTION_EXAMPLE = {
    "model": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "results": [
        {
            "name": "photograph.jpg",
            "width": 682,
            "height": 512,
            "lesions": [_PAPULE, _SCALE],
            "site": [{"name": "arm", "probability": 0.7}, {"name": "face", "probability": 0.3}],
            "given_site": "arm",
            "lesions_without_site": [{**_PAPULE, "probability": 0.77}, {**_SCALE, "probability": 0.08}],
            "set": ["papule"],
            "unsure": False,
            "unfamiliar": False,
            "unfamiliarity": 0.31,
            "uniform": False,
            "attention": ATTENTION_EXAMPLE,
            "similar": SIMILAR_EXAMPLE,
            "by_site": [{"given_site": "arm", "lesions": [_PAPULE, _SCALE], "set": ["papule"], "unsure": False}],
        },
        {
            "name": "notes.pdf",
            "error": {
                "type": "urn:predilect:unknown-format",
                "title": "Unknown format",
                "status": 415,
                "detail": "The file cannot be used: it is no image of a known format (JPEG, PNG); it looks like a PDF document.",
                "instance": "/v1/predict#2",
            },
        },
    ],
}
