"""The command line from end to end on a small folder: what it prints, where, with which exit code, and what it repeats."""

from __future__ import annotations

import builtins
import io
import json
import re
import shlex
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import polars as pl
import pytest
from rich.console import Console

from conftest import SMALL_TAXONOMY, small_folder
from predilect.__main__ import main as start_command_line
from predilect.cli import _COMMANDS, main, show
from predilect.cli.demo import _clear
from predilect.cli.scores import _image_ids
from predilect.cli.show import command_line, print_table, training, typed
from predilect.errors import PredilectError
from predilect.predictions import Predictions
from predilect.training.loop import Progress

RECIPE = """
name = "tiny"
backbone = "test_resnet"
weights = "none"
batch_size = 8
iterations = 3
optimizer = "adamw"
learning_rate = 0.003
schedule = "cosine"
validate_every = 3
precision = "fp32"

[preprocessing]
crop = 32
jitter = [32, 36]
test_side = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@dataclass(frozen=True)
class Place:
    """A folder with photographs, an atlas in two folds, a recipe and a finished cross-validation with its bundle."""

    root: Path
    photographs: Path
    taxonomy: Path
    recipe: Path
    atlas: Path
    run: Path
    shown: str


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    root = tmp_path_factory.mktemp("cli")
    (root / "photographs").mkdir()
    photographs = small_folder(root / "photographs")
    taxonomy, recipe, atlas, run = root / "small.toml", root / "tiny.toml", root / "atlas", root / "run"
    taxonomy.write_text(SMALL_TAXONOMY, encoding="utf-8")
    recipe.write_text(RECIPE, encoding="utf-8")
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", shown)
        assert leave("import", "imagefolder", photographs, "--out", atlas, "--taxonomy", taxonomy) == 0
        assert leave("split", atlas, "--folds", 2) == 0
        arguments = ("crossval", atlas, "--systems", "resnet,mtl", "--recipe", recipe, f"--out={run}", "--refit", "mtl")
        assert leave(*arguments) == 0
    return Place(root, photographs, taxonomy, recipe, atlas, run, shown.getvalue())


def again(place: Place, *more: object) -> int:
    return leave(
        "crossval", place.atlas, "--systems", "resnet,mtl", "--recipe", place.recipe, "--out", place.run, "--resume", *more
    )


def one_line(text: str) -> str:
    assert "Traceback" not in text
    assert text.count("\n") == 1
    return text


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch) -> None:
    """The run of `place` has its figures; each further report leaves them out, since drawing is most of its time."""
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])


@pytest.fixture
def untrained(monkeypatch) -> None:
    """Any training fails the test."""

    def trained(*_: object, **__: object) -> None:
        pytest.fail("something was trained again")

    monkeypatch.setattr("predilect.training.crossval.fit", trained)


def test_import_split_and_crossval_print_their_tables_and_where_things_lie(place):
    assert "lesion/macule" in place.shown
    assert "36 photographs; 0 rows rejected" in place.shown
    assert f"folds     {place.atlas / 'splits.parquet'}" in place.shown
    assert f"report    {place.run / 'report' / 'report.html'}" in place.shown
    assert f"bundle    {place.run / 'bundle'}" in place.shown
    assert (place.run / "report" / "report.html").is_file()
    assert (place.run / "report" / "figures" / "lesions.svg").is_file()
    assert (place.run / "bundle" / "model.safetensors").is_file()


def test_no_record_holds_the_folders_of_the_user(place):
    recorded = json.loads((place.run / "run.json").read_text(encoding="utf-8"))["command"]
    assert recorded == "predilect crossval atlas --systems resnet,mtl --recipe tiny.toml --out=run --refit mtl"
    for file in [place.run / "run.json", place.run / "bundle" / "bundle.json", *(place.run / "report").rglob("*.*")]:
        assert str(place.root).encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("/home/dr-x/patients", "patients"),
        ("--out=/home/dr-x/runs/a", "--out=a"),
        ("mtl=/home/dr-x/a=b.csv", "mtl=a=b.csv"),
        ("weights='/home/dr-x/w.safetensors'", "weights=w.safetensors"),
        ("--set=weights=/home/dr-x/w.safetensors", "--set=weights=w.safetensors"),
        ("runs/a", "runs/a"),
        ("patients/anna/new", "new"),
        ("mtl=patients/anna/p.csv", "mtl=p.csv"),
        ("lesion/erythema", "lesion/erythema"),
        ("--resume", ""),
        ("/", "/"),
        ("iterations=3", "iterations=3"),
    ],
)
def test_of_a_path_the_command_line_keeps_the_last_component(argument, kept, tmp_path, monkeypatch):
    (tmp_path / "patients" / "anna").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    before = typed.set([argument])
    try:
        assert command_line() == f"predilect {kept}".rstrip()
    finally:
        typed.reset(before)


@pytest.mark.usefixtures("untrained")
def test_crossval_repeats_nothing_that_is_finished(place, capsys):
    assert again(place, "--refit", "mtl") == 0
    assert f"bundle    {place.run / 'bundle'}" in capsys.readouterr().out


@pytest.mark.usefixtures("untrained")
def test_crossval_does_not_pass_off_another_systems_bundle(place, capsys):
    assert again(place, "--refit", "resnet") == 1
    shown = capsys.readouterr()
    assert "holds mtl, not resnet" in one_line(shown.err)
    assert "bundle    " not in shown.out


def test_report_is_written_anew(place, capsys):
    page = place.run / "report" / "report.html"
    page.unlink()
    assert leave("report", place.run) == 0
    assert page.is_file()
    assert "mtl" in capsys.readouterr().out


def test_train_on_everything_makes_a_bundle_once(place, capsys, monkeypatch):
    out = place.root / "whole"
    arguments = ("train", place.atlas, "--recipe", place.recipe, "--out", out, "--system", "resnet")
    assert leave(*arguments) == 0
    assert f"bundle    {out / 'bundle'}" in capsys.readouterr().out
    assert leave(*arguments) == 1
    assert "--resume" in one_line(capsys.readouterr().err)
    monkeypatch.setattr("predilect.training.crossval.fit", lambda *_, **__: pytest.fail("it was trained again"))
    assert leave(*arguments, "--resume") == 0
    assert f"bundle    {out / 'bundle'}" in capsys.readouterr().out
    assert leave("report", out) == 1
    assert "nothing was tested" in one_line(capsys.readouterr().err)


def test_train_against_one_fold_reports_it(place, capsys):
    out = place.root / "fold"
    assert leave("train", place.atlas, "--recipe", place.recipe, "--out", out, "--fold", 1, "--set", "iterations=2") == 0
    assert f"report    {out / 'report' / 'report.html'}" in capsys.readouterr().out
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["folds"] == [1]
    assert json.loads((out / "mtl" / "seed-1" / "fold-1" / "result.json").read_text(encoding="utf-8"))["iterations"] == 2


def test_crossval_splits_an_atlas_that_is_not_and_keeps_the_folds_of_one_that_is(place, tmp_path, capsys, monkeypatch):
    atlas = tmp_path / "unsplit"
    shutil.copytree(place.atlas, atlas, ignore=shutil.ignore_patterns("splits.parquet"))
    monkeypatch.setattr("predilect.cli.train.compare", lambda *_, **__: None)
    arguments = ("crossval", atlas, "--systems", "mtl", "--recipe", place.recipe, "--out", tmp_path / "run")
    assert leave(*arguments, "--folds", 0) == 2
    assert not (atlas / "splits.parquet").exists()
    assert leave(*arguments, "--folds", 3) == 0
    assert set(pl.read_parquet(atlas / "splits.parquet")["fold"]) == {0, 1, 2}
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "predilect.training.devices", None)  # torch takes seconds to load, and is not needed to refuse
    assert leave(*arguments, "--folds", 4) == 1
    assert "is split into 3" in one_line(capsys.readouterr().err)


def test_refine_shows_the_path_as_it_was_typed(place, tmp_path, capsys, monkeypatch):
    shutil.copytree(place.atlas, tmp_path / "clinic")
    monkeypatch.chdir(tmp_path)
    assert leave("refine", "clinic", "--taxonomy", "as-is") == 0
    assert "atlas     clinic\n" in capsys.readouterr().out


def test_refine_changes_the_labels_and_asks_for_new_folds(place, tmp_path, capsys):
    atlas, taxonomy = tmp_path / "atlas", tmp_path / "other.toml"
    shutil.copytree(place.atlas, atlas)
    taxonomy.write_text(SMALL_TAXONOMY.replace("drop_below = 1", "drop_below = 13"), encoding="utf-8")
    assert leave("refine", atlas, "--taxonomy", taxonomy) == 0
    assert "site/arm" in capsys.readouterr().out
    assert leave("crossval", atlas, "--systems", "mtl", "--recipe", place.recipe, "--out", tmp_path / "run") == 1
    assert "split" in one_line(capsys.readouterr().err)


def test_predict_shows_the_same_as_table_json_and_csv(place, tmp_path, capsys):
    photographs = [place.photographs / "p000.png", place.photographs / "p001.png"]
    bundle = place.run / "bundle"
    assert leave("predict", bundle, *photographs, "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["errors"] == {}
    scores = answer["predictions"][str(photographs[0])]
    assert sum(scores["site"].values()) == pytest.approx(1, abs=1e-5)

    assert leave("predict", bundle, *photographs, "--format", "csv") == 0
    (tmp_path / "p.csv").write_text(capsys.readouterr().out, encoding="utf-8")
    table = Predictions.read(tmp_path / "p.csv")
    assert table.image_ids.tolist() == ["p000", "p001"]
    assert table.scores["lesion"][0].tolist() == pytest.approx(list(scores["lesion"].values()), abs=1e-5)

    assert leave("predict", bundle, *photographs) == 0
    best = max(scores["site"], key=scores["site"].__getitem__)
    assert f"{scores['site'][best]:.2f} {best}" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_predict_names_a_broken_photograph_and_shows_the_others(place, tmp_path, capsys, form):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    assert leave("predict", place.run / "bundle", broken, place.photographs / "p000.png", "--format", form) == 1
    shown = capsys.readouterr()
    assert one_line(shown.err).startswith(f"error {broken}: ")
    assert "p000" in shown.out


def test_predictions_of_files_with_one_name_can_be_read_back(place, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(place.photographs / "p000.png", tmp_path / folder / "1.png")
    files = [tmp_path / folder / "1.png" for folder in ("a", "b")]
    assert leave("predict", place.run / "bundle", *files, "--format", "csv") == 0
    (tmp_path / "p.csv").write_text(capsys.readouterr().out, encoding="utf-8")
    assert Predictions.read(tmp_path / "p.csv").image_ids.tolist() == [str(file.with_suffix("")) for file in files]


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["a/1.jpg", "a/2.jpg"], ["1", "2"]),
        (["a/1.jpg", "b/1.jpg"], ["a/1", "b/1"]),
        (["a/1.jpg", "a/1.png", "b/1.jpg"], ["a/1.jpg", "a/1.png", "b/1.jpg"]),
        (["a/1.jpg", "a/1.jpg"], ["1"]),
    ],
)
def test_identifiers_are_as_short_as_they_can_be_and_differ(files, ids):
    assert list(_image_ids([Path(file) for file in files]).values()) == ids


def test_evaluate_scores_the_tables_of_any_program(place, tmp_path, capsys):
    out = tmp_path / "scores"
    files = [f"{name}={place.run / name / 'seed-1' / 'predictions.parquet'}" for name in ("resnet", "mtl")]
    arguments = ("evaluate", "--predictions", *files, "--truth", place.run / "truth.parquet", "--out", out)
    assert leave(*arguments) == 0
    assert f"report    {out / 'report.html'}" in capsys.readouterr().out
    assert str(place.root).encode() not in (out / "report.html").read_bytes()
    assert leave(*arguments) == 1
    assert "already exists" in one_line(capsys.readouterr().err)


TOO_LONG = "a" * 300
BAD_INPUT = [
    "import nowhere photographs --out new",
    "import imagefolder missing --out new",
    "import imagefolder small.toml --out new",
    "import imagefolder photographs --out atlas",
    "import imagefolder photographs --out new --monet",
    "import imagefolder photographs --out small.toml/new --taxonomy small.toml",
    f"import imagefolder {TOO_LONG} --out new",
    "refine missing --taxonomy as-is",
    "refine atlas --taxonomy nothing",
    "refine atlas --taxonomy photographs/p000.png.toml",
    "split missing",
    "split small.toml",
    f"split {TOO_LONG}",
    "split atlas --folds 30",
    "train missing --recipe demo --out new",
    "train atlas --recipe demoo --out new",
    "train atlas --recipe missing.toml --out new",
    "train atlas --recipe not-text.toml --out new",
    "train atlas --recipe tiny.toml --out new --set iteration=3",
    "train atlas --recipe tiny.toml --out new --set nothing",
    "train atlas --recipe tiny.toml --out new --set preprocessing=3",
    "train atlas --recipe tiny.toml --out new --system mlt",
    "train atlas --recipe tiny.toml --out new --fold 9",
    "train atlas --recipe tiny.toml --out photographs",
    "train atlas --recipe tiny.toml --out small.toml",
    "train atlas --recipe tiny.toml --out small.toml/new",
    f"train atlas --recipe tiny.toml --out {TOO_LONG}",
    "crossval atlas --systems mtl,mtl --recipe tiny.toml --out new",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --seeds 1,-2",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --seeds 1,01",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --seeds 99999999999999999999",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --refit resnet",
    "crossval atlas --systems mtl --recipe tiny.toml --out run --resume",
    "crossval atlas --systems mtl,ensemble --recipe tiny.toml --out new",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --refit ensemble",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --weights test_resnet",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --weights resnet50=small.safetensors",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --weights test_resnet=absent.safetensors",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --from-scratch --weights test_resnet=absent.safetensors",
    "reproduce missing --out new",
    "reproduce atlas --out new --systems mlt",
    "reproduce atlas --out new --systems mtl,ensemble",
    "reproduce atlas --out new --folds 9",
    "reproduce atlas --out new --set iteration=3",
    "report missing",
    "report atlas",
    f"report {TOO_LONG}",
    "predict missing photographs/p000.png",
    "predict run/bundle missing.png",
    "predict run/bundle photographs",
    f"predict run/bundle {TOO_LONG}",
    "evaluate --predictions mtl --truth run/truth.parquet --out new",
    "evaluate --predictions a=x.csv a=y.csv --truth run/truth.parquet --out new",
    "evaluate --predictions a=missing.csv --truth run/truth.parquet --out new",
    "evaluate --predictions a=photographs --truth run/truth.parquet --out new",
    "evaluate --predictions a=not-text.csv --truth not-text.csv --out new",
    "demo --out photographs",
    "demo --out small.toml",
]
BAD_USAGE = [
    "trian atlas",
    "train atlas --recipe tiny.toml",
    "train atlas --recipe tiny.toml --out new --seed -1",
    "train atlas --recipe tiny.toml --out new --seed 99999999999999999999",
    "train atlas --recipe tiny.toml --out new --seed one",
    "train atlas --recipe tiny.toml --out new --fold -2",
    "train atlas --recipe tiny.toml --out new --no-such",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --folds 1",
    "reproduce atlas --out new --budget huge",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --folds -3",
    "import imagefolder photographs --out new --max-rejected -1",
    "split atlas --folds 1",
    "split atlas --tuning 1",
    "split atlas --seed -1",
    "demo --seed -1",
    "demo --images 59",
    "demo --images 901",
    "predict run/bundle",
    "predict run/bundle photographs/p000.png --format xml",
]


@pytest.mark.parametrize(
    ("command", "code"),
    [(command, 1) for command in BAD_INPUT] + [(command, 2) for command in BAD_USAGE],
    ids=lambda x: str(x)[:70],
)
def test_bad_input_and_usage_end_in_one_line_on_stderr(place, monkeypatch, capsys, command, code):
    monkeypatch.chdir(place.root)
    (place.root / "not-text.toml").write_bytes(b"name = '\xff\xfe'")
    (place.root / "not-text.csv").write_bytes(b"image_id,lesion/a\n\xff\xfe,1\n")
    assert leave(*command.split(" ")) == code
    shown = capsys.readouterr()
    assert shown.out.strip() in ("", "image_id", "looking for copies") or command.startswith("predict")
    assert len(re.sub(r"a{300}", "", one_line(shown.err))) > 20
    assert not (place.root / "new").exists()


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_help_has_an_example(name, capsys):
    assert leave(name, "--help") == 0
    assert f"Example: predilect {name}" in capsys.readouterr().out


def test_the_help_lists_every_command(capsys):
    assert leave("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in _COMMANDS)
    assert "Not a medical device" in shown


def test_ctrl_c_leaves_with_130(monkeypatch, capsys, tmp_path):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("predilect.cli.scores.Run.open", stopped)
    assert leave("report", tmp_path) == 130
    assert one_line(capsys.readouterr().err) == "stopped\n"


def test_the_first_lines_of_a_reproduction_hold_no_folder(place, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr("predilect.cli.reproduce.run_folds", lambda *_, plan, **__: plans.append(plan))
    weights = tmp_path / "dr-x" / "w.safetensors"
    assert leave("reproduce", place.atlas, "--out", tmp_path / "new", "--systems", "mtl", "--set", f"weights={weights}") == 0
    assert "with weights=w.safetensors in every recipe" in plans[0].notes[0]
    assert "dr-x" not in "".join(plans[0].notes)


def test_ctrl_c_while_the_modules_load_is_one_word(monkeypatch, capsys):
    def stopped(name: str, *_: object) -> None:
        if name == "predilect.cli":
            raise KeyboardInterrupt
        return real(name, *_)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", stopped)
    with pytest.raises(SystemExit) as left:
        start_command_line()
    assert left.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(("terminal", "lines"), [(True, 5), (False, 2)])
def test_a_table_folds_words_in_a_terminal_only_and_loses_nothing(monkeypatch, terminal, lines):
    out = io.StringIO()
    monkeypatch.setattr(
        "predilect.cli.show.console",
        Console(file=out, width=60, force_terminal=terminal, color_system=None, markup=show.console._markup),
    )
    cells = ["lesion/squamous cell [in situ]/keratoacanthoma [/x]", "1,234", "one, two, three, four, five, six, seven, eight"]
    print_table("Title", ["class", "present", "words"], [cells])
    shown = out.getvalue().splitlines()
    assert max(map(len, shown)) <= 60 or not terminal
    rows = [line for line in shown[1:] if line.strip() and "─" not in line]
    assert len(rows) == lines, shown
    letters = "".join("".join(rows).split())
    assert all(letters.count(letter) >= "".join(cells).count(letter) for letter in set("".join(cells)) - {" "})


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_with_the_command_that_goes_on(place, monkeypatch, capsys, resume, number, code):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("predilect.cli.train.compare", lambda *_, **__: signal.raise_signal(number))
    given = ("crossval", place.atlas, "--systems", "mtl", "--recipe", place.recipe, "--out", "a folder")
    assert leave(*given, *resume) == code
    said = one_line(capsys.readouterr().err)
    assert said.startswith("stopped; go on with: predilect ")
    assert shlex.split(said.partition("predilect ")[2]) == [*map(str, given), "--resume"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_resuming_what_was_never_started_starts_it_and_says_so(place, tmp_path, capsys):
    given = ("train", place.atlas, "--recipe", place.recipe, "--out", tmp_path / "run", "--system", "resnet")
    assert leave(*given, "--resume") == 0
    shown = capsys.readouterr().out
    assert f"resume    {tmp_path / 'run'} holds no run yet: nothing to resume, it starts from the beginning\n" in shown
    assert f"bundle    {tmp_path / 'run' / 'bundle'}" in shown
    assert leave(*given, "--resume") == 0
    assert "nothing to resume" not in capsys.readouterr().out


def test_a_lost_checkpoint_is_told_of_and_the_training_starts_again(place, tmp_path, capsys):
    shutil.copytree(place.run, tmp_path / "run")
    folder = tmp_path / "run" / "mtl" / "seed-1" / "fold-1"
    (folder / "result.json").unlink()
    before = (folder / "predictions.parquet").read_bytes()
    assert again(replace(place, run=tmp_path / "run"), "--refit", "mtl") == 0
    assert f"resume    {folder} has a log and no checkpoint: this training starts from the beginning" in capsys.readouterr().out
    assert (folder / "predictions.parquet").read_bytes() == before


def test_the_bar_of_all_trainings_counts_what_was_finished_and_what_ended_early(monkeypatch):
    totals: list[float] = []

    class Recorder:
        def __init__(self, *_: object, **__: object) -> None:
            self.lines = 0

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def add_task(self, _: str, *, completed: float = 0, **__: object) -> int:
            if self.lines == 0:
                totals.append(completed)
            self.lines += 1
            return self.lines - 1

        def update(self, line: int, *, completed: float = 0, **_: object) -> None:
            if line == 0:
                totals.append(completed)

    monkeypatch.setattr("predilect.cli.show.Progress", Recorder)
    with training(6, finished=2) as tell:
        for fold, iteration in ((2, 10), (2, 40), (3, 10), (4, 100)):  # none but the last reaches its last iteration
            tell("mtl", 1, fold, Progress(iteration, 100, 0.5, 0.001, 30.0, None))
    assert totals == [2, 2, 3, 4]


def test_demo_empties_only_what_a_demo_made(tmp_path):
    out = tmp_path / "demo"
    _clear(out)
    (out / "run" / "deep").mkdir(parents=True)
    (out / "drawings").write_text("a file", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (out / "drawn-atlas").symlink_to(tmp_path / "mine")
    _clear(out)
    assert [item.name for item in out.iterdir()] == [".predilect-demo"]
    assert (tmp_path / "mine" / "kept").exists()

    (out / "letters").touch()
    with pytest.raises(PredilectError, match="something else"):
        _clear(out)
    (out / "letters").unlink()
    (out / "run").mkdir()
    (out / ".predilect-demo").unlink()  # the same names, but no demo made them
    with pytest.raises(PredilectError, match="something else"):
        _clear(out)
    assert (out / "run").is_dir()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_demo_refuses_what_is_no_folder(tmp_path, kind):
    out = tmp_path / "demo"
    if kind == "file":
        out.touch()
    else:
        out.symlink_to(tmp_path / "missing")
    with pytest.raises(PredilectError, match="--out"):
        _clear(out)


def test_demo_walks_the_whole_path(tmp_path, monkeypatch, capsys):
    from predilect.recipe import Recipe

    short = Recipe.open("demo", ["iterations=2", "warmup=1", "batch_size=8"])
    monkeypatch.setattr("predilect.cli.demo.Recipe.open", lambda _: short)
    assert leave("demo", "--out", tmp_path / "demo", "--images", 60) == 0
    shown = capsys.readouterr().out
    assert "say nothing of medicine" in shown
    assert (tmp_path / "demo" / "run" / "bundle" / "bundle.json").is_file()
