"""A full disk, a read-only one, one that goes away: each is one sentence with the path, and nothing is left half-written.

On Linux as root a small file system in memory is mounted; elsewhere, and besides, a limit on the size of files stands in for it.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from conftest import SMALL_TAXONOMY
from made_processes import mounted
from predilect.atlas.audit import Audit
from predilect.atlas.build import build_atlas, replay
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.manifest import write_manifest
from predilect.atlas.pack import pack_images
from predilect.atlas.splits import Splits
from predilect.atlas.synthetic import draw_atlas
from predilect.bundle import write_bundle
from predilect.cli import main
from predilect.errors import DiskError
from predilect.evaluation.evaluate import evaluate
from predilect.files import replacing_folder, write_json, write_text
from predilect.labels.tasks import LabelSpace
from predilect.labels.taxonomy import Taxonomy
from predilect.locks import hold
from predilect.predictions import Predictions, Truth
from predilect.recipe import system
from predilect.report.report import build_report, write_report
from predilect.run import Run
from predilect.training.checkpoint import Checkpoint, write_checkpoint
from predilect.training.crossval import Refit
from predilect.training.devices import make_fabric
from predilect.training.start import start_run
from predilect.vision.network import build_network

ROOM = 24 * 1024  # bytes; less than any of the writers below needs
MANY = 20_000


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["full disk", "limited files"])
def small(request, tmp_path):
    """A folder without room, what makes it so, and what the system says of it."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "limited files":
        yield folder, files_limited_to(1000), os.strerror(errno.EFBIG)
        return
    if not mounted(folder, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs"):
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder, nullcontext(), os.strerror(errno.ENOSPC)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """A folder of photographs that cannot be made small."""
    folder = tmp_path_factory.mktemp("noise")
    random = np.random.default_rng(0)
    names = [f"{k}.png" for k in range(4)]
    for name in names:
        Image.fromarray(random.integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(folder / name)
    ids = [f"{name}-{random.integers(1 << 60)}" for name in names]
    columns = {"file_name": names, "image_id": ids, "lesions": ["a", "a;b", "b", "none"], "site": ["arm", "face", "arm", "face"]}
    pl.DataFrame(columns).write_csv(folder / "metadata.csv")
    return folder


def scores() -> Predictions:
    random = np.random.default_rng(0)
    labels = LabelSpace.from_columns(["lesion/a"])
    ids = np.array([str(k) for k in range(MANY)])
    return Predictions(ids, labels, {"lesion": random.random((MANY, 1), dtype=np.float32)})


def truth() -> Truth:
    random = np.random.default_rng(0)
    labels = LabelSpace.from_columns([f"lesion/{k}" for k in range(30)])
    values = random.integers(0, 2, (MANY, 30)).astype(np.int8)
    return Truth(np.array([str(k) for k in range(MANY)]), labels, {"lesion": values}, groups=None, covariates=pl.DataFrame())


def write_splits(path: Path) -> None:
    ids = np.array([str(k) for k in range(MANY)])
    Splits(ids, ids, np.arange(MANY) % 3, content_hash="0" * 64, seed=0).write(path)


def write_scored(path: Path) -> None:
    random = np.random.default_rng(0)
    labels = LabelSpace.from_columns([f"lesion/{k}" for k in range(60)])
    ids = np.array([str(k) for k in range(40)])
    known = Truth(ids, labels, {"lesion": random.integers(0, 2, (40, 60)).astype(np.int8)}, groups=ids, covariates=pl.DataFrame())
    predicted = Predictions(ids, labels, {"lesion": random.random((40, 60), dtype=np.float32)})
    write_report(build_report(evaluate(known, {"a": predicted}, n_resamples=10, n_resamples_p=10), provenance={}), path)


def pack(noise: Path, path: Path) -> None:
    names = [f"{k}.png" for k in range(4)]
    pack_images(names, names, path, root=noise, parts=path.with_name(".images-packing"))


def read_photographs(noise: Path):
    return SOURCES["imagefolder"](noise)


WRITERS = {
    "predictions.parquet": lambda path, _: scores().write(path),
    "predictions.csv": lambda path, _: scores().write(path),
    "truth.parquet": lambda path, _: truth().write(path),
    "splits.parquet": lambda path, _: write_splits(path),
    "manifest.csv": lambda path, noise: write_manifest(long_manifest(noise), path),
    "manifest.parquet": lambda path, noise: write_manifest(long_manifest(noise), path),
    "audit.json": lambda path, _: long_audit().write(path),
    "images.arrow": lambda path, noise: pack(noise, path),
    "some.json": lambda path, _: write_json(path, {"long": "a" * 4 * ROOM}),
    "some.txt": lambda path, _: write_text(path, "a" * 4 * ROOM),
    "state.safetensors": lambda path, _: write_checkpoint(path, Checkpoint("i", {"iteration": 1}, {"a": torch.rand(4 * ROOM)})),
    "report": lambda path, _: write_scored(path),
    "drawings": lambda path, _: draw_atlas(path, n_images=60),
    "atlas": lambda path, noise: build_atlas(read_photographs(noise), Taxonomy.from_toml(SMALL_TAXONOMY, "t"), path),
}


def long_audit() -> Audit:
    return Audit.read(Path(__file__).parent / "golden" / "atlas" / "audit.json").model_copy(update={"atlas": "a" * 4 * ROOM})


def long_manifest(noise: Path) -> pl.DataFrame:
    photos = read_photographs(noise).photos
    row = photos.head(1)
    many = pl.concat([row] * 2000)
    names = pl.Series([f"{number:x}" for number in np.random.default_rng(0).integers(1 << 62, size=2000)])
    return many.with_columns(image_id=names, file_name=names + ".png")


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_says_that_the_disk_is_full_and_leaves_nothing(small, noise, name, monkeypatch):
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])
    folder, full, said = small
    with full, pytest.raises(DiskError) as raised:
        WRITERS[name](folder / name, noise)
    message = str(raised.value)
    assert f"cannot be written: {said}" in message
    assert "\n" not in message
    left = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    if name in ("images.arrow", "atlas"):  # what was packed is kept, hidden, to go on with
        assert message.startswith(str(folder))
        left = {path for path in left if not re.fullmatch(r"\..*packing.*", path.parts[0])}
    else:
        assert message.startswith(str(folder / name))
        assert ".writing" not in message
    assert left == set() or (name == "report" and Path("report", "report.json") not in left)
    assert not [path for path in left if ".writing" in str(path)]


