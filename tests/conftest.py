"""A small atlas of plain colours, where the colour tells the lesion and the brightness the site, so that training can succeed."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings
from lightning_fabric import Fabric
from PIL import Image

from made_close_ups import made_clinic
from predilect.atlas.build import build_atlas
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.splits import Splits, make_splits
from predilect.labels.taxonomy import Taxonomy
from predilect.recipe import Preprocessing, Recipe
from predilect.training.devices import make_fabric

# A loaded machine must not fail a property; what is slow shows in the durations.
settings.register_profile("predilect", deadline=None)
settings.load_profile("predilect")

# A shell starts what runs in its background with Ctrl-C ignored, and tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Batches of a few tiny images: dividing them between threads costs more than it saves, tenfold on a busy machine.
torch.set_num_threads(1)

SMALL_TAXONOMY = (
    'schema_version = 1\nname = "small"\ndrop_below = 1\n[lesion]\nunknown_terms = "keep"\n[site]\nunknown_terms = "keep"\n'
)
LESIONS = {"macule": (210, 60, 60), "crust": (60, 200, 60), "scale": (60, 60, 210)}
SITES = {"arm": 0.55, "face": 1.0}


def small_folder(root: Path, n: int = 36) -> Path:
    """An image folder of n photographs of n/2 patients, some of them with unknown labels."""
    rng = np.random.default_rng(7)
    rows = []
    for k in range(n):
        lesion, site = list(LESIONS)[k % 3], list(SITES)[(k // 3) % 2]
        pixels = np.array(LESIONS[lesion]) * SITES[site] + rng.normal(0, 12, size=(40, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"p{k:03}.png")
        rows.append(
            {
                "file_name": f"p{k:03}.png",
                "lesions": "" if k == 5 else lesion,
                "lesions_unknown": "scale" if k == 6 else "",
                "site": "" if k == 7 else site,
                "patient_id": f"patient {k // 2}",
            }
        )
    pl.DataFrame(rows).write_csv(root / "metadata.csv")
    return root


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory) -> Atlas:
    folder = small_folder(tmp_path_factory.mktemp("photographs"))
    out = tmp_path_factory.mktemp("atlases") / "small"
    return build_atlas(SOURCES["imagefolder"](folder), Taxonomy.from_toml(SMALL_TAXONOMY, "small"), out)


@pytest.fixture(scope="session")
def small_splits(small_atlas) -> Splits:
    splits = make_splits(small_atlas.photos, small_atlas.labels.columns, folds=3, seed=0, content_hash=small_atlas.content_hash)
    splits.write(small_atlas.path / "splits.parquet")
    return splits


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return make_fabric("fp32")


@pytest.fixture(scope="session", params=["fp32", "bf16"])
def either_fabric(request) -> Fabric:
    """In each precision, for what must hold to the bit; a processor without bf16 emulates it."""
    return make_fabric(request.param)


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    return Recipe(
        name="small",
        backbone="test_resnet",
        weights="none",
        preprocessing=Preprocessing(crop=32, jitter=(32, 36), test_side=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        batch_size=8,
        iterations=12,
        optimizer="adamw",
        learning_rate=0.003,
        head_weight_rate=1.0,
        head_bias_rate=1.0,
        schedule="cosine",
        validate_every=4,
        precision="fp32",
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    from made_commands import made_place  # which takes the small folder from here

    return made_place(tmp_path_factory.mktemp("commands"))


@pytest.fixture
def without_figures(monkeypatch) -> None:
    """Reports leave their figures out, since drawing is most of the time they take."""
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])


@pytest.fixture
def clinic(tmp_path) -> Atlas:
    return made_clinic(tmp_path)


@pytest.fixture(scope="session")
def made_run(tmp_path_factory, small_atlas, small_splits, small_recipe):
    from made_run import make_run  # most tests need no training

    recipe = small_recipe.model_copy(update={"iterations": 4})
    return make_run(tmp_path_factory.mktemp("runs") / "run", small_atlas, small_splits, recipe)


@pytest.fixture(scope="module")
def browser():
    from made_page import chromium  # few tests need one

    with chromium() as browser:
        yield browser


@pytest.fixture
def api():
    from fake_api import FakeApi

    return FakeApi()


@pytest.fixture
def page(browser, api):
    from made_page import answered_page

    with answered_page(browser, api) as page:
        yield page
