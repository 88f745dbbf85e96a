"""The next schema version of each golden example is refused, and what is written today has the form of the examples.

Only the tests of the bundle, of checkpoints and of the making of the examples need torch, and import it themselves.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import tomllib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pydantic
import pytest
from safetensors import safe_open

from made_golden import (
    FORMATS,
    GOLDEN,
    leaves,
    read_json,
)
from predilect.atlas.folder import Atlas
from predilect.atlas.pack import PackedImages
from predilect.atlas.splits import Splits
from predilect.errors import AtlasError, BundleError, InsightError, LabelError, RunError, SplitError
from predilect.evaluation.insight import Insight
from predilect.labels.taxonomy import Taxonomy
from predilect.report.report import ReportDocument
from predilect.run import Run
from predilect.run.insight import read_fold

# --- schema versions ---------------------------------------------------------------------------------------------------------


def splits_version() -> str:
    return pl.read_parquet_metadata(GOLDEN / "atlas" / "splits.parquet")["predilect.schema_version"]


def test_schema_versions_are_those_documented():
    rows = re.findall(r"^\| \[`?([a-z]+)(?:\.parquet`)?\]\(#.*\| (.*) \|$", FORMATS, re.MULTILINE)
    documented = {name: version.partition(",")[0] for name, version in rows}
    found = {
        "taxonomy": tomllib.loads((GOLDEN / "taxonomy.toml").read_text(encoding="utf-8"))["schema_version"],
        "atlas": read_json(GOLDEN / "atlas" / "atlas.json")["schema_version"],
        "splits": splits_version(),
        "run": read_json(GOLDEN / "run" / "run.json")["schema_version"],
        "report": read_json(GOLDEN / "run" / "report" / "report.json")["schema_version"],
        "insight": read_json(GOLDEN / "run" / "insight" / "insight.json")["schema_version"],
        "bundle": read_json(GOLDEN / "bundle" / "bundle.json")["schema_version"],
        "index": read_json(GOLDEN / "bundle" / "index" / "index.json")["schema_version"],
    }
    without = dict.fromkeys(("manifest", "recipe", "predictions", "truth"), "none in the file")
    assert documented == {**{name: str(version) for name, version in found.items()}, **without}


def raised_in_json(path: Path) -> None:
    value = read_json(path)
    path.write_text(json.dumps({**value, "schema_version": value["schema_version"] + 1}), encoding="utf-8")


def raised_in_toml(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("schema_version = 1\n") == 1
    path.write_text(text.replace("schema_version = 1\n", "schema_version = 2\n"), encoding="utf-8")


def raised_in_parquet(path: Path) -> None:
    metadata = {key: value for key, value in pl.read_parquet_metadata(path).items() if key.startswith("predilect.")}
    pl.read_parquet(path).write_parquet(path, metadata={**metadata, "predilect.schema_version": "2"})


def raised_in_arrow(path: Path) -> None:
    with pa.ipc.open_file(path.read_bytes()) as reader:
        whole = reader.read_all().replace_schema_metadata({"predilect.schema_version": "2"})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        writer.write_table(whole)


def open_images(path: Path) -> None:
    PackedImages(path).close()


def open_bundle(path: Path) -> None:
    from predilect.bundle import Bundle

    Bundle.open(path.parent)


def load_index(path: Path) -> None:
    from predilect.insight.retrieval import EmbeddingIndex

    EmbeddingIndex.load(path.parent)


@pytest.mark.parametrize(
    ("name", "raise_version", "read", "error"),
    [
        ("taxonomy.toml", raised_in_toml, Taxonomy.read, LabelError),
        ("atlas/atlas.json", raised_in_json, lambda path: Atlas.open(path.parent), AtlasError),
        ("atlas/images.arrow", raised_in_arrow, open_images, AtlasError),
        ("atlas/splits.parquet", raised_in_parquet, Splits.read, SplitError),
        ("run/run.json", raised_in_json, lambda path: Run.open(path.parent), RunError),
        ("run/insight/insight.json", raised_in_json, Insight.read, InsightError),
        ("run/insight/mtl/seed-1/fold-0/fold.json", raised_in_json, lambda path: read_fold(path.parent, {}), InsightError),
        ("bundle/bundle.json", raised_in_json, open_bundle, BundleError),
        ("bundle/index/index.json", raised_in_json, load_index, InsightError),
    ],
)
def test_the_next_schema_version_is_refused(tmp_path, name, raise_version, read, error):
    shutil.copytree(GOLDEN, tmp_path / "golden", ignore=shutil.ignore_patterns("make.py", "__pycache__"))
    path = tmp_path / "golden" / name
    raise_version(path)
    with pytest.raises(error, match=r"schema.version.*\b(2\b.*\b1|1\b.*\b2)\b") as raised:
        read(path)
    assert str(path if str(path) in str(raised.value) else path.parent) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_next_version_of_a_report_is_refused():
    # Nothing of ours reads a report back but its type; other programs have the schema (see test_report.py).
    document = read_json(GOLDEN / "run" / "report" / "report.json")
    with pytest.raises(pydantic.ValidationError, match="schema_version"):
        ReportDocument.model_validate({**document, "schema_version": 2})


def test_the_next_version_of_a_checkpoint_is_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    from predilect.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

    path = tmp_path / "state.safetensors"
    write_checkpoint(path, Checkpoint("identity", {"iteration": 3}, {"model/weight": torch.ones(2)}))
    assert read_checkpoint(path, "identity").progress == {"iteration": 3}
    save_file({"model/weight": torch.ones(2)}, path, {"schema_version": "2", "identity": "identity", "progress": "{}"})
    with pytest.raises(RunError, match=r"state\.safetensors has schema version 2, allowed is 1"):
        read_checkpoint(path, "identity")


# --- the making of the examples ----------------------------------------------------------------------------------------------


def form(path: Path) -> object:
    """What must not change unnoticed in a file: all of a text table, the columns and types of a binary one, the keys of JSON."""
    if path.suffix == ".parquet":
        keys = {key for key in pl.read_parquet_metadata(path) if key.startswith("predilect.")}
        return pl.read_parquet_schema(path), keys
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path.read_bytes()).schema.to_string(show_schema_metadata=True)
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            return {name: (file.get_tensor(name).dtype, file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return {where: type(leaf) for where, leaf in leaves(json.loads(text)).items()}
    return [leaves(json.loads(line)).keys() for line in text.splitlines()] if path.suffix == ".jsonl" else text


def test_what_is_written_today_has_the_form_of_the_golden_files(tmp_path, monkeypatch):
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])  # figures are not kept
    runpy.run_path(str(GOLDEN / "make.py"))["make"](tmp_path)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    for path in made:
        assert form(tmp_path / path) == form(GOLDEN / path), path
    by_hand = {"manifest.csv", "taxonomy.toml", "recipe.toml", "make.py"}
    by_hand |= {f"{name}.{suffix}" for name in ("predictions", "truth") for suffix in ("csv", "parquet")}
    kept = {path.relative_to(GOLDEN) for path in GOLDEN.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert kept == made | {Path(name) for name in by_hand}