@pytest.mark.parametrize("name", ["predictions.parquet", "state.safetensors", "some.json"])
def test_what_stood_there_before_stays(small, noise, name):
    folder, full, _ = small
    (folder / name).write_text("the old one")
    with full, pytest.raises(DiskError):
        WRITERS[name](folder / name, noise)
    assert (folder / name).read_text() == "the old one"
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_refinement_that_finds_no_room_leaves_the_atlas_as_it_was(noise, tmp_path):
    atlas = build_atlas(read_photographs(noise), Taxonomy.from_toml(SMALL_TAXONOMY, "t"), tmp_path / "atlas")
    with files_limited_to(512), pytest.raises(DiskError, match=r"atlas(/photos\.parquet)? cannot be written"):
        replay(atlas.path, Taxonomy.from_toml(SMALL_TAXONOMY, "t"))
    assert Atlas.open(atlas.path).content_hash == atlas.content_hash
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


@pytest.mark.parametrize("kind", ["full disk", "limited files"])
def test_a_refinement_where_files_cannot_be_linked_needs_room_for_the_images(noise, tmp_path, monkeypatch, capsys, kind):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    place = tmp_path / "small"
    place.mkdir()
    if kind == "full disk" and not mounted(place, "-t", "tmpfs", "-o", "size=400K", "tmpfs"):
        pytest.skip("needs the right to mount a file system")
    try:
        atlas = build_atlas(read_photographs(noise), Taxonomy.from_toml(SMALL_TAXONOMY, "t"), place / "atlas")
        left = place / "left"
        if kind == "full disk":
            left.write_bytes(bytes(shutil.disk_usage(place).free - 40 * 1024))  # less than the images take
        with files_limited_to(40 * 1024) if kind == "limited files" else nullcontext(), pytest.raises(SystemExit) as leaving:
            main(["refine", str(atlas.path), "--taxonomy", "as-is"])
        assert leaving.value.code == 1
        said = {"full disk": errno.ENOSPC, "limited files": errno.EFBIG}[kind]
        shown = capsys.readouterr().err
        assert shown.startswith(f"error {atlas.path} cannot be written: {os.strerror(said)}")
        assert shown.count("\n") == 1
        assert "[" not in shown
        assert Atlas.open(atlas.path).content_hash == atlas.content_hash
        assert {path.name for path in place.iterdir()} <= {"atlas", "left"}
    finally:
        if kind == "full disk":
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_bundle_that_finds_no_room_is_not_there(small, small_atlas, small_recipe):
    folder, full, said = small
    network = build_network(small_atlas.labels, small_recipe, 1)
    trained = Refit(system("mtl", small_recipe), network, {"sources": []})
    with full, pytest.raises(DiskError, match=said):
        write_bundle(folder / "bundle", trained)
    assert list(folder.iterdir()) == []


