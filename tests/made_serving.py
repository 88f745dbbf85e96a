"""A server in this process for a tiny trained bundle that holds everything: an index with photographs, a calibration, a site prior."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image
from scipy.spatial.distance import cdist
from starlette.testclient import TestClient

from made_run import MadeRun
from predilect.bundle import Bundle, write_bundle
from predilect.evaluation.answers import AnswerRule
from predilect.evaluation.calibration import Calibration, LesionCalibration, Platt, SiteCalibration
from predilect.evaluation.conformal import ConformalSets
from predilect.evaluation.decisions import Aim, LesionThreshold, Thresholds
from predilect.evaluation.fitted_parts import Familiarity, FittedParts
from predilect.evaluation.novelty import Novelty
from predilect.evaluation.site_prior import SitePrior
from predilect.insight.bundle_index import index_atlas
from predilect.recipe import system
from predilect.serving.api import make_app
from predilect.serving.predictor import Predictor
from predilect.serving.settings import Settings
from predilect.training.crossval import Refit
from predilect.training.devices import make_fabric
from predilect.training.inference import embed

HOST = "http://127.0.0.1"
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
PROBLEM = "application/problem+json"
PATIENCE = 60
"""Seconds after which a server that a test waits for has failed."""


def fitted_parts(lesions: tuple[str, ...], sites: tuple[str, ...], usual: float) -> FittedParts:
    """Of the first lesion alone something is known: its probabilities are calibrated, and at the first site it is more probable."""
    known, *others = lesions
    calibration = Calibration(
        (
            LesionCalibration(known, Platt(0.5, 0.8), 60, 60, False),
            *(LesionCalibration(name, None, 3, 60, False) for name in others),
        ),
        SiteCalibration(sites, 2.0, 60),
    )
    thresholds = Thresholds(
        Aim(), (LesionThreshold(known, 0.25, 60, 60, False), *(LesionThreshold(name, None, 3, 60, False) for name in others))
    )
    sets = ConformalSets(lesions, (), 0.1, 0.3, 60)
    theta = ((2.0, *[-1.0] * (len(sites) - 1)), *[(0.0,) * len(sites)] * len(others))
    prior = SitePrior(
        lesions, sites, (0.0,) * len(lesions), (1.0,) * len(lesions), theta, (1 / len(sites),) * len(sites), 1.0, 0.0, 1.0, 60
    )
    novelty = Novelty(3, (1.0, 2.0, 4.0), (1.0, 0.5, 0.01), 0.01, 4.0, 99)
    return FittedParts(AnswerRule(calibration, thresholds, sets), prior, Familiarity(novelty, usual))


def made_bundle(made: MadeRun, folder: Path) -> Bundle:
    """The run's network in a bundle with everything: what `fitted_parts` has, and an index of its atlas with photographs."""
    fabric, network, labels = make_fabric("fp32"), made.bundle.network(), made.bundle.labels
    with made.atlas.images() as images:
        embeddings = embed(fabric, network, images, np.arange(len(made.atlas)))
    third = np.sort(cdist(embeddings, embeddings), axis=1)[:, 3]  # the nearest is the photograph itself
    refit = Refit(system(made.bundle.system, made.bundle.recipe), network, made.bundle.provenance)
    fitted = fitted_parts(labels["lesion"].classes, labels["site"].classes, float(np.median(third)))
    bundle = write_bundle(folder, refit, fitted)
    index_atlas(fabric, bundle, made.atlas, photographs=True)
    return bundle


def serving(predictor: Predictor, **settings: object) -> TestClient:
    """To be entered, as a server is started."""
    chosen = Settings(**{"hosts": LOOPBACK, **settings})
    return TestClient(make_app(predictor, chosen), base_url=HOST, raise_server_exceptions=False)


@contextmanager
def running(app: FastAPI) -> Iterator[tuple[uvicorn.Server, str]]:
    """A server on a free port, in a thread, and its address; at the end it is told to stop and has to."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server, f"{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def await_ready(url: str, get: Callable[[str], Any] = httpx.get) -> None:
    """Wait for the first prediction."""
    wait_until(lambda: get(f"{url}/readyz").status_code == 200)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, and fail if it takes too long."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.01)


def photograph(seed: int = 0, size: tuple[int, int] = (60, 48), kind: str = "JPEG") -> bytes:
    """Coarse blocks of colour, an image file."""
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).save(target, kind)
    return target.getvalue()


def blank(level: int, size: tuple[int, int] = (60, 48)) -> bytes:
    """A photograph of a lens cap, or of nothing at all."""
    target = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(target, "JPEG")
    return target.getvalue()


def upload(*photographs: bytes, field: str = "files") -> list[tuple[str, tuple[str, bytes]]]:
    """As the client sends them: 1.jpg, 2.jpg, ..."""
    return [(field, (f"{k}.jpg", data)) for k, data in enumerate(photographs, start=1)]


def checked_problem(answer, status: int) -> dict:
    """The problem of an answer, which has the form that RFC 9457 asks for."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "instance"}
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["detail"].strip()
    return problem
