"""Killed at any moment and resumed, a run ends as one that was not: the same weights, predictions and log, bit for bit.

Processes are forked from a server that has imported torch already, so that a life costs a second; the kill is the kernel's.
"""

from __future__ import annotations

import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from conftest import SMALL_TAXONOMY, small_folder
from made_processes import CHANGES, Life, content, wait_until
from predilect.atlas.build import build_atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.splits import make_splits
from predilect.labels.taxonomy import Taxonomy

# Four log lines, a validation at the end, and between two lines time enough to be met there.
RECIPE = """
name = "tiny"
backbone = "test_resnet"
weights = "none"
batch_size = 4
iterations = 80
optimizer = "adamw"
learning_rate = 0.003
schedule = "cosine"
validate_every = 200
precision = "fp32"

[preprocessing]
crop = 32
jitter = [32, 36]
test_side = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""
ENOUGH = 60  # lives; a run that does not get on would need more


@dataclass(frozen=True)
class Place:
    """An atlas in two folds and a recipe."""

    root: Path

    def train(self, out: Path, *more: str) -> list[object]:
        return ["train", self.root / "atlas", "--recipe", self.root / "tiny.toml", "--out", out, "--fold", 0, *more]

    def crossval(self, out: Path, *more: str) -> list[object]:
        short = ["--set", "iterations=6", "--set", "validate_every=20"]
        given = ["--recipe", self.root / "tiny.toml", *short, "--systems", "mtl", "--refit", "mtl"]
        return ["crossval", self.root / "atlas", *given, "--out", out, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    root = tmp_path_factory.mktemp("kill")
    (root / "photographs").mkdir()
    (root / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    imported = SOURCES["imagefolder"](small_folder(root / "photographs", 18))
    atlas = build_atlas(imported, Taxonomy.from_toml(SMALL_TAXONOMY, "small"), root / "atlas")
    splits = make_splits(atlas.photos, atlas.labels.columns, folds=2, seed=0, content_hash=atlas.content_hash)
    splits.write(atlas.path / "splits.parquet")
    assert Life(["--help"], root / "spoken").end() == 0  # the server is there: what follows can be timed
    return Place(root)


def undisturbed(command, folder: Path, **options) -> tuple[dict[str, object], float]:
    """What a run holds that nothing has happened to, and how long it took."""
    begun = time.monotonic()
    life = Life(command(folder / "run"), folder / "spoken", **options)
    assert life.end() == 0, (folder / "spoken").read_text()
    return content(folder / "run"), time.monotonic() - begun


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    return undisturbed(place.train, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def crossvalidated(place, tmp_path_factory):
    return undisturbed(place.crossval, tmp_path_factory.mktemp("crossvalidated"))


def finished(run: Path) -> dict[Path, tuple[int, int]]:
    """The files of finished folds, and whether they are still the very ones."""
    done = [path.parent for path in run.glob("*/seed-*/fold-*/result.json")]
    files = [path for fold in done for path in fold.rglob("*") if path.is_file() and path.name != "state.safetensors"]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if ".writing" not in str(path)}


def survive(command, tmp_path: Path, disturb, **options) -> int:
    """Start a run again and again until it ends, each life as `disturb` has it; say how many were killed."""
    kept: dict[Path, tuple[int, int]] = {}
    run = tmp_path / "run"
    for killed in range(ENOUGH):
        code = disturb(command(run, "--resume"), tmp_path / "spoken", **options)
        now = finished(run)
        assert all(now.get(path) == state for path, state in kept.items()), "something finished was done again"
        kept = now
        if code == 0:
            return killed
        assert code == -signal.SIGKILL, (tmp_path / "spoken").read_text()
    pytest.fail("the run does not get on")


def test_a_training_killed_before_changes_of_its_files_ends_as_if_never_killed(place, trained, tmp_path):
    # Changes of those that are left, and which of these files are there then: before the run is there, between the first checkpoint
    # and its log, three checkpoints later, between predictions and weights, between the result and the removal of the state.
    names = ["log.jsonl", "checkpoint/state.safetensors", "predictions.parquet", "checkpoint/weights.safetensors", "result.json"]
    deaths = iter([(3, "00000"), (5, "01000"), (8, "11000"), (28, "11100"), (6, "11111"), (None, "10111")])

    def disturb(arguments, spoken):
        before, expected = next(deaths)
        code = Life(arguments, spoken, dies_before=before).end()
        fold = tmp_path / "run" / "mtl" / "seed-1" / "fold-0"
        assert "".join(str(int((fold / name).is_file())) for name in names) == expected
        return code

    assert survive(place.train, tmp_path, disturb) == 5
    assert content(tmp_path / "run") == trained[0]


def test_a_cross_validation_killed_at_random_moments_repeats_nothing_and_ends_the_same(place, crossvalidated, tmp_path):
    """Each life ends a random while after it has changed so many files of the run; a clock alone would miss one that is quick."""
    random_ = random.Random(11)
    moments = iter([(random_.randint(1, 9), random_.uniform(0, 0.3)) for _ in range(2)])
    run = tmp_path / "run"

    def seen() -> dict[Path, int]:
        try:
            return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
        except FileNotFoundError:  # it was being replaced
            return {}

    def disturb(arguments, spoken):
        life, moment = Life(arguments, spoken), next(moments, None)
        if moment is not None:
            before = seen()
            wait_until(lambda: not life.process.is_alive() or len(seen().items() - before.items()) >= moment[0], timeout=300)
            life.process.join(moment[1])
            if life.process.is_alive():
                life.kill()
        return life.end()

    assert survive(place.crossval, tmp_path, disturb) > 0
    assert content(run) == crossvalidated[0]


def test_loaders_end_with_their_killed_parent_and_stopped_trainings_keep_every_step(place, trained, tmp_path):
    run = tmp_path / "run"
    life = Life(place.train(run), tmp_path / "killed", workers=1)
    wait_until(lambda: len(life.group()) > 1)
    life.kill(group=False)
    life.process.join()
    wait_until(lambda: not life.group(), timeout=3)  # torch itself would look for its parent after five
    assert life.end() == -signal.SIGKILL

    arguments = place.train(run, "--resume")
    for number, code, workers in ((signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 0)):
        spoken = tmp_path / number.name
        life = Life(arguments, spoken, workers=workers, checkpoints=0)
        wait_until(lambda spoken=spoken: spoken.exists() and "training 1 of 1" in spoken.read_text())
        life.stop(number)
        assert life.end() == code, spoken.read_text()
        assert (run / "mtl" / "seed-1" / "fold-0" / "checkpoint" / "state.safetensors").is_file()
        assert "Traceback" not in spoken.read_text()
        assert spoken.read_text().count("stopping: the state is saved after this step") == 1
        (told,) = re.findall("stopped; go on with: predilect (.*)", spoken.read_text())
        arguments = shlex.split(told)
    assert Life(arguments, tmp_path / "ended").end() == 0
    assert content(run) == trained[0]


# --- without mercy ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "crossval"])
def test_killed_before_every_single_change_a_run_ends_the_same(place, trained, crossvalidated, tmp_path, command):
    whole = {"train": trained, "crossval": crossvalidated}[command][0]
    arguments = getattr(place, command)
    changes = (*CHANGES, "os.mkdir", "os.rmdir") if command == "train" else CHANGES
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = Life(arguments(folder / "run"), folder / "spoken", dies_before=number, counted=changes, checkpoints=20).end()
        kept = finished(folder / "run")
        if code == 0:
            break
        assert code == -signal.SIGKILL, (folder / "spoken").read_text()
        assert Life(arguments(folder / "run", "--resume"), folder / "spoken").end() == 0, (folder / "spoken").read_text()
        assert kept.items() <= finished(folder / "run").items()
        assert content(folder / "run") == whole, f"killed before change {number}"
        assert not list(folder.glob(".writing-*"))
        shutil.rmtree(folder)
    assert number > 20


@pytest.mark.slow
def test_a_real_command_killed_at_random_moments_ends_the_same(place, trained, tmp_path):
    """Fresh interpreters, without the patches of a test but the one for a checkpoint after each step."""
    script = (
        "import torch; torch.set_num_threads(1)\nfrom predilect.training import loop\nloop._SECONDS_BETWEEN_CHECKPOINTS = 0\n"
        "from predilect.report import report\nreport.draw_all = lambda *_: []\nfrom predilect.cli import main\nmain()"
    )
    moments = random.Random(3)
    fold = tmp_path / "run" / "mtl" / "seed-1" / "fold-0"
    killed = {"at any moment": 0, "while it trained": 0}

    def last_checkpoint() -> int:
        path = fold / "checkpoint" / "state.safetensors"
        return path.stat().st_mtime_ns if path.is_file() else 0

    def disturb(arguments, spoken):
        before = last_checkpoint()
        with spoken.open("a") as out:
            life = subprocess.Popen(
                [sys.executable, "-c", script, *map(str, arguments)], stdout=out, stderr=out, start_new_session=True
            )
        if killed["at any moment"] < 2:
            kind = "at any moment"
            time.sleep(moments.uniform(0.1, 3))  # while it loads, as a rule
        elif killed["while it trained"] < 4:
            kind = "while it trained"
            wait_until(lambda: life.poll() is not None or last_checkpoint() != before, timeout=300)
            time.sleep(moments.uniform(0, 0.1))
        else:
            return life.wait()
        if life.poll() is None and not (fold / "predictions.parquet").exists():
            killed[kind] += 1
        life.kill()
        return life.wait()

    lives = survive(place.train, tmp_path, disturb)
    assert killed["while it trained"] >= 2, "nothing was killed that could have lost something"
    assert lives >= sum(killed.values())
    assert content(tmp_path / "run") == trained[0]


@pytest.mark.slow
def test_a_training_killed_forty_times_ends_the_same(place, trained, tmp_path):
    whole, seconds = trained
    moments = random.Random(17)

    def disturb(arguments, spoken, workers):
        life = Life(arguments, spoken, workers=workers)
        life.process.join(moments.uniform(0.2, 0.9) * seconds)
        if life.process.is_alive():
            life.kill(group=bool(moments.randrange(2)))
        return life.end()

    killed = 0
    for number in count():
        (tmp_path / str(number)).mkdir()
        killed += survive(place.train, tmp_path / str(number), disturb, workers=number % 2)
        assert content(tmp_path / str(number) / "run") == whole
        if killed >= 40:
            break


# What else a training keeps from one iteration to the next: settings beside those of the recipe, and how the process is.
OTHERS = {
    "averaged": (
        ["average_decay=0.9", "site_weight=3", "rarity_exponent=0.5", "warmup=5", "keep=last", "validation_share=0", "iterations=40"],
        {},
    ),
    "validated": (["average_decay=0.9", "optimizer=sgd", "schedule=plateau", "plateau_patience=1", "validate_every=4", "iterations=40"], {}),
    "two threads": (["preprocessing.crop=64", "preprocessing.jitter=[64,72]", "preprocessing.test_side=64", "batch_size=16", "iterations=12"], {"threads": 2, "checkpoints": 3}),
    "bf16": (["precision=bf16", "iterations=40"], {}),
    # Its 57 million weights make checkpoints of half a gigabyte; dropout stands between its layers.
    "alexnet": (
        ["backbone=alexnet", "optimizer=sgd", "preprocessing.crop=64", "preprocessing.jitter=[64,72]", "preprocessing.test_side=64", "iterations=10"],
        {"checkpoints": 3},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_other_trainings_killed_in_random_iterations_end_the_same(place, tmp_path, kind):
    settings, options = OTHERS[kind]

    def command(out, *more):
        return place.train(out, *(part for setting in settings for part in ("--set", setting)), *more)

    (tmp_path / "undisturbed").mkdir()
    whole, _ = undisturbed(command, tmp_path / "undisturbed", **options)
    iterations = int(settings[-1].removeprefix("iterations="))
    killed = iter(sorted(random.Random(kind).sample(range(2, iterations + 1), 4)))

    def disturb(arguments, spoken):
        return Life(arguments, spoken, dies_in=next(killed, None), **options).end()

    assert survive(command, tmp_path, disturb) == 4
    assert content(tmp_path / "run") == whole