def test_a_run_on_a_full_disk_can_be_resumed_when_there_is_room(place_for_run, capsys):
    start, run = place_for_run
    with files_limited_to(150_000):  # enough for all but a checkpoint
        assert start() == 1
    said = capsys.readouterr()
    assert "state.safetensors cannot be written: File too large" in said.err
    assert said.err.count("\n") == 1
    assert start("--resume") == 0
    assert not list(run.rglob(".writing-*"))
    assert Run.open(run).fold_result("mtl", 1, 0) is not None


@pytest.fixture
def place_for_run(tmp_path, small_atlas, small_splits, monkeypatch):
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])
    from made_commands import RECIPE

    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    shutil.copytree(small_atlas.path, tmp_path / "atlas")
    run = tmp_path / "runs" / "run"

    def start(*more: str) -> int:
        given = ["--recipe", str(tmp_path / "tiny.toml"), "--fold", "0", "--out", str(run)]
        with pytest.raises(SystemExit) as left:
            main(["train", str(tmp_path / "atlas"), *given, *more])
        return left.value.code

    return start, run


def test_a_folder_that_may_only_be_read_is_named(small_atlas, small_splits, small_recipe, fabric, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    if not mounted(folder, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        pytest.skip("needs the right to mount a file system")
    chosen = [system("mtl", small_recipe)]
    try:
        with pytest.raises(DiskError, match="Read-only file system; choose a place that may be written to"):
            scores().write(folder / "predictions.parquet")
        with pytest.raises(Exception, match=r"run cannot be written: Read-only file system; choose a place"):
            start_run(
                folder / "run", small_atlas, small_splits, chosen, seeds=[1], folds=[0], fabric=fabric, command="", resume=False
            )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere; nobody may not."""
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("needs the right to be another user")
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_of_somebody_else_is_named():
    with tempfile.TemporaryDirectory() as name:  # outside pytest's own, into which nobody may look
        folder = Path(name)
        (folder / "run").mkdir()
        (folder / "run" / ".lock").touch()
        (folder / "run" / ".lock").chmod(0o444)
        folder.chmod(0o555)
        try:
            with as_nobody():
                denied = "cannot be written: Permission denied; choose a place that may be written to"
                for path in (folder / "some.txt", folder / "deep" / "some.txt"):
                    with pytest.raises(DiskError, match=rf"some\.txt {denied}"):
                        write_text(path, "a")
                with pytest.raises(DiskError, match=rf"some {denied}"), replacing_folder(folder / "some"):
                    pytest.fail("there is no place")
                with pytest.raises(DiskError, match=rf"run/\.lock {denied}"):
                    hold(folder / "run" / ".lock")
        finally:
            folder.chmod(0o755)
        assert [path.name for path in folder.iterdir()] == ["run"]


def test_a_run_that_became_read_only_is_not_resumed(small_atlas, small_splits, small_recipe, fabric, tmp_path):
    chosen = [system("mtl", small_recipe)]
    given = {"seeds": [1], "folds": [0], "fabric": fabric, "command": ""}
    run = start_run(tmp_path / "run", small_atlas, small_splits, chosen, **given, resume=False)
    bind = ["mount", "--bind", str(run.path), str(run.path)]
    if os.geteuid() or subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(run.path)], check=True)
        with pytest.raises(Exception, match=r"run/(\.lock|run\.json) cannot be written: Read-only file system"):
            start_run(run.path, small_atlas, small_splits, chosen, **given, resume=True)
    finally:
        subprocess.run(["umount", "--lazy", str(run.path)], check=True)


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DiskError, match=r"runs/some\.txt cannot be written: \S*runs is not a folder$"):
        write_text(tmp_path / "runs" / "some.txt", "a")


def test_an_error_that_is_no_disk_is_left_as_it_is(tmp_path):
    frame = pl.DataFrame({"a": [[1]]})
    with pytest.raises(pl.exceptions.ComputeError):
        write_frame(frame, tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    from predilect.tables import write_table

    write_table(frame, path, DiskError)
